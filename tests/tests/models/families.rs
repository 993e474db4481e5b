//! Checkpoints as their users hold them: other names, other files, the same actions.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::path::Path;

use fathom_models::families::summary::Summary;
use fathom_models::families::{self, Family, Loaded};
use fathom_models::processing::observation::Observation;
use fathom_models::processing::prompt;
use fathom_models::{ModelError, ShardProblem, TensorProblem};
use fathom_tests::tensors::{Tensors, copy_golden};
use fathom_tests::{Golden, actions_on_twins};
use serde_json::{Value, json};

pub(super) const LEROBOT: &str = "pi0_lerobot";
const PREPROCESSOR: &str = "policy_preprocessor_step_6_normalizer_processor.safetensors";

pub(super) fn load(dir: &Path) -> Loaded {
    families::load(dir).expect("it loads")
}

pub(super) fn actions(dir: &Path, loaded: &Loaded) -> Vec<f32> {
    let observation = Observation::read(&dir.join("observation.safetensors"), loaded, 0, |_| Ok(Vec::new()));
    actions_on_twins(loaded, &observation.expect("the observation"))
}

/// What the committed golden gives, as it is.
pub(super) fn expected(case: &str) -> Vec<f32> {
    let dir = copy_golden(case);
    actions(dir.path(), &load(dir.path()))
}

pub(super) fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_str(&std::fs::read_to_string(file).expect("the file")).expect("JSON");
    change(&mut value);
    std::fs::write(file, value.to_string()).expect("the file is written");
}

/// The golden as lerobot 0.3 would have saved it: its names, its buffers, one table for text and head.
fn as_lerobot_0_3() -> tempfile::TempDir {
    let dir = copy_golden(LEROBOT);
    let file = dir.path().join("model.safetensors");
    let mut tensors = Tensors::read(&file);
    let root = "model.paligemma_with_expert.paligemma";
    for name in tensors.0.keys().cloned().collect::<Vec<_>>() {
        let Some(rest) = name.strip_prefix(&format!("{root}.model.")) else { continue };
        if let Some(rest) = rest.strip_prefix("language_model.") {
            tensors.rename(&name, &format!("{root}.language_model.model.{rest}"));
        } else {
            tensors.rename(&name, &format!("{root}.{rest}"));
        }
    }
    tensors.0.remove(&format!("{root}.lm_head.weight"));
    tensors.rename(&format!("{root}.language_model.model.embed_tokens.weight"), &format!("{root}.lm_head.weight"));
    let statistics = Tensors::read(&dir.path().join(PREPROCESSOR));
    for list in ["mean", "std"] {
        let get = |key: &str| statistics.0[&format!("{key}.{list}")].clone();
        tensors.0.insert(format!("normalize_inputs.buffer_observation_state.{list}"), get("observation.state"));
        tensors.0.insert(format!("normalize_targets.buffer_action.{list}"), get("action"));
        tensors.0.insert(format!("unnormalize_outputs.buffer_action.{list}"), get("action"));
    }
    tensors.write(&file);
    for file in std::fs::read_dir(dir.path()).expect("the folder") {
        let path = file.expect("an entry").path();
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("policy_")) {
            std::fs::remove_file(path).expect("the file is removed");
        }
    }
    dir
}

#[test]
fn lerobot_0_3_gives_the_same_bits() {
    let dir = as_lerobot_0_3();
    let loaded = load(dir.path());
    assert_eq!(loaded.normalization.source, Some(dir.path().join("model.safetensors")));
    assert!(actions(dir.path(), &loaded) == expected(LEROBOT), "the same bits");
}

#[test]
fn processor_files_win_over_buffers() {
    let dir = as_lerobot_0_3();
    let golden = copy_golden(LEROBOT);
    for file in [PREPROCESSOR, "policy_preprocessor.json"] {
        std::fs::copy(golden.path().join(file), dir.path().join(file)).expect("the file is copied");
    }
    let loaded = load(dir.path());
    assert_eq!(loaded.normalization.source, Some(dir.path().join(PREPROCESSOR)));
    assert!(loaded.normalization.action.offset.is_empty(), "there is no postprocessor, and the buffers do not count");
}

/// 0.3 pads on the left and at the top, and divides and multiplies by its own spans.
#[test]
fn lerobot_0_3_resizes_and_normalises_as_it_did() {
    let dir = as_lerobot_0_3();
    edit(&dir.path().join("config.json"), |c| {
        c["resize_imgs_with_padding"] = json!([56, 56]);
        c["normalization_mapping"] = json!({"STATE": "MIN_MAX", "ACTION": "MIN_MAX"});
    });
    let ModelError::Statistics { detail, .. } = families::load(dir.path()).expect_err("there is no min") else {
        panic!("another error")
    };
    assert!(detail.contains("normalize_inputs.buffer_observation_state.min"), "{detail}");
    let file = dir.path().join("model.safetensors");
    let mut tensors = Tensors::read(&file);
    let lists = [("normalize_inputs.buffer_observation_state", 6), ("unnormalize_outputs.buffer_action", 7)];
    for (name, n) in lists {
        let format = fathom_models::checkpoint::WeightFormat::F32;
        tensors.put(&format!("{name}.min"), format, &[n], &vec![-1.0; n]);
        tensors.put(&format!("{name}.max"), format, &[n], &vec![3.0; n]);
    }
    tensors.write(&file);
    let loaded = load(dir.path());
    let mut values = [-1.0, 1.0, 3.0];
    loaded.normalization.state.normalize(&mut values);
    assert_eq!(values, [-1.0, 0.0, 1.0]);
    loaded.normalization.action.unnormalize(&mut values);
    assert_eq!(values, [-1.0, 1.0, 3.0]);
    assert_eq!(loaded.model.config.resize, fathom_models::nets::config::Resize::TorchBilinearPadTopLeft);
    assert!(actions(dir.path(), &loaded).iter().all(|v| v.is_finite()));
}

/// What a processor does besides is not left out in silence.
#[test]
fn an_unknown_processor_step() {
    for file in ["policy_preprocessor.json", "policy_postprocessor.json"] {
        let dir = copy_golden(LEROBOT);
        edit(&dir.path().join(file), |p| p["steps"][1]["registry_name"] = "gripper_squeezer".into());
        let error = families::load(dir.path()).expect_err("an unknown step").to_string();
        assert!(error.contains(file) && error.contains("found \"gripper_squeezer\""), "{error}");
    }
}

/// What a checkpoint asks for and Fathom does not do is refused, not left out.
#[test]
fn unsupported_features_are_reported() {
    for (key, value, found) in [
        ("normalization_mapping", json!({"VISUAL": "MEAN_STD"}), "VISUAL: expected IDENTITY, found MEAN_STD"),
        ("adapt_to_pi_aloha", true.into(), "adapt_to_pi_aloha: expected false, found true"),
        ("paligemma_variant", "gemma_7b".into(), ""),
        ("use_relative_actions", true.into(), "use_relative_actions: expected false"),
        ("image_resolution", json!([56, 70]), "image_resolution: expected a square, found 56 × 70"),
    ] {
        let dir = copy_golden(LEROBOT);
        edit(&dir.path().join("fathom.json"), |h| *h = json!({"vision_heads": 4}));
        edit(&dir.path().join("config.json"), |c| c[key] = value);
        let error = families::load(dir.path()).expect_err(key);
        assert!(matches!(error, ModelError::Config(_)), "{error}");
        assert!(error.to_string().contains(key) && error.to_string().contains(found), "{error}");
    }
}

/// The tower cuts off what no patch fills; the images have the size that the policy says all the same.
#[test]
fn images_of_a_size_that_no_patch_divides() {
    let dir = copy_golden(LEROBOT);
    edit(&dir.path().join("config.json"), |c| c["image_resolution"] = json!([61, 61]));
    assert_eq!(load(dir.path()).model.config.vision.image_size, 61);
    edit(&dir.path().join("config.json"), |c| c["image_resolution"] = json!([70, 70]));
    let error = families::load(dir.path()).expect_err("25 patches, and positions of 16").to_string();
    assert!(error.contains("position_embedding"), "{error}");
}

#[test]
fn statistics_that_were_never_filled_in() {
    let dir = as_lerobot_0_3();
    let file = dir.path().join("model.safetensors");
    let mut tensors = Tensors::read(&file);
    let format = fathom_models::checkpoint::WeightFormat::F32;
    tensors.put("unnormalize_outputs.buffer_action.std", format, &[7], &[f32::INFINITY; 7]);
    tensors.write(&file);
    let error = families::load(dir.path()).expect_err("infinite statistics");
    assert!(matches!(error, ModelError::Statistics { .. }), "{error}");
    assert!(error.to_string().contains("ACTION: expected finite statistics"), "{error}");

    tensors.put("unnormalize_outputs.buffer_action.std", format, &[7], &[1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0]);
    tensors.write(&file);
    let error = families::load(dir.path()).expect_err("an element that never changed").to_string();
    assert!(error.contains("ACTION: expected a deviation") && error.contains("at element 2"), "{error}");
    edit(&dir.path().join("fathom.json"), |h| h["allow_constant"] = true.into());
    let loaded = load(dir.path());
    let mean = loaded.normalization.action.offset[2];
    assert!(actions(dir.path(), &loaded).chunks(7).all(|a| a[2] == mean), "its mean, whatever the model gave");
}

/// lerobot: `absolute = relative + state` where the mask says so, with the state of the observation.
#[test]
fn actions_relative_to_the_state() {
    let dir = copy_golden(LEROBOT);
    let absolute = expected(LEROBOT);
    let step = |steps: &mut Value, name: &str| {
        let found = steps["steps"].as_array_mut().and_then(|s| s.iter_mut().find(|s| s["registry_name"] == name));
        found.expect("the step")["config"].as_object_mut().expect("its configuration").clone_from(
            json!({"enabled": true, "exclude_joints": ["Grip"], "action_names": ["a", "left_gripper", "c"]})
                .as_object()
                .expect("an object"),
        );
    };
    edit(&dir.path().join("config.json"), |c| c["use_relative_actions"] = true.into());
    edit(&dir.path().join("policy_preprocessor.json"), |p| step(p, "relative_actions_processor"));
    let error = families::load(dir.path()).expect_err("only one way");
    assert!(error.to_string().contains("relative_actions_processor"), "{error}");
    edit(&dir.path().join("policy_postprocessor.json"), |p| step(p, "absolute_actions_processor"));
    let loaded = load(dir.path());
    let found = actions(dir.path(), &loaded);
    let observation = Observation::read(&dir.path().join("observation.safetensors"), &loaded, 0, |_| Ok(Vec::new()));
    let state = observation.expect("the observation").state;
    for (i, (found, absolute)) in found.iter().zip(&absolute).enumerate() {
        let expected = absolute + if i % 7 == 1 { 0.0 } else { state.get(i % 7).copied().unwrap_or(0.0) };
        assert_eq!(*found, expected, "element {i}");
    }
}

const INDEX: &str = "model.safetensors.index.json";
const SHARDS: [&str; 3] = ["model-1.safetensors", "model-2.safetensors", "model-3.safetensors"];

/// The golden in three files with an index, and where its tensors are.
fn sharded(case: &str) -> (tempfile::TempDir, Vec<Tensors>) {
    let dir = copy_golden(case);
    let whole = dir.path().join("model.safetensors");
    let mut shards = vec![Tensors::default(); 3];
    let mut map = serde_json::Map::new();
    for (i, (name, tensor)) in Tensors::read(&whole).0.into_iter().enumerate() {
        map.insert(name.clone(), SHARDS[i % 3].into());
        shards[i % 3].0.insert(name, tensor);
    }
    std::fs::remove_file(whole).expect("the file is removed");
    for (tensors, file) in shards.iter().zip(SHARDS) {
        tensors.write(&dir.path().join(file));
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": map});
    std::fs::write(dir.path().join(INDEX), index.to_string()).expect("the index is written");
    (dir, shards)
}

#[test]
fn a_sharded_checkpoint_gives_the_same_bits() {
    for case in [LEROBOT, "depthvla_opz"] {
        let (dir, _) = sharded(case);
        assert!(actions(dir.path(), &load(dir.path())) == expected(case), "{case}: the same bits");
    }
}

#[test]
fn shards_that_contradict_their_index() {
    let (dir, mut shards) = sharded(LEROBOT);
    let problems = |dir: &Path| match families::load(dir).expect_err("it must not load") {
        ModelError::Shards { path, problems } => {
            assert_eq!(path, dir.join(INDEX));
            problems
        }
        other => panic!("{other}"),
    };
    let (moved, tensor) = shards[0].0.pop_first().expect("a tensor");
    shards[0].write(&dir.path().join(SHARDS[0]));
    let absent = ShardProblem::Absent { name: moved.clone(), file: SHARDS[0].into() };
    assert_eq!(problems(dir.path()), std::slice::from_ref(&absent));

    let (twice, other) = shards[1].0.first_key_value().map(|(n, t)| (n.clone(), t.clone())).expect("a tensor");
    shards[2].0.insert(twice.clone(), other);
    shards[2].write(&dir.path().join(SHARDS[2]));
    let twice = ShardProblem::Twice { name: twice, files: [SHARDS[1].into(), SHARDS[2].into()] };
    let found = problems(dir.path());
    assert!(found.contains(&twice) && found.contains(&absent), "{found:?}");

    std::fs::remove_file(dir.path().join(SHARDS[1])).expect("the file is removed");
    let found = problems(dir.path());
    assert!(found.contains(&ShardProblem::NoFile { file: SHARDS[1].into() }) && found.contains(&absent), "{found:?}");
    assert_eq!(found.len(), 2, "what the lost file held is not listed again: {found:?}");

    let (dir, mut shards) = sharded(LEROBOT);
    shards[0].0.insert("surplus".into(), tensor);
    shards[0].write(&dir.path().join(SHARDS[0]));
    let error = families::load(dir.path()).expect_err("a tensor that the index does not name");
    let ModelError::Tensors { problems, .. } = &error else { panic!("{error}") };
    assert!(matches!(&problems[..], [TensorProblem::Unexpected { name, .. }] if name == "surplus"), "{error}");

    edit(&dir.path().join(INDEX), |i| i["weight_map"]["x"] = "../model-1.safetensors".into());
    let ModelError::Shards { problems, .. } = families::load(dir.path()).expect_err("out of the folder") else {
        panic!("another error")
    };
    assert_eq!(problems, [ShardProblem::NoFile { file: "../model-1.safetensors".into() }]);
}

/// The state in 256 bins, as lerobot's own processor wrote it into the text that its tokenizer got.
#[test]
fn the_state_in_the_prompt_of_pi05() {
    let golden = Golden::load("pi05_lerobot");
    assert_eq!(golden.loaded.family, "lerobot-pi05");
    let text = prompt::text(&golden.loaded, " push_the\nblock ", &golden.observation.state);
    assert_eq!(Some(text.as_str()), golden.expected.metadata("prompt"));
    let pi0 = Golden::load(LEROBOT);
    let text = |task: &str| prompt::text(&pi0.loaded, task, &pi0.observation.state);
    assert_eq!((text(" a_b").as_str(), text("a\n").as_str()), (" a_b\n", "a\n"), "lerobot cleans nothing");
}

/// What the checkpoint has and the robot lacks is left out by name: in fathom.json, or by the caller.
#[test]
fn cameras_that_the_robot_lacks_are_skipped() {
    let dir = copy_golden(LEROBOT);
    let mut called = load(dir.path());
    called.skip_views(&["top".to_owned()]).expect("wrist stays");
    edit(&dir.path().join("fathom.json"), |h| h["views"] = json!(["wrist"]));
    let loaded = load(dir.path());
    assert_eq!(loaded.model.config.views, ["wrist"]);
    assert_eq!((&loaded.skipped_views, &called.skipped_views), (&vec!["top".to_owned()], &vec!["top".to_owned()]));
    assert!(actions(dir.path(), &loaded) == actions(dir.path(), &called), "the same bits");
    assert!(actions(dir.path(), &loaded) != expected(LEROBOT), "the image was used before");
    let error = called.skip_views(&["wrist".to_owned()]).expect_err("nothing left").to_string();
    assert!(error.contains("views: expected at least one view"), "{error}");
    edit(&dir.path().join("fathom.json"), |h| h["views"] = json!(["wrist", "ceiling"]));
    let error = families::load(dir.path()).expect_err("no such camera").to_string();
    assert!(error.contains("fathom.json: views") && error.contains("ceiling"), "{error}");

    let mut depth = Golden::load("depthvla_openpi").loaded;
    let views = depth.model.config.depth.clone().expect("a depth branch").views;
    let error = depth.skip_views(&views).expect_err("nothing for the depth branch").to_string();
    assert!(error.contains("views"), "{error}");
}

/// Views have the names of the robot's cameras, where a map says which is which: lerobot's, or fathom.json's.
#[test]
fn cameras_have_the_robots_names() {
    let dir = copy_golden(LEROBOT);
    let file = dir.path().join("observation.safetensors");
    let rename = |from: &str, to: &str| {
        let mut observation = Tensors::read(&file);
        observation.rename(&format!("image.{from}"), &format!("image.{to}"));
        observation.write(&file);
    };
    edit(&dir.path().join("policy_preprocessor.json"), |p| {
        let steps = p["steps"].as_array_mut().expect("steps");
        let step = steps.iter_mut().find(|s| s["registry_name"] == "rename_observations_processor").expect("the step");
        step["config"]["rename_map"] = json!({"observation.images.overhead": "observation.images.top",
            "observation.images.left": "observation.images.wrist", "observation.images.right": "observation.images.wrist",
            "observation.joints": "observation.state"});
    });
    rename("top", "overhead");
    let loaded = load(dir.path());
    assert_eq!(loaded.model.config.views, ["overhead", "wrist"], "which of two the wrist is nobody can tell");
    assert!(actions(dir.path(), &loaded) == expected(LEROBOT), "the same bits");
    let Summary::Policy(summary) = Summary::read(dir.path(), None).expect("it is described") else {
        panic!("no policy")
    };
    assert!(summary.origin.skipped_views.is_empty(), "{summary}");
    assert!(summary.to_string().contains("overhead is the checkpoint's top"), "{summary}");

    edit(&dir.path().join("fathom.json"), |h| h["cameras"] = json!({"cam0": "wrist", "cam1": "top"}));
    rename("overhead", "cam1");
    rename("wrist", "cam0");
    let loaded = load(dir.path());
    assert_eq!(loaded.model.config.views, ["cam1", "cam0"]);
    assert!(actions(dir.path(), &loaded) == expected(LEROBOT), "the same bits");
    // Names that change places.
    edit(&dir.path().join("fathom.json"), |h| h["cameras"] = json!({"wrist": "top", "top": "wrist"}));
    assert_eq!(load(dir.path()).model.config.views, ["wrist", "top"]);
    for (cameras, found) in [
        (json!({"cam0": "ceiling"}), "ceiling"),
        (json!({"a": "top", "b": "top"}), "each once"),
        (json!({"top": "wrist"}), "views"),
    ] {
        edit(&dir.path().join("fathom.json"), |h| h["cameras"] = cameras);
        let error = families::load(dir.path()).expect_err("no such camera, or two of one name").to_string();
        assert!(error.contains(found), "{error}");
    }
}

/// A base that was made for no robot names no cameras; its user does.
#[test]
fn a_lerobot_base_without_features() {
    let dir = copy_golden(LEROBOT);
    edit(&dir.path().join("config.json"), |c| {
        (c["input_features"], c["output_features"]) = (json!({}), json!({}));
    });
    for file in ["policy_preprocessor.json", "policy_postprocessor.json"] {
        std::fs::remove_file(dir.path().join(file)).expect("the file is removed");
    }
    let error = families::load(dir.path()).expect_err("no cameras").to_string();
    assert!(error.contains("views: expected at least one view"), "{error}");
    edit(&dir.path().join("fathom.json"), |h| h["views"] = json!(["a", "b", "c"]));
    let loaded = load(dir.path());
    assert_eq!((loaded.model.config.views.len(), loaded.state_dims, loaded.action_dim), (3, 8..=8, 8));
}

#[test]
fn depth_models_are_known_and_give_no_actions() {
    let dir = copy_golden("depth_anything_relative");
    for (kind, family) in [("depth_anything", "depth-anything"), ("dinov2", "dinov2")] {
        edit(&dir.path().join("config.json"), |c| c["model_type"] = kind.into());
        let error = families::load_base(dir.path(), None).expect_err("no actions");
        assert!(matches!(error, ModelError::NoActions { family: found, .. } if found == family), "{error}");
        assert!(error.to_string().contains("fathom compose --depth"), "{error}");
    }
}

#[test]
fn a_family_that_is_named_goes_before_what_the_files_say() {
    let dir = copy_golden(LEROBOT);
    edit(&dir.path().join("config.json"), |c| c["type"] = "something_else".into());
    let error = families::load(dir.path()).expect_err("nobody knows it").to_string();
    assert!(error.contains("something_else") && error.contains("--family"), "{error}");
    let loaded = families::load_as(dir.path(), Some(&families::lerobot_pi0::FAMILY)).expect("it loads");
    assert!(actions(dir.path(), &loaded) == expected(LEROBOT), "the same bits");
    let error = families::load_as(dir.path(), Some(&families::lerobot_pi05::FAMILY))
        .expect_err("a pi0 is no pi0.5")
        .to_string();
    assert!(error.contains("time_mlp_in.weight") && error.contains("state_proj.weight"), "{error}");

    for family in families::ALL {
        assert_eq!(family.name.parse(), Ok(family));
    }
    let error = "pi".parse::<&Family>().expect_err("no family").to_string();
    assert!(families::ALL.iter().all(|f| error.contains(f.name)), "{error}");
}
