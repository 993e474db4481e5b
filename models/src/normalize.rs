//! Statistics of the robot's state and actions: into the model's range and back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// How state and actions are brought into the model's range and back (openpi `transforms.Normalize`).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "snake_case", deny_unknown_fields)]
pub enum NormalizationMode {
    /// `(x − mean) / (std + eps)`.
    Zscore {
        /// Keeps a constant value from dividing by zero.
        eps: f32,
    },
    /// `(x − q01) / (q99 − q01 + eps) · 2 − 1`.
    Quantile {
        /// As above.
        eps: f32,
    },
    /// `(x − min) / (max − min + eps) · 2 − 1`.
    Minmax {
        /// As above.
        eps: f32,
    },
}

impl Default for NormalizationMode {
    /// openpi's for pi0.
    fn default() -> NormalizationMode {
        NormalizationMode::Zscore { eps: 1e-6 }
    }
}

/// `normalized = (x − offset) / scale`, per element; empty is identity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Affine {
    /// Subtracted on the way in.
    pub offset: Vec<f32>,
    /// Divided by on the way in.
    pub scale: Vec<f32>,
    /// Bound on what comes of it on the way in, where given.
    pub clip: Option<f32>,
}

impl Affine {
    /// The robot's own values to the model's.
    pub fn normalize(&self, values: &mut [f32]) {
        for ((v, offset), scale) in values.iter_mut().zip(&self.offset).zip(&self.scale) {
            *v = (*v - offset) / scale;
            if let Some(clip) = self.clip {
                *v = v.clamp(-clip, clip);
            }
        }
    }

    /// The model's values to the robot's own.
    pub fn unnormalize(&self, values: &mut [f32]) {
        for ((v, offset), scale) in values.iter_mut().zip(&self.offset).zip(&self.scale) {
            *v = *v * scale + offset;
        }
    }

    /// Itself, where every number is finite.
    ///
    /// # Errors
    /// [`ModelError::Statistics`] naming `what` and the element.
    pub(crate) fn finite(self, path: &Path, what: &str) -> Result<Affine, ModelError> {
        let pairs = self.offset.iter().zip(&self.scale).enumerate();
        match pairs.into_iter().find(|(_, (offset, scale))| !offset.is_finite() || !scale.is_finite()) {
            Some((i, (offset, scale))) => {
                let detail =
                    format!("{what}: expected finite statistics, found offset {offset}, scale {scale} at element {i}");
                Err(ModelError::Statistics { path: path.to_owned(), detail })
            }
            None => Ok(self),
        }
    }

    fn of(parts: &[(f32, f32)]) -> Affine {
        Affine { offset: parts.iter().map(|p| p.0).collect(), scale: parts.iter().map(|p| p.1).collect(), clip: None }
    }

    /// `(x − low) / span · 2 − 1`.
    pub(crate) fn range(low: &[f32], high: &[f32], span: impl Fn(f32, f32) -> f32) -> Affine {
        let half = |(l, h): (&f32, &f32)| (l + span(*l, *h) / 2.0, span(*l, *h) / 2.0);
        Affine::of(&low.iter().zip(high).map(half).collect::<Vec<_>>())
    }

    /// `(x − mean) / (std + eps)`.
    pub(crate) fn mean_std(mean: &[f32], std: &[f32], eps: f32) -> Affine {
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
    /// Elements of an action that are relative to the state of the same element; shorter than an action where the rest
    /// is absolute.
    pub relative: Vec<bool>,
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
        if path.exists() { Normalization::openpi_file(path, mode) } else { Ok(Normalization::default()) }
    }

    /// openpi's statistics in the file `path`.
    ///
    /// # Errors
    /// As [`openpi`](Self::openpi).
    pub fn openpi_file(path: PathBuf, mode: NormalizationMode) -> Result<Normalization, ModelError> {
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
            let affine = match mode {
                NormalizationMode::Zscore { eps } => Affine::mean_std(first, second, eps),
                NormalizationMode::Quantile { eps } | NormalizationMode::Minmax { eps } => {
                    Affine::range(first, second, |low, high| high - low + eps)
                }
            };
            affine.finite(&path, name)
        };
        let (state, action) = (affine("state")?, affine("actions")?);
        Ok(Normalization { state, action, source: Some(path.clone()), relative: Vec::new() })
    }
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
