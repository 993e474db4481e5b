//! open-pi-zero and Galaxea G0: the state dictionary as safetensors, and statistics. Neither writes a configuration that is
//! not YAML: what the shapes do not tell is this file's defaults, or `fathom.json`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::pi0::{self, Settings, Shapes};
use super::{Described, Family, Hints, check_lengths, galaxea_stats};
use crate::checkpoint::unwrapped;
use crate::config::{
    EmbedScale, Flow, FlowDirection, NormalizationMode, Positions, PromptFormat, Resize, TimeConditioning,
    TimeEmbedding,
};
use crate::content::is_there;
use crate::error::{ModelError, TensorProblem};
use crate::json::read_json;
use crate::normalize::{Affine, Normalization, Source};
use crate::weights::Checkpoint;

/// The state's mixture is the actions' (`tie_action_proprio_weights`).
const PROPRIO: &str = "joint_model.mixtures.proprio.";
const ACTION: &str = "joint_model.mixtures.action.";
/// `BaseEnvAdapter.normalize_bound`
const EPS: f32 = 1e-8;

/// Names that a parameter of Fathom's naming may have: the same.
pub(super) fn names(own: &str) -> Vec<String> {
    vec![own.to_owned()]
}

/// Tensors that inference does not read: the copies of the action mixture ([`describe`] compares them) and the head.
pub(super) fn ignored(name: &str) -> bool {
    name.starts_with(PROPRIO) || name == "lm_head.weight"
}

/// Whether the tensors' names are those of this family.
pub(super) fn recognises(checkpoint: &Checkpoint) -> bool {
    let has = |own: &str| checkpoint.shape(own).is_some();
    has("joint_model.mixtures.action.layers.0.self_attn.q_proj.weight")
        && !has("joint_model.mixtures.depth.layers.0.self_attn.q_proj.weight")
}

pub(super) fn describe(family: Family, dir: &Path, checkpoint: &Checkpoint) -> Result<Described, ModelError> {
    check_copies(checkpoint)?;
    let hints = Hints::read(dir)?;
    let galaxea = family == Family::Galaxea;
    let s = Shapes { checkpoint, names };
    let two_layers = s.has("action_decoder.proj.0.0.weight");
    let [action_dim, _] = s.get(if two_layers { "action_decoder.proj.1.weight" } else { "action_decoder.weight" })?;
    let [_, state_dim] = s.get("proprio_encoder.weight")?;
    let settings = Settings {
        views: hints.views.clone().unwrap_or_else(|| vec!["primary".to_owned()]),
        image_size: None,
        resize: if galaxea { Resize::TorchvisionStretch } else { Resize::CvLanczos4Stretch },
        max_tokens: hints.max_tokens.unwrap_or(if galaxea { 55 } else { 20 }),
        state_dim,
        action_dim,
        horizon: hints.horizon.unwrap_or(if galaxea { 32 } else { 4 }),
        steps: hints.steps.unwrap_or(10),
        periods: (1.0, 1.0), // not openpi's embedding
        normalization: NormalizationMode::Quantile { eps: EPS },
        time_conditioning: TimeConditioning::Token,
        prompt: if galaxea { PromptFormat::Galaxea } else { PromptFormat::OpenPiZero },
        action: None,
    };
    let mut config = pi0::config(&s, &hints, settings)?;
    config.attention.softcap = Some(50.0);
    config.embed = EmbedScale { suffix: (config.action.width as f32).sqrt(), ..config.embed };
    config.time_embedding = TimeEmbedding::OpenPiZero { max_period: hints.max_period.unwrap_or(10_000.0) };
    config.flow = Flow {
        direction: FlowDirection::NoiseAtZero,
        clip: (!galaxea).then_some(1.0),
        sig_min: Some(0.001),
        ..config.flow
    };
    config.positions = Positions::PerMixture { base: 1 };
    config.action_head_layers = if two_layers { 2 } else { 1 };

    let galaxeas = dir.join("dataset_stats.json");
    let normalization = if galaxea && is_there(&galaxeas) {
        galaxea_stats::read(&galaxeas, &hints)?
    } else {
        statistics(dir, hints.allow_constant)?
    };
    let normalization = Normalization { relative: hints.relative(), ..normalization };
    let state_dims = normalization.state_len().map_or(1..=state_dim, |n| n..=n);
    let own = normalization.action_len().unwrap_or(action_dim);
    check_lengths(dir, [("proprio", *state_dims.start(), state_dim), ("action", own, action_dim)])?;
    Ok(Described { family, config, normalization, state_dims, action_dim: own })
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
fn statistics(dir: &Path, allow_constant: bool) -> Result<Normalization, ModelError> {
    let io = |source| ModelError::Io { path: dir.to_owned(), source };
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(dir).map_err(io)?.filter_map(|entry| Some(entry.ok()?.path())).collect();
    let refuse = |path: PathBuf, detail: &str| Err(ModelError::Statistics { path, detail: detail.to_owned() });
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
    let source = |what| Source { path: &path, what, allow_constant };
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
