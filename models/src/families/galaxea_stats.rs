//! Galaxea's `dataset_stats.json`: statistics of each key of state and action, which it puts one after another in the order
//! of the file (`LinearNormalizer`, `ConcatLeftAlign`).

use std::path::Path;

use serde::Deserialize;

use super::{Hints, read_json};
use crate::error::{ConfigError, ModelError};
use crate::normalize::{Affine, Element, Normalization, Source};

/// `SingleFieldLinearNormalizer.std_reg`
const STD_EPS: f32 = 1e-8;
/// `range_tol`: what spans less is only centred.
const LEAST_SPAN: f32 = 1e-4;

#[derive(Deserialize)]
struct File {
    action: Ordered<Lists>,
    state: Ordered<Lists>,
}

/// A JSON object in the order of the file.
struct Ordered<T>(Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Ordered<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Ordered<T>, D::Error> {
        struct Visitor<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Visitor<T> {
            type Value = Ordered<T>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("statistics by key")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Ordered<T>, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Ordered(entries))
            }
        }
        deserializer.deserialize_map(Visitor(std::marker::PhantomData))
    }
}

/// Of one key: lists by element, and lists by step and element.
#[derive(Deserialize)]
struct Lists {
    global_mean: Vec<f32>,
    global_std: Vec<f32>,
    global_min: Vec<f32>,
    global_max: Vec<f32>,
    global_q01: Vec<f32>,
    global_q99: Vec<f32>,
    stepwise_mean: Vec<Vec<f32>>,
    stepwise_std: Vec<Vec<f32>>,
    stepwise_min: Vec<Vec<f32>>,
    stepwise_max: Vec<Vec<f32>>,
    stepwise_q01: Vec<Vec<f32>>,
    stepwise_q99: Vec<Vec<f32>>,
}

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
            let expected = "z-score, min/max, q01/q99, or a range such as 0/100".to_owned();
            ConfigError { field: format!("fathom.json: {field}"), expected, found: name.to_owned() }.into()
        })
    }

    fn elements(
        self,
        source: Source<'_>,
        [mean, std, min, max, q01, q99]: [&[f32]; 6],
    ) -> Result<Vec<Element>, ModelError> {
        let n = mean.len();
        if [std, min, max, q01, q99].iter().any(|list| list.len() != n) {
            let detail = format!("{}: expected lists of one length", source.what);
            return Err(ModelError::Statistics { path: source.path.to_owned(), detail });
        }
        let range = |low: &[f32], high: &[f32]| low.iter().zip(high).map(|(l, h)| span(*l, *h)).collect();
        Ok(match self {
            Mode::Zscore => {
                mean.iter().zip(std).map(|(m, s)| Element { offset: *m, scale: s + STD_EPS, spread: *s }).collect()
            }
            Mode::MinMax => range(min, max),
            Mode::Quantile => range(q01, q99),
            Mode::Constant(low, high) => range(&vec![low; n], &vec![high; n]),
        })
    }
}

/// Low and high to −1 and 1; where there is next to nothing between them, low to 0, unscaled.
fn span(low: f32, high: f32) -> Element {
    if (0.0..LEAST_SPAN).contains(&(high - low)) {
        return Element { offset: low, scale: 1.0, spread: 1.0 };
    }
    Element { offset: low + (high - low) / 2.0, scale: (high - low) / 2.0, spread: high - low }
}

/// The statistics in `path`, used as the hints `norm_default_mode`, `norm_exception_mode` and `use_stepwise_action_norm` say.
pub(super) fn read(path: &Path, hints: &Hints) -> Result<Normalization, ModelError> {
    let file: File = read_json(path)?;
    let default = Mode::parse("norm_default_mode", hints.norm_default_mode.as_deref().unwrap_or("z-score"))?;
    let modes = |part: &str, stats: &Ordered<Lists>| -> Result<Vec<Mode>, ModelError> {
        let exceptions = hints.norm_exception_mode.get(part);
        if let Some(key) = exceptions.iter().flat_map(|e| e.keys()).find(|k| stats.0.iter().all(|(key, _)| key != *k)) {
            let known: Vec<&String> = stats.0.iter().map(|(key, _)| key).collect();
            let field = format!("fathom.json: norm_exception_mode.{part}");
            return Err(ConfigError { field, expected: format!("some of {known:?}"), found: key.clone() }.into());
        }
        let of = |key: &String| match exceptions.and_then(|e| e.get(key)) {
            Some(mode) => Mode::parse("norm_exception_mode", mode),
            None => Ok(default),
        };
        stats.0.iter().map(|(key, _)| of(key)).collect()
    };
    let source = |what| Source { path, what, allow_constant: hints.allow_constant };
    // With a step, its own lists.
    let affine = |what: &'static str, stats: &Ordered<Lists>, modes: &[Mode], step: Option<usize>| {
        let mut elements = Vec::new();
        for ((_, l), mode) in stats.0.iter().zip(modes) {
            let stepwise =
                [&l.stepwise_mean, &l.stepwise_std, &l.stepwise_min, &l.stepwise_max, &l.stepwise_q01, &l.stepwise_q99];
            let global = [&l.global_mean, &l.global_std, &l.global_min, &l.global_max, &l.global_q01, &l.global_q99];
            let lists = match step {
                Some(step) => stepwise.map(|lists| lists.get(step).map_or(&[][..], Vec::as_slice)),
                None => global.map(Vec::as_slice),
            };
            elements.extend(mode.elements(source(what), lists)?);
        }
        Affine::of(source(what), &elements)
    };
    let state = affine("state", &file.state, &modes("state", &file.state)?, None)?;
    let modes = modes("action", &file.action)?;
    let stepwise = hints.use_stepwise_action_norm.unwrap_or(false);
    let count = file.action.0.iter().map(|(_, l)| l.stepwise_mean.len()).min().filter(|_| stepwise).unwrap_or(0);
    let steps = (0..count).map(|step| affine("action", &file.action, &modes, Some(step)));
    let steps = steps.collect::<Result<Vec<_>, _>>()?;
    let action = match steps.first() {
        Some(first) => first.clone(),
        None => affine("action", &file.action, &modes, None)?,
    };
    Ok(Normalization { source: Some(path.to_owned()), state, action, steps, relative: Vec::new() })
}
