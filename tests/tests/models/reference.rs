//! The forward definition on the CPU twins gives what PyTorch gives, stage by stage.

use fathom_tests::Golden;

fn run(name: &str) {
    Golden::load(name).compare_twins();
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
