//! Tensors in f16 between kernels: how near every stage stays, and that what matrices round anyway changes no bit.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;

use fathom::engine::{Kernels, Output, Session, Wanted};
use fathom_models::families;
use fathom_models::graph::precision::{Float, Precision};
use fathom_models::nets::config::ModelConfig;
use fathom_models::processing::observation::Observation;
use fathom_tests::graphs::open_gpu;
use fathom_tests::{Golden, cosine, on_twins};

/// The small model of DepthVLA, and one whose norms are conditioned, with random weights in bf16.
fn models(folder: &Path) -> Vec<(&'static str, Observation, std::path::PathBuf)> {
    let golden = |name: &str| Golden::load(name);
    let (depth, ada) = (golden("depthvla_openpi"), golden("pi05_lerobot"));
    let write = |name: &str, config: &ModelConfig| {
        let dir = folder.join(name);
        families::depthvla::write_random(&dir, config, 3).expect("written");
        dir
    };
    let dirs = (write("depth", &depth.loaded.model.config), write("ada", &ada.loaded.model.config));
    vec![("depthvla", depth.observation, dirs.0), ("pi0.5", ada.observation, dirs.1)]
}

fn run(dir: &Path, observation: &Observation, kernels: Kernels, precision: Precision) -> Vec<Output> {
    let wanted = Wanted { kernels: Some(kernels), kv: Some(precision.kv), activations: Some(precision.activations) };
    let loaded = families::load(dir).expect("loads");
    let mut session = Session::open_with(open_gpu(false), loaded, wanted).expect("the weights fit");
    assert_eq!(session.choice().precision, precision);
    session.infer_once(observation, true).expect("it runs").outputs
}

const KV: Precision = Precision { kv: Float::F16, activations: Float::F32 };
const ACTIVATIONS: Precision = Precision { kv: Float::F32, activations: Float::F16 };

/// Of every stage the cosine with the twins, in f32.
#[test]
fn every_stage_in_f16_is_near_the_f32_twin() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, observation, dir) in models(folder.path()) {
        let expected = on_twins(&families::load(&dir).expect("loads"), &observation, true);
        for (kernels, precision) in [
            (Kernels::Lanes, KV),
            (Kernels::Lanes, Precision::F16),
            (Kernels::Tiled, ACTIVATIONS),
            (Kernels::Tiled, Precision::F16),
            (Kernels::Coop16, Precision::F16),
            (Kernels::Coop8, Precision::F16),
        ] {
            let stages = run(&dir, &observation, kernels, precision);
            assert_eq!(stages.len(), expected.len());
            let cosines = stages.iter().map(|o| (cosine(&expected[&o.name], &o.values), &o.name));
            let worst = cosines.min_by(|a, b| a.0.total_cmp(&b.0)).expect("stages");
            println!("{name}, {kernels}, {precision:?}: worst stage {:.7} in {}", worst.0, worst.1);
            assert!(worst.0 >= 0.9999, "{name}, {kernels}, {precision:?}: {} in {}", worst.0, worst.1);
        }
    }
}

/// Matrices of 16 take their operands in f16: stored so before, they are the same bits.
#[test]
fn what_matrices_round_anyway_changes_no_bit_when_it_is_stored_so() {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, observation, dir) in models(folder.path()) {
        let [exact, kv, both] = [Precision::F32, KV, Precision::F16].map(|precision| {
            let outputs = run(&dir, &observation, Kernels::Coop16, precision);
            let of = |output: &Output| output.name.starts_with("velocity") || output.name == "actions";
            outputs.into_iter().filter(of).map(|o| (o.name, o.values)).collect::<Vec<_>>()
        });
        assert!(!exact.is_empty(), "{name}: something to compare");
        assert_eq!(exact, kv, "{name}: keys and values");
        assert_eq!(exact, both, "{name}: keys, values and activations");
    }
}
