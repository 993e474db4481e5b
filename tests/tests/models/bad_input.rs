//! Wrong checkpoints, configurations and observations give typed errors that name the thing, what was expected and what
//! was found. None panics, and none is taken for something else.

#![expect(clippy::expect_used, reason = "a set-up that fails is a test that fails")]

use std::path::Path;

use fathom::engine::{EngineError, Inputs, Kernels, Session};
use fathom_models::checkpoint::WeightFormat;
use fathom_models::families::{self, Loaded, lerobot_pi05};
use fathom_models::nets::depthvla::ForwardOptions;
use fathom_models::nets::image::ImageSpec;
use fathom_models::nets::presets;
use fathom_models::processing::observation::{Observation, finish_actions};
use fathom_models::{FileError, ModelError, TensorProblem};
use fathom_tests::graphs::open_gpu;
use fathom_tests::tensors::{Dtype, Tensors, copy_golden};
use fathom_tests::{Golden, path};
use serde_json::{Value, json};

const CASE: &str = "depthvla_openpi";

/// The error's text names all of `parts`.
fn names(error: &impl std::fmt::Display, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "the error does not name {part}: {text}");
    }
}

fn load(dir: &Path) -> ModelError {
    families::load(dir).expect_err("it must not load")
}

#[test]
fn a_truncated_checkpoint() {
    let dir = copy_golden(CASE);
    let file = dir.path().join("model.safetensors");
    let whole = std::fs::read(&file).expect("the checkpoint");
    for length in [0, 7, 8, 1000, whole.len() / 2, whole.len() - 1] {
        std::fs::write(&file, &whole[..length]).expect("the file is written");
        let error = load(dir.path());
        assert!(matches!(error, ModelError::Safetensors { .. }), "{length} bytes: {error}");
        names(&error, &["model.safetensors", "not a complete safetensors file"]);
    }
}

#[test]
fn all_that_is_wrong_with_the_tensors_is_in_one_error() {
    let dir = copy_golden(CASE);
    let file = dir.path().join("model.safetensors");
    let mut tensors = Tensors::read(&file);
    let norm = |i: usize| format!("joint_model.mixtures.vlm.layers.{i}.input_layernorm.weight");
    let part = |part: &str| format!("joint_model.mixtures.vlm.layers.0.{part}.weight");
    let values = |value: f32| [vec![0.0; 37], vec![value], vec![0.0; 26]].concat();
    tensors.0.remove(&part("self_attn.v_proj")).expect("a tensor to remove");
    tensors.put("surplus", WeightFormat::F32, &[2], &[0.0; 2]);
    tensors.put(&part("self_attn.k_proj"), WeightFormat::F32, &[64, 16], &[0.0; 1024]);
    tensors.0.insert(part("post_attention_layernorm"), (Dtype::I32, vec![64], vec![0; 256]));
    tensors.put(&norm(0), WeightFormat::Bf16, &[64], &values(f32::NAN));
    tensors.put(&norm(1), WeightFormat::F16, &[64], &values(f32::INFINITY));
    tensors.put(&norm(2), WeightFormat::F32, &[64], &values(f32::NEG_INFINITY));
    tensors.write(&file);
    let error = load(dir.path());
    let ModelError::Tensors { problems, .. } = &error else { panic!("{error}") };
    let found = |problem: &TensorProblem| problems.iter().any(|p| p == problem);
    let name = part("self_attn.v_proj");
    assert!(found(&TensorProblem::Missing { name, shape: vec![16, 64] }), "{error}");
    assert!(found(&TensorProblem::Unexpected { name: "surplus".into(), shape: vec![2] }), "{error}");
    let name = part("self_attn.k_proj");
    assert!(found(&TensorProblem::Misshapen { name, expected: vec![16, 64], found: vec![64, 16] }), "{error}");
    let name = part("post_attention_layernorm");
    assert!(found(&TensorProblem::Dtype { name, found: "I32".into() }), "{error}");
    let infinite = |name, value| found(&TensorProblem::NotFinite { name, index: 37, value });
    assert!(infinite(norm(1), f32::INFINITY) && infinite(norm(2), f32::NEG_INFINITY), "{error}");
    assert_eq!(problems.len(), 7, "{error}");
    names(&error, &["model.safetensors", "7 tensor(s)", &format!("{}: element 37 is NaN", norm(0))]);
    names(&error, &["expected [16, 64], found [64, 16]", "expected F32, F16 or BF16, found I32"]);
}

/// The error for `config.json` with `value` at `pointer`, which is made where it is not.
fn load_with(pointer: &str, value: Value) -> ModelError {
    let dir = copy_golden(CASE);
    let file = dir.path().join("config.json");
    let text = std::fs::read_to_string(&file).expect("the configuration");
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    config.pointer_mut(parent).expect("the parent is there")[key] = value;
    std::fs::write(&file, config.to_string()).expect("the file is written");
    load(dir.path())
}

#[test]
fn a_configuration_with_an_unknown_key() {
    for pointer in ["/lasers", "/attention/lasers", "/depth/encoder/lasers", "/flow/lasers"] {
        let error = load_with(pointer, json!(3));
        assert!(matches!(error, ModelError::File(FileError::Json { .. })), "{error}");
        names(&error, &["config.json", "unknown field `lasers`"]);
    }
}

#[test]
fn a_configuration_that_contradicts_itself() {
    let cases = [
        ("/attention/kv_heads", json!(3), "attention.kv_heads", "a divisor of 4 heads"),
        ("/attention/head_dim", json!(15), "attention.head_dim", "an even number, at most 256"),
        ("/attention/head_dim", json!(512), "attention.head_dim", "an even number, at most 256"),
        ("/attention/softcap", json!(0.0), "attention.softcap", "a number above 0, or null"),
        ("/attention/rope_theta", json!(-1.0), "attention.rope_theta", "a number above 0"),
        ("/layers", json!(u32::MAX), "layers", "1 to 1024"),
        ("/vocab", json!(1_u64 << 62), "vocab", "1 to 1048576"),
        ("/horizon", json!(0), "horizon", "1 to 1048576"),
        ("/views", json!(["base", "base"]), "views", "different names"),
        ("/views", json!([]), "views", "at least one view"),
        ("/vision/patch", json!(0), "vision.patch", "1 to 1048576"),
        ("/vision/patch", json!(57), "vision.patch", "at most 56"),
        ("/vision/heads", json!(5), "vision.heads", "a divisor of 48"),
        ("/depth/views", json!(["ceiling"]), "depth.views", "some of [\"base\", \"wrist\"]"),
        ("/depth/expert/width", json!(64), "depth.in_proj", "true where encoder and expert differ"),
        ("/depth/encoder/image_size", json!(1 << 20), "depth.encoder.image_size", "1 to 8192"),
        ("/flow/steps", json!(0), "flow.steps", "1 to"),
        ("/flow/clip", json!(-1.0), "flow.clip", "a number above 0, or null"),
        ("/time_embedding/max_period", json!(0.0), "time_embedding", "periods above 0"),
        ("/action_head_layers", json!(3), "action_head_layers", "1 or 2"),
    ];
    for (pointer, value, field, expected) in cases {
        let error = load_with(pointer, value.clone());
        let ModelError::Config(config) = &error else { panic!("{pointer} = {value}: {error}") };
        assert_eq!(config.field, field, "{error}");
        names(&error, &[&format!("{field}: expected {expected}"), "found"]);
    }
}

#[test]
fn a_directory_that_is_no_model() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let error = load(dir.path());
    assert!(matches!(error, ModelError::File(FileError::Io { .. })), "{error}");
    names(&error, &["model.safetensors", "No such file"]);

    let dir = copy_golden(CASE);
    let config = dir.path().join("config.json");
    for (text, found) in [(r#"{"type": "act"}"#, "\"act\""), ("{}", "neither"), ("[1]", "neither")] {
        std::fs::write(&config, text).expect("the file is written");
        let error = load(dir.path());
        assert!(matches!(error, ModelError::Config(_)), "{error}");
        names(
            &error,
            &["config.json", "\"model_type\": \"depthvla\"", "\"type\": \"pi0\" or \"pi05\"", "found", found],
        );
    }
    std::fs::write(&config, "{\"model_type\": ").expect("the file is written");
    let error = load(dir.path());
    assert!(matches!(error, ModelError::File(FileError::Json { .. })), "{error}");
    names(&error, &["config.json", "line 1"]);
    std::fs::remove_file(&config).expect("the file is removed");
    names(&load(dir.path()), &["config.json", "No such file"]);
}

/// A checkpoint that is there, in another format, is told from an empty directory, with the way to safetensors.
#[test]
fn a_checkpoint_of_another_format() {
    for (file, told) in [
        ("bridge_beta.pt", "bridge_beta.pt: PyTorch's own format"),
        ("pytorch_model.bin", "save its state dictionary as safetensors"),
        ("params/_METADATA", "openpi's JAX checkpoint: its examples/convert_jax_model_to_pytorch.py"),
        ("adapter_model.safetensors", "an adapter without its base"),
        ("model.gguf", "which Fathom does not read"),
    ] {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder is made");
        std::fs::write(&path, b"").expect("the file is written");
        let error = load(dir.path());
        assert!(matches!(error, ModelError::Format { .. }), "{error}");
        names(&error, &["expected model.safetensors or model.safetensors.index.json", told]);
    }
}

#[test]
fn a_known_family_without_support_is_reported() {
    for (kind, what) in [
        ("smolvla", "SmolVLA, not supported"),
        ("pi0_fast", "pi0-FAST, not supported"),
        ("act", "ACT, not supported"),
        ("diffusion", "Diffusion Policy, not supported"),
        ("groot", "GR00T, not supported"),
        ("openvla", "OpenVLA, not supported"),
    ] {
        let error = load_with("/type", json!(kind));
        assert!(matches!(error, ModelError::Config(_)), "{error}");
        names(&error, &[&format!("found {kind:?} (known: {what})"), "nearest known family: depthvla: "]);
    }
    let dir = copy_golden(CASE);
    for (kind, what) in [("pi0", "transformers' own PI0"), ("dinov2_with_registers", "DINOv2 with registers")] {
        std::fs::write(dir.path().join("config.json"), json!({ "model_type": kind }).to_string()).expect("written");
        names(&load(dir.path()), &[&format!("found {kind:?} (known: {what}, not supported)")]);
    }
    let error = load(&path("golden/depth_anything_metric"));
    names(&error, &["a depth-anything checkpoint is no action model", "for `fathom depth`"]);
}

/// The family that a checkpoint's names fit best is told where it is not the one that it was taken for.
#[test]
fn the_nearest_family_is_named() {
    let error = families::load_as(&path("golden/pi0_lerobot"), Some(&lerobot_pi05::FAMILY)).expect_err("a pi0");
    let ModelError::OtherFamily { problem, .. } = &error else { panic!("{error}") };
    assert!(matches!(**problem, ModelError::Tensors { .. }), "{error}");
    names(&error, &["time_mlp_in.weight", "nearest known family: lerobot-pi0: 107 of 108 tensors have its names"]);

    let dir = copy_golden("pi0_lerobot");
    let file = dir.path().join("model.safetensors");
    let mut tensors = Tensors::default();
    tensors.put("model.vlm_with_expert.lm_expert.norm.weight", WeightFormat::F32, &[2], &[0.0; 2]);
    tensors.write(&file);
    let error = load(dir.path());
    names(&error, &["missing", "nearest known family: SmolVLA (not supported): 1 of 1 tensors"]);
    for case in [CASE, "depthvla_opz", "pi0_lerobot", "pi05_lerobot"] {
        let dir = copy_golden(case);
        let file = dir.path().join("model.safetensors");
        let mut tensors = Tensors::read(&file);
        tensors.put("surplus", WeightFormat::F32, &[2], &[0.0; 2]);
        tensors.write(&file);
        let error = load(dir.path());
        assert!(matches!(error, ModelError::Tensors { .. }), "{case} is what it says: {error}");
    }
}

#[test]
fn statistics_of_another_robot() {
    let dir = copy_golden("pi0_lerobot");
    let file = dir.path().join("policy_preprocessor_step_6_normalizer_processor.safetensors");
    let mut tensors = Tensors::read(&file);
    tensors.put("observation.state.mean", WeightFormat::F32, &[5], &[0.0; 5]);
    tensors.write(&file);
    let error = load(dir.path());
    assert!(matches!(error, ModelError::Statistics { .. }), "{error}");
    names(&error, &["state: expected 6 values as in config.json, found 5"]);

    let dir = copy_golden(CASE);
    let stats = json!({"norm_stats": {"state": {"mean": vec![0.0; 9], "std": vec![1.0; 9]}}});
    std::fs::write(dir.path().join("norm_stats.json"), stats.to_string()).expect("the file is written");
    names(&load(dir.path()), &["state: 9 values for a model that takes 8"]);

    let Golden { mut loaded, .. } = Golden::load(CASE);
    loaded.normalization.action.offset = vec![f32::NAN];
    loaded.normalization.action.scale = vec![1.0];
    let error = finish_actions(&loaded, &[], vec![0.0; 64]).expect_err("an action that is NaN");
    names(&error, &["actions: expected finite numbers after the statistics were applied, found NaN at element 0"]);
}

/// What reading an observation that `alter` has altered gives.
fn read_with(alter: impl Fn(&mut Tensors), seed: u64) -> Result<Observation, ModelError> {
    let dir = path("golden").join(CASE);
    let mut tensors = Tensors::read(&dir.join("observation.safetensors"));
    alter(&mut tensors);
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    tensors.write(file.path());
    let loaded = families::load(&dir).expect("the golden model");
    Observation::read(file.path(), &loaded, seed, |_| Ok(Vec::new()))
}

#[test]
fn observations_that_do_not_fit_the_model() {
    let floats = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let nan = [0.0, 0.0, f32::NAN, 0.0, 0.0, 0.0];
    let image = "u8 [height, width, 3]";
    let cases = [
        ("image.base", Some((Dtype::U8, vec![0, 0, 3], vec![])), "1 to 16384 pixels a side", "0 × 0 pixels"),
        ("image.base", Some((Dtype::U8, vec![0, 1 << 62, 3], vec![])), "1 to 16384 pixels a side", "× 0 pixels"),
        ("image.base", Some((Dtype::U8, vec![4, 12], vec![0; 48])), image, "U8 [4, 12]"),
        ("image.base", Some((Dtype::U8, vec![4, 4, 4], vec![0; 64])), image, "U8 [4, 4, 4]"),
        ("image.base", Some((Dtype::F32, vec![2, 2, 3], vec![0; 48])), image, "F32 [2, 2, 3]"),
        ("image.wrist", None, image, "nothing"),
        ("state", Some((Dtype::F32, vec![9], vec![0; 36])), "1 to 8 f32 values", "9 values"),
        ("state", None, "1 to 8 f32 values", "0 values"),
        ("state", Some((Dtype::F64, vec![6], vec![0; 48])), "F32 [6]", "F64 [6]"),
        ("state", Some((Dtype::F32, vec![6], floats(&nan))), "finite numbers", "NaN at element 2"),
        ("tokens", Some((Dtype::I32, vec![13], vec![0; 52])), "at most 12 tokens", "13 tokens"),
        ("tokens", Some((Dtype::I64, vec![2], vec![0; 16])), "i32", "I64"),
        ("tokens", None, "i32 tokens, or prompt in the file's metadata", "nothing"),
        ("noise", Some((Dtype::F32, vec![8, 7], vec![0; 224])), "F32 [8, 8]", "F32 [8, 7]"),
        ("noise", Some((Dtype::F32, vec![64], vec![0; 256])), "F32 [8, 8]", "F32 [64]"),
        ("noise", Some((Dtype::F32, vec![8, 8], floats(&[f32::INFINITY; 64]))), "finite", "inf at element 0"),
    ];
    for (name, tensor, expected, found) in cases {
        let alter = |tensors: &mut Tensors| {
            tensors.0.remove(name);
            tensors.0.extend(tensor.clone().map(|t| (name.to_owned(), t)));
        };
        let error = read_with(alter, 0).expect_err(&format!("{name}: {found} must not be read"));
        let ModelError::Observation { name: named, .. } = &error else { panic!("{name}: {error}") };
        assert_eq!(named, name, "{error}");
        names(&error, &[expected, found]);
    }
}

#[test]
fn noise_that_is_not_given_comes_from_the_seed() {
    let without = |seed| read_with(|t| drop(t.0.remove("noise")), seed).expect("noise is optional").noise;
    assert_eq!(without(1).len(), 64, "horizon times action dimension");
    assert_eq!(without(1), without(1), "the same seed");
    assert_ne!(without(1), without(2), "another seed");
}

fn session() -> (Session, Golden) {
    let loaded: Loaded = families::load(&path("golden").join(CASE)).expect("the golden model");
    (Session::open(open_gpu(false), loaded).expect("the weights fit"), Golden::load(CASE))
}

#[test]
fn kernels_that_need_what_the_adapter_has_not() {
    for kernels in [Kernels::Coop16, Kernels::Coop8] {
        let mut gpu = open_gpu(false);
        gpu.hide_matrices();
        let name = gpu.info().name.clone();
        let loaded: Loaded = families::load(&path("golden").join(CASE)).expect("the golden model");
        let error = Session::open_with(gpu, loaded, Some(kernels)).expect_err("there are no matrices");
        assert!(matches!(error, EngineError::Lacking { .. }), "{error}");
        names(&error, &[kernels.name(), "expected cooperative matrices", &name]);
    }
    let loaded: Loaded = families::load(&path("golden").join(CASE)).expect("the golden model");
    let session = Session::open_with(open_gpu(false), loaded, Some(Kernels::Tiled)).expect("any adapter has these");
    assert_eq!(session.kernels(), Kernels::Tiled);
}

/// A model that does not fit says how much was asked for by what, and as what it would fit.
#[test]
fn a_model_that_the_gpu_cannot_hold() {
    let dir = tempfile::tempdir().expect("a temporary folder");
    families::depthvla::write_random(dir.path(), &presets::small(), 0).expect("it is written");
    let open = |memory: u64| {
        let mut gpu = open_gpu(false);
        gpu.limit_memory(memory);
        Session::open(gpu, families::load(dir.path()).expect("it loads"))
    };
    let size = open(u64::MAX).expect("it fits").gpu_bytes().0;
    let error = open(size - 1).expect_err("it does not fit");
    let EngineError::OutOfMemory { what, asked, capacity, schemes, .. } = &error else { panic!("{error}") };
    assert_eq!((what.as_str(), *asked, *capacity), ("weights", size, size - 1));
    let needs = |name: &str| schemes.iter().find(|s| s.0 == name).expect("every scheme is there").1;
    assert!(needs("w4-all") < needs("w8") && needs("w8") < size && size <= needs("f16"), "{schemes:?}");
    names(
        &error,
        &["out of GPU memory: weights asked for 4.", "MiB", "it would fit packed by fathom-pack --scheme w8 ("],
    );
    names(&error, &[" or w4 (", " or w4-all ("]);
    names(&open(needs("w4-all") - 1).expect_err("nothing fits"), &["no scheme of fathom-pack fits", "w4-all ("]);

    // What comes after the weights is counted, too.
    let mut session = open(size + 1000).expect("the weights fit");
    let config = &session.loaded().model.config;
    let images = vec![ImageSpec::rgb(64, 48); config.views.len()];
    let options = ForwardOptions { images, prompt_tokens: 3, depth_map: false, guided: false, taps: false };
    let error = session.prepare(&options, &[1, 2, 3]).expect_err("its activations do not");
    assert!(matches!(&error, EngineError::OutOfMemory { what, .. } if what == "buffer arena"), "{error}");
}

#[test]
fn a_token_outside_the_vocabulary() {
    let (mut session, golden) = session();
    for token in [64, -1, i32::MAX, i32::MIN] {
        let error = session.prepare(&golden.options(), &[2, token]).expect_err("no such token");
        assert!(matches!(error, EngineError::Model(ModelError::Prompt(_))), "{error}");
        names(&error, &[&format!("token {token}: expected 0 to 63 (the vocabulary)")]);
    }
}

#[test]
fn an_inference_that_does_not_fit_what_was_prepared() {
    let (mut session, golden) = session();
    let Golden { observation, .. } = &golden;
    let images: Vec<&[u8]> = observation.images.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    let fitting = Inputs { images: &images, state: &observation.state, noise: &observation.noise };
    let infer = |inputs: &Inputs<'_>, session: &mut Session| match session.infer(inputs, false) {
        Ok(_) => panic!("it must not infer"),
        Err(error) => error,
    };
    assert!(matches!(infer(&fitting, &mut session), EngineError::Unprepared), "before prepare");

    session.prepare(&golden.options(), &observation.tokens).expect("it prepares");
    let short = [images[0], &images[1][3..]];
    let error = infer(&Inputs { images: &short, ..fitting }, &mut session);
    assert!(matches!(&error, EngineError::Input { name, .. } if name == "image.wrist"), "{error}");
    names(&error, &["expected 9216 bytes as prepared, found 9213"]);
    let error = infer(&Inputs { images: &images[..1], ..fitting }, &mut session);
    assert!(matches!(&error, EngineError::Input { name, found: 0, .. } if name == "image.wrist"), "{error}");
    let error = infer(&Inputs { noise: &observation.noise[1..], ..fitting }, &mut session);
    assert!(matches!(&error, EngineError::Input { name, .. } if name == "noise"), "{error}");
    for (state, found) in [(&[0.0; 9][..], "9 values"), (&[], "0 values"), (&[0.0, f32::NAN], "NaN at element 1")] {
        let error = infer(&Inputs { state, ..fitting }, &mut session);
        assert!(
            matches!(&error, EngineError::Model(ModelError::Observation { name, .. }) if name == "state"),
            "{error}"
        );
        names(&error, &["state: expected", found]);
    }
    session.infer(&fitting, false).expect("refused inputs leave the session as it was");

    let empty = ForwardOptions { images: vec![ImageSpec::rgb(0, 0); 2], ..golden.options() };
    let error = session.prepare(&empty, &observation.tokens).expect_err("an image without pixels");
    names(&error, &["image.base: expected 1 to 16384 pixels a side", "found 0 × 0 pixels"]);
    assert!(matches!(infer(&fitting, &mut session), EngineError::Unprepared), "after a prepare that failed");
}
