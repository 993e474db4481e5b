//! Statistics of the robot's state and actions: into the model's range and back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::config::NormalizationMode;
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

    /// `(x − low) / span · 2 − 1`.
    fn range(low: &[f32], high: &[f32], span: impl Fn(f32, f32) -> f32) -> Affine {
        let half = |(l, h): (&f32, &f32)| (l + span(*l, *h) / 2.0, span(*l, *h) / 2.0);
        Affine::of(&low.iter().zip(high).map(half).collect::<Vec<_>>())
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
    mean: Option<Vec<f32>>,
    std: Option<Vec<f32>>,
    q01: Option<Vec<f32>>,
    q99: Option<Vec<f32>>,
    min: Option<Vec<f32>>,
    max: Option<Vec<f32>>,
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

    /// openpi's `norm_stats.json` in `dir`, used in this mode, or identity.
    ///
    /// # Errors
    /// [`ModelError::Json`], or [`ModelError::Statistics`] for a list that the mode needs and the file lacks, or that has
    /// another length.
    pub fn openpi(dir: &Path, mode: NormalizationMode) -> Result<Normalization, ModelError> {
        let path = dir.join("norm_stats.json");
        if !path.exists() {
            return Ok(Normalization::default());
        }
        let stats: Openpi = crate::families::read_json(&path)?;
        let affine = |name: &str| {
            let Some(s) = stats.norm_stats.get(name) else { return Ok(Affine::default()) };
            let (names, lists) = match mode {
                NormalizationMode::Zscore { .. } => (["mean", "std"], [&s.mean, &s.std]),
                NormalizationMode::Quantile { .. } => (["q01", "q99"], [&s.q01, &s.q99]),
                NormalizationMode::Minmax { .. } => (["min", "max"], [&s.min, &s.max]),
            };
            let [Some(first), Some(second)] = lists.map(Option::as_deref) else {
                let detail = format!("{name}: expected the lists {names:?}, found not both");
                return Err(ModelError::Statistics { path: path.clone(), detail });
            };
            if first.len() != second.len() {
                let detail =
                    format!("{name}: expected {names:?} of one length, found {} and {}", first.len(), second.len());
                return Err(ModelError::Statistics { path: path.clone(), detail });
            }
            Ok(match mode {
                NormalizationMode::Zscore { eps } => Affine::mean_std(first, second, eps),
                NormalizationMode::Quantile { eps } | NormalizationMode::Minmax { eps } => {
                    Affine::range(first, second, |low, high| high - low + eps)
                }
            })
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
    // lerobot: a span of zero becomes eps.
    let range =
        |low: Vec<f32>, high: Vec<f32>| Affine::range(&low, &high, |l: f32, h: f32| if h == l { eps } else { h - l });
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Each mode by its formula, and back; a list that the mode needs and the file lacks is named.
    #[test]
    fn openpi_statistics_in_all_modes() {
        let dir = tempfile::tempdir().expect("a folder");
        let json = r#"{"norm_stats": {"state": {"mean": [1, 2], "std": [2, 4], "q01": [0, 1], "q99": [4, 3], "min": [-1, 0], "max": [3, 8]},
                                      "actions": {"mean": [0], "std": [1], "q01": [0], "q99": [1]}}}"#;
        std::fs::write(dir.path().join("norm_stats.json"), json).expect("written");
        let eps = 0.5;
        for (mode, expected) in [
            (NormalizationMode::Zscore { eps }, [(3.0 - 1.0) / 2.5, (5.0 - 2.0) / 4.5]),
            (NormalizationMode::Quantile { eps }, [3.0 / 4.5 * 2.0 - 1.0, 4.0 / 2.5 * 2.0 - 1.0]),
        ] {
            let n = Normalization::openpi(dir.path(), mode).expect("statistics");
            let mut values = [3.0, 5.0];
            n.state.normalize(&mut values);
            assert!(
                values.iter().zip(expected).all(|(v, e): (&f32, f32)| (v - e).abs() < 1e-6),
                "{mode:?}: {values:?}"
            );
            n.state.unnormalize(&mut values);
            assert!((values[0] - 3.0).abs() < 1e-6 && (values[1] - 5.0).abs() < 1e-6, "{mode:?} back: {values:?}");
        }
        let error =
            Normalization::openpi(dir.path(), NormalizationMode::Minmax { eps }).expect_err("actions have no min");
        assert!(error.to_string().contains("actions") && error.to_string().contains("min"), "{error}");
    }
}
