use std::fmt;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, de};

use super::summary::{PolicySummary, Summary};
use super::{ALL, nearest};
use crate::checkpoint::Checkpoint;
use crate::error::{ConfigError, ModelError};
use crate::graph::params::{ParamTable, Role};
use crate::io::JsonError;
use crate::io::json::{At, Json};
use crate::nets::config::{ModelConfig, NormalizationMode, TimeConditioning};
use crate::nets::depthvla::Model;
use crate::nets::presets;
use crate::processing::Loaded;
use crate::processing::normalize::Normalization;

/// A kind of checkpoint: how its directory is recognised and read.
pub struct Family {
    /// Its name, as `--family` takes it.
    pub name: &'static str,
    /// The purpose of a checkpoint that gives no actions.
    pub purpose: Option<&'static str>,
    /// How its directory is recognised.
    pub(super) mark: Mark,
    /// Reads a policy's configuration, sizes and statistics.
    pub(super) describe: fn(Directory<'_>) -> Result<Described, ModelError>,
    /// Whether `config.json` holds every size. Else the shapes of tensors give them.
    pub(super) sizes_in_config: bool,
    /// Names that a parameter of Fathom's naming may have, most likely first.
    pub(super) names: fn(&str) -> Vec<String>,
    /// Whether the origin itself writes such a name.
    pub(super) writes: fn(&str) -> bool,
    /// Whether it has a parameter of Fathom's naming.
    pub(super) has: fn(&str) -> bool,
    /// Whether a tensor that is no parameter may be there.
    pub(super) ignored: fn(&str) -> bool,
    /// The sets of parameters that its models have.
    pub(super) forms: &'static [Form],
    /// For one that is not of Fathom's naming: how its tensors' names begin.
    pub(super) outline: Option<nearest::Outline>,
    /// Every view that the origin's files name.
    pub(super) views: fn(&Json<'_>, &Loaded) -> Vec<String>,
    /// The origin's name of a mode of normalisation: by its processors, and by the configuration.
    pub(super) mode_name: fn(Option<&str>, NormalizationMode) -> String,
    /// Reads its summary.
    pub(super) summary: fn(&Path, Option<&'static Family>) -> Result<Summary, ModelError>,
}

/// How a directory is recognised.
pub(super) enum Mark {
    /// `type` of `config.json`, which lerobot writes.
    Type(&'static str),
    /// `model_type` of `config.json`, which Hugging Face and Fathom write.
    ModelType(&'static str),
    /// Keys of a `config.json` that has neither.
    Keys(&'static [&'static str]),
    /// Tensors, if there is no `config.json`.
    Tensors(fn(&Checkpoint) -> bool),
    /// By `--family` alone.
    Unmarked,
}

/// A set of parameters.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// DepthVLA.
    DepthVla,
    /// pi0.
    Pi0,
    /// pi0 with an action head of two layers.
    Pi0TwoLayerHead,
    /// pi0.5.
    Pi05,
}

impl Form {
    /// A configuration that has them, of the smallest sizes.
    pub(super) fn config(self) -> ModelConfig {
        let pi0 = ModelConfig { depth: None, ..presets::small() };
        match self {
            Form::DepthVla => presets::small(),
            Form::Pi0 => pi0,
            Form::Pi0TwoLayerHead => ModelConfig { action_head_layers: 2, ..pi0 },
            Form::Pi05 => ModelConfig { time_conditioning: TimeConditioning::AdaRms, state_token: false, ..pi0 },
        }
    }
}

/// A directory that is read as one of a family.
pub(super) struct Directory<'a> {
    pub(super) family: &'static Family,
    pub(super) dir: &'a Path,
    /// Its `config.json`, which some families lack.
    pub(super) path: PathBuf,
    pub(super) config: Json<'static>,
    pub(super) checkpoint: &'a Checkpoint,
}

/// A policy as its family's files describe it.
pub(super) struct Described {
    pub(super) config: ModelConfig,
    pub(super) normalization: Normalization,
    pub(super) state_dims: RangeInclusive<usize>,
    pub(super) action_dim: usize,
}

impl Described {
    /// By statistics whose lengths are the robot's, with the file's `names` of state and actions for errors.
    ///
    /// # Errors
    /// [`ModelError::Statistics`] for a length beyond the model's.
    pub(super) fn of(
        dir: &Path,
        config: ModelConfig,
        normalization: Normalization,
        names: [&str; 2],
    ) -> Result<Described, ModelError> {
        let state_dims = normalization.state_len().map_or(1..=config.state_dim, |n| n..=n);
        let action_dim = normalization.action_len().unwrap_or(config.action_dim);
        let lengths = [(*state_dims.start(), config.state_dim), (action_dim, config.action_dim)];
        for (name, (own, models)) in names.into_iter().zip(lengths) {
            if own > models {
                let detail = format!("{name}: {own} values for a model that takes {models}");
                return Err(ModelError::statistics(dir, detail));
            }
        }
        Ok(Described { config, normalization, state_dims, action_dim })
    }
}

impl Family {
    /// A policy with Fathom's own names; without a name of its own.
    pub(super) const POLICY: Family = Family {
        name: "",
        purpose: None,
        mark: Mark::Unmarked,
        describe: |d| Err(d.family.no_actions(d.dir)),
        sizes_in_config: false,
        names: |own| vec![own.to_owned()],
        writes: |_| true,
        has: |_| true,
        ignored: |_| false,
        forms: &[],
        outline: None,
        views: |_, loaded| loaded.skipped_views.clone(),
        mode_name: |_, mode| mode.name().to_owned(),
        summary: PolicySummary::read,
    };

    /// The error of a checkpoint that gives no actions.
    pub(super) fn no_actions(&self, dir: &Path) -> ModelError {
        let (family, purpose) = (self.name, self.purpose.unwrap_or_default());
        ModelError::NoActions { path: dir.to_owned(), family, purpose }
    }

    /// The family that `config.json` names.
    pub(super) fn of(config: &Json<'_>) -> Result<Option<&'static Family>, JsonError> {
        // transformers' own PI0 has the model_type of lerobot's type.
        let [policy, model] = kinds(config)?;
        let marked = |mark: &Mark| match (mark, policy.as_deref(), model.as_deref()) {
            (Mark::Type(own), Some(found), _) | (Mark::ModelType(own), None, Some(found)) => *own == found,
            (Mark::Keys(keys), None, None) => keys.iter().all(|key| config.get(key).is_some()),
            _ => false,
        };
        Ok(ALL.into_iter().find(|family| marked(&family.mark)))
    }

    /// The parameters of a model. Those that the family lacks are unused.
    pub(super) fn params(&self, model: &Model) -> ParamTable {
        let mut table = model.params.clone();
        let lacking = table.params.iter_mut().filter(|p| !(self.has)(&p.name));
        lacking.for_each(|param| param.role = Role::Unused);
        table
    }

    /// Whether its directory has a `config.json` that is read.
    pub(super) fn reads_config(&self) -> bool {
        !matches!(self.mark, Mark::Tensors(_) | Mark::Unmarked)
    }
}

/// `type` and `model_type` of a configuration.
pub(super) fn kinds(config: &Json<'_>) -> Result<[Option<String>; 2], JsonError> {
    let kind = |key: &str| At::root(config).some(key).map(|kind| kind.read::<String>()).transpose();
    Ok([kind("type")?, kind("model_type")?])
}

/// The marks of all families in a `config.json`, for errors.
pub(super) fn marks() -> String {
    let quoted = |texts: Vec<&str>| texts.iter().map(|t| format!("{t:?}")).collect::<Vec<_>>().join(" or ");
    let types = ALL.iter().filter_map(|f| if let Mark::Type(own) = f.mark { Some(own) } else { None }).collect();
    let models = ALL.iter().filter_map(|f| if let Mark::ModelType(own) = f.mark { Some(own) } else { None }).collect();
    let keys = ALL.iter().filter_map(|f| if let Mark::Keys(keys) = f.mark { Some(keys.join(" and ")) } else { None });
    let keys: Vec<String> = keys.collect();
    format!("\"model_type\": {} or \"type\": {} or {}", quoted(models), quoted(types), keys.join(" or "))
}

impl fmt::Debug for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.name, f)
    }
}

impl PartialEq for Family {
    fn eq(&self, other: &Family) -> bool {
        self.name == other.name
    }
}

impl FromStr for &'static Family {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<&'static Family, ConfigError> {
        let found = ALL.into_iter().find(|family| family.name == name);
        found.ok_or_else(|| ConfigError::new("family", format!("one of {}", names()), name))
    }
}

impl<'de> Deserialize<'de> for &'static Family {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<&'static Family, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// The names of all families.
pub(super) fn names() -> String {
    ALL.map(|family| family.name).join(", ")
}
