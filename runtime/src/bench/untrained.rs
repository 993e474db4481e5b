//! A model that was never trained, for the bench scene's arm: it tries the path out, and reaches for nothing.

use std::path::Path;

use fathom_models::io::output_file;
use fathom_models::nets::config::ModelConfig;
use fathom_models::processing::tokenizer;
use fathom_models::{ModelError, families};

use super::Scene;

/// Writes a model's directory: seeded random weights, a tokenizer of bytes, and statistics by which its actions are about
/// the initial pose of the scene's arm, within its limits.
///
/// # Errors
/// [`ModelError`], for a configuration that no model has, or a directory that cannot be written.
pub fn write_untrained(dir: &Path, config: &ModelConfig, scene: &Scene, seed: u64) -> Result<(), ModelError> {
    families::depthvla::write_random(dir, config, seed)?;
    let write = |name: &str, json: serde_json::Value| {
        output_file::write(&dir.join(name), format!("{json:#}\n")).map_err(ModelError::from)
    };
    write("tokenizer.json", tokenizer::bytes_only(config.vocab))?;
    let joints = scene.joints();
    let mean: Vec<f32> = joints.iter().map(|j| j.initial_rad).collect();
    let spread =
        |share: f32| -> Vec<f32> { joints.iter().map(|j| (j.limits_rad[1] - j.limits_rad[0]) * share).collect() };
    let stats = serde_json::json!({ "norm_stats": {
        "state": { "mean": mean, "std": spread(0.25) },
        "actions": { "mean": mean, "std": spread(0.1) },
    } });
    write("norm_stats.json", stats)
}
