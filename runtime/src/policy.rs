//! A policy on its GPU: images, joint state and a task in, actions out.
//!
//! ```
//! use fathom::camera::Image;
//! use fathom::policy::{Observation, Policy, PolicyOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let scene = fathom::scene::Scene::built_in(0)?;
//! # let folder = tempfile::tempdir()?;
//! # fathom::untrained::write(folder.path(), &fathom_models::nets::presets::small(), &scene, 0)?;
//! # let checkpoint = folder.path();
//! # let options = || {
//! #     let gpu = fathom::gpu::GpuOptions { allow_software: true, ..Default::default() };
//! #     PolicyOptions { gpu, ..PolicyOptions::default() }
//! # };
//! let mut policy = Policy::open_with(checkpoint, PolicyOptions { depth_map: true, ..options() })?;
//! let base = Image::rgb(640, 480, vec![0; 640 * 480 * 3])?;
//! let wrist = Image::rgb(640, 480, vec![0; 640 * 480 * 3])?;
//! let observation =
//!     Observation::new("reach for the red block").image("base", &base).image("wrist", &wrist).state(&[0.0; 6]);
//! let output = policy.infer(&observation)?;
//! for step in output.steps() {
//!     println!("{step:?}"); // a value for each joint, in the robot's own units
//! }
//! # assert_eq!(output.steps().count(), policy.horizon());
//! # assert!(!output.depth.is_empty());
//! # assert!(policy.infer(&Observation::new("reach").image("base", &base)).is_err());
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};

use fathom_models::ModelError;
#[cfg(feature = "robot")]
use fathom_models::checkpoint::Weights;
use fathom_models::checkpoint::{UnverifiedWeights, random};
use fathom_models::families::{self, Family, Loaded};
use fathom_models::nets::config::PromptFormat;
use fathom_models::nets::depthvla::ForwardOptions;
use fathom_models::nets::image::ImageSpec;
use fathom_models::processing::guidance::Guide;
use fathom_models::processing::observation::finish_actions;
use fathom_models::processing::prompt;
use fathom_models::processing::tokenizer::Tokenizer;

use crate::camera::Image;
use crate::clock::HostNs;
use crate::engine::{Choice, Inputs, Output, Session, Wanted, log_model};
use crate::gpu::{AdapterInfo, Gpu, GpuOptions, GpuTimes};

mod error;

pub use error::PolicyError;

/// How a policy is opened.
#[derive(Clone, Debug, Default)]
pub struct PolicyOptions {
    /// The checkpoint's family; detected if not given.
    pub family: Option<&'static Family>,
    /// Views of the checkpoint for which there is no camera. They are dropped, which is equivalent to masking.
    pub skip_views: Vec<String>,
    /// The adapter, and how it is opened.
    pub gpu: GpuOptions,
    /// Kernels and number formats; chosen by the adapter where not given.
    pub wanted: Wanted,
    /// Give the depth maps of the views that have one.
    pub depth_map: bool,
    /// Prepare for real-time chunking: [`Observation::guide`] then has an effect.
    pub guided: bool,
}

/// An observation to infer from. What is not given stays as it was: the task of the inference before, an empty state,
/// noise of seed 0.
#[derive(Clone, Debug, Default)]
pub struct Observation<'a> {
    images: Vec<(&'a str, &'a Image)>,
    /// Images in the order of the policy's views, instead of `images`.
    ordered: Option<&'a [Image]>,
    state: &'a [f32],
    task: Option<&'a str>,
    seed: u64,
    guide: Option<&'a Guide>,
}

impl<'a> Observation<'a> {
    /// An observation for a task in plain words, without images and state.
    ///
    /// ```
    /// use fathom::policy::Observation;
    ///
    /// let observation = Observation::new("put the cup on the saucer").state(&[0.1, -0.4]).seed(7);
    /// # let _ = observation;
    /// ```
    pub fn new(task: &'a str) -> Observation<'a> {
        Observation { task: Some(task), ..Observation::default() }
    }

    /// Adds the image of a view, by the view's name in the checkpoint ([`Policy::views`]), in any order.
    pub fn image(mut self, view: &'a str, image: &'a Image) -> Observation<'a> {
        self.images.push((view, image));
        self
    }

    /// Sets the images, in the order of the policy's views.
    #[cfg(feature = "robot")]
    pub(crate) fn ordered(mut self, images: &'a [Image]) -> Observation<'a> {
        self.ordered = Some(images);
        self
    }

    /// Sets the joints' positions, in the robot's own units and the checkpoint's order.
    pub fn state(mut self, state: &'a [f32]) -> Observation<'a> {
        self.state = state;
        self
    }

    /// Sets the seed of the flow's noise. The same seed and observation give the same actions.
    pub fn seed(mut self, seed: u64) -> Observation<'a> {
        self.seed = seed;
        self
    }

    /// Sets the steps that the chunk is drawn towards (real-time chunking).
    pub fn guide(mut self, guide: Option<&'a Guide>) -> Observation<'a> {
        self.guide = guide;
        self
    }
}

/// The output of an inference.
#[derive(Clone, Debug, Default)]
pub struct PolicyOutput {
    /// `(horizon, action_dim)`, in the robot's own units.
    pub actions: Vec<f32>,
    /// Values of a step: one for each joint.
    pub action_dim: usize,
    /// Depth maps of the views that have one.
    pub depth: Vec<ViewDepth>,
    /// When it began.
    pub started: HostNs,
    /// When the GPU was done and its results were read back.
    pub inferred: HostNs,
    /// When the actions were in the robot's own units.
    pub finished: HostNs,
    /// Times of the GPU's stages.
    pub gpu: GpuTimes,
}

impl PolicyOutput {
    /// The steps of the chunk, each with a value for each joint.
    ///
    /// ```
    /// use fathom::policy::PolicyOutput;
    ///
    /// let output = PolicyOutput { actions: vec![0.0, 1.0, 0.5, 1.5], action_dim: 2, ..PolicyOutput::default() };
    /// assert_eq!(output.steps().collect::<Vec<_>>(), [[0.0, 1.0], [0.5, 1.5]]);
    /// ```
    pub fn steps(&self) -> impl Iterator<Item = &[f32]> {
        self.actions.chunks_exact(self.action_dim.max(1))
    }
}

/// The depth map of a view.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewDepth {
    /// The view.
    pub view: String,
    /// Width and height in pixels.
    pub side: usize,
    /// `(side, side)`, row-major.
    pub values: Vec<f32>,
}

/// A policy's files, not on a GPU yet. The weights are verified when they are uploaded, or before.
#[derive(Debug)]
pub(crate) struct PolicyFiles<W = UnverifiedWeights> {
    pub(crate) loaded: Loaded<W>,
    prompt: Prompt,
    options: PolicyOptions,
}

impl PolicyFiles {
    pub(crate) fn read(directory: &Path, options: PolicyOptions) -> Result<PolicyFiles, PolicyError> {
        let mut loaded = families::open_as(directory, options.family)?;
        loaded.skip_views(&options.skip_views)?;
        log_model(&loaded);
        Ok(PolicyFiles { loaded, prompt: Prompt::new(directory), options })
    }

    /// Verifies the weights.
    #[cfg(feature = "robot")]
    pub(crate) fn verify(self) -> Result<PolicyFiles<Weights>, PolicyError> {
        let PolicyFiles { loaded, prompt, options } = self;
        Ok(PolicyFiles { loaded: loaded.verify()?, prompt, options })
    }
}

impl<W: Into<UnverifiedWeights>> PolicyFiles<W> {
    /// Sets the task of the inferences to come.
    #[cfg(feature = "robot")]
    pub(crate) fn set_task(&mut self, task: &str) -> Result<(), PolicyError> {
        // The state is not known yet.
        let state = vec![0.0; *self.loaded.state_dims.start()];
        self.prompt.set_task(&self.loaded, task)?;
        self.prompt.update(&self.loaded, &state)
    }

    /// Sets the prompt of the inferences to come.
    #[cfg(feature = "robot")]
    pub(crate) fn set_tokens(&mut self, tokens: &[i32]) {
        self.prompt.set_tokens(tokens);
    }

    /// Opens the GPU and puts the weights on it.
    pub(crate) fn open(self) -> Result<Policy, PolicyError> {
        let PolicyFiles { loaded, prompt, options } = self;
        let gpu = Gpu::open(&options.gpu)?;
        tracing::info!(adapter = %gpu.info(), "GPU");
        let session = Session::open_with(gpu, loaded, options.wanted)?;
        // The first observation decides what is prepared.
        Ok(Policy { session, prompt, options, taps: false, prepared: None })
    }
}

/// The prompt as tokens, and the task that they are made of.
#[derive(Debug)]
struct Prompt {
    /// The checkpoint's, with its tokenizer.
    directory: PathBuf,
    tokenizer: Option<Tokenizer>,
    task: Option<String>,
    tokens: Vec<i32>,
    /// The tokens are others than those that the session was given.
    changed: bool,
}

impl Prompt {
    fn new(directory: &Path) -> Prompt {
        Prompt { directory: directory.to_owned(), tokenizer: None, task: None, tokens: Vec::new(), changed: true }
    }

    fn set_task<W>(&mut self, loaded: &Loaded<W>, task: &str) -> Result<(), ModelError> {
        if self.tokenizer.is_none() {
            self.tokenizer = Some(Tokenizer::open_for(&self.directory, loaded.model.config.vocab)?);
        }
        self.task = Some(task.to_owned());
        self.changed = true;
        Ok(())
    }

    fn set_tokens(&mut self, tokens: &[i32]) {
        self.task = None;
        self.changed |= self.tokens != tokens;
        self.tokens = tokens.to_vec();
    }

    /// Makes the tokens of the task anew: after it changed, and for every inference where the state is part of the prompt.
    fn update<W>(&mut self, loaded: &Loaded<W>, state: &[f32]) -> Result<(), PolicyError> {
        let format = loaded.model.config.prompt;
        let (Some(task), Some(tokenizer)) = (&self.task, &self.tokenizer) else { return Ok(()) };
        if self.changed || format == PromptFormat::TaskAndState {
            let text = prompt::text(loaded, task, state);
            tracing::debug!(text, "prompt");
            let tokens = tokenizer.text(format, &text)?;
            self.changed |= tokens != self.tokens;
            self.tokens = tokens;
        }
        Ok(())
    }
}

/// A policy on its GPU.
///
/// It prepares itself for the form of the images and the number of the prompt's tokens: an inference that changes one of them
/// takes longer.
#[derive(Debug)]
pub struct Policy {
    pub(crate) session: Session,
    prompt: Prompt,
    options: PolicyOptions,
    /// Whether the tensors of every stage are outputs.
    taps: bool,
    /// What the session is prepared for.
    prepared: Option<ForwardOptions>,
}

impl Policy {
    /// Opens the checkpoint in `directory` on the GPU that suits best, never on a software driver.
    ///
    /// # Errors
    /// [`PolicyError::Model`] for a checkpoint that is not complete and correct, with everything that is wrong with it;
    /// [`PolicyError::Engine`] when there is no GPU, or it does not serve.
    pub fn open(directory: impl AsRef<Path>) -> Result<Policy, PolicyError> {
        Policy::open_with(directory, PolicyOptions::default())
    }

    /// As [`open`](Self::open), with options.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn open_with(directory: impl AsRef<Path>, options: PolicyOptions) -> Result<Policy, PolicyError> {
        PolicyFiles::read(directory.as_ref(), options)?.open()
    }

    /// Infers a chunk of actions.
    ///
    /// # Errors
    /// [`PolicyError::Views`] for other views than the policy's; [`PolicyError::Model`] for a state of another length, numbers
    /// that are not finite, and a task without a tokenizer; [`PolicyError::Engine`] when the GPU fails.
    pub fn infer(&mut self, observation: &Observation<'_>) -> Result<PolicyOutput, PolicyError> {
        self.prepare_for(observation)?;
        let started = HostNs::now();
        let (outputs, gpu) = self.run(observation)?;
        let inferred = HostNs::now();
        let mut raw = Vec::new();
        let mut depth = Vec::new();
        for output in outputs {
            match output.name.strip_prefix("depth.") {
                Some(view) => depth.push(ViewDepth {
                    view: view.to_owned(),
                    side: output.shape[1],
                    values: output.values.clone(),
                }),
                None if output.name == "actions" => raw = output.values.clone(),
                None => {}
            }
        }
        let (_, actions) = finish_actions(self.loaded(), observation.state, raw)?;
        let action_dim = self.action_dim();
        Ok(PolicyOutput { actions, action_dim, depth, started, inferred, finished: HostNs::now(), gpu })
    }

    /// The views that an observation has an image of.
    pub fn views(&self) -> &[String] {
        &self.loaded().model.config.views
    }

    /// Steps of a chunk.
    pub fn horizon(&self) -> usize {
        self.loaded().model.config.horizon
    }

    /// Values of a step.
    pub fn action_dim(&self) -> usize {
        self.loaded().action_dim
    }

    /// The adapter that computes.
    pub fn adapter(&self) -> &AdapterInfo {
        self.session.gpu().info()
    }

    /// Its kernels and number formats.
    pub fn choice(&self) -> Choice {
        self.session.choice()
    }

    /// The model, with its configuration and statistics.
    pub fn loaded(&self) -> &Loaded {
        self.session.loaded()
    }

    /// The graph's outputs for an observation.
    #[cfg(feature = "robot")]
    pub(crate) fn outputs(&mut self, observation: &Observation<'_>) -> Result<(&[Output], GpuTimes), PolicyError> {
        self.prepare_for(observation)?;
        self.run(observation)
    }

    /// Whether every stage's tensors are outputs from here on.
    #[cfg(feature = "robot")]
    pub(crate) fn set_taps(&mut self, on: bool) {
        self.taps = on;
    }

    /// Sets the prompt of the inferences to come, as tokens.
    pub fn set_tokens(&mut self, tokens: &[i32]) {
        self.prompt.set_tokens(tokens);
    }

    /// The prompt's tokens.
    pub fn tokens(&self) -> &[i32] {
        &self.prompt.tokens
    }

    /// What the session is prepared for.
    #[cfg(feature = "robot")]
    pub(crate) fn prepared(&self) -> Option<&ForwardOptions> {
        self.prepared.as_ref()
    }

    /// Prepares for images of this form, one a view in the model's order, and the prompt that is set.
    pub(crate) fn prepare(&mut self, images: Vec<ImageSpec>) -> Result<(), PolicyError> {
        let forward = self.forward(images);
        self.prepared = None;
        self.session.prepare(&forward, &self.prompt.tokens)?;
        (self.prepared, self.prompt.changed) = (Some(forward), false);
        Ok(())
    }

    /// Opens the GPU again, after it was lost, and puts the weights on it.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn reopen(self) -> Result<Policy, PolicyError> {
        let Policy { session, prompt, options, taps, prepared } = self;
        let loaded = session.into_loaded();
        let session = Session::open_with(Gpu::open(&options.gpu)?, loaded, options.wanted)?;
        let mut policy = Policy { session, prompt, options, taps, prepared: None };
        if let Some(forward) = prepared {
            policy.prepare(forward.images)?;
        }
        Ok(policy)
    }

    /// The options of a forward pass for these images and the prompt that is set.
    fn forward(&self, images: Vec<ImageSpec>) -> ForwardOptions {
        let PolicyOptions { depth_map, guided, .. } = self.options;
        ForwardOptions { images, prompt_tokens: self.prompt.tokens.len(), depth_map, guided, taps: self.taps }
    }

    fn run(&mut self, observation: &Observation<'_>) -> Result<(&[Output], GpuTimes), PolicyError> {
        let config = &self.session.loaded().model.config;
        let noise = random::normal(observation.seed, config.horizon * config.action_dim);
        let images = in_order(&config.views, observation)?;
        let images: Vec<&[u8]> = images.into_iter().map(Image::pixels).collect();
        let inputs = Inputs { images: &images, state: observation.state, noise: &noise };
        Ok(self.session.infer_guided(&inputs, observation.guide, false)?)
    }

    /// Prepares for the observation's images and its prompt, as far as it is not.
    fn prepare_for(&mut self, observation: &Observation<'_>) -> Result<(), PolicyError> {
        let Policy { session, prompt, .. } = self;
        let loaded = session.loaded();
        let images = in_order(&loaded.model.config.views, observation)?;
        if let Some(task) = observation.task.filter(|task| prompt.task.as_deref() != Some(task)) {
            prompt.set_task(loaded, task)?;
        }
        prompt.update(loaded, observation.state)?;
        let specs: Vec<ImageSpec> = images.into_iter().map(Image::spec).collect();
        let forward = self.forward(specs);
        if self.prepared.as_ref() != Some(&forward) {
            tracing::debug!(images = ?forward.images, tokens = forward.prompt_tokens, "prepared anew");
            return self.prepare(forward.images);
        }
        if self.prompt.changed {
            self.session.reword(&self.prompt.tokens)?;
            self.prompt.changed = false;
        }
        Ok(())
    }
}

/// The observation's images in the order of the views.
fn in_order<'a>(views: &[String], observation: &Observation<'a>) -> Result<Vec<&'a Image>, PolicyError> {
    if let Some(images) = observation.ordered.filter(|images| images.len() == views.len()) {
        return Ok(images.iter().collect());
    }
    let image = |view: &String| observation.images.iter().find(|(name, _)| name == view).map(|(_, image)| *image);
    let images: Option<Vec<_>> = views.iter().map(image).collect();
    images.filter(|images| images.len() == observation.images.len()).ok_or_else(|| PolicyError::Views {
        expected: views.to_vec(),
        found: observation.images.iter().map(|(view, _)| (*view).to_owned()).collect(),
    })
}
