//! Packed checkpoints: every family's directory comes out as the same model, within what its scheme promises, and whoever
//! alters a file is found out.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;
use std::sync::atomic::AtomicBool;

use fathom_models::checkpoint::sha256::Sha256;
use fathom_models::checkpoint::{WeightFormat, random};
use fathom_models::families::{self, Family, Loaded, galaxea};
use fathom_models::nets::presets;
use fathom_models::processing::observation::Observation;
use fathom_models::quantize::PackError;
use fathom_models::quantize::pack::{self, Options, Packed, Source};
use fathom_models::quantize::scheme::{Named, Rule, Scheme};
use fathom_models::{FileProblem, ModelError};
use fathom_tests::tensors::{Tensors, copy_golden};
use fathom_tests::{actions_on_twins, cosine, on_twins, path, relative_error};
use sha2::Digest as _;

const POLICIES: [&str; 4] = ["depthvla_openpi", "depthvla_opz", "pi0_lerobot", "pi05_lerobot"];

fn try_pack(dir: &Path, output: &Path, scheme: &Scheme, family: Option<&'static Family>) -> Result<Packed, PackError> {
    pack_into(dir, output, scheme, family, pack::SHARD_BYTES)
}

fn pack_into(
    dir: &Path,
    output: &Path,
    scheme: &Scheme,
    family: Option<&'static Family>,
    shard_bytes: u64,
) -> Result<Packed, PackError> {
    let options = Options {
        scheme,
        shard_bytes,
        calibration: None,
        program: "a test",
        cancel: &AtomicBool::new(false),
        progress: &|_| {},
    };
    pack::pack(dir, &Source::open(dir, family)?, output, &options)
}

fn pack(dir: &Path, output: &Path, scheme: impl Into<Scheme>) -> Packed {
    try_pack(dir, output, &scheme.into(), None).expect("it packs")
}

fn observation(dir: &Path, loaded: &Loaded) -> Observation {
    let file = dir.join("observation.safetensors");
    Observation::read(&file, loaded, 0, |_| Ok(vec![1, 2, 3])).expect("the observation")
}

/// The small random model and an observation of noise.
fn small_model(dir: &Path) {
    let config = presets::small();
    families::depthvla::write_random(dir, &config, 0).expect("written");
    let mut tensors = Tensors::default();
    let bytes = |seed| random::normal(seed, 90 * 120 * 3).iter().map(|v| (128.0 + 40.0 * v) as u8).collect::<Vec<_>>();
    for (seed, view) in config.views.iter().enumerate() {
        tensors.0.insert(format!("image.{view}"), (safetensors::Dtype::U8, vec![90, 120, 3], bytes(seed as u64)));
    }
    tensors.put("state", WeightFormat::F32, &[7], &random::normal(5, 7));
    let words: Vec<u8> = (1..12_i32).flat_map(|token| (token * 31).to_le_bytes()).collect();
    tensors.0.insert("tokens".to_owned(), (safetensors::Dtype::I32, vec![11], words));
    tensors.write(&dir.join("observation.safetensors"));
}

/// A packed directory of any family is loaded by its own family's code, and is the source but for its weights.
#[test]
fn every_family_comes_out_as_the_same_model() {
    for case in POLICIES {
        let dir = copy_golden(case);
        let loaded = families::load(dir.path()).expect("the golden model");
        let expected = actions_on_twins(&loaded, &observation(dir.path(), &loaded));
        for (scheme, bound) in [(Named::F16, 5e-3), (Named::W8, 0.05), (Named::W4, 0.5), (Named::W4All, 0.7)] {
            let output = dir.path().join(scheme.name());
            let packed = pack(dir.path(), &output, scheme);
            let again = families::load(&output).expect("it loads without being told its family");
            assert_eq!(again.family, loaded.family);
            assert_eq!(again.model.config, loaded.model.config, "{case}");
            assert_eq!((&again.state_dims, again.action_dim), (&loaded.state_dims, loaded.action_dim), "{case}");
            assert_eq!(again.normalization.state, loaded.normalization.state, "{case}");
            assert_eq!(again.normalization.action, loaded.normalization.action, "{case}");
            assert_eq!(again.normalization.relative, loaded.normalization.relative, "{case}");
            let actions = actions_on_twins(&again, &observation(&output, &again));
            let error = relative_error(&expected, &actions);
            println!("{case} {}: {error:.1e} in {:?}", scheme.name(), packed.bytes);
            assert!(error > 0.0 && error < bound, "{case} {}: {error}", scheme.name());
        }
    }
    for case in ["depth_anything_metric", "depth_anything_relative"] {
        let dir = copy_golden(case);
        let output = dir.path().join("packed");
        assert!(pack(dir.path(), &output, Named::W8).bytes["w8"] > 0);
        let (source, again) = (Source::open(dir.path(), None), Source::open(&output, None));
        assert_eq!(again.expect("loads").difference(&source.expect("loads")), None);
    }
}

/// lerobot 0.3 keeps its statistics among the weights; Galaxea is known by name only; both come through.
#[test]
fn statistics_among_the_weights_and_a_family_by_name_come_through() {
    let dir = copy_golden("pi0_lerobot");
    let file = dir.path().join("model.safetensors");
    let mut tensors = Tensors::read(&file);
    for (name, n) in [("normalize_inputs.buffer_observation_state", 6), ("unnormalize_outputs.buffer_action", 7)] {
        tensors.put(&format!("{name}.mean"), WeightFormat::F32, &[n], &random::normal(1, n));
        tensors.put(&format!("{name}.std"), WeightFormat::F32, &[n], &vec![2.0; n]);
    }
    tensors.write(&file);
    for processors in ["policy_preprocessor.json", "policy_postprocessor.json"] {
        std::fs::remove_file(dir.path().join(processors)).expect("it is there");
    }
    let loaded = families::load(dir.path()).expect("loads");
    let output = dir.path().join("packed");
    pack(dir.path(), &output, Named::W4);
    let again = families::load(&output).expect("loads");
    assert_eq!(loaded.normalization.source, Some(file));
    assert_eq!(again.normalization.source, Some(output.join("model.safetensors")));
    assert_eq!(again.normalization.state, loaded.normalization.state);

    // A model of open-pi-zero's names without a configuration of its own.
    let dir = copy_golden("depthvla_opz");
    let mut tensors = Tensors::read(&dir.path().join("model.safetensors"));
    tensors.0.retain(|name, _| !name.contains("depth"));
    tensors.write(&dir.path().join("model.safetensors"));
    std::fs::remove_file(dir.path().join("config.json")).expect("it is there");
    std::fs::write(dir.path().join("fathom.json"), r#"{"heads": 6, "kv_heads": 2, "vision_heads": 4}"#)
        .expect("written");
    let (output, family) = (dir.path().join("packed"), Some(&galaxea::FAMILY));
    try_pack(dir.path(), &output, &Named::W8.into(), family).expect("it packs");
    assert_eq!(families::load(&output).expect("loads").family, galaxea::FAMILY.name);
}

/// What the schemes promise on the small random model: cosines of every stage with the f32 twins of the source.
#[test]
fn every_stage_of_every_scheme_is_near_the_f32_twin() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("model");
    small_model(&dir);
    let loaded = families::load(&dir).expect("loads");
    let given = observation(&dir, &loaded);
    let expected = on_twins(&loaded, &given, true);
    // At the actions, and at the worst stage (a single velocity, or the last keys of the state).
    for (scheme, bound, of_all) in
        [(Named::F16, 0.9999, 0.9999), (Named::W8, 0.999, 0.998), (Named::W4, 0.99, 0.97), (Named::W4All, 0.96, 0.85)]
    {
        let output = folder.path().join(scheme.name());
        pack(&dir, &output, scheme);
        let again = families::load(&output).expect("loads");
        let stages = on_twins(&again, &given, true);
        assert_eq!(stages.len(), expected.len());
        let cosines = stages.iter().map(|(name, values)| (cosine(&expected[name], values), name));
        let worst = cosines.min_by(|a, b| a.0.total_cmp(&b.0)).expect("stages");
        let actions = cosine(&expected["actions"], &stages["actions"]);
        println!("{}: actions {actions:.6}, worst stage {:.6} in {}", scheme.name(), worst.0, worst.1);
        assert!(actions >= bound, "{}: actions {actions}, expected {bound}", scheme.name());
        assert!(worst.0 >= of_all, "{}: {} in {}, expected {of_all}", scheme.name(), worst.0, worst.1);
    }
}

/// The weights of one file or of another that has been altered, cut, or lost.
#[test]
fn an_altered_file_is_found_out() {
    let dir = copy_golden("depthvla_openpi");
    let output = dir.path().join("packed");
    pack(dir.path(), &output, Named::W8);
    let alter = |file: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let path = output.join(file);
        let whole = std::fs::read(&path).expect("the file");
        let mut bytes = whole.clone();
        change(&mut bytes);
        std::fs::write(&path, bytes).expect("written");
        let error = families::load(&output).expect_err("it must not load");
        std::fs::write(&path, whole).expect("written");
        let ModelError::Altered { problems, path } = &error else { panic!("{error}") };
        assert_eq!((problems.len(), path.file_name()), (1, Some("manifest.json".as_ref())), "{error}");
        (problems[0].clone(), error.to_string())
    };
    let (problem, text) = alter("model.safetensors", &|bytes| *bytes.last_mut().expect("bytes") ^= 1);
    let FileProblem::Hash { file, expected, found } = problem else { panic!("{text}") };
    assert!(text.contains(&expected) && text.contains(&found) && file == "model.safetensors", "{text}");
    let (problem, text) = alter("config.json", &|bytes| bytes.push(b' '));
    assert!(matches!(problem, FileProblem::Size { .. }), "{text}");
    std::fs::rename(output.join("config.json"), output.join("away")).expect("moved");
    let error = families::load(&output).expect_err("a file is gone").to_string();
    assert!(error.contains("unreadable") && error.contains("config.json"), "{error}");
    std::fs::rename(output.join("away"), output.join("config.json")).expect("moved");
    families::load(&output).expect("it is as it was");
}

/// More weights than a file takes become several files and an index, and the same model.
#[test]
fn many_weights_become_several_files() {
    let dir = copy_golden("pi0_lerobot");
    let (one, many) = (dir.path().join("one"), dir.path().join("many"));
    pack(dir.path(), &one, Named::W4);
    pack_into(dir.path(), &many, &Named::W4.into(), None, 50_000).expect("it packs");
    let files = std::fs::read_dir(&many).expect("the folder").flatten();
    let files: Vec<String> = files.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    assert!(files.contains(&"model.safetensors.index.json".to_owned()), "{files:?}");
    assert!(files.iter().filter(|f| f.starts_with("model-0")).count() > 3, "{files:?}");
    let [one, many] = [one, many].map(|dir| {
        let loaded = families::load(&dir).expect("it loads");
        actions_on_twins(&loaded, &observation(&dir, &loaded))
    });
    assert!(one == many, "the same bits");
}

#[test]
fn a_failure_to_pack_has_its_reason() {
    let dir = copy_golden("depthvla_openpi");
    let output = dir.path().join("packed");
    pack(dir.path(), &output, Named::W8);
    let refuse = |from: &Path, to: &str, scheme: Scheme, parts: &[&str]| {
        let error = try_pack(from, &dir.path().join(to), &scheme, None).expect_err("it must not pack").to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        let hidden = |e: &std::fs::DirEntry| e.file_name().to_string_lossy().starts_with('.');
        let left = std::fs::read_dir(dir.path()).expect("the folder").flatten().find(hidden);
        assert!(left.is_none() && (to == "packed" || !dir.path().join(to).exists()), "{left:?} was left");
    };
    refuse(dir.path(), "packed", Named::W8.into(), &["packed", "expected nothing there"]);
    refuse(
        &output,
        "twice",
        Named::W4.into(),
        &["expected f32, f16 or bf16 to pack, found w8", "pack the checkpoint that"],
    );
    let rule = |tensors: &str, format: &str| Rule {
        tensors: vec![tensors.to_owned()],
        except: Vec::new(),
        format: format.to_owned(),
        group: None,
        minima: None,
    };
    let scheme = |rule| Scheme { base: Named::F16, rules: vec![rule] };
    refuse(dir.path(), "new", scheme(rule("nothing.*", "w8")), &["nothing.*", "names no weight"]);
    refuse(dir.path(), "new", scheme(rule("depth_encoder.encoder*", "w4")), &["depth_encoder", "group that divides"]);
    // A weight beyond f16 stays where a rule says so.
    let file = dir.path().join("model.safetensors");
    let mut tensors = Tensors::read(&file);
    let name = "action_decoder.weight";
    let (shape, mut values) = tensors.values(name);
    values[3] = 1e6;
    tensors.put(name, WeightFormat::Bf16, &shape, &values);
    tensors.write(&file);
    refuse(dir.path(), "new", Named::F16.into(), &[name, "65504", "bf16 or f32"]);
    let kept = scheme(rule(name, "bf16"));
    try_pack(dir.path(), &dir.path().join("kept"), &kept, None).expect("it packs");
}

/// A scheme's file is as good as its name; the metadata and the manifest say which it was.
#[test]
fn a_scheme_of_rules_is_written_down() {
    let dir = copy_golden("depthvla_openpi");
    let file = dir.path().join("scheme.toml");
    let text = "base = \"w8\"\n[[rule]]\ntensors = [\"joint_model.mixtures.vlm.layers.0.mlp.*\"]\nformat = \"w4\"\ngroup = 64\n";
    std::fs::write(&file, text).expect("written");
    let scheme = Scheme::open(file.to_str().expect("UTF-8")).expect("a scheme");
    let output = dir.path().join("packed");
    let packed = pack(dir.path(), &output, scheme.clone());
    assert!(packed.bytes.contains_key("w4 g64") && packed.bytes.contains_key("w8"), "{packed:?}");
    let manifest = fathom_models::quantize::Manifest::read(&output).expect("JSON").expect("a manifest");
    assert_eq!(manifest.scheme, scheme);
    assert_eq!(manifest.source.family, "depthvla");
    let source = std::fs::read(dir.path().join("model.safetensors")).expect("the source");
    let crates = |bytes: &[u8]| sha2::Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect::<String>();
    assert_eq!(manifest.source.files["model.safetensors"].sha256, crates(&source));
    for n in [1, 55, 56, 63, 64, 65, 1000] {
        let mut hash = Sha256::default();
        hash.update(&source[..n]);
        assert_eq!(hash.finish(), crates(&source[..n]), "{n} bytes");
    }
    let error = Scheme::open("w5").expect_err("no such scheme").to_string();
    assert!(error.contains("f16, w8, w4, w4-all") && error.contains("w5"), "{error}");
    let golden = path("golden/depthvla_openpi/model.safetensors");
    assert!(source == std::fs::read(golden).expect("the golden"), "the source is as it was");
}
