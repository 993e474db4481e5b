//! The model's inputs: images, state, prompt, and optionally the noise; read from a safetensors file. And its actions.

use std::path::Path;

use safetensors::Dtype;

use crate::checkpoint::{Checkpoint, random};
use crate::error::ModelError;
use crate::nets::config::PromptFormat;
use crate::nets::image::ImageSpec;
use crate::processing::Loaded;
use crate::processing::prompt;

/// The inputs of one inference, in the form that the forward pass takes.
#[derive(Clone, Debug)]
pub struct Observation {
    /// One image a view, in the model's order: its form and its bytes.
    pub images: Vec<(ImageSpec, Vec<u8>)>,
    /// The robot's own state, un-normalised.
    pub state: Vec<f32>,
    /// Tokens of the prompt.
    pub tokens: Vec<i32>,
    /// `(horizon, action_dim)`.
    pub noise: Vec<f32>,
}

impl Observation {
    /// Reads `image.<view>` (u8, H × W × 3), `state` (f32), `tokens` (i32; or `prompt` in the metadata, whose
    /// text `tokenize` turns into tokens), and `noise` (f32, horizon × action dim; else made from `seed`).
    ///
    /// # Errors
    /// [`ModelError::Observation`] naming the part, the expected form and the found one.
    pub fn read<W>(
        path: &Path,
        loaded: &Loaded<W>,
        seed: u64,
        tokenize: impl Fn(&str) -> Result<Vec<i32>, ModelError>,
    ) -> Result<Observation, ModelError> {
        let file = Checkpoint::open(path)?;
        let config = &loaded.model.config;
        let images = config.views.iter().map(|view| image(&file, view)).collect::<Result<Vec<_>, _>>()?;
        let length = file.shape("state").and_then(|s| s.first().copied()).unwrap_or_default();
        let state = floats(&file, "state", &[length])?.unwrap_or_default();
        let tokens = match (file.tensor("tokens"), file.metadata("prompt")) {
            (Some((Dtype::I32, bytes)), _) => bytemuck::pod_collect_to_vec(bytes),
            (Some((dtype, _)), _) => return Err(refuse("tokens", "i32".to_owned(), format!("{dtype:?}"))),
            (None, Some(task)) => tokenize(&prompt::text(loaded, task, &state))?,
            (None, None) => return Err(missing("tokens", "i32 tokens, or prompt in the file's metadata".to_owned())),
        };
        let shape = [config.horizon, config.action_dim];
        let noise = floats(&file, "noise", &shape)?;
        let noise = noise.unwrap_or_else(|| random::normal(seed, config.horizon * config.action_dim));
        let observation = Observation { images, state, tokens, noise };
        observation.check(loaded)?;
        Ok(observation)
    }

    /// Checks lengths, limits and that every number is finite.
    ///
    /// # Errors
    /// [`ModelError::Observation`].
    pub fn check<W>(&self, loaded: &Loaded<W>) -> Result<(), ModelError> {
        let config = &loaded.model.config;
        check_state(loaded, &self.state)?;
        finite("noise", "finite numbers", &self.noise)?;
        if self.tokens.len() > config.max_tokens {
            let expected = format!("a prompt of at most {} tokens", config.max_tokens);
            return Err(refuse("tokens", expected, format!("{} tokens", self.tokens.len())));
        }
        Ok(())
    }

    /// The state as the model takes it: normalised, padded with zeros.
    pub fn model_state(&self, loaded: &Loaded) -> Vec<f32> {
        let mut state = self.state.clone();
        loaded.normalization.state.normalize(&mut state);
        state.resize(loaded.model.config.state_dim, 0.0);
        state
    }
}

/// Checks the length of the robot's own state, and that it is finite.
///
/// # Errors
/// [`ModelError::Observation`].
pub fn check_state<W>(loaded: &Loaded<W>, state: &[f32]) -> Result<(), ModelError> {
    let config = &loaded.model.config;
    if (config.state_token || config.prompt == PromptFormat::TaskAndState) && !loaded.state_dims.contains(&state.len())
    {
        let (least, most) = (loaded.state_dims.start(), loaded.state_dims.end());
        let range = if least == most { most.to_string() } else { format!("{least} to {most}") };
        return Err(refuse("state", format!("{range} f32 values"), format!("{} values", state.len())));
    }
    finite("state", "finite numbers", state)
}

fn finite(name: &str, expected: &str, values: &[f32]) -> Result<(), ModelError> {
    match values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
        Some((i, v)) => Err(refuse(name, expected.to_owned(), format!("{v} at element {i}"))),
        None => Ok(()),
    }
}

/// Normalised actions `(horizon, action_dim)` clipped if the configuration says so, and the robot's own actions
/// `(horizon, robot's action_dim)`. Relative actions are relative to `state`, the robot's own at the observation.
///
/// # Errors
/// [`ModelError::Observation`] for NaN or infinity from the model, or after the statistics were applied.
pub fn finish_actions(
    loaded: &Loaded,
    state: &[f32],
    mut normalized: Vec<f32>,
) -> Result<(Vec<f32>, Vec<f32>), ModelError> {
    let config = &loaded.model.config;
    finite("actions", "finite numbers from the model", &normalized)?;
    if let Some(clip) = config.flow.clip {
        normalized.iter_mut().for_each(|v| *v = v.clamp(-clip, clip));
    }
    let mut actions = Vec::with_capacity(config.horizon * loaded.action_dim);
    for (step, row) in normalized.chunks_exact(config.action_dim).enumerate() {
        let mut row: Vec<f32> = row.iter().take(loaded.action_dim).copied().collect();
        loaded.normalization.action_at(step).unnormalize(&mut row);
        for ((value, relative), state) in row.iter_mut().zip(&loaded.normalization.relative).zip(state) {
            *value += if *relative { *state } else { 0.0 };
        }
        actions.extend(row);
    }
    finite("actions", "finite numbers after the statistics were applied", &actions)?;
    Ok((normalized, actions))
}

fn refuse(name: &str, expected: String, found: String) -> ModelError {
    ModelError::Observation { name: name.to_owned(), expected, found }
}

fn missing(name: &str, expected: String) -> ModelError {
    refuse(name, expected, "nothing".to_owned())
}

fn image(file: &Checkpoint, view: &str) -> Result<(ImageSpec, Vec<u8>), ModelError> {
    let name = format!("image.{view}");
    let expected = "u8 [height, width, 3]".to_owned();
    let (Some((dtype, bytes)), Some(shape)) = (file.tensor(&name), file.shape(&name)) else {
        return Err(missing(&name, expected));
    };
    match (dtype, shape) {
        (Dtype::U8, [height, width, 3]) => {
            let spec = ImageSpec::rgb(*width, *height);
            spec.check(&name)?;
            Ok((spec, bytes.to_vec()))
        }
        _ => Err(refuse(&name, expected, format!("{dtype:?} {shape:?}"))),
    }
}

fn floats(file: &Checkpoint, name: &str, expected: &[usize]) -> Result<Option<Vec<f32>>, ModelError> {
    let (Some((dtype, bytes)), Some(shape)) = (file.tensor(name), file.shape(name)) else { return Ok(None) };
    if dtype == Dtype::F32 && shape == expected {
        return Ok(Some(bytemuck::pod_collect_to_vec(bytes)));
    }
    Err(refuse(name, format!("F32 {expected:?}"), format!("{dtype:?} {shape:?}")))
}
