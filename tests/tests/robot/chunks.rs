//! Chunk policies against lerobot's own code: `tests/golden/chunks.safetensors`.

#![allow(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use fathom::action::{ChunkPolicy, Planner, Rules};
use fathom::clock::ControllerUs;
use fathom::engine::{Inputs, Session};
use fathom_models::checkpoint::Checkpoint;
use fathom_models::nets::depthvla::ForwardOptions;
use fathom_models::processing::guidance::{Guide, Schedule};
use fathom_models::processing::observation::finish_actions;
use fathom_tests::graphs::{self, open_gpu};
use fathom_tests::{Golden, inputs, path, relative_error};
use firmware_bridge::message::Progress;

fn golden() -> Checkpoint {
    Checkpoint::open(&path("golden/chunks.safetensors")).expect("the golden tensors load")
}

/// Every schedule and delay of a case, on the twins and on the GPU: within 1e-3 of lerobot, as all actions are, and the
/// guidance matters.
fn guided(name: &str) {
    let (case, expected) = (Golden::load(name), golden());
    let state = case.observation.state.clone();
    let options = ForwardOptions { taps: false, depth_map: false, guided: true, ..case.options() };
    let graph = case.loaded.model.forward(&case.loaded.weights, &options).expect("the graph is built");
    let mut wanted = Vec::new();
    for delay in [1, 3] {
        let left = expected.f32(&format!("{name}.left.{delay}")).expect("it is there");
        for (schedule, key) in
            [(Schedule::Zeros, "zeros"), (Schedule::Ones, "ones"), (Schedule::Linear, "linear"), (Schedule::Exp, "exp")]
        {
            let guide = Guide { left: left.clone(), delay, horizon: 6, schedule, most: 10.0 };
            wanted.push((format!("{name}.{key}.{delay}"), guide));
        }
    }
    let action_dim = case.loaded.model.config.action_dim;
    let own = case.loaded.action_dim;
    let cut = |raw: &[f32]| raw.chunks(action_dim).flat_map(|row| row[..own].to_vec()).collect::<Vec<_>>();
    let check = |key: &str, place: &str, raw: &[f32]| {
        let values = expected.f32(key).expect("it is there");
        let error = relative_error(&values, &cut(raw));
        println!("{key}, {place}: {error:.1e}");
        assert!(error <= 1e-3, "{key}, {place}: {error:.1e}");
        let plain = case.expected.f32("actions.normalized").expect("it is there");
        assert!(relative_error(&plain, &{ raw.to_vec() }) > 1e-2, "{key}: guidance changes nothing");
    };
    for (key, guide) in &wanted {
        let (goal, gains) = guide.inputs(&case.loaded, &state).expect("it fits");
        let mut given = inputs(&case.loaded, &case.observation);
        given.insert("goal".to_owned(), bytemuck::cast_slice(&goal).to_vec());
        given.insert("gains".to_owned(), bytemuck::cast_slice(&gains).to_vec());
        check(key, "twins", &graphs::on_twins(&graph, &case.loaded.weights, &given)["actions"]);
    }
    let mut session =
        Session::open(open_gpu(false), fathom_models::families::load(&case.dir).expect("it loads")).expect("it fits");
    session.prepare(&options, &case.observation.tokens).expect("it prepares");
    let images: Vec<&[u8]> = case.observation.images.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    let given = Inputs { images: &images, state: &state, noise: &case.observation.noise };
    let infer = |session: &mut Session, guide: Option<&Guide>| {
        session.infer_guided(&given, guide, false).expect("it runs").0[0].values.clone()
    };
    let before = infer(&mut session, None);
    let unguided = ForwardOptions { guided: false, ..options.clone() };
    session.prepare(&unguided, &case.observation.tokens).expect("it prepares");
    assert!(infer(&mut session, None) == before, "without gains the bits are those of a session without guidance");
    let error = session.infer_guided(&given, Some(&wanted[0].1), false).expect_err("not prepared for it").to_string();
    assert!(error.contains("goal"), "{error}");
    session.prepare(&options, &case.observation.tokens).expect("it prepares");
    infer(&mut session, None);
    let counts = session.gpu().counts();
    for (key, guide) in &wanted {
        check(key, "GPU", &infer(&mut session, Some(guide)));
    }
    assert!(infer(&mut session, None) == before, "without guidance the bits are those of before");
    assert_eq!(session.gpu().counts(), counts, "guidance needs no other recording");
}

#[test]
fn real_time_chunking_of_pi0_is_lerobots() {
    guided("pi0_lerobot");
}

#[test]
fn real_time_chunking_of_pi05_is_lerobots() {
    guided("pi05_lerobot");
}

/// What is not finite, or no whole number of steps, is refused.
#[test]
fn a_guide_that_does_not_fit_is_refused() {
    let case = Golden::load("pi0_lerobot");
    let guide = Guide { left: vec![0.0; 7], delay: 1, horizon: 6, schedule: Schedule::Linear, most: 10.0 };
    let refused = |guide: Guide| guide.inputs(&case.loaded, &case.observation.state).expect_err("refused").to_string();
    assert!(guide.inputs(&case.loaded, &case.observation.state).is_ok());
    for wrong in [
        Guide { left: vec![0.0; 6], ..guide.clone() },
        Guide { left: vec![f32::NAN; 7], ..guide.clone() },
        Guide { most: f32::INFINITY, ..guide.clone() },
        Guide { left: Vec::new(), ..guide },
    ] {
        let said = refused(wrong);
        assert!(said.contains("guide") && said.contains("found"), "{said}");
    }
}

/// What goes in as the robot's own actions comes out as the model's, where they are relative to the state, too.
#[test]
fn what_is_left_is_made_relative_again() {
    let mut loaded = Golden::load("pi0_lerobot").loaded;
    loaded.normalization.relative = vec![true, false, true, true, false, true, false];
    let state: Vec<f32> = (0..7).map(|i| i as f32 * 0.3 - 1.0).collect();
    let c = &loaded.model.config;
    let normalized: Vec<f32> = fathom_models::checkpoint::random::normal(5, c.horizon * c.action_dim);
    let (_, left) = finish_actions(&loaded, &state, normalized.clone()).expect("finite actions");
    let guide = Guide { left, delay: 1, horizon: 6, schedule: Schedule::Linear, most: 10.0 };
    let (goal, _) = guide.inputs(&loaded, &state).expect("it fits");
    for (row, (goal, normalized)) in goal.chunks(c.action_dim).zip(normalized.chunks(c.action_dim)).enumerate() {
        assert!(relative_error(&normalized[..7], &goal[..7]) < 1e-3, "row {row}: {goal:?}, {normalized:?}");
        assert!(goal[7..].iter().all(|v| *v == 0.0), "padding is drawn to 0, as lerobot's");
    }
}

/// One chunk a step, as ACT does it: the first step of each mean is lerobot's action.
#[test]
fn the_ensemble_is_that_of_act() {
    let expected = golden();
    let rules = Rules {
        policy: ChunkPolicy::Ensemble { decay: 0.05 },
        joints: 3,
        horizon: 6,
        execution_horizon: 6,
        replan_steps: 1,
        period_us: 100_000,
        validity_us: 10_000_000,
    };
    let mut planner = Planner::new(rules);
    for n in 0..7_u16 {
        let now_us = 1_000_000 + u64::from(n) * 100_000;
        let start = planner.start_at(ControllerUs(now_us));
        let actions = expected.f32(&format!("ensemble.in.{n}")).expect("it is there");
        let planned = planner.plan(&start, &actions, ControllerUs(now_us), |_| {}).expect("it is not late");
        assert_eq!(planned.base, u64::from(n));
        let error =
            relative_error(&expected.f32(&format!("ensemble.out.{n}")).expect("there"), &planned.positions[..3]);
        assert!(error < 1e-6, "step {n}: {error:.1e}");
        planner.accepted(planned.id, 0);
        let progress = Progress { chunk: planned.id, consumed: 1, steps_left: 4 };
        planner.reported(ControllerUs(now_us + 100_000), true, Some(progress));
    }
}
