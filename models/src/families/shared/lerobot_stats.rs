//! lerobot's statistics: processor files (0.4 and later), or buffers beside the weights (0.3 and before).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::lerobot::{ACTION, STATE, view};
use crate::checkpoint::{Checkpoint, unwrapped};
use crate::error::ModelError;
use crate::io::is_there;
use crate::io::json::{At, Json, JsonError, read_tree};
use crate::processing::normalize::{Affine, Normalization, StatisticsSource};

/// Which of `views` the preprocessor makes of cameras with other names (`rename_map`), by these names: those of which it
/// makes one alone. None if there is no such file.
///
/// # Errors
/// As [`read`].
pub(in crate::families) fn cameras(dir: &Path, views: &[String]) -> Result<BTreeMap<String, String>, ModelError> {
    let input = File::open(dir.join("policy_preprocessor.json"))?;
    let mut renamed: Vec<(String, String)> = Vec::new();
    for step in input.steps()? {
        let Some(map) = step.config.as_ref().and_then(|config| config.get("rename_map")) else { continue };
        for (from, to) in map.entries().map_err(input.json())? {
            let to: String = to.read().map_err(input.json())?;
            renamed.push((view(from).to_owned(), view(&to).to_owned()));
        }
    }
    let alone = |view: &String| renamed.iter().filter(|(_, to)| to == view).count() == 1;
    Ok(renamed.iter().filter(|(from, to)| from != to && views.contains(to) && alone(to)).cloned().collect())
}

/// A processor's file.
struct File {
    path: PathBuf,
    /// None if there is no such file.
    tree: Option<Json<'static>>,
}

/// One of its steps.
struct Step<'t> {
    at: At<'t>,
    registry_name: String,
    config: Option<At<'t>>,
}

impl File {
    /// A file that is not there has no steps.
    fn open(path: PathBuf) -> Result<File, ModelError> {
        let tree = if is_there(&path) { Some(read_tree(&path)?) } else { None };
        Ok(File { path, tree })
    }

    /// The error of this file for an error of JSON.
    fn json(&self) -> impl Fn(JsonError) -> ModelError {
        ModelError::json(&self.path)
    }

    /// The steps in their order.
    ///
    /// # Errors
    /// [`ModelError::File`], and [`ModelError::Statistics`] for an unknown one.
    fn steps(&self) -> Result<Vec<Step<'_>>, ModelError> {
        let Some(tree) = &self.tree else { return Ok(Vec::new()) };
        let root = At::root(tree);
        let steps = root.get("steps").ok_or_else(|| root.wrong("an object with the key steps"));
        let mut all = Vec::new();
        for at in steps.and_then(|steps| steps.items()).map_err(self.json())? {
            let name = at.get("registry_name").ok_or_else(|| at.wrong("an object with the key registry_name"));
            let registry_name: String = name.and_then(|name| name.read()).map_err(self.json())?;
            if !STEPS.contains(&registry_name.as_str()) {
                let detail = format!("expected steps of {}, found {registry_name:?}", STEPS.join(", "));
                return Err(ModelError::statistics(&self.path, detail));
            }
            all.push(Step { config: at.some("config"), at, registry_name });
        }
        Ok(all)
    }

    /// The first step of a name.
    fn step(&self, registry_name: &str) -> Result<Option<Step<'_>>, ModelError> {
        Ok(self.steps()?.into_iter().find(|step| step.registry_name == registry_name))
    }
}

impl<'t> Step<'t> {
    fn get(&self, key: &str) -> Option<At<'t>> {
        self.config.as_ref()?.get(key)
    }

    fn enabled(&self) -> Result<bool, JsonError> {
        self.get("enabled").map_or(Ok(false), |enabled| enabled.read())
    }

    /// A list of texts; none if it is null or not there.
    fn texts(&self, key: &str) -> Result<Option<Vec<String>>, JsonError> {
        self.get(key).map_or(Ok(None), |list| list.read())
    }
}

/// State on the way in, or actions on the way out.
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

/// The processor files in `dir`; without any the buffers in `checkpoint`, used as `mapping` (of the configuration at `path`)
/// says; or identity.
///
/// # Errors
/// [`ModelError::File`], [`ModelError::Safetensors`], or [`ModelError::Statistics`] for a mode or a tensor that is not
/// there.
pub(in crate::families) fn read(
    dir: &Path,
    path: &Path,
    checkpoint: &Checkpoint,
    mapping: Option<&At<'_>>,
    action_dim: usize,
    allow_constant: bool,
) -> Result<Normalization, ModelError> {
    let [input, output] = ["policy_preprocessor.json", "policy_postprocessor.json"].map(|f| dir.join(f));
    if !is_there(&input) && !is_there(&output) {
        return buffers(path, checkpoint, mapping, allow_constant);
    }
    let (input, output) = (File::open(input)?, File::open(output)?);
    let state = step(dir, &input, "normalizer_processor", (Part::State, STATE), allow_constant)?;
    let action = step(dir, &output, "unnormalizer_processor", (Part::Action, ACTION), allow_constant)?;
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

/// Which elements the postprocessor makes absolute: all, but for the joints that the preprocessor's step excludes.
fn relative(input: &File, output: &File, action_dim: usize) -> Result<Vec<bool>, ModelError> {
    let enabled = |file: &File, name: &str| -> Result<bool, ModelError> {
        let step = file.step(name)?;
        step.map_or(Ok(false), |step| step.enabled()).map_err(file.json())
    };
    let to = enabled(input, "relative_actions_processor")?;
    let from = enabled(output, "absolute_actions_processor")?;
    if to != from {
        let detail = format!("expected relative_actions_processor to be {from} as its counterpart is");
        return Err(ModelError::statistics(&input.path, detail));
    }
    let Some(step) = input.step("relative_actions_processor")?.filter(|_| to) else { return Ok(Vec::new()) };
    let texts = |key: &str| -> Result<Vec<String>, ModelError> {
        let list = step.texts(key).map_err(input.json())?.unwrap_or_default();
        Ok(list.iter().filter(|text| !text.is_empty()).map(|text| text.to_lowercase()).collect())
    };
    let (excluded, names) = (texts("exclude_joints")?, texts("action_names")?);
    let mut mask: Vec<bool> = names.iter().map(|n| !excluded.iter().any(|e| n.contains(e.as_str()))).collect();
    mask.resize(action_dim, true);
    Ok(mask)
}

/// The type with which a normaliser's step takes a feature; `None` if it leaves the feature as it is.
fn taken(step: &Step<'_>, (part, key): (Part, &str)) -> Result<Option<String>, JsonError> {
    // An action is always one.
    if part == Part::Action {
        return Ok(Some(part.kind().to_owned()));
    }
    let only = step.texts("normalize_observation_keys")?;
    if only.is_some_and(|only| !only.iter().any(|name| name == key)) {
        return Ok(None);
    }
    let Some(features) = step.get("features") else { return Ok(Some(part.kind().to_owned())) };
    features.entries()?;
    let Some(feature) = features.get(key) else { return Ok(None) };
    let kind = feature.get("type").ok_or_else(|| feature.wrong("a feature with a type"))?;
    kind.read().map(Some)
}

/// The affine map that step `registry_name` applies to `key`.
fn step(
    dir: &Path,
    file: &File,
    registry_name: &str,
    (part, key): (Part, &str),
    allow_constant: bool,
) -> Result<Option<(PathBuf, Affine)>, ModelError> {
    let Some(step) = file.step(registry_name)? else { return Ok(None) };
    let Some(kind) = taken(&step, (part, key)).map_err(file.json())? else { return Ok(None) };
    let map = step.get("norm_map");
    let mode = map.as_ref().map(|map| map.entries().map(|_| map.get(&kind))).transpose().map_err(file.json())?;
    let mode: Option<String> = mode.flatten().map(|mode| mode.read()).transpose().map_err(file.json())?;
    let mode = Mode::of(&file.path, part, mode.as_deref().unwrap_or("IDENTITY"))?;
    let eps: Option<f32> = step.get("eps").map(|eps| eps.read()).transpose().map_err(file.json())?;
    let eps = eps.unwrap_or(1e-8);
    let state_file: Option<String> =
        step.at.some("state_file").map(|name| name.read()).transpose().map_err(file.json())?;
    let Some(state_file) = state_file else { return Ok(None) };
    let statistics = Checkpoint::open(&dir.join(state_file))?;
    // A span of zero becomes eps.
    let span = |l: f32, h: f32| if h == l { eps } else { h - l };
    let source = StatisticsSource { path: statistics.path(), what: part.kind(), allow_constant };
    let affine = mode.affine(source, part.eps(eps), span, |list| named(&statistics, format!("{key}.{list}"), mode))?;
    Ok(Some((statistics.path().to_owned(), affine)))
}

/// The buffers of lerobot 0.3's `Normalize` and `Unnormalize`.
fn buffers(
    path: &Path,
    checkpoint: &Checkpoint,
    mapping: Option<&At<'_>>,
    allow_constant: bool,
) -> Result<Normalization, ModelError> {
    let part = |module: &str, key: &str, part: Part| {
        let prefix = format!("{module}.buffer_{key}.");
        if !checkpoint.names().any(|name| unwrapped(name).starts_with(&prefix)) {
            return Ok(Affine::default());
        }
        let mode = mapping.and_then(|mapping| mapping.get(part.kind())).map(|mode| mode.read::<String>()).transpose();
        let mode = mode.map_err(ModelError::json(path))?;
        let mode = Mode::of(checkpoint.path(), part, mode.as_deref().unwrap_or("MEAN_STD"))?;
        // On the way in a span gets eps added, on the way out none.
        let eps = part.eps(BUFFERS_EPS);
        let source = StatisticsSource { path: checkpoint.path(), what: part.kind(), allow_constant };
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
            ModelError::statistics(path, detail)
        })
    }

    fn affine(
        self,
        source: StatisticsSource<'_>,
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
    statistics.f32(&name).ok_or_else(|| {
        let detail = match statistics.tensor(&name) {
            Some((dtype, _)) => format!("{name}: expected F16, BF16, F32 or F64, found {dtype:?}"),
            None => format!("no tensor {name}, which mode {} needs", mode.name),
        };
        ModelError::statistics(statistics.path(), detail)
    })
}
