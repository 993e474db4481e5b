//! Where a checkpoint comes from. A family is one description in a file of its own: [`ALL`] lists them, and everything that
//! differs between families is a field of [`Family`].

use std::collections::BTreeMap;
use std::path::Path;

use crate::checkpoint::{Checkpoint, UnverifiedWeights, Weights, foreign, unwrapped};
use crate::error::{ConfigError, ModelError, TensorProblem};
use crate::graph::params::{Param, ParamTable};
use crate::io::is_there;
use crate::io::json::{Json, read_tree};
use crate::nets::config::ModelConfig;
use crate::nets::depthvla::Model;
use description::{Described, Directory, Mark};
use hints::Hints;
use shared::{lerobot_stats, pi0};

pub mod compose;
mod description;
mod hints;
mod nearest;
mod origin;
mod shared;
pub mod summary;
mod survey;

pub mod depth_anything;
pub mod depthvla;
pub mod dinov2;
pub mod galaxea;
pub mod lerobot_pi0;
pub mod lerobot_pi05;
pub mod open_pi_zero;
pub mod openpi;
pub mod paligemma;

pub use crate::processing::Loaded;
pub use description::Family;
pub use origin::Origin;

/// Every family.
pub static ALL: [&Family; 9] = [
    &depthvla::FAMILY,
    &lerobot_pi0::FAMILY,
    &lerobot_pi05::FAMILY,
    &openpi::FAMILY,
    &open_pi_zero::FAMILY,
    &galaxea::FAMILY,
    &paligemma::FAMILY,
    &dinov2::FAMILY,
    &depth_anything::FAMILY,
];

/// Metadata of a packed checkpoint: its family's name.
pub const FAMILY: &str = "fathom.family";

/// Whether a tensor of a checkpoint holds statistics: lerobot 0.3 keeps them beside the weights.
pub(crate) fn is_statistics(name: &str) -> bool {
    pi0::is_statistics(&unwrapped(name))
}

/// The family that `config.json` in `dir` names, if any.
pub fn detect(dir: &Path) -> Option<&'static Family> {
    Family::of(&read_tree(&dir.join("config.json")).ok()?).ok()?
}

/// Loads the policy in the directory `dir`, whose files say which family it is of.
///
/// # Errors
/// Every way in which the directory is not a policy: see [`ModelError`].
pub fn load(dir: &Path) -> Result<Loaded, ModelError> {
    load_as(dir, None)
}

/// As [`load`], of the given family.
///
/// # Errors
/// As [`load`].
pub fn load_as(dir: &Path, family: Option<&'static Family>) -> Result<Loaded, ModelError> {
    open_as(dir, family)?.verify()
}

/// As [`load_as`], without the numbers of the weights, which are still to verify.
///
/// # Errors
/// As [`load`].
pub fn open_as(dir: &Path, family: Option<&'static Family>) -> Result<Loaded<UnverifiedWeights>, ModelError> {
    let (family, loaded) = open_any(dir, family)?;
    if family.purpose.is_none() {
        return Ok(loaded);
    }
    loaded.verify()?;
    Err(family.no_actions(dir))
}

/// As [`load_as`], or a PaliGemma, whose action expert is declared and not there.
///
/// # Errors
/// As [`load`].
pub fn load_base(dir: &Path, family: Option<&'static Family>) -> Result<Loaded, ModelError> {
    open_any(dir, family)?.1.verify()
}

fn open_any(
    dir: &Path,
    family: Option<&'static Family>,
) -> Result<(&'static Family, Loaded<UnverifiedWeights>), ModelError> {
    Checkpoint::open_model(dir, |checkpoint| {
        let (family, config) = identify(dir, family, &checkpoint)?;
        let described = describe(dir, family, config, &checkpoint)
            .map_err(|problem| nearest::with_nearest(family, problem, foreign::plain_names(&checkpoint)))?;
        Ok((family, complete(dir, family, described, checkpoint)?))
    })
}

/// The parameters of a family's model in its checkpoint, as [`Weights::resolve`].
///
/// # Errors
/// [`ModelError::Tensors`], or [`ModelError::OtherFamily`] with the family that the names fit best.
fn find(
    family: &'static Family,
    checkpoint: Checkpoint,
    params: &ParamTable,
    names: impl Fn(&Param) -> Vec<String>,
) -> Result<UnverifiedWeights, ModelError> {
    let known = foreign::plain_names(&checkpoint);
    Weights::resolve(checkpoint, params, names, family.ignored)
        .map_err(|problem| nearest::with_nearest(family, problem, known))
}

/// The family, if it is not given, and `config.json`, if the family has one.
fn identify(
    dir: &Path,
    family: Option<&'static Family>,
    checkpoint: &Checkpoint,
) -> Result<(&'static Family, Json<'static>), ModelError> {
    let path = dir.join("config.json");
    let packed = || checkpoint.metadata(FAMILY)?.parse().ok();
    let recognised = |f: &&Family| matches!(f.mark, Mark::Tensors(fits) if fits(checkpoint));
    let by_tensors = || ALL.into_iter().find(recognised).filter(|_| !is_there(&path));
    let family = family.or_else(packed).or_else(by_tensors);
    let config = if family.is_none_or(Family::reads_config) { read_tree(&path)? } else { Json::Null };
    let json = ModelError::json(&path);
    if let Some(family) = family.map_or_else(|| Family::of(&config).map_err(json), |f| Ok(Some(f)))? {
        return Ok((family, config));
    }
    let kind = description::kinds(&config).map_err(json)?.into_iter().flatten().next();
    let mut found = kind.as_ref().map_or("neither".to_owned(), |k| format!("{k:?}"));
    if let Some(known) = kind.as_deref().and_then(nearest::known) {
        found += &format!(" ({known})");
    }
    let names = foreign::plain_names(checkpoint);
    if let Some(nearest) = nearest::nearest(&names) {
        found += &format!("\nnearest known family: {}", nearest.text(names.len()));
    }
    let expected = format!("{}, or --family with one of {}", description::marks(), description::names());
    Err(ConfigError::new(path.display().to_string(), expected, found).into())
}

/// Reads a family's own files. An error of tensors lists all that are wrong.
fn describe(
    dir: &Path,
    family: &'static Family,
    config: Json<'static>,
    checkpoint: &Checkpoint,
) -> Result<Described, ModelError> {
    if survey::is_due(family, checkpoint) {
        let problems = survey::survey(family, checkpoint)?;
        if !problems.is_empty() {
            return Err(ModelError::Tensors { path: checkpoint.path().to_owned(), problems });
        }
    }
    let path = dir.join("config.json");
    (family.describe)(Directory { family, dir, path, config, checkpoint }).or_else(|problem| {
        let ModelError::Tensors { path, problems } = problem else { return Err(problem) };
        // A tensor whose shape gives a size is one of all that do not fit.
        let mut all = survey::survey(family, checkpoint)?;
        let known = |p: &TensorProblem| matches!(p, TensorProblem::Missing { .. }) || all.contains(p);
        let more: Vec<_> = problems.iter().filter(|p| all.is_empty() || !known(p)).cloned().collect();
        all.extend(more);
        Err(ModelError::Tensors { path, problems: all })
    })
}

/// A model as described, with its tensors.
fn complete(
    dir: &Path,
    family: &'static Family,
    described: Described,
    checkpoint: Checkpoint,
) -> Result<Loaded<UnverifiedWeights>, ModelError> {
    let Described { mut config, normalization, state_dims, action_dim } = described;
    let hints = Hints::read(dir)?;
    config.resize = hints.resize.unwrap_or(config.resize);
    config.prompt = hints.prompt.unwrap_or(config.prompt);
    let cameras = match hints.cameras {
        Some(cameras) => cameras,
        None => lerobot_stats::cameras(dir, &config.views)?,
    };
    rename_views(&mut config, &cameras)?;
    let model = Model::new(config)?;
    let weights = find(family, checkpoint, &family.params(&model), |p| (family.names)(&p.name))?;
    let (family, skipped_views) = (family.name, Vec::new());
    let mut loaded = Loaded { family, model, weights, normalization, state_dims, action_dim, skipped_views, cameras };
    if let Some(views) = &hints.views {
        let known = &loaded.model.config.views;
        if let Some(view) = views.iter().find(|v| !known.contains(v)) {
            return Err(ConfigError::new("fathom.json: views", format!("some of {known:?}"), view).into());
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
        let expected = format!("some of {:?}, each once", config.views);
        return Err(ConfigError::new("fathom.json: cameras", expected, view).into());
    }
    let depth = config.depth.iter_mut().map(|d| &mut d.views);
    for name in std::iter::once(&mut config.views).chain(depth).flatten() {
        if let Some((camera, _)) = cameras.iter().find(|(_, view)| *view == name) {
            name.clone_from(camera);
        }
    }
    Ok(())
}
