//! Where a checkpoint comes from: the names of its tensors, and how its configuration is read.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::Path;

use serde::Deserialize;

use crate::checkpoint::unwrapped;
use crate::config::{ModelConfig, PromptFormat, Resize};
use crate::content::is_there;
use crate::depthvla::Model;
use crate::error::{ConfigError, ModelError, TensorProblem};
use crate::foreign;
use crate::json::{self, At, Json, JsonError, read_json, read_tree};
use crate::normalize::Normalization;
use crate::params::{Param, ParamTable, Role};
use crate::weights::{Checkpoint, Weights};

mod galaxea_stats;
mod lerobot;
mod lerobot_stats;
mod nearest;
mod open_pi_zero;
mod openpi;
mod origin;
mod paligemma;
mod pi0;
mod survey;

pub use origin::Origin;

/// Metadata of a packed checkpoint: its family's name.
pub const FAMILY: &str = "fathom.family";

/// A checkpoint's origin. Its name (of `--family`) is what `Display` gives and `FromStr` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Family {
    /// Fathom's own: `config.json` is a [`ModelConfig`] with `"model_type": "depthvla"`.
    DepthVla,
    /// lerobot's pi0, as `save_pretrained` writes it.
    LerobotPi0,
    /// lerobot's pi0.5.
    LerobotPi05,
    /// openpi's PyTorch port of pi0 or pi0.5, as `convert_jax_model_to_pytorch.py` writes it.
    Openpi,
    /// open-pi-zero's state dictionary as safetensors.
    OpenPiZero,
    /// Galaxea G0's.
    Galaxea,
    /// Hugging Face's PaliGemma: the base of a mixture.
    PaliGemma,
    /// Hugging Face's `Dinov2Model`: a depth encoder.
    Dinov2,
    /// Hugging Face's `DepthAnythingForDepthEstimation`.
    DepthAnything,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 9] = [
        Family::DepthVla,
        Family::LerobotPi0,
        Family::LerobotPi05,
        Family::Openpi,
        Family::OpenPiZero,
        Family::Galaxea,
        Family::PaliGemma,
        Family::Dinov2,
        Family::DepthAnything,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Family::DepthVla => "depthvla",
            Family::LerobotPi0 => "lerobot-pi0",
            Family::LerobotPi05 => "lerobot-pi05",
            Family::Openpi => "openpi",
            Family::OpenPiZero => "open-pi-zero",
            Family::Galaxea => "galaxea",
            Family::PaliGemma => "paligemma",
            Family::Dinov2 => "dinov2",
            Family::DepthAnything => "depth-anything",
        }
    }

    /// Its names.
    fn names(self) -> NameMap {
        match self {
            Family::LerobotPi0 | Family::LerobotPi05 | Family::Openpi => {
                NameMap { names: pi0::names, ignored: pi0::ignored }
            }
            Family::OpenPiZero | Family::Galaxea => {
                NameMap { names: open_pi_zero::names, ignored: open_pi_zero::ignored }
            }
            Family::PaliGemma => NameMap { names: paligemma::names, ignored: paligemma::ignored },
            Family::DepthVla | Family::Dinov2 | Family::DepthAnything => {
                NameMap { names: |own| vec![own.to_owned()], ignored: |_| false }
            }
        }
    }

    /// What a checkpoint is for that gives no actions.
    pub fn purpose(self) -> Option<&'static str> {
        match self {
            Family::PaliGemma => Some("the base of a mixture, for `fathom compose --paligemma`"),
            Family::Dinov2 => Some("a depth encoder, for `fathom compose --depth`"),
            Family::DepthAnything => Some("for `fathom depth`, and its encoder for `fathom compose --depth`"),
            _ => None,
        }
    }

    /// What `config.json` says, where it says it.
    fn of(config: &Json<'_>) -> Result<Option<Family>, JsonError> {
        // lerobot has a type, Hugging Face and Fathom a model_type: transformers' own PI0 is not lerobot's.
        let [policy, model] = kinds(config)?;
        Ok(match (policy.as_deref(), model.as_deref()) {
            (Some("pi0"), _) => Some(Family::LerobotPi0),
            (Some("pi05"), _) => Some(Family::LerobotPi05),
            (Some(_), _) => None,
            (None, Some("depthvla")) => Some(Family::DepthVla),
            (None, Some("paligemma")) => Some(Family::PaliGemma),
            (None, Some("dinov2")) => Some(Family::Dinov2),
            (None, Some("depth_anything")) => Some(Family::DepthAnything),
            (None, Some(_)) => None,
            (None, None) => config.get("action_horizon").and(config.get("paligemma_variant")).map(|_| Family::Openpi),
        })
    }
}

/// `type` and `model_type` of a configuration.
fn kinds(config: &Json<'_>) -> Result<[Option<String>; 2], JsonError> {
    let kind = |key: &str| At::root(config).some(key).map(|kind| kind.read::<String>()).transpose();
    Ok([kind("type")?, kind("model_type")?])
}

impl std::fmt::Display for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<String> for Family {
    type Error = ConfigError;

    fn try_from(name: String) -> Result<Family, ConfigError> {
        name.parse()
    }
}

impl std::str::FromStr for Family {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Family, ConfigError> {
        let expected = || format!("one of {}", Family::ALL.map(Family::name).join(", "));
        let found = Family::ALL.into_iter().find(|f| f.name() == name);
        found.ok_or_else(|| ConfigError { field: "family".to_owned(), expected: expected(), found: name.to_owned() })
    }
}

/// A family's names for what Fathom has names for.
#[derive(Clone, Copy)]
struct NameMap {
    /// Names that a parameter of Fathom's naming may have, most likely first.
    names: fn(&str) -> Vec<String>,
    /// Whether a tensor that is no parameter may be there.
    ignored: fn(&str) -> bool,
}

/// A model ready for inference.
#[derive(Debug)]
pub struct Loaded {
    /// Where it came from.
    pub family: Family,
    /// Configuration and parameters.
    pub model: Model,
    /// Its tensors, mapped.
    pub weights: Weights,
    /// Of state and actions.
    pub normalization: Normalization,
    /// Lengths the robot's own state may have; the model's is padded with zeros. One length where it is known.
    pub state_dims: RangeInclusive<usize>,
    /// Length of the robot's own action; the model's may be longer.
    pub action_dim: usize,
    /// Views that the checkpoint has and the robot lacks: their tokens are left out.
    pub skipped_views: Vec<String>,
    /// Views that have the robot's names of its cameras, by these names: the checkpoint's.
    pub cameras: BTreeMap<String, String>,
}

impl Loaded {
    /// Leaves views out: masking them comes to the same. The depth branch looks at those of its views that stay.
    ///
    /// # Errors
    /// [`ModelError::Config`] for a view that there is not, or when none is left, to the model or to its depth branch.
    pub fn skip_views(&mut self, views: &[String]) -> Result<(), ModelError> {
        let config = &mut self.model.config;
        if let Some(unknown) = views.iter().find(|v| !config.views.contains(v)) {
            let expected = format!("some of {:?}", config.views);
            return Err(ConfigError { field: "skipped views".to_owned(), expected, found: unknown.clone() }.into());
        }
        let depth = config.depth.iter_mut().map(|d| &mut d.views);
        for list in std::iter::once(&mut config.views).chain(depth) {
            list.retain(|v| !views.contains(v));
        }
        config.validate()?;
        self.skipped_views.extend_from_slice(views);
        Ok(())
    }
}

/// Whether a tensor of a checkpoint holds statistics: lerobot 0.3 keeps them beside the weights.
pub(crate) fn is_statistics(name: &str) -> bool {
    pi0::is_statistics(&unwrapped(name))
}

/// What a family's own files say.
struct Described {
    family: Family,
    config: ModelConfig,
    normalization: Normalization,
    state_dims: RangeInclusive<usize>,
    action_dim: usize,
}

/// Checks that no length is beyond the model's.
fn check_lengths(dir: &Path, lengths: [(&str, usize, usize); 2]) -> Result<(), ModelError> {
    for (what, own, models) in lengths {
        if own > models {
            let detail = format!("{what}: {own} values for a model that takes {models}");
            return Err(ModelError::Statistics { path: dir.to_owned(), detail });
        }
    }
    Ok(())
}

/// The family that `config.json` in `dir` names, where it is there and does.
pub fn told(dir: &Path) -> Option<Family> {
    Family::of(&read_tree(&dir.join("config.json")).ok()?).ok()?
}

/// Loads the model in the directory `dir`, whose files say which family it is of.
///
/// # Errors
/// Every way in which the directory is not a model: see [`ModelError`].
pub fn load(dir: &Path) -> Result<Loaded, ModelError> {
    load_as(dir, None)
}

/// As [`load`], of the given family.
///
/// # Errors
/// As [`load`].
pub fn load_as(dir: &Path, family: Option<Family>) -> Result<Loaded, ModelError> {
    let loaded = load_base(dir, family)?;
    match loaded.family.purpose() {
        None => Ok(loaded),
        Some(purpose) => Err(ModelError::NoActions { path: dir.to_owned(), family: loaded.family, purpose }),
    }
}

/// As [`load_as`], or a PaliGemma, whose action expert is declared and not there.
///
/// # Errors
/// As [`load`].
pub fn load_base(dir: &Path, family: Option<Family>) -> Result<Loaded, ModelError> {
    let checkpoint = Checkpoint::open_model(dir)?;
    let (family, config) = identify(dir, family, &checkpoint)?;
    resolve(dir, family, config, checkpoint)
}

/// The parameters of a family's model in its checkpoint, as [`Weights::resolve`].
///
/// # Errors
/// [`ModelError::Tensors`], or [`ModelError::OtherFamily`] with the family that the names fit best.
pub(crate) fn find(
    family: Family,
    checkpoint: Checkpoint,
    params: &ParamTable,
    names: impl Fn(&Param) -> Vec<String>,
    ignored: impl Fn(&str) -> bool,
) -> Result<Weights, ModelError> {
    let known = foreign::plain_names(&checkpoint);
    Weights::resolve(checkpoint, params, names, ignored).map_err(|problem| with_nearest(family, problem, known))
}

/// Adds the family that the names of a checkpoint's tensors fit best, to an error of tensors that were taken for `family`'s.
fn with_nearest(family: Family, problem: ModelError, mut names: Vec<String>) -> ModelError {
    let ModelError::Tensors { problems, .. } = &problem else { return problem };
    let extra =
        problems.iter().find_map(|p| if let TensorProblem::Prefix { extra, .. } = p { Some(extra) } else { None });
    let mut changed = Vec::new();
    if let Some(extra) = extra {
        names.iter_mut().for_each(|name| *name = name.replacen(extra.as_str(), "", 1));
        changed.push(format!("without {extra:?}"));
    }
    if problems.iter().any(|p| matches!(p, TensorProblem::Quantised { .. })) {
        changed.push("before they were quantised".to_owned());
    }
    match nearest::nearest(&names).filter(|n| n.family != Some(family) || !changed.is_empty()) {
        Some(nearest) => {
            let changed = if changed.is_empty() { String::new() } else { format!(" ({})", changed.join(", ")) };
            let nearest = nearest.text(names.len()) + &changed;
            ModelError::OtherFamily { problem: Box::new(problem), nearest }
        }
        None => problem,
    }
}

/// The family, where it is not given, and what `config.json` says, where the family has one.
fn identify(
    dir: &Path,
    family: Option<Family>,
    checkpoint: &Checkpoint,
) -> Result<(Family, Json<'static>), ModelError> {
    let path = dir.join("config.json");
    let packed = || checkpoint.metadata(FAMILY)?.parse().ok();
    let family = family.or_else(packed);
    // open-pi-zero writes none.
    let by_tensors = family.is_none() && !is_there(&path) && open_pi_zero::recognises(checkpoint);
    let family = if by_tensors { Some(Family::OpenPiZero) } else { family };
    let config = match family {
        Some(Family::OpenPiZero | Family::Galaxea) => Json::Null,
        _ => read_tree(&path)?,
    };
    let json = |source| ModelError::Json { path: path.clone(), source };
    let told = if family.is_none() { Family::of(&config).map_err(json)? } else { None };
    let Some(family) = family.or(told) else {
        let kind = kinds(&config).map_err(json)?.into_iter().flatten().next();
        let mut found = kind.as_ref().map_or("neither".to_owned(), |k| format!("{k:?}"));
        if let Some(known) = kind.as_deref().and_then(nearest::known) {
            found += &format!(" ({known})");
        }
        let names = foreign::plain_names(checkpoint);
        if let Some(nearest) = nearest::nearest(&names) {
            found += &format!("\nnearest known family: {}", nearest.text(names.len()));
        }
        let families = Family::ALL.map(Family::name).join(", ");
        let expected = format!(
            "\"model_type\": \"depthvla\" or \"type\": \"pi0\" or \"pi05\", or Hugging Face's \"paligemma\", \"dinov2\" or \
             \"depth_anything\", or openpi's action_horizon, or --family with one of {families}"
        );
        return Err(ConfigError { field: path.display().to_string(), expected, found }.into());
    };
    Ok((family, config))
}

/// The model that a family's files describe, with its tensors.
fn resolve(dir: &Path, family: Family, config: Json<'static>, checkpoint: Checkpoint) -> Result<Loaded, ModelError> {
    let early = if survey::is_due(family, &checkpoint) { survey::survey(family, &checkpoint)? } else { Vec::new() };
    let path = checkpoint.path();
    let described = match early.is_empty() {
        false => Err(ModelError::Tensors { path: path.to_owned(), problems: early }),
        true => describe(dir, family, config, &checkpoint).map_err(|problem| match problem {
            // A tensor that tells a size is one of all that do not fit.
            ModelError::Tensors { path, problems } => match survey::survey(family, &checkpoint) {
                Ok(mut all) => {
                    let known = |p: &TensorProblem| matches!(p, TensorProblem::Missing { .. }) || all.contains(p);
                    let more: Vec<_> = problems.iter().filter(|p| all.is_empty() || !known(p)).cloned().collect();
                    all.extend(more);
                    ModelError::Tensors { path, problems: all }
                }
                Err(problem) => problem,
            },
            problem => problem,
        }),
    };
    let described = described.map_err(|problem| with_nearest(family, problem, foreign::plain_names(&checkpoint)))?;
    complete(dir, described, checkpoint)
}

/// What a family's own files say.
fn describe(
    dir: &Path,
    family: Family,
    config: Json<'static>,
    checkpoint: &Checkpoint,
) -> Result<Described, ModelError> {
    let path = dir.join("config.json");
    match family {
        Family::DepthVla => describe_depthvla(dir, &path, config),
        Family::LerobotPi0 | Family::LerobotPi05 => lerobot::describe(family, dir, &path, &config, checkpoint),
        Family::Openpi => openpi::describe(dir, &path, &config, checkpoint),
        Family::OpenPiZero | Family::Galaxea => open_pi_zero::describe(family, dir, checkpoint),
        Family::PaliGemma => paligemma::describe(dir, &path, &config, checkpoint),
        Family::Dinov2 | Family::DepthAnything => {
            let purpose = family.purpose().unwrap_or_default();
            Err(ModelError::NoActions { path: dir.to_owned(), family, purpose })
        }
    }
}

/// A model as described, with its tensors.
fn complete(dir: &Path, described: Described, checkpoint: Checkpoint) -> Result<Loaded, ModelError> {
    let Described { family, mut config, normalization, state_dims, action_dim } = described;
    let hints = Hints::read(dir)?;
    config.resize = hints.resize.unwrap_or(config.resize);
    config.prompt = hints.prompt.unwrap_or(config.prompt);
    let cameras = match hints.cameras {
        Some(cameras) => cameras,
        None => lerobot_stats::cameras(dir, &config.views)?,
    };
    rename_views(&mut config, &cameras)?;
    let model = Model::new(config)?;
    let NameMap { names, ignored } = family.names();
    let mut params = model.params.clone();
    for param in params.params.iter_mut().filter(|p| family == Family::PaliGemma && !paligemma::has(&p.name)) {
        param.role = Role::Unused;
    }
    let weights = find(family, checkpoint, &params, |p| names(&p.name), ignored)?;
    let skipped_views = Vec::new();
    let mut loaded = Loaded { family, model, weights, normalization, state_dims, action_dim, skipped_views, cameras };
    if let Some(views) = &hints.views {
        let known = &loaded.model.config.views;
        if let Some(view) = views.iter().find(|v| !known.contains(v)) {
            let (field, expected) = ("fathom.json: views".to_owned(), format!("some of {known:?}"));
            return Err(ConfigError { field, expected, found: view.clone() }.into());
        }
        let skipped: Vec<String> = known.iter().filter(|v| !views.contains(v)).cloned().collect();
        loaded.skip_views(&skipped)?;
    }
    Ok(loaded)
}

/// Gives views the robot's names of its cameras.
fn rename_views(config: &mut ModelConfig, cameras: &BTreeMap<String, String>) -> Result<(), ModelError> {
    let wrong = |view: &&String| !config.views.contains(view) || cameras.values().filter(|v| v == view).count() > 1;
    if let Some(view) = cameras.values().find(wrong) {
        let (field, expected) = ("fathom.json: cameras".to_owned(), format!("some of {:?}, each once", config.views));
        return Err(ConfigError { field, expected, found: view.clone() }.into());
    }
    let depth = config.depth.iter_mut().map(|d| &mut d.views);
    for name in std::iter::once(&mut config.views).chain(depth).flatten() {
        if let Some((camera, _)) = cameras.iter().find(|(_, view)| *view == name) {
            name.clone_from(camera);
        }
    }
    Ok(())
}

fn describe_depthvla(dir: &Path, path: &Path, mut config: Json<'static>) -> Result<Described, ModelError> {
    config.remove("model_type");
    let config: ModelConfig =
        json::from_tree(&config).map_err(|source| ModelError::Json { path: path.to_owned(), source })?;
    let normalization = Normalization {
        relative: config.relative_actions.clone(),
        ..Normalization::openpi(dir, config.normalization, Hints::read(dir)?.allow_constant)?
    };
    let state_dims = normalization.state_len().map_or(1..=config.state_dim, |n| n..=n);
    let action_dim = normalization.action_len().unwrap_or(config.action_dim);
    let lengths = [("state", *state_dims.start(), config.state_dim), ("actions", action_dim, config.action_dim)];
    check_lengths(dir, lengths)?;
    Ok(Described { family: Family::DepthVla, config, normalization, state_dims, action_dim })
}

/// `fathom.json`: what neither tensor shapes nor the origin's configuration tell.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hints {
    heads: Option<usize>,
    kv_heads: Option<usize>,
    vision_heads: Option<usize>,
    patch: Option<usize>,
    /// The cameras that the robot has: the checkpoint's others are skipped. For open-pi-zero and Galaxea, whose files do not
    /// name them, all cameras in order.
    views: Option<Vec<String>>,
    /// The robot's names of cameras, and which view of the checkpoint each is.
    cameras: Option<BTreeMap<String, String>>,
    /// Instead of the family's own.
    resize: Option<Resize>,
    /// Instead of the family's own.
    prompt: Option<PromptFormat>,
    /// Whether an element of state or action that never changed in training is taken as constant, and not refused.
    #[serde(default)]
    allow_constant: bool,
    /// Galaxea: `z-score`, `min/max`, `q01/q99`, or a range such as `0/100`.
    norm_default_mode: Option<String>,
    /// Galaxea: for `action` and `state`, modes of single keys.
    #[serde(default)]
    norm_exception_mode: BTreeMap<String, BTreeMap<String, String>>,
    /// Galaxea: whether each step of a chunk has statistics of its own.
    use_stepwise_action_norm: Option<bool>,
    /// openpi: which folder of `assets` has the statistics, where there are several.
    asset_id: Option<String>,
    /// openpi's `make_bool_mask`: `[6, -1]` is six elements relative to the state, and one absolute.
    relative_actions: Option<Vec<i32>>,
    /// Longest prompt, where the origin's files do not say.
    max_tokens: Option<usize>,
    /// Flow steps, where the origin's files do not say.
    steps: Option<usize>,
    /// open-pi-zero, Galaxea: actions in a chunk.
    horizon: Option<usize>,
    /// open-pi-zero, Galaxea: of the time embedding.
    max_period: Option<f64>,
    /// openpi's `discrete_state_input`.
    state_in_prompt: Option<bool>,
}

impl Hints {
    fn read(dir: &Path) -> Result<Hints, ModelError> {
        let path = dir.join("fathom.json");
        if is_there(&path) { read_json(&path) } else { Ok(Hints::default()) }
    }

    /// The mask, element by element.
    fn relative(&self) -> Vec<bool> {
        let parts = self.relative_actions.iter().flatten();
        parts.flat_map(|n| std::iter::repeat_n(*n > 0, n.unsigned_abs() as usize)).collect()
    }
}
