//! The forward definition on the CPU twins gives what PyTorch gives, stage by stage.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use fathom_models::observation::finish_actions;
use fathom_tests::{Golden, on_twins};

fn run(name: &'static str) {
    let golden = Golden::load(name);
    let Golden { loaded, observation, .. } = &golden;
    let outputs = on_twins(loaded, observation, true);
    let raw = outputs["actions"].clone();
    let (normalized, actions) = finish_actions(loaded, &observation.state, raw).expect("finite actions");
    golden.compare(|name| match name {
        "actions" => Some(actions.clone()),
        "actions.normalized" => Some(normalized.clone()),
        _ => outputs.get(name).cloned(),
    });
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
