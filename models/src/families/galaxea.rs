//! Galaxea's G0: a model as open-pi-zero's, and `dataset_stats.json` with statistics of each key of state and action, which it
//! concatenates in the order of the file (`LinearNormalizer`, `ConcatLeftAlign`).

use std::path::Path;

use super::description::{Family, Form};
use super::hints::Hints;
use super::open_pi_zero::{self, Defaults, MIXTURE};
use crate::error::{ConfigError, ModelError};
use crate::io::json::{At, read_tree};
use crate::io::{JsonError, is_there};
use crate::nets::config::{PromptFormat, Resize};
use crate::processing::normalize::{Affine, Element, Normalization, StatisticsSource};

/// Galaxea's G0.
pub static FAMILY: Family = Family {
    name: "galaxea",
    describe: |directory| open_pi_zero::describe(directory, DEFAULTS),
    forms: &[Form::Pi0TwoLayerHead],
    mode_name: |_, _| "galaxea".to_owned(),
    ..MIXTURE
};

const DEFAULTS: Defaults = Defaults {
    resize: Resize::TorchvisionStretch,
    max_tokens: 55,
    horizon: 32,
    prompt: PromptFormat::Galaxea,
    clip: None,
    statistics,
};

/// `SingleFieldLinearNormalizer.std_reg`
const STD_EPS: f32 = 1e-8;
/// `range_tol`: narrower elements are only centred.
const LEAST_SPAN: f32 = 1e-4;

/// `NormMode`
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Zscore,
    MinMax,
    Quantile,
    Constant(f32, f32),
}

impl Mode {
    fn parse(field: &str, name: &str) -> Result<Mode, ModelError> {
        let range = || {
            let (low, high) = name.split_once('/')?;
            let (low, high) = (low.parse().ok()?, high.parse().ok()?);
            (low < high).then_some(Mode::Constant(low, high))
        };
        let known = match name {
            "z-score" => Some(Mode::Zscore),
            "min/max" => Some(Mode::MinMax),
            "q01/q99" => Some(Mode::Quantile),
            _ => range(),
        };
        known.ok_or_else(|| {
            let expected = "z-score, min/max, q01/q99, or a range such as 0/100";
            ConfigError::new(format!("fathom.json: {field}"), expected, name).into()
        })
    }

    /// The lists that it reads.
    fn lists(self) -> [&'static str; 2] {
        match self {
            Mode::Zscore => ["mean", "std"],
            Mode::MinMax => ["min", "max"],
            // For their number alone.
            Mode::Constant(..) => ["mean"; 2],
            Mode::Quantile => ["q01", "q99"],
        }
    }

    fn elements(self, source: StatisticsSource<'_>, [first, second]: [&[f32]; 2]) -> Result<Vec<Element>, ModelError> {
        let n = first.len();
        if second.len() != n {
            let detail = format!("{}: expected lists of one length", source.what);
            return Err(ModelError::statistics(source.path, detail));
        }
        let range = |low: &[f32], high: &[f32]| low.iter().zip(high).map(|(l, h)| span(*l, *h)).collect();
        Ok(match self {
            Mode::Zscore => {
                let element = |(m, s): (&f32, &f32)| Element { offset: *m, scale: s + STD_EPS, spread: *s };
                first.iter().zip(second).map(element).collect()
            }
            Mode::MinMax | Mode::Quantile => range(first, second),
            Mode::Constant(low, high) => range(&vec![low; n], &vec![high; n]),
        })
    }
}

/// Low and high to −1 and 1; if there is next to nothing between them, low to 0, unscaled.
fn span(low: f32, high: f32) -> Element {
    if (0.0..LEAST_SPAN).contains(&(high - low)) {
        return Element { offset: low, scale: 1.0, spread: 1.0 };
    }
    Element { offset: low + (high - low) / 2.0, scale: (high - low) / 2.0, spread: high - low }
}

/// `dataset_stats.json`, or open-pi-zero's statistics if there is none.
fn statistics(dir: &Path, hints: &Hints) -> Result<Normalization, ModelError> {
    let path = dir.join("dataset_stats.json");
    if is_there(&path) { read(&path, hints) } else { open_pi_zero::statistics(dir, hints) }
}

/// The statistics in `path`, used as the hints `norm_default_mode`, `norm_exception_mode` and `use_stepwise_action_norm` say.
fn read(path: &Path, hints: &Hints) -> Result<Normalization, ModelError> {
    let tree = read_tree(path)?;
    let json = ModelError::json(path);
    let part = |part: &str| {
        let root = At::root(&tree);
        let stats = root.get(part).ok_or_else(|| root.wrong(format!("an object with the key {part}")));
        stats.and_then(|stats| stats.entries()).map_err(json)
    };
    let default = Mode::parse("norm_default_mode", hints.norm_default_mode.as_deref().unwrap_or("z-score"))?;
    let modes = |part: &str, stats: &[(&str, At<'_>)]| -> Result<Vec<Mode>, ModelError> {
        let exceptions = hints.norm_exception_mode.get(part);
        if let Some(key) = exceptions.iter().flat_map(|e| e.keys()).find(|k| stats.iter().all(|(key, _)| key != *k)) {
            let known: Vec<&str> = stats.iter().map(|(key, _)| *key).collect();
            let field = format!("fathom.json: norm_exception_mode.{part}");
            return Err(ConfigError::new(field, format!("some of {known:?}"), key).into());
        }
        let of = |key: &str| match exceptions.and_then(|e| e.get(key)) {
            Some(mode) => Mode::parse("norm_exception_mode", mode),
            None => Ok(default),
        };
        stats.iter().map(|(key, _)| of(key)).collect()
    };
    let source = |what| StatisticsSource { path, what, allow_constant: hints.allow_constant };
    // With a step, its own lists.
    let affine = |what: &'static str, stats: &[(&str, At<'_>)], modes: &[Mode], step: Option<usize>| {
        let mut elements = Vec::new();
        for ((_, lists), mode) in stats.iter().zip(modes) {
            let [first, second] = mode.lists().map(|name| {
                let list = list_of(lists, name, step)?;
                if let Mode::Constant(..) = mode { Ok(vec![0.0; list.items()?.len()]) } else { list.read::<Vec<f32>>() }
            });
            let (first, second) = (first.map_err(json)?, second.map_err(json)?);
            elements.extend(mode.elements(source(what), [&first, &second])?);
        }
        Affine::of(source(what), &elements)
    };
    let (state, action) = (part("state")?, part("action")?);
    let state = affine("state", &state, &modes("state", &state)?, None)?;
    let modes = modes("action", &action)?;
    let stepwise = hints.use_stepwise_action_norm.unwrap_or(false);
    let mut count = None;
    for ((_, lists), mode) in action.iter().zip(&modes).filter(|_| stepwise) {
        let [first, _] = mode.lists();
        let steps = list(lists, &format!("stepwise_{first}")).and_then(|steps| steps.items()).map_err(json)?;
        count = Some(count.map_or(steps.len(), |count: usize| count.min(steps.len())));
    }
    let steps = (0..count.unwrap_or(0)).map(|step| affine("action", &action, &modes, Some(step)));
    let steps = steps.collect::<Result<Vec<_>, _>>()?;
    let action = match steps.first() {
        Some(first) => first.clone(),
        None => affine("action", &action, &modes, None)?,
    };
    Ok(Normalization { source: Some(path.to_owned()), state, action, steps, relative: Vec::new() })
}

/// A list of a key's statistics.
fn list<'t>(lists: &At<'t>, name: &str) -> Result<At<'t>, JsonError> {
    lists.get(name).ok_or_else(|| lists.wrong(format!("an object with the key {name}")))
}

/// A list of values, of one step if it is given.
fn list_of<'t>(lists: &At<'t>, name: &str, step: Option<usize>) -> Result<At<'t>, JsonError> {
    let Some(step) = step else { return list(lists, &format!("global_{name}")) };
    let steps = list(lists, &format!("stepwise_{name}"))?;
    let of_step = steps.items()?.into_iter().nth(step);
    of_step.ok_or_else(|| steps.wrong(format!("a list of more than {step} steps")))
}
