//! lerobot's statistics: processor files (0.4 and later), or buffers beside the weights (0.3 and before).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use super::read_json;
use crate::error::ModelError;
use crate::normalize::{Affine, Normalization, Source};
use crate::weights::Checkpoint;

/// Which of `views` the preprocessor makes of cameras with other names (`rename_map`), by these names: those of which it
/// makes one alone. None where there is no such file.
///
/// # Errors
/// As [`read`].
pub(super) fn cameras(dir: &Path, views: &[String]) -> Result<BTreeMap<String, String>, ModelError> {
    let (_, steps) = open(dir.join("policy_preprocessor.json"))?;
    let maps = steps.iter().filter_map(|s| s.config.get("rename_map").and_then(Value::as_object)).flatten();
    let bare = |name: &str| name.trim_start_matches("observation.images.").to_owned();
    let renamed: Vec<_> = maps.filter_map(|(from, to)| Some((bare(from), bare(to.as_str()?)))).collect();
    let alone = |view: &String| renamed.iter().filter(|(_, to)| to == view).count() == 1;
    Ok(renamed.iter().filter(|(from, to)| from != to && views.contains(to) && alone(to)).cloned().collect())
}

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

    /// lerobot divides by std + eps on the way in, and multiplies by std alone on the way out.
    fn eps(self, eps: f32) -> f32 {
        if self == Part::State { eps } else { 0.0 }
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
    allow_constant: bool,
) -> Result<Normalization, ModelError> {
    let [input, output] = ["policy_preprocessor.json", "policy_postprocessor.json"].map(|f| dir.join(f));
    if !input.exists() && !output.exists() {
        return buffers(checkpoint, mapping, allow_constant);
    }
    let (input, output) = (open(input)?, open(output)?);
    let state = step(dir, &input, "normalizer_processor", (Part::State, "observation.state"), allow_constant)?;
    let action = step(dir, &output, "unnormalizer_processor", (Part::Action, "action"), allow_constant)?;
    let source = state.as_ref().or(action.as_ref()).map(|(path, _)| path.clone());
    let [state, action] = [state, action].map(|found| found.map(|(_, affine)| affine).unwrap_or_default());
    let relative = relative(&input, &output, action_dim)?;
    Ok(Normalization { source, state, action, relative, ..Normalization::default() })
}

/// The processors' steps that are done here or change no number: what another one does would be left out.
const STEPS: [&str; 13] = [
    "absolute_actions_processor",
    "device_processor",
    "normalizer_processor",
    "pi05_prepare_state_tokenizer_processor_step",
    "pi0_new_line_processor",
    "relative_actions_processor",
    "rename_observations_processor",
    "to_batch_processor",
    "to_batch_processor_action",
    "to_batch_processor_complementary_data",
    "to_batch_processor_observation",
    "tokenizer_processor",
    "unnormalizer_processor",
];

fn open(path: PathBuf) -> Result<(PathBuf, Vec<Step>), ModelError> {
    let steps = if path.exists() { read_json::<Processor>(&path)?.steps } else { Vec::new() };
    match steps.iter().find(|s| !STEPS.contains(&s.registry_name.as_str())) {
        None => Ok((path, steps)),
        Some(other) => {
            let detail = format!("expected steps of {}, found {:?}", STEPS.join(", "), other.registry_name);
            Err(ModelError::Statistics { path, detail })
        }
    }
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
    (part, key): (Part, &str),
    allow_constant: bool,
) -> Result<Option<(PathBuf, Affine)>, ModelError> {
    let Some(step) = steps.iter().find(|s| s.registry_name == registry_name) else { return Ok(None) };
    let mode = step.config.get("norm_map").and_then(|m| m.get(part.kind())).and_then(Value::as_str);
    let mode = Mode::of(path, part, mode.unwrap_or("IDENTITY"))?;
    let eps = step.config.get("eps").and_then(Value::as_f64).unwrap_or(1e-8) as f32;
    let Some(state_file) = &step.state_file else { return Ok(None) };
    let statistics = Checkpoint::open(&dir.join(state_file))?;
    // A span of zero becomes eps.
    let span = |l: f32, h: f32| if h == l { eps } else { h - l };
    let source = Source { path: statistics.path(), what: part.kind(), allow_constant };
    let affine = mode.affine(source, part.eps(eps), span, |list| named(&statistics, format!("{key}.{list}"), mode))?;
    Ok(Some((statistics.path().to_owned(), affine)))
}

/// The buffers of lerobot 0.3's `Normalize` and `Unnormalize`.
fn buffers(
    checkpoint: &Checkpoint,
    mapping: &BTreeMap<String, String>,
    allow_constant: bool,
) -> Result<Normalization, ModelError> {
    let part = |module: &str, key: &str, part: Part| {
        let prefix = format!("{module}.buffer_{key}.");
        if !checkpoint.names().any(|name| name.starts_with(&prefix)) {
            return Ok(Affine::default());
        }
        let mode = Mode::of(checkpoint.path(), part, mapping.get(part.kind()).map_or("MEAN_STD", String::as_str))?;
        // On the way in a span gets eps added, on the way out none.
        let eps = part.eps(BUFFERS_EPS);
        let source = Source { path: checkpoint.path(), what: part.kind(), allow_constant };
        mode.affine(source, eps, |l, h| h - l + eps, |list| named(checkpoint, format!("{prefix}{list}"), mode))
    };
    let state = part("normalize_inputs", "observation_state", Part::State)?;
    let action = part("unnormalize_outputs", "action", Part::Action)?;
    let found = state != Affine::default() || action != Affine::default();
    let source = found.then(|| checkpoint.path().to_owned());
    Ok(Normalization { source, state, action, ..Normalization::default() })
}

const BUFFERS_EPS: f32 = 1e-8;

/// How two lists of statistics are used.
#[derive(Clone, Copy)]
struct Mode {
    name: &'static str,
    lists: Option<[&'static str; 2]>,
}

const MODES: [Mode; 5] = [
    Mode { name: "IDENTITY", lists: None },
    Mode { name: "MEAN_STD", lists: Some(["mean", "std"]) },
    Mode { name: "MIN_MAX", lists: Some(["min", "max"]) },
    Mode { name: "QUANTILES", lists: Some(["q01", "q99"]) },
    Mode { name: "QUANTILE10", lists: Some(["q10", "q90"]) },
];

impl Mode {
    fn of(path: &Path, part: Part, name: &str) -> Result<Mode, ModelError> {
        MODES.into_iter().find(|m| m.name == name).ok_or_else(|| {
            let (kind, known) = (part.kind(), MODES.map(|m| m.name).join(", "));
            let detail = format!("mode of {kind}: expected one of {known}, found {name}");
            ModelError::Statistics { path: path.to_owned(), detail }
        })
    }

    fn affine(
        self,
        source: Source<'_>,
        eps: f32,
        span: impl Fn(f32, f32) -> f32,
        get: impl Fn(&str) -> Result<Vec<f32>, ModelError>,
    ) -> Result<Affine, ModelError> {
        let Some([first, second]) = self.lists else { return Ok(Affine::default()) };
        let (first, second) = (get(first)?, get(second)?);
        match self.name {
            "MEAN_STD" => Affine::mean_std(source, &first, &second, eps),
            _ => Affine::range(source, &first, &second, span),
        }
    }
}

fn named(statistics: &Checkpoint, name: String, mode: Mode) -> Result<Vec<f32>, ModelError> {
    statistics.f32(&name).ok_or_else(|| ModelError::Statistics {
        path: statistics.path().to_owned(),
        detail: format!("no tensor {name}, which mode {} needs", mode.name),
    })
}
