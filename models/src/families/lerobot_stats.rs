//! lerobot's statistics: processor files (0.4 and later), or buffers beside the weights (0.3 and before).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::read_json;
use crate::error::ModelError;
use crate::normalize::{Affine, Normalization};
use crate::weights::Checkpoint;

#[derive(Deserialize)]
struct Processor {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Step {
    registry_name: String,
    #[serde(default)]
    config: Value,
    state_file: Option<String>,
}

impl Step {
    fn enabled(&self) -> bool {
        self.config.get("enabled").and_then(Value::as_bool) == Some(true)
    }
}

/// What is normalised, and on which way.
#[derive(Clone, Copy, PartialEq)]
enum Part {
    State,
    Action,
}

impl Part {
    /// The type of lerobot's feature.
    fn kind(self) -> &'static str {
        if self == Part::State { "STATE" } else { "ACTION" }
    }
}

/// The processor files in `dir`; without any the buffers in `checkpoint`, used as `mapping` (of `config.json`) says; or
/// identity.
///
/// # Errors
/// [`ModelError::Json`], [`ModelError::Safetensors`], or [`ModelError::Statistics`] for a mode or a tensor that is not
/// there.
pub(super) fn read(
    dir: &Path,
    checkpoint: &Checkpoint,
    mapping: &BTreeMap<String, String>,
    action_dim: usize,
) -> Result<Normalization, ModelError> {
    let [input, output] = ["policy_preprocessor.json", "policy_postprocessor.json"].map(|f| dir.join(f));
    if !input.exists() && !output.exists() {
        return buffers(checkpoint, mapping);
    }
    let (input, output) = (open(input)?, open(output)?);
    let state = step(dir, &input, "normalizer_processor", Part::State, "observation.state")?;
    let action = step(dir, &output, "unnormalizer_processor", Part::Action, "action")?;
    let source = state.as_ref().or(action.as_ref()).map(|(path, _)| path.clone());
    let [state, action] = [state, action].map(|found| found.map(|(_, affine)| affine).unwrap_or_default());
    let relative = relative(&input, &output, action_dim)?;
    Ok(Normalization { source, state, action, relative })
}

fn open(path: PathBuf) -> Result<(PathBuf, Vec<Step>), ModelError> {
    let steps = if path.exists() { read_json::<Processor>(&path)?.steps } else { Vec::new() };
    Ok((path, steps))
}

/// Which elements the postprocessor makes absolute: all, but for the joints that the preprocessor's step excludes.
fn relative(
    input: &(PathBuf, Vec<Step>),
    output: &(PathBuf, Vec<Step>),
    action_dim: usize,
) -> Result<Vec<bool>, ModelError> {
    let find = |steps: &[Step], name: &str| steps.iter().position(|s| s.registry_name == name && s.enabled());
    let (to, from) = (find(&input.1, "relative_actions_processor"), find(&output.1, "absolute_actions_processor"));
    let detail = |enabled: bool| format!("expected relative_actions_processor to be {enabled} as its counterpart is");
    let step = match (to, from) {
        (None, None) => return Ok(Vec::new()),
        (Some(step), Some(_)) => input.1.get(step),
        (to, _) => return Err(ModelError::Statistics { path: input.0.clone(), detail: detail(to.is_none()) }),
    };
    let strings = |field: &str| -> Option<Vec<String>> {
        let list = step?.config.get(field)?.as_array()?;
        Some(list.iter().filter_map(Value::as_str).filter(|s| !s.is_empty()).map(str::to_lowercase).collect())
    };
    let excluded = strings("exclude_joints").unwrap_or_default();
    let names = strings("action_names").unwrap_or_default();
    let mut mask: Vec<bool> = names.iter().map(|n| !excluded.iter().any(|e| n.contains(e.as_str()))).collect();
    mask.resize(action_dim, true);
    Ok(mask)
}

/// The affine map that step `registry_name` applies to `key`.
fn step(
    dir: &Path,
    (path, steps): &(PathBuf, Vec<Step>),
    registry_name: &str,
    part: Part,
    key: &str,
) -> Result<Option<(PathBuf, Affine)>, ModelError> {
    let Some(step) = steps.iter().find(|s| s.registry_name == registry_name) else { return Ok(None) };
    let mode = step.config.get("norm_map").and_then(|m| m.get(part.kind())).and_then(Value::as_str);
    let eps = step.config.get("eps").and_then(Value::as_f64).unwrap_or(1e-8) as f32;
    let Some(state_file) = &step.state_file else { return Ok(None) };
    let statistics = Checkpoint::open(&dir.join(state_file))?;
    // A span of zero becomes eps.
    let span = |l: f32, h: f32| if h == l { eps } else { h - l };
    let affine = affine(path, &statistics, mode, part, eps, span, |list| format!("{key}.{list}"))?;
    Ok(Some((statistics.path().to_owned(), affine)))
}

/// The buffers of lerobot 0.3's `Normalize` and `Unnormalize`.
fn buffers(checkpoint: &Checkpoint, mapping: &BTreeMap<String, String>) -> Result<Normalization, ModelError> {
    let part = |module: &str, key: &str, part: Part| {
        let prefix = format!("{module}.buffer_{key}.");
        if !checkpoint.names().any(|name| name.starts_with(&prefix)) {
            return Ok(Affine::default());
        }
        let mode = mapping.get(part.kind()).map_or("MEAN_STD", String::as_str);
        // On the way in a span gets eps added, on the way out none.
        let span = |l: f32, h: f32| h - l + if part == Part::State { BUFFERS_EPS } else { 0.0 };
        let name = |list: &str| format!("{prefix}{list}");
        affine(checkpoint.path(), checkpoint, Some(mode), part, BUFFERS_EPS, span, name)
    };
    let state = part("normalize_inputs", "observation_state", Part::State)?;
    let action = part("unnormalize_outputs", "action", Part::Action)?;
    let found = state != Affine::default() || action != Affine::default();
    let source = found.then(|| checkpoint.path().to_owned());
    Ok(Normalization { source, state, action, relative: Vec::new() })
}

const BUFFERS_EPS: f32 = 1e-8;

fn affine(
    path: &Path,
    statistics: &Checkpoint,
    mode: Option<&str>,
    part: Part,
    eps: f32,
    span: impl Fn(f32, f32) -> f32,
    name: impl Fn(&str) -> String,
) -> Result<Affine, ModelError> {
    let get = |list: &str| {
        let name = name(list);
        statistics.f32(&name).ok_or_else(|| ModelError::Statistics {
            path: statistics.path().to_owned(),
            detail: format!("no tensor {name}, which mode {} needs", mode.unwrap_or_default()),
        })
    };
    let affine = match mode {
        None | Some("IDENTITY") => Affine::default(),
        // lerobot divides by std + eps on the way in, and multiplies by std alone on the way out.
        Some("MEAN_STD") => Affine::mean_std(&get("mean")?, &get("std")?, if part == Part::State { eps } else { 0.0 }),
        Some("MIN_MAX") => Affine::range(&get("min")?, &get("max")?, span),
        Some("QUANTILES") => Affine::range(&get("q01")?, &get("q99")?, span),
        Some("QUANTILE10") => Affine::range(&get("q10")?, &get("q90")?, span),
        Some(other) => {
            let kind = part.kind();
            let detail = format!("mode of {kind}: expected IDENTITY, MEAN_STD, MIN_MAX or QUANTILES, found {other}");
            return Err(ModelError::Statistics { path: path.to_owned(), detail });
        }
    };
    affine.finite(statistics.path(), part.kind())
}
