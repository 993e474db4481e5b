//! Statistics of the robot's state and actions: into the model's range and back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::error::ModelError;
use crate::weights::Checkpoint;

/// `normalized = (x − offset) / scale`, per element; empty is identity. The inverse is exact.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Affine {
    /// Subtracted on the way in.
    pub offset: Vec<f32>,
    /// Divided by on the way in.
    pub scale: Vec<f32>,
}

impl Affine {
    /// The robot's own values to the model's.
    pub fn normalize(&self, values: &mut [f32]) {
        for ((v, offset), scale) in values.iter_mut().zip(&self.offset).zip(&self.scale) {
            *v = (*v - offset) / scale;
        }
    }

    /// The model's values to the robot's own.
    pub fn unnormalize(&self, values: &mut [f32]) {
        for ((v, offset), scale) in values.iter_mut().zip(&self.offset).zip(&self.scale) {
            *v = *v * scale + offset;
        }
    }

    fn of(parts: &[(f32, f32)]) -> Affine {
        Affine { offset: parts.iter().map(|p| p.0).collect(), scale: parts.iter().map(|p| p.1).collect() }
    }

    /// `(x − mean) / (std + eps)`.
    fn mean_std(mean: &[f32], std: &[f32], eps: f32) -> Affine {
        Affine::of(&mean.iter().zip(std).map(|(m, s)| (*m, s + eps)).collect::<Vec<_>>())
    }
}

/// How the state enters and the actions leave.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Normalization {
    /// The file the statistics came from; `None`: there are none, and identity is used.
    pub source: Option<PathBuf>,
    /// State.
    pub state: Affine,
    /// Actions.
    pub action: Affine,
}

#[derive(Deserialize)]
struct Openpi {
    norm_stats: BTreeMap<String, OpenpiStats>,
}

#[derive(Deserialize)]
struct OpenpiStats {
    mean: Vec<f32>,
    std: Vec<f32>,
}

#[derive(Deserialize)]
struct Processor {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    registry_name: String,
    #[serde(default)]
    config: serde_json::Value,
    state_file: Option<String>,
}

impl Normalization {
    /// Length of the robot's state, where the statistics tell.
    pub fn state_len(&self) -> Option<usize> {
        Some(self.state.offset.len()).filter(|n| *n > 0)
    }

    /// Length of the robot's action, where the statistics tell.
    pub fn action_len(&self) -> Option<usize> {
        Some(self.action.offset.len()).filter(|n| *n > 0)
    }

    /// openpi's `norm_stats.json` in `dir` (mean and standard deviation; eps 1e-6), or identity.
    ///
    /// # Errors
    /// [`ModelError::Json`], or [`ModelError::Statistics`] for lists of unequal length.
    pub fn openpi(dir: &Path) -> Result<Normalization, ModelError> {
        let path = dir.join("norm_stats.json");
        if !path.exists() {
            return Ok(Normalization::default());
        }
        let stats: Openpi = crate::families::read_json(&path)?;
        let affine = |name: &str| match stats.norm_stats.get(name) {
            Some(s) if s.mean.len() == s.std.len() => Ok(Affine::mean_std(&s.mean, &s.std, 1e-6)),
            Some(s) => {
                let detail =
                    format!("{name}: expected as many std as mean, found {} and {}", s.std.len(), s.mean.len());
                Err(ModelError::Statistics { path: path.clone(), detail })
            }
            None => Ok(Affine::default()),
        };
        Ok(Normalization { state: affine("state")?, action: affine("actions")?, source: Some(path.clone()) })
    }

    /// lerobot's processor files (0.4 and later) in `dir`, or identity.
    ///
    /// # Errors
    /// [`ModelError::Json`], [`ModelError::Safetensors`], or [`ModelError::Statistics`] for a mode or a tensor that is
    /// not there.
    pub fn lerobot(dir: &Path) -> Result<Normalization, ModelError> {
        let input =
            lerobot_step(dir, "policy_preprocessor.json", "normalizer_processor", "STATE", "observation.state")?;
        let output = lerobot_step(dir, "policy_postprocessor.json", "unnormalizer_processor", "ACTION", "action")?;
        let source = input.as_ref().or(output.as_ref()).map(|(path, _)| path.clone());
        Ok(Normalization {
            source,
            state: input.map(|(_, a)| a).unwrap_or_default(),
            action: output.map(|(_, a)| a).unwrap_or_default(),
        })
    }
}

/// The affine map that step `registry_name` of `file` applies to `key`, whose feature type is `kind`.
fn lerobot_step(
    dir: &Path,
    file: &str,
    registry_name: &str,
    kind: &str,
    key: &str,
) -> Result<Option<(PathBuf, Affine)>, ModelError> {
    let path = dir.join(file);
    if !path.exists() {
        return Ok(None);
    }
    let processor: Processor = crate::families::read_json(&path)?;
    for step in &processor.steps {
        let relative =
            matches!(step.registry_name.as_str(), "relative_actions_processor" | "absolute_actions_processor");
        if relative && step.config.get("enabled").and_then(serde_json::Value::as_bool) == Some(true) {
            let detail = format!("{}: expected \"enabled\": false (absolute actions), found true", step.registry_name);
            return Err(ModelError::Statistics { path, detail });
        }
    }
    let Some(step) = processor.steps.into_iter().find(|s| s.registry_name == registry_name) else { return Ok(None) };
    let mode = step.config.get("norm_map").and_then(|m| m.get(kind)).and_then(serde_json::Value::as_str);
    let eps = step.config.get("eps").and_then(serde_json::Value::as_f64).unwrap_or(1e-8) as f32;
    let Some(state_file) = step.state_file else { return Ok(None) };
    let statistics = Checkpoint::open(&dir.join(state_file))?;
    let get = |part: &str| {
        let name = format!("{key}.{part}");
        statistics.f32(&name).ok_or_else(|| ModelError::Statistics {
            path: statistics.path().to_owned(),
            detail: format!("no tensor {name}, which mode {} needs", mode.unwrap_or_default()),
        })
    };
    let range = |low: Vec<f32>, high: Vec<f32>| {
        // (x − low) / (high − low) · 2 − 1; a zero span becomes eps as in lerobot.
        let span = |l: f32, h: f32| if h == l { eps } else { h - l };
        Affine::of(
            &low.iter().zip(&high).map(|(l, h)| (l + span(*l, *h) / 2.0, span(*l, *h) / 2.0)).collect::<Vec<_>>(),
        )
    };
    let affine = match mode {
        None | Some("IDENTITY") => Affine::default(),
        // lerobot divides by std + eps on the way in, and multiplies by std alone on the way out.
        Some("MEAN_STD") => Affine::mean_std(&get("mean")?, &get("std")?, if kind == "STATE" { eps } else { 0.0 }),
        Some("MIN_MAX") => range(get("min")?, get("max")?),
        Some("QUANTILES") => range(get("q01")?, get("q99")?),
        Some(other) => {
            let detail = format!("mode of {kind}: expected IDENTITY, MEAN_STD, MIN_MAX or QUANTILES, found {other}");
            return Err(ModelError::Statistics { path, detail });
        }
    };
    Ok(Some((statistics.path().to_owned(), affine)))
}
