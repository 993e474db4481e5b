//! Fathom's own DepthVLA: `config.json` is a [`ModelConfig`] with `"model_type": "depthvla"`.

use std::fs;
use std::path::Path;

use super::description::{Described, Directory, Family, Form, Mark};
use super::hints::Hints;
use crate::checkpoint::save::{Saved, Values, write_tensors};
use crate::error::ModelError;
use crate::graph::params::Role;
use crate::io::{json, output_file};
use crate::nets::config::ModelConfig;
use crate::nets::depthvla::Model;
use crate::processing::normalize::Normalization;

/// Fathom's own DepthVLA.
pub static FAMILY: Family = Family {
    name: "depthvla",
    mark: Mark::ModelType(MODEL_TYPE),
    describe,
    sizes_in_config: true,
    forms: &[Form::DepthVla],
    ..Family::POLICY
};

const MODEL_TYPE: &str = "depthvla";

fn describe(Directory { dir, path, mut config, .. }: Directory<'_>) -> Result<Described, ModelError> {
    config.remove("model_type");
    let config: ModelConfig = json::from_tree(&config).map_err(ModelError::json(&path))?;
    let normalization = Normalization {
        relative: config.relative_actions.clone(),
        ..Normalization::openpi(dir, config.normalization, Hints::read(dir)?.allow_constant)?
    };
    Described::of(dir, config, normalization, ["state", "actions"])
}

/// Writes `config.json` and `model.safetensors` into `dir`, which is created. The weights appear whole or not at all.
///
/// # Errors
/// [`ModelError::File`] when the directory cannot be written, [`ModelError::Safetensors`] for bytes that do not fit a shape.
pub fn write(dir: &Path, config: &ModelConfig, tensors: &[Saved<'_>]) -> Result<(), ModelError> {
    fs::create_dir_all(dir).map_err(ModelError::io(dir))?;
    write_tensors(&dir.join("model.safetensors"), tensors)?;
    let path = dir.join("config.json");
    let json = ModelError::json(&path);
    let mut config = serde_json::to_value(config).map_err(json)?;
    if let Some(object) = config.as_object_mut() {
        object.insert("model_type".to_owned(), MODEL_TYPE.into());
    }
    let text = serde_json::to_string_pretty(&config).map_err(json)?;
    Ok(output_file::write(&path, text)?)
}

/// Writes a directory with `config.json` and seeded random bf16 weights for `config`.
///
/// Matrices have standard deviation `1/√K`, so that activations stay of order one; everything else 0.1, around 1
/// where a LayerNorm or a layer scale multiplies.
///
/// # Errors
/// [`ModelError::Config`], or [`ModelError::File`] when the directory cannot be written.
pub fn write_random(dir: &Path, config: &ModelConfig, seed: u64) -> Result<(), ModelError> {
    let model = Model::new(config.clone())?;
    let used = model.params.params.iter().filter(|p| p.role != Role::Unused);
    let saved: Vec<Saved<'_>> = used.map(|param| Saved::of(param, Values::Random(param, seed))).collect();
    write(dir, config, &saved)
}
