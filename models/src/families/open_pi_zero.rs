//! open-pi-zero: the state dictionary as safetensors, and statistics. Its configuration is YAML, which Fathom does not read:
//! where the shapes do not give a value, defaults or `fathom.json` do. Galaxea's G0 is such a model with other defaults.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::description::{Described, Directory, Family, Form, Mark};
use super::hints::Hints;
use super::shared::pi0::{self, Settings, Shapes};
use crate::checkpoint::{Checkpoint, unwrapped};
use crate::error::{ModelError, TensorProblem};
use crate::io::json::read_json;
use crate::nets::config::{
    EmbedScale, Flow, FlowDirection, NormalizationMode, Positions, PromptFormat, Resize, TimeConditioning,
    TimeEmbedding,
};
use crate::processing::normalize::{Affine, Normalization, StatisticsSource};

/// open-pi-zero.
pub static FAMILY: Family = Family {
    name: "open-pi-zero",
    mark: Mark::Tensors(recognises),
    describe: |directory| describe(directory, DEFAULTS),
    forms: &[Form::Pi0],
    ..MIXTURE
};

/// Such a model, whose names are Fathom's own.
pub(super) const MIXTURE: Family = Family { ignored, ..Family::POLICY };

/// Values that neither shapes nor `fathom.json` give.
pub(super) struct Defaults {
    pub(super) resize: Resize,
    pub(super) max_tokens: usize,
    pub(super) horizon: usize,
    pub(super) prompt: PromptFormat,
    /// Bound on normalised actions.
    pub(super) clip: Option<f32>,
    pub(super) statistics: fn(&Path, &Hints) -> Result<Normalization, ModelError>,
}

const DEFAULTS: Defaults = Defaults {
    resize: Resize::CvLanczos4Stretch,
    max_tokens: 20,
    horizon: 4,
    prompt: PromptFormat::OpenPiZero,
    clip: Some(1.0),
    statistics,
};

/// The state's mixture is the actions' (`tie_action_proprio_weights`).
const PROPRIO: &str = "joint_model.mixtures.proprio.";
const ACTION: &str = "joint_model.mixtures.action.";
/// `BaseEnvAdapter.normalize_bound`
const EPS: f32 = 1e-8;

/// Tensors that inference does not read: the copies of the action mixture ([`describe`] compares them) and the head.
fn ignored(name: &str) -> bool {
    name.starts_with(PROPRIO) || name == "lm_head.weight"
}

/// Whether the tensors' names are those of this family.
fn recognises(checkpoint: &Checkpoint) -> bool {
    let has = |own: &str| checkpoint.shape(own).is_some();
    has("joint_model.mixtures.action.layers.0.self_attn.q_proj.weight")
        && !has("joint_model.mixtures.depth.layers.0.self_attn.q_proj.weight")
}

pub(super) fn describe(
    Directory { family, dir, checkpoint, .. }: Directory<'_>,
    defaults: Defaults,
) -> Result<Described, ModelError> {
    check_copies(checkpoint)?;
    let hints = Hints::read(dir)?;
    let s = Shapes { checkpoint, names: family.names };
    let two_layers = s.has("action_decoder.proj.0.0.weight");
    let [action_dim, _] = s.get(if two_layers { "action_decoder.proj.1.weight" } else { "action_decoder.weight" })?;
    let [_, state_dim] = s.get("proprio_encoder.weight")?;
    let settings = Settings {
        views: hints.views.clone().unwrap_or_else(|| vec!["primary".to_owned()]),
        image_size: None,
        resize: defaults.resize,
        max_tokens: hints.max_tokens.unwrap_or(defaults.max_tokens),
        state_dim,
        action_dim,
        horizon: hints.horizon.unwrap_or(defaults.horizon),
        steps: hints.steps.unwrap_or(10),
        periods: (1.0, 1.0), // not openpi's embedding
        normalization: NormalizationMode::Quantile { eps: EPS },
        time_conditioning: TimeConditioning::Token,
        prompt: defaults.prompt,
        action: None,
    };
    let mut config = pi0::config(&s, &hints, settings)?;
    config.attention.softcap = Some(50.0);
    config.embed = EmbedScale { suffix: (config.action.width as f32).sqrt(), ..config.embed };
    config.time_embedding = TimeEmbedding::OpenPiZero { max_period: hints.max_period.unwrap_or(10_000.0) };
    config.flow =
        Flow { direction: FlowDirection::NoiseAtZero, clip: defaults.clip, sig_min: Some(0.001), ..config.flow };
    config.positions = Positions::PerMixture { base: 1 };
    config.action_head_layers = if two_layers { 2 } else { 1 };

    let normalization = Normalization { relative: hints.relative(), ..(defaults.statistics)(dir, &hints)? };
    Described::of(dir, config, normalization, ["proprio", "action"])
}

/// Every tensor of the state's mixture is that of the actions' mixture.
fn check_copies(checkpoint: &Checkpoint) -> Result<(), ModelError> {
    let differs = |name: &&str| {
        let plain = unwrapped(name);
        let Some(rest) = plain.strip_prefix(PROPRIO) else { return false };
        let tied = format!("{ACTION}{rest}");
        checkpoint.shape(&tied).zip(checkpoint.tensor(&tied)) != checkpoint.shape(name).zip(checkpoint.tensor(name))
    };
    let problems: Vec<_> = checkpoint
        .names()
        .filter(differs)
        .map(|name| TensorProblem::Untied { name: name.to_owned(), with: ACTION.to_owned() })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(ModelError::Tensors { path: checkpoint.path().to_owned(), problems }) }
}

/// `bridge_statistics.json`, `fractal_statistics.json`
#[derive(Deserialize)]
struct Statistics {
    proprio: Bounds,
    action: Bounds,
}

#[derive(Deserialize)]
struct Bounds {
    p01: Vec<f32>,
    p99: Vec<f32>,
}

/// The directory's one `*_statistics.json`, used as `SimplerAdapter` does: the state's 1st to 99th percentile becomes −1
/// to 1, and is clipped to it; so do the actions, but for the last element, the gripper, which is the model's own.
pub(super) fn statistics(dir: &Path, hints: &Hints) -> Result<Normalization, ModelError> {
    let io = ModelError::io(dir);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).map_err(io)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let refuse = |path: PathBuf, detail: &str| Err(ModelError::statistics(&path, detail));
    files.retain(|f| f.file_name().is_some_and(|name| name.to_string_lossy().ends_with("_statistics.json")));
    let path = match files.as_slice() {
        [] => return Ok(Normalization::default()),
        [path] => path.clone(),
        _ => return refuse(dir.to_owned(), "expected one *_statistics.json, found several"),
    };
    let s: Statistics = read_json(&path)?;
    if s.proprio.p01.len() != s.proprio.p99.len() || s.action.p01.len() != s.action.p99.len() {
        return refuse(path, "expected p01 and p99 of one length");
    }
    let source = |what| StatisticsSource { path: &path, what, allow_constant: hints.allow_constant };
    let mut state = Affine::range(source("proprio"), &s.proprio.p01, &s.proprio.p99, |l, h| h - l + EPS)?;
    state.clip = Some(1.0);
    // All but the gripper.
    let but_last = |list: &[f32]| list.split_last().map_or(Vec::new(), |(_, rest)| rest.to_vec());
    let mut action = Affine::range(source("action"), &but_last(&s.action.p01), &but_last(&s.action.p99), |l, h| h - l)?;
    if !s.action.p01.is_empty() {
        action.offset.push(0.0);
        action.scale.push(1.0);
    }
    Ok(Normalization { source: Some(path), state, action, ..Normalization::default() })
}
