//! A model that is shown something and answers, and that finds its GPU again.

use fathom_models::depthvla::ForwardOptions;
use fathom_models::guidance::Guide;
use fathom_models::observation::finish_actions;
use fathom_models::tokenizer::Tokenizer;
use fathom_models::{prompt, random};

use crate::camera::Image;
use crate::clock::monotonic_ns;
use crate::engine::{EngineError, Inputs, Output, Session, Wanted};
use crate::gpu::{Gpu, GpuError, GpuOptions, GpuTimes};

/// A prompt that the state is part of: its tokens change with every inference.
#[derive(Debug)]
pub(crate) struct StatePrompt {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) task: String,
}

/// What the model is shown. Its memory comes back in the [`Reply`].
#[derive(Debug, Default)]
pub(crate) struct Request {
    /// One image a view, in the model's order.
    pub(crate) images: Vec<Image>,
    /// The robot's own state.
    pub(crate) state: Vec<f32>,
    /// Its number, counted from 1.
    pub(crate) number: u32,
    /// Seed of the noise.
    pub(crate) seed: u64,
    /// When the model was free, a chunk was due, and the newest image was here, CLOCK_MONOTONIC.
    pub(crate) due_ns: u64,
    /// When the images were taken over, CLOCK_MONOTONIC.
    pub(crate) asked_ns: u64,
    /// What the chunk is drawn towards.
    pub(crate) guide: Option<Guide>,
}

/// What the model gave.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) request: Request,
    /// `(horizon, action_dim)`, the robot's own.
    pub(crate) actions: Vec<f32>,
    /// Depth maps of the views that have one: name, side, values.
    pub(crate) depth: Vec<(String, usize, Vec<f32>)>,
    pub(crate) started_ns: u64,
    /// The GPU's part is done and read back.
    pub(crate) inferred_ns: u64,
    /// Actions are in the robot's own units.
    pub(crate) finished_ns: u64,
    pub(crate) gpu: GpuTimes,
}

/// A prepared session, and what it was prepared with: a camera whose image changes its form (one that was plugged in again,
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
    /// Shows the model something. On failure the request comes back with the error.
    pub(crate) fn infer(&mut self, request: Request) -> Result<Reply, Box<(EngineError, Request)>> {
        match self.actions(&request) {
            Ok((actions, depth, times, gpu)) => {
                let [started_ns, inferred_ns, finished_ns] = times;
                Ok(Reply { request, actions, depth, started_ns, inferred_ns, finished_ns, gpu })
            }
            Err(error) => Err(Box::new((error, request))),
        }
    }

    /// The graph's outputs for a request.
    pub(crate) fn outputs(&mut self, request: &Request) -> Result<(&[Output], GpuTimes), EngineError> {
        self.fit(request)?;
        self.run(request)
    }

    fn run(&mut self, request: &Request) -> Result<(&[Output], GpuTimes), EngineError> {
        let config = &self.session.loaded().model.config;
        let noise = random::normal(request.seed, config.horizon * config.action_dim);
        let images: Vec<&[u8]> = request.images.iter().map(pixels).collect();
        let inputs = Inputs { images: &images, state: &request.state, noise: &noise };
        self.session.infer_guided(&inputs, request.guide.as_ref(), false)
    }

    #[expect(clippy::type_complexity, reason = "the parts of a reply, named where it is made")]
    fn actions(
        &mut self,
        request: &Request,
    ) -> Result<(Vec<f32>, Vec<(String, usize, Vec<f32>)>, [u64; 3], GpuTimes), EngineError> {
        self.fit(request)?;
        let started_ns = monotonic_ns();
        let (outputs, gpu) = self.run(request)?;
        let inferred_ns = monotonic_ns();
        let mut raw = Vec::new();
        let mut depth = Vec::new();
        for output in outputs {
            match output.name.strip_prefix("depth.") {
                Some(view) => depth.push((view.to_owned(), output.shape[1], output.values.clone())),
                None if output.name == "actions" => raw = output.values.clone(),
                None => {}
            }
        }
        let (_, actions) = finish_actions(self.session.loaded(), &request.state, raw)?;
        Ok((actions, depth, [started_ns, inferred_ns, monotonic_ns()], gpu))
    }

    /// Has the session prepared for the request's images and, where the state is part of it, its prompt.
    fn fit(&mut self, request: &Request) -> Result<(), EngineError> {
        let PolicyRunner { session, forward, tokens, prompt, .. } = self;
        if let Some(StatePrompt { tokenizer, task }) = prompt {
            let text = prompt::text(session.loaded(), task, &request.state);
            tracing::debug!(text, "prompt");
            *tokens = tokenizer.text(session.loaded().model.config.prompt, &text)?;
        }
        let same = request.images.iter().map(Image::spec).eq(session.images().iter().copied());
        if same && tokens.len() == forward.prompt_tokens {
            return if prompt.is_some() { session.reword(tokens) } else { Ok(()) };
        }
        forward.images = request.images.iter().map(Image::spec).collect();
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
