//! A model with random weights for a scene's arm. It exercises the whole path; its actions have no purpose.

use std::path::Path;

use fathom_models::ModelError;
use fathom_models::families;
use fathom_models::io::output_file;
use fathom_models::nets::config::ModelConfig;
use fathom_models::processing::tokenizer;

use crate::scene::Scene;

/// Writes a model's directory: seeded random weights, a tokenizer of bytes, and statistics that keep its actions near the
/// initial pose of the scene's arm and within its limits.
///
/// # Errors
/// [`ModelError`], if the configuration is impossible or the directory cannot be written.
pub fn write(dir: &Path, config: &ModelConfig, scene: &Scene, seed: u64) -> Result<(), ModelError> {
    families::depthvla::write_random(dir, config, seed)?;
    let file = |name: &str, json: serde_json::Value| {
        output_file::write(&dir.join(name), format!("{json:#}\n")).map_err(ModelError::from)
    };
    file("tokenizer.json", tokenizer::bytes_only(config.vocab))?;
    let joints = scene.joints();
    let mean: Vec<f32> = joints.iter().map(|j| j.initial_rad).collect();
    let spread =
        |share: f32| -> Vec<f32> { joints.iter().map(|j| (j.limits_rad[1] - j.limits_rad[0]) * share).collect() };
    let stats = serde_json::json!({ "norm_stats": {
        "state": { "mean": mean, "std": spread(0.25) },
        "actions": { "mean": mean, "std": spread(0.1) },
    } });
    file("norm_stats.json", stats)
}
