//! Episodes in simulated time, by the scene's expert: the whole loop without a GPU.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::sync::Arc;
use std::time::Duration;

use fathom::action::ChunkPolicy;
use fathom::config::{CameraSection, CameraSource, RobotConfig, SceneCameraConfig};
use fathom::control::{Conditions, Episode, RunError, Simulator};
use fathom::scene::{Expert, Random, Scene, TaskKind, World};

fn config() -> RobotConfig {
    let camera = |view: &str| CameraSection {
        view: view.to_owned(),
        source: CameraSource::Scene(SceneCameraConfig { camera: None, rate_hz: 10.0 }),
    };
    let mut config = RobotConfig::new("no-model");
    config.cameras = ["base", "wrist"].map(camera).to_vec();
    config.control.action_rate_hz = 15.0;
    config.model.prompt = Some("reach for the red block".to_owned());
    config
}

fn episode(simulator: &mut Simulator, kind: TaskKind, seed: u64, conditions: &Conditions) -> Episode {
    let scene = Arc::new(Scene::built_in(seed).unwrap());
    let task = scene.tasks().iter().filter(|task| task.kind == kind).nth(seed as usize % 3).unwrap().clone();
    let mut world = World::new(Arc::clone(&scene));
    world.place(&Expert::new(scene).unwrap().random_start(&mut Random::stream(seed, 0))).unwrap();
    simulator.episode(world, &task, conditions).unwrap()
}

/// Through chunks, delays, limits and the controller the expert still does every kind of task.
#[test]
fn the_expert_does_its_tasks_through_the_whole_loop() {
    for policy in [ChunkPolicy::Replace, ChunkPolicy::Ensemble { decay: 0.01 }] {
        let mut config = config();
        config.chunks.policy = policy;
        let mut simulator = Simulator::expert(config, 16).unwrap();
        let conditions = Conditions { limit: Duration::from_secs(10), ..Conditions::default() };
        for (kind, least) in [(TaskKind::Reach, 30), (TaskKind::Pick, 27), (TaskKind::Place, 27)] {
            let episodes = (0..30).map(|seed| episode(&mut simulator, kind, seed, &conditions));
            let episodes: Vec<Episode> = episodes.collect();
            let done = episodes.iter().filter(|episode| episode.success).count();
            assert!(done >= least, "{policy:?}: {kind} in {done} of 30 scenes");
            assert!(episodes.iter().all(|episode| episode.fault.is_none() && episode.inferences > 2));
        }
    }
}

/// The same seed gives the same episode; an inference that outlasts its images does nothing; without images the arm rests.
#[test]
fn conditions_have_their_effect_and_repeat() {
    let mut simulator = Simulator::expert(config(), 16).unwrap();
    let reach = |simulator: &mut Simulator, conditions: &Conditions| episode(simulator, TaskKind::Reach, 3, conditions);
    let well = reach(&mut simulator, &Conditions::default());
    assert!(well.success && well.done_s.is_some_and(|s| s < 3.0), "{well:?}");
    assert_eq!(reach(&mut simulator, &Conditions::default()), well, "the same bits");
    let slow = Conditions { inference: Duration::from_secs(5), ..Conditions::default() };
    let slow = reach(&mut simulator, &slow);
    assert!(!slow.success && slow.lost_chunks > 0, "{slow:?}");
    // A reach may be over before the first chunk is.
    let blind = Conditions { lost_images: 1.0, ..Conditions::default() };
    let blind = episode(&mut simulator, TaskKind::Place, 3, &blind);
    assert!(!blind.success && blind.fault.is_none(), "{blind:?}");
}

/// An evaluation needs cameras of the scene.
#[test]
fn a_real_camera_is_refused() {
    let mut config = config();
    config.cameras[1].source = toml::from_str("kind = 'folder'\nfolder = 'photographs'\nrate_hz = 5.0").unwrap();
    let error = Simulator::expert(config, 16).unwrap_err();
    assert!(matches!(&error, RunError::NotSimulated { view, found: "folder" } if view == "wrist"), "{error}");
}
