//! lerobot's pi0 and pi0.5: `config.json`, the tensors, and the processors with their statistics.

use serde::Deserialize;

use super::pi0::{Settings, Shapes};
use super::{lerobot_stats, pi0};
use crate::error::{ConfigError, ModelError};
use crate::families::description::{Described, Directory, Family};
use crate::families::hints::Hints;
use crate::io::JsonError;
use crate::io::json::At;
use crate::nets::config::{NormalizationMode, PromptFormat, Resize, TimeConditioning};

/// lerobot's policies, whose names have a prefix.
pub(in crate::families) const COMMON: Family = Family {
    names: pi0::names,
    writes: |name| name.starts_with(pi0::PREFIX),
    ignored: pi0::ignored,
    views: |config, _| views(At::root(config).some("input_features").as_ref()).unwrap_or_default(),
    mode_name: |said, _| said.map_or("mean_std".to_owned(), str::to_lowercase),
    ..Family::POLICY
};

/// The fields of lerobot's `PI0Config` and `PI05Config` that inference depends on, but for the features.
#[derive(Deserialize)]
struct Pi0Config {
    #[serde(default)]
    empty_cameras: usize,
    chunk_size: usize,
    max_state_dim: usize,
    max_action_dim: usize,
    tokenizer_max_length: usize,
    num_inference_steps: Option<usize>,
    /// The same in 0.3 and before.
    num_steps: Option<usize>,
    #[serde(default = "min_period")]
    min_period: f64,
    #[serde(default = "max_period")]
    max_period: f64,
    paligemma_variant: Option<String>,
    /// Height and width that images are resized to.
    image_resolution: Option<[usize; 2]>,
    /// The same in 0.3 and before, which pad on the left and at the top.
    resize_imgs_with_padding: Option<[usize; 2]>,
    #[serde(default)]
    adapt_to_pi_aloha: bool,
    #[serde(default)]
    use_relative_actions: bool,
}

fn min_period() -> f64 {
    4e-3
}

fn max_period() -> f64 {
    4.0
}

/// How lerobot calls the state and the actions. It takes the features of these names, whatever others of their types there
/// are, and of an image every feature of the type `VISUAL`, in the order of the file.
pub(super) const STATE: &str = "observation.state";
pub(super) const ACTION: &str = "action";
const IMAGES: &str = "observation.images.";

/// A camera's name, as its users call it.
pub(super) fn view(feature: &str) -> &str {
    feature.strip_prefix(IMAGES).unwrap_or(feature)
}

/// Views, in their order, of the features that are cameras.
///
/// # Errors
/// [`JsonError::Value`] for a feature that has a camera's name and another type, or a type that is no text.
pub(super) fn views(features: Option<&At<'_>>) -> Result<Vec<String>, JsonError> {
    let mut views = Vec::new();
    for (name, feature) in features.map(At::entries).transpose()?.into_iter().flatten() {
        let camera = name == "observation.image" || name.starts_with(IMAGES);
        let kind = feature.get("type");
        match &kind {
            // Of a feature that is not read, nothing is.
            Some(kind) if kind.is_text("VISUAL") => views.push(view(name).to_owned()),
            Some(kind) if camera => return Err(kind.wrong("\"VISUAL\", for a feature with the name of a camera")),
            None if camera => return Err(feature.wrong("a feature with the type \"VISUAL\"")),
            _ => {}
        }
    }
    Ok(views)
}

/// Number of values of the feature `name`, which has the type `kind`; `None` if there is no such feature.
///
/// # Errors
/// [`JsonError::Value`] for another type, and for a shape that is not one length from 1 to `most`.
fn length(features: Option<&At<'_>>, name: &str, kind: &str, most: usize) -> Result<Option<usize>, JsonError> {
    let Some(feature) = features.map(|f| f.entries().map(|_| f.get(name))).transpose()?.flatten() else {
        return Ok(None);
    };
    match feature.get("type") {
        Some(found) if found.is_text(kind) => {}
        Some(found) => return Err(found.wrong(format!("{kind:?}"))),
        None => return Err(feature.wrong(format!("a feature with the type {kind:?}"))),
    }
    let Some(shape) = feature.get("shape") else { return Err(feature.wrong("a feature with a shape")) };
    let one = || format!("a list of one length, at most {most}");
    let lengths = shape.items().map_err(|_| shape.wrong(one()))?;
    match lengths.as_slice() {
        [length] => match length.read::<usize>()? {
            n if (1..=most).contains(&n) => Ok(Some(n)),
            _ => Err(length.wrong(format!("1 to {most} values"))),
        },
        _ => Err(shape.wrong(one())),
    }
}

pub(in crate::families) fn describe(
    Directory { dir, path, config, checkpoint, .. }: Directory<'_>,
    time_conditioning: TimeConditioning,
    prompt: PromptFormat,
) -> Result<Described, ModelError> {
    let json = ModelError::json(&path);
    let config = At::root(&config);
    let c: Pi0Config = config.read().map_err(json)?;
    let wrong = |field: &str, expected: &str, found: String| {
        ModelError::from(ConfigError::new(format!("{}: {field}", path.display()), expected, found))
    };
    if c.adapt_to_pi_aloha {
        return Err(wrong("adapt_to_pi_aloha", "false", "true".to_owned()));
    }
    // How 0.3 and before use the statistics beside the weights; later, the processors say it of state and action.
    let mapping = config.get("normalization_mapping");
    let visual = mapping.as_ref().map(|m| m.entries().map(|_| m.get("VISUAL"))).transpose().map_err(json)?.flatten();
    let visual: Option<String> = visual.map(|mode| mode.read()).transpose().map_err(json)?;
    if let Some(mode) = visual.filter(|mode| mode != "IDENTITY") {
        return Err(wrong("normalization_mapping.VISUAL", "IDENTITY", mode));
    }
    let steps = c.num_inference_steps.or(c.num_steps);
    let steps = steps.ok_or_else(|| wrong("num_inference_steps", "a value", "no such key".to_owned()))?;
    // A policy that has no features yet may have null for them.
    let (inputs, outputs) = (config.some("input_features"), config.some("output_features"));
    let mut views = views(inputs.as_ref()).map_err(json)?;
    // lerobot appends cameras that are never there; a masked view changes nothing, so it is left out.
    views.retain(|v| c.empty_cameras == 0 || !v.starts_with("empty_camera"));
    let state_dim = length(inputs.as_ref(), STATE, "STATE", c.max_state_dim).map_err(json)?;
    let action_dim = length(outputs.as_ref(), ACTION, "ACTION", c.max_action_dim).map_err(json)?;
    let (state_dim, action_dim) = (state_dim.unwrap_or(c.max_state_dim), action_dim.unwrap_or(c.max_action_dim));

    let hints = Hints::read(dir)?;
    // A base that was made for no robot names none.
    if views.is_empty() {
        views = hints.views.clone().unwrap_or_default();
    }
    let known = matches!(c.paligemma_variant.as_deref(), Some("gemma_2b" | "gemma_300m") | None);
    if !known && (hints.heads.is_none() || hints.kv_heads.is_none()) {
        let expected = "gemma_2b, or heads and kv_heads in fathom.json";
        return Err(wrong("paligemma_variant", expected, c.paligemma_variant.unwrap_or_default()));
    }
    let resolution = c.resize_imgs_with_padding.or(c.image_resolution);
    if let Some([height, width]) = resolution.filter(|[height, width]| height != width) {
        return Err(wrong("image_resolution", "a square", format!("{height} × {width}")));
    }
    let settings = Settings {
        views,
        resize: if c.resize_imgs_with_padding.is_some() {
            Resize::TorchBilinearPadTopLeft
        } else {
            Resize::TorchBilinear
        },
        image_size: resolution.map(|[side, _]| side),
        max_tokens: c.tokenizer_max_length,
        state_dim: c.max_state_dim,
        action_dim: c.max_action_dim,
        horizon: c.chunk_size,
        steps,
        periods: (c.min_period, c.max_period),
        normalization: NormalizationMode::default(),
        time_conditioning,
        prompt,
        action: None,
    };
    let config = pi0::config(&Shapes { checkpoint, names: pi0::names }, &hints, settings)?;
    let normalization =
        lerobot_stats::read(dir, &path, checkpoint, mapping.as_ref(), action_dim, hints.allow_constant)?;
    if c.use_relative_actions == normalization.relative.is_empty() {
        let expected = format!("{}, as the processors say", !c.use_relative_actions);
        return Err(wrong("use_relative_actions", &expected, c.use_relative_actions.to_string()));
    }
    let lengths = [("state", normalization.state_len(), state_dim), ("action", normalization.action_len(), action_dim)];
    for (what, found, expected) in lengths {
        if found.is_some_and(|n| n != expected) {
            let detail = format!("{what}: expected {expected} values as in config.json, found {}", found.unwrap_or(0));
            return Err(ModelError::statistics(dir, detail));
        }
    }
    Ok(Described { config, normalization, state_dims: state_dim..=state_dim, action_dim })
}
