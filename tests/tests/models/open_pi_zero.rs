//! open-pi-zero's and Galaxea's checkpoints.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;

use fathom_models::families::{self, Loaded, galaxea, open_pi_zero};
use fathom_models::nets::config::{
    FlowDirection, ModelConfig, NormalizationMode, Positions, PromptFormat, Resize, TimeEmbedding,
};
use fathom_models::processing::observation::Observation;
use fathom_models::{ModelError, TensorProblem};
use fathom_tests::actions_on_twins;
use fathom_tests::tensors::Tensors;
use serde_json::json;

fn load(dir: &Path) -> Loaded {
    families::load(dir).expect("it loads")
}

/// A model with open-pi-zero's conventions in Fathom's own format: the oracle's case `depthvla_opz` proves those.
fn open_pi_zero(action_head_layers: usize) -> ModelConfig {
    let mut c = fathom_models::nets::presets::small();
    c.views.truncate(1);
    (c.depth, c.resize, c.max_tokens, c.horizon) = (None, Resize::CvLanczos4Stretch, 20, 4);
    c.prompt = PromptFormat::OpenPiZero;
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
    let spec = fathom_models::nets::image::ImageSpec::rgb(side, side);
    let bytes = (0..spec.bytes()).map(|i| (i * 7919 % 251) as u8).collect();
    Observation {
        images: vec![(spec, bytes)],
        state: vec![0.5; 7],
        tokens: vec![2, 9, 4],
        noise: fathom_models::checkpoint::random::normal(3, config.horizon * config.action_dim),
    }
}

#[test]
fn open_pi_zero_is_detected_by_its_tensors() {
    for (layers, family) in [(1, &open_pi_zero::FAMILY), (2, &galaxea::FAMILY)] {
        let dir = tempfile::tempdir().expect("a folder");
        let mut config = open_pi_zero(layers);
        if family == &galaxea::FAMILY {
            (config.flow.clip, config.max_tokens) = (None, 55);
            (config.resize, config.prompt) = (Resize::TorchvisionStretch, PromptFormat::Galaxea);
        }
        fathom_models::families::depthvla::write_random(dir.path(), &config, 1).expect("the checkpoint is written");
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
        let named = (family == &galaxea::FAMILY).then_some(family);
        let loaded = families::load_as(dir.path(), named).expect("it loads");
        assert_eq!((loaded.family, &loaded.model.config), (family.name, &own.model.config));
        assert!(actions_on_twins(&loaded, &observation) == expected, "{}: the same bits", family.name);

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
        tensors.put(name, fathom_models::checkpoint::WeightFormat::F32, &[64], &[9.0; 64]);
        tensors.write(&file);
        let error = families::load_as(dir.path(), named).expect_err("a copy that differs");
        let ModelError::Tensors { problems, .. } = &error else { panic!("{error}") };
        assert!(matches!(&problems[..], [TensorProblem::Untied { name: n, .. }] if n == name), "{error}");
    }
}

/// A small Galaxea directory whose hints have `more`, and its `dataset_stats.json`: keys in an order of their own.
fn galaxea(more: serde_json::Value) -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    fathom_models::families::depthvla::write_random(dir.path(), &open_pi_zero(2), 1)
        .expect("the checkpoint is written");
    std::fs::remove_file(dir.path().join("config.json")).expect("the file is removed");
    let mut hints = json!({"heads": 2, "kv_heads": 1, "vision_heads": 2, "views": ["base"], "horizon": 4});
    hints.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    std::fs::write(dir.path().join("fathom.json"), hints.to_string()).expect("the file is written");
    let lists = |n: usize, at: f32| {
        let mut map = serde_json::Map::new();
        for (list, value) in
            [("mean", at), ("std", 2.0), ("min", at - 8.0), ("max", at + 8.0), ("q01", at - 4.0), ("q99", at + 4.0)]
        {
            map.insert(format!("global_{list}"), json!(vec![value; n]));
            let steps: Vec<_> =
                (0..4).map(|step| vec![value + if list == "std" { 0.0 } else { step as f32 }; n]).collect();
            map.insert(format!("stepwise_{list}"), json!(steps));
        }
        serde_json::Value::Object(map)
    };
    // Not in the order of the alphabet.
    let part = format!(r#"{{"right_arm": {}, "grip": {}}}"#, lists(6, 1.0), lists(1, 50.0));
    std::fs::write(dir.path().join("dataset_stats.json"), format!(r#"{{"action": {part}, "state": {part}}}"#))
        .expect("written");
    dir
}

#[test]
fn galaxeas_statistics_in_all_modes() {
    let near = |found: &[f32], expected: &[f32]| {
        assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 1e-5), "{found:?} is not {expected:?}");
    };
    let load = |dir: &Path| families::load_as(dir, Some(&galaxea::FAMILY)).expect("it loads").normalization;
    let values = [3.0, 3.0, 3.0, 3.0, 3.0, 3.0, 75.0];
    for (mode, arm, grip) in
        [("z-score", 1.0, 12.5), ("min/max", 0.25, 3.125), ("q01/q99", 0.5, 6.25), ("2/4", 0.0, 72.0)]
    {
        let dir = galaxea(json!({ "norm_default_mode": mode }));
        let mut state = values;
        load(dir.path()).state.normalize(&mut state);
        near(&state, &[arm, arm, arm, arm, arm, arm, grip]);
    }
    let hints = json!({"use_stepwise_action_norm": true, "norm_exception_mode": {"action": {"grip": "0/100"}},
                       "relative_actions": [6, -1]});
    let dir = galaxea(hints);
    let normalization = load(dir.path());
    assert_eq!(normalization.relative, [true, true, true, true, true, true, false]);
    for step in 0..4 {
        let mut action = [0.5_f32; 7];
        normalization.action_at(step).unnormalize(&mut action);
        let arm = 2.0 + step as f32;
        near(&action, &[arm, arm, arm, arm, arm, arm, 75.0]);
    }
    for (hints, part) in [
        (json!({"norm_default_mode": "median"}), "norm_default_mode: expected z-score, min/max, q01/q99"),
        (json!({"norm_exception_mode": {"state": {"tail": "0/1"}}}), "norm_exception_mode.state: expected some of"),
    ] {
        let dir = galaxea(hints);
        let error = families::load_as(dir.path(), Some(&galaxea::FAMILY)).expect_err(part).to_string();
        assert!(error.contains(part), "{error}");
    }
    let dir = galaxea(json!({}));
    let file = dir.path().join("dataset_stats.json");
    let text = std::fs::read_to_string(&file).expect("the file");
    std::fs::write(&file, text.replacen("[2.0]", "[0.0]", 1)).expect("the file is written");
    let error = families::load_as(dir.path(), Some(&galaxea::FAMILY)).expect_err("no deviation").to_string();
    assert!(error.contains("dataset_stats.json: action: expected a deviation"), "{error}");
    assert!(error.contains("found 0 at element 6"), "{error}");
}

/// Galaxea's begin of sequence comes before the images, the rest of the prompt after them.
#[test]
fn galaxeas_prompt_goes_around_the_images() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut config = open_pi_zero(2);
    fathom_models::families::depthvla::write_random(dir.path(), &config, 1).expect("the checkpoint is written");
    let observation = observation_of(&config);
    let plain = fathom_tests::on_twins(&load(dir.path()), &observation, true);
    config.prompt = PromptFormat::Galaxea;
    fathom_models::families::depthvla::write_random(dir.path(), &config, 1).expect("the checkpoint is written");
    let loaded = load(dir.path());
    let around = fathom_tests::on_twins(&loaded, &observation, true);
    // Values of the first layer depend on a token alone, not on its place.
    let values = |outputs: &std::collections::BTreeMap<String, Vec<f32>>| outputs["vlm.layers.0.v"].clone();
    let (plain, around) = (values(&plain), values(&around));
    let (width, images) = (config.attention.kv_heads * config.attention.head_dim, config.vision.patches());
    let (first, rest) = (images * width, (images + 1) * width);
    assert!(around[..width] == plain[first..rest], "the begin of sequence");
    assert!(around[width..rest] == plain[..first], "the images");
    assert!(around[rest..] == plain[rest..], "the rest of the prompt");

    assert_eq!(fathom_models::processing::prompt::text(&loaded, "pick_up ", &[]), "Task: [Low]: pick_up , ");
    config.prompt = PromptFormat::OpenPiZero;
    fathom_models::families::depthvla::write_random(dir.path(), &config, 1).expect("the checkpoint is written");
    assert_eq!(fathom_models::processing::prompt::text(&load(dir.path()), "pick_up\n", &[]), "pick_up\n\n");
}
