//! The forward definition on the GPU gives what PyTorch gives, stage by stage, and nothing is made after warm-up.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use fathom::engine::{Inputs, Session};
use fathom_models::families;
use fathom_models::nets::depthvla::ForwardOptions;
use fathom_models::processing::observation::finish_actions;
use fathom_tests::Golden;
use fathom_tests::graphs::open_gpu;

fn open(name: &str) -> (Session, Golden) {
    let golden = Golden::load(name);
    let loaded = families::load(&golden.dir).expect("it loaded before");
    (Session::open(open_gpu(false), loaded).expect("the weights fit"), golden)
}

fn run(name: &str) {
    Golden::load(name).compare_gpu();
}

#[test]
fn depthvla_with_openpi_conventions() {
    run("depthvla_openpi");
}

#[test]
fn depthvla_with_open_pi_zero_conventions() {
    run("depthvla_opz");
}

#[test]
fn pi0_as_lerobot_saved_it() {
    run("pi0_lerobot");
}

#[test]
fn pi05_as_lerobot_saved_it() {
    run("pi05_lerobot");
}

/// pi0.5's prompt changes with the state: another of the same length needs no other recording.
#[test]
fn a_reworded_prompt_gives_what_a_prepared_one_gives() {
    let (mut session, golden) = open("pi05_lerobot");
    let observation = &golden.observation;
    let expected = session.infer_once(observation, false).expect("it runs").actions;
    let other: Vec<i32> = observation.tokens.iter().rev().copied().collect();
    let options = ForwardOptions { taps: false, ..golden.options() };
    session.prepare(&options, &other).expect("it prepares");
    let images: Vec<&[u8]> = observation.images.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    let inputs = Inputs { images: &images, state: &observation.state, noise: &observation.noise };
    let infer = |session: &mut Session| {
        let raw = session.infer(&inputs, false).expect("it runs").0[0].values.clone();
        finish_actions(session.loaded(), &observation.state, raw).expect("finite actions").1
    };
    assert!(infer(&mut session) != expected, "the prompt matters");
    let counts = session.gpu().counts();
    session.reword(&observation.tokens).expect("it is of the same length");
    assert!(infer(&mut session) == expected, "bit-identical actions");
    assert_eq!(session.gpu().counts(), counts, "nothing is made");
    let error = session.reword(&[1]).expect_err("another length").to_string();
    assert!(error.contains("text") && error.contains("found"), "{error}");
}

/// The arena shares memory, the depth map is left out and taps are off in the product: none of it changes the actions.
/// And after the first inference nothing more is made on the GPU, and the same noise gives the same bits.
#[test]
fn an_inference_without_taps_gives_the_same_actions_and_creates_nothing() {
    let (mut session, golden) = open("depthvla_openpi");
    let with_taps = session.infer_once(&golden.observation, true).expect("it runs");
    let raw = with_taps.outputs.iter().find(|o| o.name == "actions").expect("actions").values.clone();
    let options = ForwardOptions { depth_map: false, taps: false, ..golden.options() };
    session.prepare(&options, &golden.observation.tokens).expect("it prepares");
    let images: Vec<&[u8]> = golden.observation.images.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    let inputs = Inputs { images: &images, state: &golden.observation.state, noise: &golden.observation.noise };
    session.infer(&inputs, false).expect("warm-up");
    let counts = session.gpu().counts();
    for _ in 0..5 {
        let (outputs, _) = session.infer(&inputs, false).expect("it runs");
        assert_eq!(outputs.len(), 1, "only the actions");
        assert!(outputs[0].values == raw, "bit-identical actions");
    }
    assert_eq!(session.gpu().counts(), counts, "no buffer, bind group, pipeline or query set after warm-up");
}
