//! A model on a GPU, ready to be asked again and again.

use fathom_models::checkpoint::UnverifiedWeights;
use fathom_models::families::Loaded;
use fathom_models::nets::depthvla::ForwardOptions;
use fathom_models::nets::image::ImageSpec;
use fathom_models::processing::guidance::Guide;
use fathom_models::processing::observation::{Observation, check_state, finish_actions};

use super::memory::explain;
use super::{Arena, Choice, EngineError, Kernels, Output, Program, Resident, StageWork, Wanted};
use crate::gpu::{Gpu, GpuTimes, Work};

/// What changes from one inference to the next.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The camera's bytes of each view, in the model's order and the prepared form.
    pub images: &'a [&'a [u8]],
    /// The robot's own state.
    pub state: &'a [f32],
    /// `(horizon, action_dim)` of N(0, 1).
    pub noise: &'a [f32],
}

/// A model on a GPU.
#[derive(Debug)]
pub struct Session {
    gpu: Gpu,
    loaded: Loaded,
    resident: Resident,
    arena: Arena,
    program: Option<Program>,
    /// Form of each view's image, as prepared.
    images: Vec<ImageSpec>,
    /// Rows of the embedding table for the prompt.
    text: Vec<f32>,
    /// The state as the model takes it.
    state: Vec<f32>,
    /// What the flow is drawn towards, and how much; zeros without guidance.
    goal: Vec<f32>,
    gains: Vec<f32>,
    guided: bool,
}

impl Session {
    /// Uploads the weights, for the kernels that serve the adapter best.
    ///
    /// # Errors
    /// As [`open_with`](Self::open_with).
    pub fn open<W: Into<UnverifiedWeights>>(gpu: Gpu, loaded: Loaded<W>) -> Result<Session, EngineError> {
        Session::open_with(gpu, loaded, Wanted::default())
    }

    /// Uploads the weights, for what is wanted where that is given, and verifies them meanwhile if they are not.
    ///
    /// # Errors
    /// [`EngineError::Model`] for weights that do not pass, even if they were uploaded; [`EngineError::Lacking`] and
    /// [`EngineError::SelfTest`] for what does not serve here, [`EngineError::OutOfMemory`] for weights that do not fit,
    /// [`EngineError::Gpu`] when the device is lost.
    pub fn open_with<W: Into<UnverifiedWeights>>(
        mut gpu: Gpu,
        loaded: Loaded<W>,
        wanted: impl Into<Wanted>,
    ) -> Result<Session, EngineError> {
        let (loaded, weights) = loaded.replace_weights(());
        let (weights, resident) = weights.into().verify_while(|weights| {
            let choice = Choice::make(&mut gpu, &weights.formats()?, wanted.into())?;
            let parameters = (&loaded.model.params, weights);
            Resident::upload(&mut gpu, parameters.0, parameters.1, choice)
                .map_err(|error| explain(error, &gpu, parameters, choice, 0))
        })?;
        let (resident, loaded) = (resident?, loaded.replace_weights(weights).0);
        let (arena, program) = (Arena::default(), None);
        let (images, text, state) = (Vec::new(), Vec::new(), Vec::new());
        let (goal, gains) = (Vec::new(), Vec::new());
        Ok(Session { gpu, loaded, resident, arena, program, images, text, state, goal, gains, guided: false })
    }

    /// Gives the model back, and the GPU up.
    pub fn into_loaded(self) -> Loaded {
        self.loaded
    }

    /// The model.
    pub fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// The GPU.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Bytes of weights, and of everything else, on the GPU.
    pub fn gpu_bytes(&self) -> (u64, u64) {
        (self.resident.bytes(), self.arena.bytes())
    }

    /// Form of each view's image, as prepared.
    pub fn images(&self) -> &[ImageSpec] {
        &self.images
    }

    /// Which kernels compute.
    pub fn kernels(&self) -> Kernels {
        self.resident.choice.kernels
    }

    /// Which kernels compute, and what tensors between them are stored in.
    pub fn choice(&self) -> Choice {
        self.resident.choice
    }

    /// Dispatches of an inference.
    pub fn dispatches(&self) -> usize {
        self.program.as_ref().map_or(0, Program::dispatches)
    }

    /// Tokens of the prepared prompt.
    pub fn prompt_tokens(&self) -> usize {
        self.text.len() / self.loaded.model.config.vlm.width.max(1)
    }

    /// What each dispatch of an inference does, in their order.
    pub fn work(&self) -> &[Work] {
        self.program.as_ref().map_or(&[], Program::work)
    }

    /// What the stages of an inference do.
    pub fn stages(&self) -> &[StageWork] {
        self.program.as_ref().map_or(&[], Program::stages)
    }

    /// The GPU, for measurements beside the model.
    pub fn gpu_mut(&mut self) -> &mut Gpu {
        &mut self.gpu
    }

    /// Whether inferences return GPU times from here on, where the GPU was opened with them.
    pub fn set_times(&mut self, on: bool) {
        self.gpu.set_times(on);
    }

    /// Gives the GPU up, as a driver's reset would: for tests of what follows.
    pub fn lose_gpu(&mut self, reason: &str) {
        self.gpu.lose(reason);
    }

    /// Plans, records and checks the inference for images of this form and this prompt.
    ///
    /// # Errors
    /// [`EngineError::Model`] for options that do not fit the model, [`EngineError::OutOfMemory`] and
    /// [`EngineError::Gpu`] for what the adapter cannot hold.
    pub fn prepare(&mut self, options: &ForwardOptions, tokens: &[i32]) -> Result<(), EngineError> {
        let model = &self.loaded.model;
        self.program = None; // until all of it succeeded
        self.text = self.loaded.weights.rows(model.embed_tokens, model.config.vlm.width, tokens)?;
        let graph = model.forward(&self.loaded.weights, options)?;
        self.images.clone_from(&options.images);
        self.guided = options.guided;
        let program = Program::prepare(&mut self.gpu, &mut self.arena, &self.resident, &graph);
        let parameters = (&model.params, &self.loaded.weights);
        let choice = self.resident.choice;
        let rest = Program::arena_bytes(&graph, choice.precision);
        self.program = Some(program.map_err(|error| explain(error, &self.gpu, parameters, choice, rest))?);
        Ok(())
    }

    /// Another prompt of the prepared number of tokens.
    ///
    /// # Errors
    /// [`EngineError::Input`] for another number, [`EngineError::Model`] for a token that is not in the vocabulary.
    pub fn reword(&mut self, tokens: &[i32]) -> Result<(), EngineError> {
        let width = self.loaded.model.config.vlm.width;
        let text = self.loaded.weights.rows(self.loaded.model.embed_tokens, width, tokens)?;
        let (expected, found) = (self.text.len() * 4, text.len() * 4);
        if found != expected {
            return Err(EngineError::Input { name: "text".to_owned(), expected, found });
        }
        self.text = text;
        Ok(())
    }

    /// One inference. The outputs are those of [`Model::forward`](fathom_models::nets::depthvla::Model::forward) and stay until
    /// the next. With `profile`, a time for each dispatch, slower.
    ///
    /// # Errors
    /// [`EngineError::Input`] and [`EngineError::Model`] for inputs that do not fit, [`EngineError::Gpu`].
    pub fn infer(&mut self, inputs: &Inputs<'_>, profile: bool) -> Result<(&[Output], GpuTimes), EngineError> {
        self.infer_guided(inputs, None, profile)
    }

    /// As [`infer`](Self::infer), drawn towards what is left of the chunk that the robot follows.
    ///
    /// # Errors
    /// As [`infer`](Self::infer), and [`EngineError::Model`] for a guide that does not fit.
    pub fn infer_guided(
        &mut self,
        inputs: &Inputs<'_>,
        guide: Option<&Guide>,
        profile: bool,
    ) -> Result<(&[Output], GpuTimes), EngineError> {
        let program = self.program.as_mut().ok_or(EngineError::Unprepared)?;
        let config = &self.loaded.model.config;
        for (i, (view, expected)) in config.views.iter().zip(&self.images).enumerate() {
            let (expected, found) = (expected.bytes(), inputs.images.get(i).map_or(0, |bytes| bytes.len()));
            if found != expected {
                return Err(EngineError::Input { name: format!("image.{view}"), expected, found });
            }
        }
        check_state(&self.loaded, inputs.state)?;
        self.state.clear();
        self.state.extend_from_slice(inputs.state);
        self.loaded.normalization.state.normalize(&mut self.state);
        self.state.resize(config.state_dim, 0.0);
        match guide {
            Some(_) if !self.guided => {
                let name = "goal (prepared without guidance)".to_owned();
                return Err(EngineError::Input { name, expected: 0, found: config.horizon * config.action_dim * 4 });
            }
            Some(guide) => (self.goal, self.gains) = guide.inputs(&self.loaded, inputs.state)?,
            None => {
                self.goal.clear();
                self.gains.clear();
            }
        }
        self.goal.resize(config.horizon * config.action_dim, 0.0);
        self.gains.resize(config.flow.steps * config.horizon, 0.0);
        let (text, state, goal, gains) = (&self.text, &self.state, &self.goal, &self.gains);
        let image = |name: &str| {
            let view = name.strip_prefix("image.")?;
            let index = config.views.iter().position(|v| v == view)?;
            inputs.images.get(index).copied()
        };
        let input = |name: &str| match name {
            "text" => bytemuck::cast_slice(text),
            "state" => bytemuck::cast_slice(state),
            "noise" => bytemuck::cast_slice(inputs.noise),
            "goal" => bytemuck::cast_slice(goal),
            "gains" => bytemuck::cast_slice(gains),
            _ => image(name).unwrap_or_default(),
        };
        let times = program.run(&mut self.gpu, input, profile)?;
        Ok((program.outputs(), times))
    }

    /// Prepares for `observation`, infers once, and gives normalised actions, the robot's own actions, and all outputs.
    ///
    /// # Errors
    /// As [`prepare`](Self::prepare) and [`infer`](Self::infer); [`ModelError::Observation`](fathom_models::ModelError::Observation) for actions that are not finite.
    pub fn infer_once(&mut self, observation: &Observation, taps: bool) -> Result<Once, EngineError> {
        let options = ForwardOptions {
            images: observation.images.iter().map(|(spec, _)| *spec).collect(),
            prompt_tokens: observation.tokens.len(),
            depth_map: true,
            guided: false,
            taps,
        };
        self.prepare(&options, &observation.tokens)?;
        let images: Vec<&[u8]> = observation.images.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        let inputs = Inputs { images: &images, state: &observation.state, noise: &observation.noise };
        let (outputs, times) = self.infer(&inputs, false)?;
        let outputs = outputs.to_vec();
        let raw = outputs.iter().find(|o| o.name == "actions").map(|o| o.values.clone()).unwrap_or_default();
        let (normalized, actions) = finish_actions(&self.loaded, &observation.state, raw)?;
        Ok(Once { normalized, actions, outputs, times })
    }
}

/// What [`Session::infer_once`] gives.
#[derive(Clone, Debug)]
pub struct Once {
    /// `(horizon, action_dim)`.
    pub normalized: Vec<f32>,
    /// `(horizon, robot's action_dim)`, un-normalised.
    pub actions: Vec<f32>,
    /// Every output of the graph.
    pub outputs: Vec<Output>,
    /// Of each stage, where the GPU was opened with timestamps.
    pub times: GpuTimes,
}

/// Says what a model is, and that it has no statistics where it has none.
pub fn log_model<W>(loaded: &Loaded<W>) {
    let parameters: usize = loaded.model.params.params.iter().map(|p| p.shape.iter().product::<usize>()).sum();
    let config = &loaded.model.config;
    tracing::info!(
        family = ?loaded.family,
        parameters,
        depth = config.depth.is_some(),
        views = ?config.views,
        horizon = config.horizon,
        "model"
    );
    match &loaded.normalization.source {
        Some(path) => tracing::info!(file = %path.display(), "normalisation statistics"),
        None => tracing::warn!("no normalisation statistics in the model's directory: identity is used"),
    }
}
