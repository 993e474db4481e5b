//! openpi's own checkpoints.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use fathom_models::families::{self};
use fathom_models::nets::config::{NormalizationMode, PromptFormat, Resize, TimeConditioning};
use fathom_models::processing::normalize::Normalization;
use fathom_tests::tensors::{Tensors, copy_golden};
use fathom_tests::{Golden, actions_on_twins};
use serde_json::{Value, json};

use super::families::{LEROBOT, actions, edit, load};

/// The lerobot golden as openpi's converter would have written it.
fn as_openpi(case: &str, views: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = copy_golden(case);
    let at = |name: &str| dir.path().join(name);
    let mut tensors = Tensors::read(&at("model.safetensors"));
    for name in tensors.0.keys().cloned().collect::<Vec<_>>() {
        tensors.rename(&name, name.strip_prefix("model.").expect("lerobot's prefix"));
    }
    tensors.write(&at("model.safetensors"));
    let mut observation = Tensors::read(&at("observation.safetensors"));
    for (old, new) in views {
        observation.rename(&format!("image.{old}"), &format!("image.{new}"));
    }
    observation.write(&at("observation.safetensors"));
    let policy: Value =
        serde_json::from_str(&std::fs::read_to_string(at("config.json")).expect("the file")).expect("JSON");
    let config = json!({"action_dim": 8, "action_horizon": policy["chunk_size"], "paligemma_variant": "gemma_2b",
                        "action_expert_variant": "gemma_300m", "precision": "float32"});
    std::fs::write(at("config.json"), config.to_string()).expect("the file is written");
    let views: Vec<&str> = views.iter().map(|v| v.1).rev().collect();
    let (tokens, steps) = (&policy["tokenizer_max_length"], &policy["num_inference_steps"]);
    edit(&at("fathom.json"), |h| {
        (h["views"], h["max_tokens"], h["steps"]) = (json!(views), tokens.clone(), steps.clone());
    });
    let mut files = std::fs::read_dir(dir.path()).expect("the folder").map(|f| f.expect("an entry").path());
    let file = files.find(|f| f.to_string_lossy().ends_with("_normalizer_processor.safetensors"));
    let file = fathom_models::checkpoint::Checkpoint::open(&file.expect("the statistics")).expect("a safetensors file");
    let lists = |key: &str| {
        let values = |list: &str| file.f32(&format!("{key}.{list}"));
        json!({"mean": values("mean"), "std": values("std"), "q01": values("q01"), "q99": values("q99")})
    };
    let stats = json!({"norm_stats": {"state": lists("observation.state"), "actions": lists("action")}});
    std::fs::create_dir_all(at("assets/lab/arm")).expect("the folder is made");
    std::fs::write(at("assets/lab/arm/norm_stats.json"), stats.to_string()).expect("the file is written");
    dir
}

/// openpi's model is lerobot's with Pillow's resize and another epsilon; missing cameras are left out.
#[test]
fn openpi_gives_what_lerobot_gives_with_its_own_processing() {
    let dir = as_openpi(LEROBOT, &[("top", "base_0_rgb"), ("wrist", "right_wrist_0_rgb")]);
    let loaded = load(dir.path());
    assert_eq!(loaded.family, "openpi");
    let config = &loaded.model.config;
    assert_eq!(config.views, ["base_0_rgb", "right_wrist_0_rgb"], "in openpi's order");
    assert_eq!(config.resize, Resize::PillowBilinear);
    assert_eq!((loaded.state_dims.clone(), loaded.action_dim), (6..=6, 7));

    let Golden { loaded: mut other, observation, .. } = Golden::load(LEROBOT);
    other.model.config.resize = Resize::PillowBilinear;
    let file = dir.path().join("assets/lab/arm/norm_stats.json");
    let mode = NormalizationMode::Zscore { eps: 1e-6 };
    other.normalization = Normalization::openpi_file(file, mode, false).expect("the statistics");
    assert!(actions(dir.path(), &loaded) == actions_on_twins(&other, &observation), "the same bits");

    edit(&dir.path().join("fathom.json"), |h| h["relative_actions"] = json!([2, -1]));
    assert_eq!(load(dir.path()).normalization.relative, [true, true, false]);
    edit(&dir.path().join("fathom.json"), |h| h["views"] = json!(["ceiling"]));
    let error = families::load(dir.path()).expect_err("no such camera").to_string();
    assert!(error.contains("base_0_rgb") && error.contains("ceiling"), "{error}");
}

#[test]
fn openpi_pi05_is_detected_by_its_tensors() {
    let dir = as_openpi("pi05_lerobot", &[("top", "base_0_rgb")]);
    let loaded = load(dir.path());
    let config = &loaded.model.config;
    assert_eq!(config.time_conditioning, TimeConditioning::AdaRms);
    assert_eq!((config.prompt, config.state_token), (PromptFormat::TaskAndState, false));
    assert_eq!(config.normalization, NormalizationMode::Quantile { eps: 1e-6 });
    assert!(actions(dir.path(), &loaded).iter().all(|v| v.is_finite()));
    edit(&dir.path().join("fathom.json"), |h| {
        (h["state_in_prompt"], h["max_tokens"]) = (json!(false), Value::Null);
    });
    let config = load(dir.path()).model.config;
    assert_eq!((config.prompt, config.max_tokens), (PromptFormat::Task, 200));

    std::fs::create_dir_all(dir.path().join("assets/other")).expect("the folder is made");
    let at = |name: &str| dir.path().join("assets").join(name).join("norm_stats.json");
    std::fs::copy(at("lab/arm"), at("other")).expect("the file is copied");
    let error = families::load(dir.path()).expect_err("which of the two").to_string();
    assert!(error.contains("asset_id") && error.contains("lab/arm") && error.contains("other"), "{error}");
    edit(&dir.path().join("fathom.json"), |h| h["asset_id"] = "lab/arm".into());
    assert_eq!(load(dir.path()).normalization.source, Some(at("lab/arm")));
}
