//! Inference on its own thread, so that control ticks go on while the model thinks.

use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};

use fathom_models::depthvla::ForwardOptions;
use fathom_models::observation::finish_actions;
use fathom_models::tokenizer::Tokenizer;
use fathom_models::{prompt, random};

use crate::camera::Image;
use crate::clock::monotonic_ns;
use crate::engine::{EngineError, Inputs, Session};
use crate::gpu::GpuTimes;

/// A prompt that the state is part of: its tokens change with every inference.
#[derive(Debug)]
pub(super) struct StatePrompt {
    pub(super) tokenizer: Tokenizer,
    pub(super) task: String,
}

/// What the model is shown. Its memory comes back in the [`Reply`].
#[derive(Debug, Default)]
pub(super) struct Request {
    /// One image a view, in the model's order.
    pub(super) images: Vec<Image>,
    /// The robot's own state.
    pub(super) state: Vec<f32>,
    /// Its number, counted from 1.
    pub(super) number: u32,
    /// Seed of the noise.
    pub(super) seed: u64,
    /// When the images were taken over, CLOCK_MONOTONIC.
    pub(super) asked_ns: u64,
}

/// What the model gave.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) request: Request,
    /// `(horizon, action_dim)`, the robot's own.
    pub(super) actions: Vec<f32>,
    /// Depth maps of the views that have one: name, side, values.
    pub(super) depth: Vec<(String, usize, Vec<f32>)>,
    pub(super) started_ns: u64,
    /// The GPU's part is done and read back.
    pub(super) inferred_ns: u64,
    /// Actions are in the robot's own units.
    pub(super) finished_ns: u64,
    pub(super) gpu: GpuTimes,
}

/// The inference thread.
#[derive(Debug)]
pub(super) struct Worker {
    requests: Option<SyncSender<Request>>,
    replies: Receiver<Result<Reply, EngineError>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Takes over a prepared session.
    ///
    /// `forward` and `tokens` are those it was prepared with: a camera whose image changes its form (one that was
    /// plugged in again, a folder of different pictures) has it prepared anew, and so has a `prompt` whose number of
    /// tokens changes with the state.
    pub(super) fn start(
        mut session: Session,
        mut forward: ForwardOptions,
        mut tokens: Vec<i32>,
        prompt: Option<StatePrompt>,
    ) -> std::io::Result<Worker> {
        let (requests, inbox) = sync_channel::<Request>(1);
        let (outbox, replies) = sync_channel(1);
        let thread = thread::Builder::new().name("inference".into()).spawn(move || {
            for request in inbox {
                if let Err(error) = fit(&mut session, &mut forward, &mut tokens, prompt.as_ref(), &request) {
                    let _ = outbox.send(Err(error));
                    break;
                }
                if outbox.send(infer(&mut session, request)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Worker { requests: Some(requests), replies, thread: Some(thread) })
    }

    /// Hands a request over; `false` when the thread is gone.
    pub(super) fn ask(&self, request: Request) -> bool {
        self.requests.as_ref().is_some_and(|r| r.send(request).is_ok())
    }

    /// The reply, if it is there. `Err` when the thread is gone.
    pub(super) fn poll(&self) -> Result<Option<Result<Reply, EngineError>>, ()> {
        match self.replies.try_recv() {
            Ok(reply) => Ok(Some(reply)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(()),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It ends with the inference that is under way; a panic was already printed.
            let _ = thread.join();
        }
    }
}

/// Has the session prepared for the request's images and, where the state is part of it, its prompt.
fn fit(
    session: &mut Session,
    forward: &mut ForwardOptions,
    tokens: &mut Vec<i32>,
    prompt: Option<&StatePrompt>,
    request: &Request,
) -> Result<(), EngineError> {
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

/// The image's bytes without what a source may have behind them.
fn pixels(image: &Image) -> &[u8] {
    image.data.get(..image.spec().bytes()).unwrap_or(&image.data)
}

fn infer(session: &mut Session, request: Request) -> Result<Reply, EngineError> {
    let started_ns = monotonic_ns();
    let config = &session.loaded().model.config;
    let noise = random::normal(request.seed, config.horizon * config.action_dim);
    let images: Vec<&[u8]> = request.images.iter().map(pixels).collect();
    let inputs = Inputs { images: &images, state: &request.state, noise: &noise };
    let (outputs, gpu) = session.infer(&inputs, false)?;
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
    let (_, actions) = finish_actions(session.loaded(), &request.state, raw)?;
    Ok(Reply { request, actions, depth, started_ns, inferred_ns, finished_ns: monotonic_ns(), gpu })
}
