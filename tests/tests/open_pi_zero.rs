//! open-pi-zero's and Galaxea's checkpoints.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;

use fathom_models::config::{FlowDirection, ModelConfig, NormalizationMode, Positions, Resize, TimeEmbedding};
use fathom_models::families::{self, Family, Loaded};
use fathom_models::observation::Observation;
use fathom_models::{ModelError, TensorProblem};
use fathom_tests::actions_on_twins;
use fathom_tests::tensors::Tensors;
use serde_json::json;

fn load(dir: &Path) -> Loaded {
    families::load(dir).expect("it loads")
}

/// A model with open-pi-zero's conventions in Fathom's own format: the oracle's case `depthvla_opz` proves those.
fn open_pi_zero(action_head_layers: usize) -> ModelConfig {
    let mut c = fathom_models::presets::small();
    c.views.truncate(1);
    (c.depth, c.resize, c.max_tokens, c.horizon) = (None, Resize::Exact, 20, 4);
    (c.state_dim, c.action_dim) = (7, 7);
    c.attention.softcap = Some(50.0);
    c.embed.suffix = (c.action.width as f32).sqrt();
    c.time_embedding = TimeEmbedding::OpenPiZero { max_period: 10_000.0 };
    (c.flow.direction, c.flow.clip, c.flow.sig_min) = (FlowDirection::NoiseAtZero, Some(1.0), Some(0.001));
    c.positions = Positions::PerMixture { base: 1 };
    c.normalization = NormalizationMode::Quantile { eps: 1e-8 };
    c.action_head_layers = action_head_layers;
    c
}

fn observation_of(config: &ModelConfig) -> Observation {
    let side = config.vision.image_size;
    let spec = fathom_models::image::ImageSpec::rgb(side, side);
    let bytes = (0..spec.bytes()).map(|i| (i * 7919 % 251) as u8).collect();
    Observation {
        images: vec![(spec, bytes)],
        state: vec![0.5; 7],
        tokens: vec![2, 9, 4],
        noise: fathom_models::random::normal(3, config.horizon * config.action_dim),
    }
}

#[test]
fn open_pi_zero_is_told_by_its_tensors() {
    for (layers, family) in [(1, Family::OpenPiZero), (2, Family::Galaxea)] {
        let dir = tempfile::tempdir().expect("a folder");
        let mut config = open_pi_zero(layers);
        if family == Family::Galaxea {
            (config.flow.clip, config.max_tokens) = (None, 55);
        }
        fathom_models::random::write_checkpoint(dir.path(), &config, 1).expect("the checkpoint is written");
        let own = load(dir.path());
        let observation = observation_of(&config);
        let expected = actions_on_twins(&own, &observation);

        let file = dir.path().join("model.safetensors");
        std::fs::remove_file(dir.path().join("config.json")).expect("the file is removed");
        let mut tensors = Tensors::read(&file);
        for (name, tensor) in std::mem::take(&mut tensors.0) {
            if name.starts_with("joint_model.mixtures.action.") {
                let copy = name.replace("mixtures.action.", "mixtures.proprio.");
                tensors.0.insert(format!("_orig_mod.{copy}"), tensor.clone());
            }
            tensors.0.insert(format!("_orig_mod.{name}"), tensor);
        }
        tensors.write(&file);
        let hints = json!({"heads": 2, "kv_heads": 1, "vision_heads": 2, "views": ["base"], "horizon": 4});
        std::fs::write(dir.path().join("fathom.json"), hints.to_string()).expect("the file is written");
        let named = (family == Family::Galaxea).then_some(family);
        let loaded = families::load_as(dir.path(), named).expect("it loads");
        assert_eq!((loaded.family, &loaded.model.config), (family, &own.model.config));
        assert!(actions_on_twins(&loaded, &observation) == expected, "{family}: the same bits");

        let bounds = |n: f32| json!({"p01": vec![-n; 7], "p99": vec![n; 7], "mean": [0.0]});
        let stats = json!({"proprio": bounds(0.25), "action": bounds(3.0)});
        std::fs::write(dir.path().join("bridge_statistics.json"), stats.to_string()).expect("the file is written");
        let normalization = families::load_as(dir.path(), named).expect("it loads").normalization;
        let mut state = [0.5; 7];
        normalization.state.normalize(&mut state);
        assert_eq!(state, [1.0; 7], "clipped");
        let mut action = [0.5; 7];
        normalization.action.unnormalize(&mut action);
        assert_eq!(action, [1.5, 1.5, 1.5, 1.5, 1.5, 1.5, 0.5], "the gripper is the model's own");

        let name = "_orig_mod.joint_model.mixtures.proprio.norm.weight";
        tensors.put(name, fathom_models::weights::WeightFormat::F32, &[64], &[9.0; 64]);
        tensors.write(&file);
        let error = families::load_as(dir.path(), named).expect_err("a copy that differs");
        let ModelError::Tensors { problems, .. } = &error else { panic!("{error}") };
        assert!(matches!(&problems[..], [TensorProblem::Untied { name: n, .. }] if n == name), "{error}");
    }
}

#[test]
fn images_of_another_size_where_nothing_resizes_them() {
    let dir = tempfile::tempdir().expect("a folder");
    let config = open_pi_zero(1);
    fathom_models::random::write_checkpoint(dir.path(), &config, 1).expect("the checkpoint is written");
    let loaded = load(dir.path());
    let options = fathom_models::depthvla::ForwardOptions {
        images: vec![fathom_models::image::ImageSpec::rgb(640, 480)],
        prompt_tokens: 3,
        depth_map: false,
        taps: false,
    };
    let error = loaded.model.forward(&loaded.weights, &options).expect_err("no resize").to_string();
    assert!(error.contains("image.base") && error.contains("112 × 112") && error.contains("640 × 480"), "{error}");
}
