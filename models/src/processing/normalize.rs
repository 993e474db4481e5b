//! Statistics of the robot's state and actions: into the model's range and back.

use std::path::{Path, PathBuf};

use crate::error::ModelError;
use crate::io::is_there;
use crate::io::json::{At, read_tree};
use crate::nets::config::NormalizationMode;

/// `normalized = (x − offset) / scale`, per element; empty is identity.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Affine {
    /// Subtracted on the way in.
    pub offset: Vec<f32>,
    /// Divided by on the way in. 0 is a constant element: it becomes 0 on the way in, and its offset on the way out.
    pub scale: Vec<f32>,
    /// Bound on normalised values, if any.
    pub clip: Option<f32>,
}

/// A list of statistics, and the treatment of an element that never changed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StatisticsSource<'a> {
    /// The file.
    pub(crate) path: &'a Path,
    /// State or actions, as the file calls them.
    pub(crate) what: &'a str,
    /// Whether an element without any spread is a constant one; else it is an error.
    pub(crate) allow_constant: bool,
}

/// One element: the offset, the divisor, and the spread in the statistics.
pub(crate) struct Element {
    pub(crate) offset: f32,
    pub(crate) scale: f32,
    pub(crate) spread: f32,
}

impl Affine {
    /// The robot's own values to the model's.
    pub fn normalize(&self, values: &mut [f32]) {
        for ((v, offset), scale) in values.iter_mut().zip(&self.offset).zip(&self.scale) {
            *v = if *scale == 0.0 { 0.0 } else { (*v - offset) / scale };
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

    /// The map of these elements. Elements at the end whose statistics are all 0 are padding, and constant.
    ///
    /// # Errors
    /// [`ModelError::Statistics`] naming the element: for NaN, infinity or a negative spread, and for no spread at all
    /// where `source` does not allow it.
    pub(crate) fn of(source: StatisticsSource<'_>, elements: &[Element]) -> Result<Affine, ModelError> {
        let empty = |e: &Element| e.offset == 0.0 && e.spread == 0.0;
        let used = elements.iter().rposition(|e| !empty(e)).map_or(0, |last| last + 1);
        let refuse = |detail| Err(ModelError::statistics(source.path, detail));
        let mut affine = Affine::default();
        for (i, Element { offset, scale, spread }) in elements.iter().enumerate() {
            let what = source.what;
            if !(offset.is_finite() && scale.is_finite() && *spread >= 0.0) {
                return refuse(format!(
                    "{what}: expected finite statistics, found offset {offset}, spread {spread} at element {i}"
                ));
            }
            let constant = *spread == 0.0;
            if constant && i < used && !source.allow_constant {
                return refuse(format!(
                    "{what}: expected a deviation or span above 0, found 0 at element {i}: either it is not what the \
                     model was trained with, or the element never changed there, which \"allow_constant\": true in \
                     fathom.json accepts"
                ));
            }
            affine.offset.push(*offset);
            affine.scale.push(if constant { 0.0 } else { *scale });
        }
        Ok(affine)
    }

    /// `(x − low) / span · 2 − 1`.
    pub(crate) fn range(
        source: StatisticsSource<'_>,
        low: &[f32],
        high: &[f32],
        span: impl Fn(f32, f32) -> f32,
    ) -> Result<Affine, ModelError> {
        let element = |(l, h): (&f32, &f32)| {
            let half = span(*l, *h) / 2.0;
            Element { offset: if h == l { *l } else { l + half }, scale: half, spread: h - l }
        };
        Affine::of(source, &low.iter().zip(high).map(element).collect::<Vec<_>>())
    }

    /// `(x − mean) / (std + eps)`.
    pub(crate) fn mean_std(
        source: StatisticsSource<'_>,
        mean: &[f32],
        std: &[f32],
        eps: f32,
    ) -> Result<Affine, ModelError> {
        let element = |(m, s): (&f32, &f32)| Element { offset: *m, scale: s + eps, spread: *s };
        Affine::of(source, &mean.iter().zip(std).map(element).collect::<Vec<_>>())
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
    /// Actions step by step, where each step of a chunk has statistics of its own; the last serves those beyond.
    pub steps: Vec<Affine>,
    /// Elements of an action that are relative to the state of the same element; shorter than an action where the rest
    /// is absolute.
    pub relative: Vec<bool>,
}

impl Normalization {
    /// Length of the robot's state, if the statistics give it.
    pub fn state_len(&self) -> Option<usize> {
        Some(self.state.offset.len()).filter(|n| *n > 0)
    }

    /// Length of the robot's action, if the statistics give it.
    pub fn action_len(&self) -> Option<usize> {
        Some(self.action.offset.len()).filter(|n| *n > 0)
    }

    /// The map of the actions of step `step`.
    pub fn action_at(&self, step: usize) -> &Affine {
        self.steps.get(step).or(self.steps.last()).unwrap_or(&self.action)
    }

    /// openpi's `norm_stats.json` in `dir`, used in this mode, or identity. With `allow_constant` an element without any
    /// spread becomes 0 on the way in, and its mean on the way out.
    ///
    /// # Errors
    /// [`ModelError::File`], or [`ModelError::Statistics`] for a list that the mode needs and the file lacks, that has
    /// another length, or with an impossible value.
    pub fn openpi(dir: &Path, mode: NormalizationMode, allow_constant: bool) -> Result<Normalization, ModelError> {
        let path = dir.join("norm_stats.json");
        if is_there(&path) {
            Normalization::openpi_file(path, mode, allow_constant)
        } else {
            Ok(Normalization::default())
        }
    }

    /// openpi's statistics in the file `path`.
    ///
    /// # Errors
    /// As [`openpi`](Self::openpi).
    pub fn openpi_file(
        path: PathBuf,
        mode: NormalizationMode,
        allow_constant: bool,
    ) -> Result<Normalization, ModelError> {
        let tree = read_tree(&path)?;
        let json = ModelError::json(&path);
        let root = At::root(&tree);
        let stats = root.get("norm_stats").ok_or_else(|| json(root.wrong("an object with the key norm_stats")))?;
        stats.entries().map_err(json)?;
        let affine = |name: &str| {
            let Some(lists) = stats.get(name) else { return Ok(Affine::default()) };
            lists.entries().map_err(json)?;
            let names = match mode {
                NormalizationMode::Zscore { .. } => ["mean", "std"],
                NormalizationMode::Quantile { .. } => ["q01", "q99"],
                NormalizationMode::Minmax { .. } => ["min", "max"],
            };
            // Only the lists of the mode are read: the others may hold anything.
            let list = |name| lists.some(name).map(|list| list.read::<Vec<f32>>().map_err(json)).transpose();
            let [first, second] = names.map(list);
            let (Some(first), Some(second)) = (first?, second?) else {
                let detail = format!("{name}: expected the lists {names:?}, found not both");
                return Err(ModelError::statistics(&path, detail));
            };
            if first.len() != second.len() {
                let detail =
                    format!("{name}: expected {names:?} of one length, found {} and {}", first.len(), second.len());
                return Err(ModelError::statistics(&path, detail));
            }
            let source = StatisticsSource { path: &path, what: name, allow_constant };
            match mode {
                NormalizationMode::Zscore { eps } => Affine::mean_std(source, &first, &second, eps),
                NormalizationMode::Quantile { eps } | NormalizationMode::Minmax { eps } => {
                    Affine::range(source, &first, &second, |low, high| high - low + eps)
                }
            }
        };
        let (state, action) = (affine("state")?, affine("actions")?);
        Ok(Normalization { state, action, source: Some(path.clone()), ..Normalization::default() })
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
            let n = Normalization::openpi(dir.path(), mode, false).expect("statistics");
            let mut values = [3.0, 5.0];
            n.state.normalize(&mut values);
            assert!(
                values.iter().zip(expected).all(|(v, e): (&f32, f32)| (v - e).abs() < 1e-6),
                "{mode:?}: {values:?}"
            );
            n.state.unnormalize(&mut values);
            assert!((values[0] - 3.0).abs() < 1e-6 && (values[1] - 5.0).abs() < 1e-6, "{mode:?} back: {values:?}");
        }
        let minmax = Normalization::openpi(dir.path(), NormalizationMode::Minmax { eps }, false);
        let error = minmax.expect_err("actions have no min");
        assert!(error.to_string().contains("actions") && error.to_string().contains("min"), "{error}");
    }

    /// Impossible statistics are rejected, element by element; a constant element unless it is allowed.
    #[test]
    fn statistics_without_spread() {
        let source = |allow_constant| StatisticsSource { path: Path::new("stats.json"), what: "state", allow_constant };
        let zscore = |std: [f32; 4], allow| Affine::mean_std(source(allow), &[1.0, 2.0, 0.0, 0.0], &std, 1e-6);
        for wrong in [f32::NAN, f32::INFINITY, -1.0] {
            let error = zscore([1.0, wrong, 1.0, 1.0], true).expect_err("never").to_string();
            assert!(error.contains("stats.json: state: expected finite") && error.contains("at element 1"), "{error}");
        }
        let error = zscore([1.0, 0.0, 1.0, 1.0], false).expect_err("not unless allowed").to_string();
        assert!(error.contains("found 0 at element 1") && error.contains("allow_constant"), "{error}");
        let affine = zscore([1.0, 0.0, 0.0, 0.0], true).expect("allowed");
        let mut values = [1.0, 9.0, 9.0, 9.0];
        affine.normalize(&mut values);
        assert_eq!(values, [0.0; 4]);
        values = [0.0, 5.0, 5.0, 5.0];
        affine.unnormalize(&mut values);
        assert_eq!(values, [1.0, 2.0, 0.0, 0.0], "the means");
        assert!(zscore([1.0, 1.0, 0.0, 0.0], false).is_ok(), "padding");

        let range = |high, allow| Affine::range(source(allow), &[0.0, 3.0], &[1.0, high], |l, h| h - l + 1e-6);
        assert!(range(3.0, false).is_err() && range(2.0, true).is_err() && range(f32::NAN, true).is_err());
        let mut values = [0.5, 7.0];
        range(3.0, true).expect("allowed").unnormalize(&mut values);
        assert_eq!(values[1], 3.0);
    }
}
