//! Inference on a thread of its own, so that the control loop keeps ticking.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::core::InferenceNews;
use crate::camera::Image;
use crate::clock::{NS_PER_S, kernel_ns};
use crate::events::{Inference, InferenceRequest};
use crate::fault::{Faults, Kind};
use crate::policy::{Observation, Policy, PolicyError};
use crate::record::RecordingWriter;
use crate::waker::Waker;

/// A GPU that is lost more often than this within [`LOSSES_NS`] is not opened again.
const LOSSES: usize = 3;
const LOSSES_NS: u64 = 60 * NS_PER_S;

/// An inference to run, and its images.
type Job = (InferenceRequest, Vec<Image>);

/// The inference thread.
#[derive(Debug)]
pub(super) struct InferenceThread {
    jobs: Option<SyncSender<Job>>,
    news: Receiver<(InferenceNews, Vec<Image>)>,
    /// The images of the next inference. During an inference the thread has them.
    pub(super) images: Vec<Image>,
    thread: Option<JoinHandle<Option<()>>>,
}

impl InferenceThread {
    /// Takes over a prepared policy; every message wakes `waker`.
    pub(super) fn start(
        policy: Policy,
        faults: Faults,
        recording: Option<Arc<RecordingWriter>>,
        waker: Waker,
    ) -> std::io::Result<InferenceThread> {
        let (jobs, inbox) = sync_channel(1);
        let (sender, news) = sync_channel(4);
        let sender = NewsSender { sender, waker };
        let thread = thread::Builder::new()
            .name("inference".into())
            .spawn(move || run(policy, &inbox, &sender, &faults, recording.as_deref()))?;
        Ok(InferenceThread { jobs: Some(jobs), news, images: Vec::new(), thread: Some(thread) })
    }

    /// Starts an inference from [`images`](Self::images).
    pub(super) fn infer(&mut self, request: InferenceRequest) {
        let images = std::mem::take(&mut self.images);
        if let Some(jobs) = &self.jobs {
            // If the thread has ended, the next poll reports it.
            let _ = jobs.send((request, images));
        }
    }

    /// The thread's next message, if any.
    pub(super) fn poll(&mut self) -> Option<InferenceNews> {
        match self.news.try_recv() {
            Ok((news, images)) => {
                if !images.is_empty() {
                    self.images = images;
                }
                Some(news)
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                self.thread.take().map(|_| InferenceNews::Failed("the inference thread ended".to_owned()))
            }
        }
    }
}

impl Drop for InferenceThread {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // The thread ends after its current inference; a panic has already been printed.
            let _ = thread.join();
        }
    }
}

/// The thread's sender of messages.
struct NewsSender {
    sender: SyncSender<(InferenceNews, Vec<Image>)>,
    waker: Waker,
}

impl NewsSender {
    /// Sends a message to the loop and waits for the images. `None` when the loop has ended.
    fn send(&self, news: InferenceNews, images: Vec<Image>) -> Option<()> {
        let sent = self.sender.send((news, images));
        self.waker.wake();
        sent.ok()
    }
}

impl Drop for NewsSender {
    /// The end of the thread is a message, too.
    fn drop(&mut self) {
        self.waker.wake();
    }
}

/// Runs inferences until the loop ends or the GPU is given up.
fn run(
    mut policy: Policy,
    jobs: &Receiver<Job>,
    news: &NewsSender,
    faults: &Faults,
    recording: Option<&RecordingWriter>,
) -> Option<()> {
    let mut losses: VecDeque<u64> = VecDeque::new();
    for (request, images) in jobs {
        if faults.once(Kind::DeviceLost).is_some() {
            policy.session.lose_gpu("an injected fault");
        }
        let began_ns = kernel_ns();
        let guide = request.start.as_ref().and_then(|start| start.guide.as_ref());
        let observation = Observation::default().ordered(&images).state(&request.state).seed(request.seed).guide(guide);
        let inferred = policy.infer(&observation);
        // Here, so that the control thread copies no images for it, and with the tokens that were inferred from: where the state is
        // part of the prompt they change with it.
        if let Some(recording) = recording {
            recording.observation(&request, &images, policy.tokens());
        }
        if let Some(longer_s) = faults.now(Kind::SlowGpu, None) {
            thread::sleep(Duration::from_secs_f64(longer_s));
        }
        let error = match inferred {
            Ok(output) => {
                news.send(InferenceNews::Done(Arc::new(Inference { request, output })), images)?;
                continue;
            }
            Err(error) => error,
        };
        losses.push_back(began_ns);
        losses.retain(|at_ns| began_ns.saturating_sub(*at_ns) < LOSSES_NS);
        if !error.is_gpu_lost() || losses.len() > LOSSES {
            return news.send(InferenceNews::Failed(error.to_string()), images);
        }
        news.send(InferenceNews::Lost(error.to_string()), images)?;
        policy = match policy.reopen() {
            Ok(policy) => policy,
            Err(error) => return news.send(InferenceNews::Failed(reopen_failed(&error)), Vec::new()),
        };
        news.send(InferenceNews::Back, Vec::new())?;
    }
    Some(())
}

fn reopen_failed(error: &PolicyError) -> String {
    format!("the GPU was lost, and does not open again: {error}")
}
