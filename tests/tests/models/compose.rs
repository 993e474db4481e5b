//! A DepthVLA composed of lerobot's pi0 and a DINOv2 encoder holds both, and its VLM computes what the pi0's did.

use fathom_models::checkpoint::{Checkpoint, WeightFormat};
use fathom_models::families::compose::{Sources, compose};
use fathom_models::families::dinov2::Encoder;
use fathom_models::families::summary::Summary;
use fathom_models::{ModelError, families};
use fathom_tests::tensors::{Dtype, Tensors, dinov2};
use fathom_tests::{Golden, on_twins, path, relative_error};

#[test]
fn a_composed_model_has_the_pi0s_vlm_and_the_encoders_weights() {
    let folder = tempfile::tempdir().expect("a folder");
    let dinov2 = dinov2();
    let encoder = Encoder::load(dinov2.path()).expect("it loads");

    let golden = Golden::load("pi0_lerobot");
    let output = folder.path().join("composed");
    let views = ["top".to_owned()];
    let sources = Sources { base: &golden.loaded, encoder: &encoder, given: None, views: &views, seed: 7 };
    let origins = compose(&sources, &output).expect("composes");
    assert_eq!(
        origins.encoder,
        encoder.params.params.len() - 1,
        "every encoder tensor, but for the mask_token that it lacks"
    );
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
    let config = composed.model.config.depth.as_ref().expect("a depth branch").encoder;
    assert_eq!(
        (config.heads, config.image_size),
        (encoder.tower.heads, 56),
        "heads of its own, a patch for each of SigLIP's"
    );
    let again = compose(&Sources { base: &composed, ..sources }, &output).expect_err("it has a depth branch already");
    assert!(again.to_string().contains("depth"), "{again}");
}

/// And they compute what transformers computes, from its own files: a PaliGemma in shards and bf16, a DINOv2 in f16.
#[test]
fn a_composed_model_computes_what_its_parts_did() {
    let folder = tempfile::tempdir().expect("a folder");
    Golden::compose(&path("golden/composed"), folder.path()).compare_twins();
    Golden::compose(&path("golden/composed"), folder.path()).compare_gpu();
}

/// A DINOv2 that gives no actions is described all the same.
#[test]
fn a_dinov2_is_described() {
    let dir = dinov2();
    let Summary::Encoder(summary) = Summary::read(dir.path(), None).expect("it is described") else {
        panic!("another kind")
    };
    assert_eq!((summary.tower.heads, summary.tower.grid(), summary.parts[0].parameters), (4, 5, 86_400));
    let text = Summary::Encoder(summary).to_string();
    assert!(text.contains("dinov2: a depth encoder, for `fathom compose --depth`"), "{text}");
    assert!(text.contains("positions    5×5, patches of 14×14"), "{text}");
}

/// What is given goes before the seed, and has a place and its shape, or nothing is written.
#[test]
fn tensors_may_be_given_for_what_is_in_neither() {
    let (golden, dinov2, folder) = (Golden::load("pi0_lerobot"), dinov2(), tempfile::tempdir().expect("a folder"));
    let encoder = Encoder::load(dinov2.path()).expect("it loads");
    let views = ["top".to_owned()];
    let file = folder.path().join("given.safetensors");
    let compose = |tensors: &Tensors, output: &str| {
        tensors.write(&file);
        let given = Checkpoint::open(&file).expect("opens");
        let sources = Sources { base: &golden.loaded, encoder: &encoder, given: Some(&given), views: &views, seed: 7 };
        compose(&sources, &folder.path().join(output))
    };
    let seeded = compose(&Tensors::default(), "seeded").expect("composes");
    let model = |name: &str| Tensors::read(&folder.path().join(name).join("model.safetensors"));
    let mut given = model("seeded");
    given.0.retain(|name, _| name.starts_with("depth_head.") || name.starts_with("joint_model.mixtures.depth."));
    for (_, _, bytes) in given.0.values_mut() {
        bytes.fill(0x3f);
    }
    let origins = compose(&given, "given").expect("composes");
    assert_eq!((origins.given, origins.given + origins.random), (given.0.len(), seeded.random), "{origins:?}");
    let mut expected = model("seeded");
    expected.0.extend(given.0.clone());
    assert!(expected.0 == model("given").0, "what was given, and the rest as it was");

    let (shape, values) = given.values("depth_head.weight");
    given.put("depth_head.weight", WeightFormat::F32, &[2, 2], &[0.0; 4]);
    given.put("depth_head.bias", WeightFormat::F32, &[shape[0]], &[f32::NAN].repeat(shape[0]));
    given.put("state_proj.weight", WeightFormat::F32, &[2, 2], &[0.0; 4]);
    given.put("proprio_encoder.bias", WeightFormat::F32, &[values.len()], &values);
    let error = compose(&given, "refused").expect_err("they do not fit").to_string();
    for part in [
        "given.safetensors: 4 tensor(s)",
        "misshapen   depth_head.weight",
        "not finite  depth_head.bias: element 0",
        "unexpected  state_proj.weight",
        "unexpected  proprio_encoder.bias",
    ] {
        assert!(error.contains(part), "no {part:?} in {error}");
    }
    assert!(!folder.path().join("refused").exists(), "nothing was written");
}

/// What does not fit is listed, and nothing is written: a tensor that an encoder lacks is not made from the seed.
#[test]
fn checkpoints_that_do_not_fit_each_other() {
    let (golden, dinov2, folder) = (Golden::load("pi0_lerobot"), dinov2(), tempfile::tempdir().expect("a folder"));
    let (file, output) = (dinov2.path().join("model.safetensors"), folder.path().join("composed"));
    let encoder = Encoder::load(dinov2.path()).expect("it loads");
    let views = ["ceiling".to_owned()];
    let sources = Sources { base: &golden.loaded, encoder: &encoder, given: None, views: &views, seed: 7 };
    let error = compose(&sources, &output).expect_err("no such view");
    assert!(matches!(error, ModelError::Config(_)) && error.to_string().contains("ceiling"), "{error}");
    assert!(!output.exists(), "nothing was written");

    let [query, fc2, scale] = ["attention.attention.query.weight", "mlp.fc2.weight", "layer_scale1.lambda1"]
        .map(|p| format!("encoder.layer.1.{p}"));
    let mut other = Tensors::read(&file);
    other.0.remove(&query).expect("a tensor to remove");
    other.put(&fc2, WeightFormat::F32, &[2, 2], &[0.0; 4]);
    let (_, shape, _) = other.0.get(&scale).expect("a tensor").clone();
    other.0.insert(scale.clone(), (Dtype::I32, shape.clone(), vec![0; shape[0] * 4]));
    other.put("embeddings.register_tokens", WeightFormat::F32, &[1, 4, 2], &[0.0; 8]);
    other.write(&file);
    let error = Encoder::load(dinov2.path()).expect_err("it does not fit");
    let ModelError::Tensors { problems, .. } = &error else { panic!("{error}") };
    assert_eq!(problems.len(), 4, "{error}");
    let text = error.to_string();
    let registers = "unexpected  embeddings.register_tokens";
    for part in
        [&format!("missing     {query}"), &format!("misshapen   {fc2}"), &format!("wrong dtype {scale}"), registers]
    {
        assert!(text.contains(part), "no {part:?} in {text}");
    }

    let config = dinov2.path().join("config.json");
    let text = std::fs::read_to_string(&config).expect("read");
    for (from, to, found) in [
        ("\"dinov2\"", "\"dinov2_with_registers\"", "model_type: expected \"dinov2\", found dinov2_with_registers"),
        ("{", "{\"use_swiglu_ffn\": true,", "use_swiglu_ffn: expected false, found true"),
    ] {
        std::fs::write(&config, text.replacen(from, to, 1)).expect("written");
        let error = Encoder::load(dinov2.path()).expect_err("not supported").to_string();
        assert!(error.contains(found), "{error}");
    }
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
