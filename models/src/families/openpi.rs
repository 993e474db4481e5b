//! openpi's PyTorch port of pi0 and pi0.5: `config.json` as `convert_jax_model_to_pytorch.py` writes it, the tensors, and
//! `assets/<asset_id>/norm_stats.json`. The tensors decide which of the two it is.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::description::{Described, Directory, Family, Form, Mark};
use super::hints::Hints;
use super::shared::pi0::{self, Settings, Shapes};
use crate::error::{ConfigError, ModelError};
use crate::io::{is_there, json};
use crate::nets::config::{NormalizationMode, PromptFormat, Resize, TimeConditioning};
use crate::processing::normalize::Normalization;

/// openpi's pi0 and pi0.5.
pub static FAMILY: Family = Family {
    name: "openpi",
    mark: Mark::Keys(&["action_horizon", "paligemma_variant"]),
    describe,
    names: pi0::names,
    writes: |name| !name.starts_with(pi0::PREFIX),
    ignored: pi0::ignored,
    forms: &[Form::Pi0, Form::Pi05],
    views: |_, _| VIEWS.map(str::to_owned).to_vec(),
    ..Family::POLICY
};

/// The cameras of openpi's models, in the order of the prefix.
const VIEWS: [&str; 3] = ["base_0_rgb", "left_wrist_0_rgb", "right_wrist_0_rgb"];
/// Longest prompts of pi0 and pi0.5 (`Pi0Config.max_token_len`).
const MAX_TOKENS: [usize; 2] = [48, 200];
/// Default of `sample_actions`.
const STEPS: usize = 10;
/// `transforms.Normalize`.
const EPS: f32 = 1e-6;

/// The fields of the converter's `config.json` that inference depends on.
#[derive(Deserialize)]
struct Converted {
    action_dim: usize,
    action_horizon: usize,
    paligemma_variant: String,
}

fn describe(Directory { dir, path, config, checkpoint, .. }: Directory<'_>) -> Result<Described, ModelError> {
    let c: Converted = json::from_tree(&config).map_err(ModelError::json(&path))?;
    let hints = Hints::read(dir)?;
    if c.paligemma_variant != "gemma_2b" && (hints.heads.is_none() || hints.kv_heads.is_none()) {
        let field = format!("{}: paligemma_variant", path.display());
        let expected = "gemma_2b, or heads and kv_heads in fathom.json";
        return Err(ConfigError::new(field, expected, c.paligemma_variant).into());
    }

    let s = Shapes { checkpoint, names: pi0::names };
    let pi05 = s.has("time_mlp_in.weight");
    let (time_conditioning, prompt, mode) = if pi05 {
        (TimeConditioning::AdaRms, PromptFormat::TaskAndState, NormalizationMode::Quantile { eps: EPS })
    } else {
        (TimeConditioning::Token, PromptFormat::Task, NormalizationMode::Zscore { eps: EPS })
    };
    let settings = Settings {
        views: VIEWS.map(str::to_owned).to_vec(),
        resize: Resize::PillowBilinear,
        image_size: None,
        max_tokens: hints.max_tokens.unwrap_or(MAX_TOKENS[usize::from(pi05)]),
        state_dim: c.action_dim,
        action_dim: c.action_dim,
        horizon: c.action_horizon,
        steps: hints.steps.unwrap_or(STEPS),
        periods: (4e-3, 4.0),
        normalization: mode,
        time_conditioning,
        prompt: if hints.state_in_prompt == Some(false) { PromptFormat::Task } else { prompt },
        action: None,
    };
    let config = pi0::config(&s, &hints, settings)?;
    let mut normalization = match statistics(dir, hints.asset_id.as_deref())? {
        Some(path) => Normalization::openpi_file(path, mode, hints.allow_constant)?,
        None => Normalization::default(),
    };
    normalization.relative = hints.relative();
    Described::of(dir, config, normalization, ["state", "actions"])
}

/// `assets/<asset_id>/norm_stats.json`; the id may have several parts. The only one, where none is named.
fn statistics(dir: &Path, asset_id: Option<&str>) -> Result<Option<PathBuf>, ModelError> {
    let assets = dir.join("assets");
    let mut found = Vec::new();
    if is_there(&assets) {
        collect(&assets, 0, &mut found)?;
    }
    found.sort();
    let names: Vec<String> = found
        .iter()
        .filter_map(|file| Some(file.parent()?.strip_prefix(&assets).ok()?.display().to_string()))
        .collect();
    let refuse = |detail: String| Err(ModelError::statistics(&assets, detail));
    match (asset_id, found.as_slice()) {
        (Some(id), files) => match names.iter().position(|n| n == id).and_then(|i| files.get(i)) {
            Some(file) => Ok(Some(file.clone())),
            None => refuse(format!("asset_id in fathom.json: expected one of {names:?}, found {id:?}")),
        },
        (None, []) => Ok(None),
        (None, [file]) => Ok(Some(file.clone())),
        (None, _) => refuse(format!("expected asset_id in fathom.json to name one of {names:?}")),
    }
}

/// Every `norm_stats.json` below `dir`, four folders deep.
fn collect(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<(), ModelError> {
    let io = ModelError::io(dir);
    for entry in fs::read_dir(dir).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.is_dir() && depth < 4 {
            collect(&path, depth + 1, found)?;
        } else if path.file_name().is_some_and(|name| name == "norm_stats.json") {
            found.push(path);
        }
    }
    Ok(())
}
