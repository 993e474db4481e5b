//! A DepthVLA composed of lerobot's pi0 and a DINOv2 encoder holds both, and its VLM computes what the pi0's did.

use fathom_models::compose::compose;
use fathom_models::weights::{Checkpoint, WeightFormat};
use fathom_models::{ModelError, families};
use fathom_tests::tensors::{Dtype, Tensors};
use fathom_tests::{Golden, on_twins, path, relative_error};
use safetensors::SafeTensors;

#[test]
fn a_composed_model_has_the_pi0s_vlm_and_the_encoders_weights() {
    let folder = tempfile::tempdir().expect("a folder");
    // A Hugging Face Dinov2Model, made of the golden DepthVLA's encoder.
    let bytes = std::fs::read(path("golden/depthvla_openpi/model.safetensors")).expect("the golden model");
    let all = SafeTensors::deserialize(&bytes).expect("safetensors");
    let encoder_file = folder.path().join("encoder.safetensors");
    let encoder = all.iter().filter_map(|(name, view)| Some((name.strip_prefix("depth_encoder.")?.to_owned(), view)));
    safetensors::serialize_to_file(encoder, None, &encoder_file).expect("written");
    let encoder = Checkpoint::open(&encoder_file).expect("opens");

    let golden = Golden::load("pi0_lerobot");
    let output = folder.path().join("composed");
    let origins = compose(&golden.loaded, &encoder, &["top".to_owned()], 7, &output).expect("composes");
    assert_eq!(origins.encoder, encoder.names().count(), "every encoder tensor was taken over");
    assert!(origins.pi0 > 100 && origins.random > 20, "{origins:?}");
    let composed = families::load(&output).expect("loads as any other model");
    assert_eq!(composed.action_dim, golden.loaded.action_dim, "the pi0's statistics came along");

    let o = &golden.observation;
    let outputs = on_twins(&composed, o, true);
    for name in golden.expected.names().filter(|n| ["vision.", "projector.", "vlm."].iter().any(|p| n.starts_with(p))) {
        let expected = golden.expected.f32(name).expect("f32");
        let error = relative_error(&expected, outputs.get(name).expect("the stage"));
        assert!(error <= 1e-4, "{name}: {error}");
    }
    assert!(outputs["depth.top"].iter().all(|d| d.is_finite() && *d > 0.0), "a depth map, however untrained");
    let again =
        compose(&composed, &encoder, &["top".to_owned()], 7, &output).expect_err("it has a depth branch already");
    assert!(again.to_string().contains("depth"), "{again}");
}

/// What does not fit is listed, and nothing is written: a tensor that an encoder lacks is not made from the seed.
#[test]
fn checkpoints_that_do_not_fit_each_other() {
    let golden = Golden::load("pi0_lerobot");
    let folder = tempfile::tempdir().expect("a folder");
    let output = folder.path().join("composed");
    let mut encoder = Tensors::read(&path("golden/depthvla_openpi/model.safetensors"));
    encoder.0.retain(|name, _| name.starts_with("depth_encoder."));
    for name in encoder.0.keys().cloned().collect::<Vec<_>>() {
        encoder.rename(&name, name.trim_start_matches("depth_encoder."));
    }
    let refused = |tensors: &Tensors, view: &str| {
        let file = folder.path().join("encoder.safetensors");
        tensors.write(&file);
        let encoder = Checkpoint::open(&file).expect("opens");
        let error = compose(&golden.loaded, &encoder, &[view.to_owned()], 7, &output).expect_err("it does not fit");
        assert!(!output.exists(), "nothing was written");
        error
    };
    let error = refused(&encoder, "ceiling");
    assert!(matches!(error, ModelError::Config(_)) && error.to_string().contains("ceiling"), "{error}");

    let [query, fc2, scale] = ["attention.attention.query.weight", "mlp.fc2.weight", "layer_scale1.lambda1"]
        .map(|p| format!("encoder.layer.1.{p}"));
    let mut other = encoder.clone();
    other.0.remove(&query).expect("a tensor to remove");
    other.put(&fc2, WeightFormat::F32, &[2, 2], &[0.0; 4]);
    let (_, shape, _) = other.0.get(&scale).expect("a tensor").clone();
    other.0.insert(scale.clone(), (Dtype::I32, shape.clone(), vec![0; shape[0] * 4]));
    let error = refused(&other, "top");
    let ModelError::Tensors { problems, .. } = &error else { panic!("{error}") };
    assert_eq!(problems.len(), 3, "{error}");
    let text = error.to_string();
    for part in [format!("missing     {query}"), format!("misshapen   {fc2}"), format!("wrong dtype {scale}")] {
        assert!(text.contains(&part), "no {part:?} in {text}");
    }

    let error = refused(&Tensors::read(&path("golden/pi0_lerobot/model.safetensors")), "top").to_string();
    assert!(error.contains("missing     embeddings.patch_embeddings.projection.weight"), "{error}");
}

/// A Fathom directory may say that actions are relative, as openpi's delta mask does.
#[test]
fn relative_actions_of_a_fathom_directory_start_from_the_state() {
    let golden = Golden::load("depthvla_openpi");
    let folder = tempfile::tempdir().expect("a folder");
    let from = path("golden/depthvla_openpi");
    std::fs::copy(from.join("model.safetensors"), folder.path().join("model.safetensors")).expect("copied");
    let text = std::fs::read_to_string(from.join("config.json")).expect("read");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    config["relative_actions"] = serde_json::json!([true, false, true]);
    std::fs::write(folder.path().join("config.json"), config.to_string()).expect("written");
    let relative = families::load(folder.path()).expect("loads");
    let absolute = fathom_tests::actions_on_twins(&golden.loaded, &golden.observation);
    let found = fathom_tests::actions_on_twins(&relative, &golden.observation);
    let state = &golden.observation.state;
    for (i, (a, f)) in absolute.iter().zip(&found).enumerate() {
        let shift = [state[0], 0.0, state[2]].get(i % 8).copied().unwrap_or(0.0);
        assert!((a + shift - f).abs() < 1e-6, "action {i}: {a} and {shift} give {f}");
    }
}
