//! The library's own door: a policy refuses wrong observations each time, and goes on with right ones.

use fathom::camera::{CameraError, Image};
use fathom::engine::EngineError;
use fathom::gpu::GpuOptions;
use fathom::policy::{Observation, Policy, PolicyError, PolicyOptions};
use fathom::scene::Scene;
use fathom::untrained;
use fathom_models::ModelError;
use fathom_models::nets::presets;

#[test]
fn wrong_observations_are_refused_each_time_and_right_ones_are_inferred() {
    let folder = tempfile::tempdir().expect("a folder");
    let scene = Scene::built_in(0).expect("the scene");
    untrained::write(folder.path(), &presets::small(), &scene, 0).expect("written");
    let gpu = GpuOptions { allow_software: true, ..GpuOptions::default() };
    let mut policy =
        Policy::open_with(folder.path(), PolicyOptions { gpu, ..PolicyOptions::default() }).expect("it opens");
    let image = |side: u32| Image::rgb(side, side, vec![90; (side * side * 3) as usize]).expect("an image");
    let (image, empty, state) = (image(64), Image::default(), [0.1; 6]);
    let both = || Observation::default().image("wrist", &image).image("base", &image).state(&state);

    policy.set_tokens(&[2, 5, 9]);
    let first = policy.infer(&both()).expect("it infers").actions;

    // As many tokens as before, one of them beyond the vocabulary: the prompt before must not answer for it.
    policy.set_tokens(&[2, 5, 100_000]);
    for _ in 0..2 {
        let error = policy.infer(&both()).expect_err("a token that is none");
        assert!(matches!(error, PolicyError::Engine(EngineError::Model(ModelError::Prompt(_)))), "{error}");
        assert!(error.to_string().contains("100000"), "{error}");
    }
    policy.set_tokens(&[2, 5, 9]);
    assert_eq!(policy.infer(&both()).expect("it infers again").actions, first);

    // An image without pixels cannot be prepared for, the second time no more than the first.
    let errors = [0, 1].map(|_| {
        let observation = Observation::default().image("base", &empty).image("wrist", &image).state(&state);
        policy.infer(&observation).expect_err("no pixels").to_string()
    });
    assert_eq!(errors[0], errors[1]);
    assert_eq!(policy.infer(&both()).expect("it infers again").actions, first);

    let found = |observation: &Observation<'_>, policy: &mut Policy| match policy.infer(observation) {
        Err(PolicyError::Views { expected, found }) => {
            assert_eq!(expected, ["base", "wrist"]);
            found
        }
        other => panic!("{other:?}"),
    };
    let one = Observation::default().image("base", &image).state(&state);
    assert_eq!(found(&one, &mut policy), ["base"]);
    assert_eq!(found(&both().image("top", &image), &mut policy), ["wrist", "base", "top"]);
    assert_eq!(found(&one.clone().image("base", &image), &mut policy), ["base", "base"]);
    let error = policy.infer(&both().state(&[0.1; 40])).expect_err("40 joints");
    assert!(error.to_string().contains("40 values"), "{error}");
    assert!(matches!(Image::rgb(2, 2, vec![0; 11]), Err(CameraError::Incomplete { expected: 12, received: 11, .. })));
}
