//! A policy on its GPU: images and joint state in, actions out. It opens its GPU again when that is lost.

use fathom_models::checkpoint::random;
use fathom_models::nets::depthvla::ForwardOptions;
use fathom_models::processing::guidance::Guide;
use fathom_models::processing::observation::finish_actions;
use fathom_models::processing::prompt;
use fathom_models::processing::tokenizer::Tokenizer;

use crate::camera::Image;
use crate::clock::HostNs;
use crate::engine::{EngineError, Inputs, Output, Session, Wanted};
use crate::gpu::{Gpu, GpuError, GpuOptions, GpuTimes};

/// A prompt that the state is part of: its tokens change with every inference.
#[derive(Debug)]
pub(crate) struct StatePrompt {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) task: String,
}

/// An observation to infer from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Observation<'a> {
    /// One image a view, in the model's order.
    pub(crate) images: &'a [Image],
    /// The robot's own state.
    pub(crate) state: &'a [f32],
    /// Seed of the noise.
    pub(crate) seed: u64,
    /// The steps that the chunk is drawn towards, for real-time chunking.
    pub(crate) guide: Option<&'a Guide>,
}

/// The output of an inference.
#[derive(Clone, Debug, Default)]
pub struct PolicyOutput {
    /// `(horizon, action_dim)`, the robot's own.
    pub actions: Vec<f32>,
    /// Depth maps of the views that have one: view, side, values.
    pub depth: Vec<(String, usize, Vec<f32>)>,
    /// When it began.
    pub started: HostNs,
    /// The GPU's part is done and read back.
    pub inferred: HostNs,
    /// Actions are in the robot's own units.
    pub finished: HostNs,
    /// The GPU's part of it.
    pub gpu: GpuTimes,
}

/// A prepared session with its settings: a camera whose image changes its form (one that was plugged in again,
/// a folder of different pictures) has it prepared anew, and so has a prompt whose number of tokens changes with the state.
#[derive(Debug)]
pub(crate) struct PolicyRunner {
    pub(crate) session: Session,
    pub(crate) forward: ForwardOptions,
    pub(crate) tokens: Vec<i32>,
    pub(crate) prompt: Option<StatePrompt>,
    /// How the GPU was opened.
    pub(crate) options: GpuOptions,
    pub(crate) wanted: Wanted,
}

impl PolicyRunner {
    /// Infers actions from an observation.
    pub(crate) fn infer(&mut self, observation: &Observation<'_>) -> Result<PolicyOutput, EngineError> {
        self.fit(observation)?;
        let started = HostNs::now();
        let (outputs, gpu) = self.run(observation)?;
        let inferred = HostNs::now();
        let mut raw = Vec::new();
        let mut depth = Vec::new();
        for output in outputs {
            match output.name.strip_prefix("depth.") {
                Some(view) => depth.push((view.to_owned(), output.shape[1], output.values.clone())),
                None if output.name == "actions" => raw = output.values.clone(),
                None => {}
            }
        }
        let (_, actions) = finish_actions(self.session.loaded(), observation.state, raw)?;
        Ok(PolicyOutput { actions, depth, started, inferred, finished: HostNs::now(), gpu })
    }

    /// The graph's outputs for an observation.
    pub(crate) fn outputs(&mut self, observation: &Observation<'_>) -> Result<(&[Output], GpuTimes), EngineError> {
        self.fit(observation)?;
        self.run(observation)
    }

    fn run(&mut self, observation: &Observation<'_>) -> Result<(&[Output], GpuTimes), EngineError> {
        let config = &self.session.loaded().model.config;
        let noise = random::normal(observation.seed, config.horizon * config.action_dim);
        let images: Vec<&[u8]> = observation.images.iter().map(pixels).collect();
        let inputs = Inputs { images: &images, state: observation.state, noise: &noise };
        self.session.infer_guided(&inputs, observation.guide, false)
    }

    /// Prepares the session for the observation's images and, where the state is part of it, its prompt.
    fn fit(&mut self, observation: &Observation<'_>) -> Result<(), EngineError> {
        let PolicyRunner { session, forward, tokens, prompt, .. } = self;
        if let Some(StatePrompt { tokenizer, task }) = prompt {
            let text = prompt::text(session.loaded(), task, observation.state);
            tracing::debug!(text, "prompt");
            *tokens = tokenizer.text(session.loaded().model.config.prompt, &text)?;
        }
        let same = observation.images.iter().map(Image::spec).eq(session.images().iter().copied());
        if same && tokens.len() == forward.prompt_tokens {
            return if prompt.is_some() { session.reword(tokens) } else { Ok(()) };
        }
        forward.images = observation.images.iter().map(Image::spec).collect();
        forward.prompt_tokens = tokens.len();
        tracing::debug!(images = ?forward.images, tokens = tokens.len(), "prepared anew");
        session.prepare(forward, tokens)
    }

    /// Opens the GPU again, after it was lost, and puts the model on it.
    pub(crate) fn reopen(self) -> Result<PolicyRunner, EngineError> {
        let PolicyRunner { session, forward, tokens, prompt, options, wanted } = self;
        let loaded = session.into_loaded();
        let mut session = Session::open_with(Gpu::open(&options)?, loaded, wanted)?;
        session.prepare(&forward, &tokens)?;
        Ok(PolicyRunner { session, forward, tokens, prompt, options, wanted })
    }
}

/// Whether a new [`Gpu`] may help.
pub(crate) fn is_lost(error: &EngineError) -> bool {
    matches!(error, EngineError::Gpu(GpuError::DeviceLost { .. } | GpuError::Timeout { .. }))
}

/// The image's bytes without what a source may have behind them.
pub(crate) fn pixels(image: &Image) -> &[u8] {
    image.data.get(..image.spec().bytes()).unwrap_or(&image.data)
}
