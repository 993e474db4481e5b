//! Inference on its own thread, so that control ticks go on while the model thinks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock::{NS_PER_S, Waker, kernel_ns};
use crate::engine::EngineError;
use crate::fault::{Faults, Kind};
use crate::policy::{PolicyRunner, Reply, Request, is_lost};
use crate::record::RecordingWriter;

/// A GPU that is lost more often than this within [`LOSSES_NS`] is given up.
const LOSSES: usize = 3;
const LOSSES_NS: u64 = 60 * NS_PER_S;

/// What the inference thread says.
#[derive(Debug)]
pub(super) enum InferenceNews {
    /// The model's answer.
    Done(Box<Reply>),
    /// The GPU is lost and is being opened again. The request comes back.
    Lost { detail: String, request: Box<Request> },
    /// The model is on a GPU again.
    Back,
    /// It gave up.
    Failed(String),
}

/// Where the inference thread says what it says.
struct Outbox {
    sender: SyncSender<InferenceNews>,
    waker: Waker,
}

impl Outbox {
    /// `false` when nobody listens any more.
    fn say(&self, news: InferenceNews) -> bool {
        let heard = self.sender.send(news).is_ok();
        self.waker.wake();
        heard
    }
}

impl Drop for Outbox {
    /// That the thread ended is news, too.
    fn drop(&mut self) {
        self.waker.wake();
    }
}

/// The inference thread.
#[derive(Debug)]
pub(super) struct InferenceThread {
    requests: Option<SyncSender<Request>>,
    news: Receiver<InferenceNews>,
    thread: Option<JoinHandle<()>>,
}

impl InferenceThread {
    /// Takes over a prepared model; `waker` is woken by each news.
    pub(super) fn start(
        runner: PolicyRunner,
        faults: Faults,
        recording: Option<Arc<RecordingWriter>>,
        waker: Waker,
    ) -> std::io::Result<InferenceThread> {
        let (requests, inbox) = sync_channel::<Request>(1);
        let (sender, news) = sync_channel(4);
        let outbox = Outbox { sender, waker };
        let thread = thread::Builder::new()
            .name("inference".into())
            .spawn(move || work(runner, &inbox, &outbox, &faults, recording.as_deref()))?;
        Ok(InferenceThread { requests: Some(requests), news, thread: Some(thread) })
    }

    /// Hands a request over; `false` when the thread is gone.
    pub(super) fn ask(&self, request: Request) -> bool {
        self.requests.as_ref().is_some_and(|r| r.send(request).is_ok())
    }

    /// What the thread says, if it says something. `Err` when it is gone.
    pub(super) fn poll(&self) -> Result<Option<InferenceNews>, ()> {
        match self.news.try_recv() {
            Ok(news) => Ok(Some(news)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(()),
        }
    }
}

impl Drop for InferenceThread {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // It ends with the inference that is under way; a panic was already printed.
            let _ = thread.join();
        }
    }
}

fn work(
    mut runner: PolicyRunner,
    inbox: &Receiver<Request>,
    outbox: &Outbox,
    faults: &Faults,
    recording: Option<&RecordingWriter>,
) {
    let mut losses: VecDeque<u64> = VecDeque::new();
    for request in inbox {
        if let Some(recording) = recording {
            recording.request(&request, &runner.tokens);
        }
        if faults.once(Kind::DeviceLost).is_some() {
            runner.session.lose_gpu("a fault on purpose");
        }
        let began_ns = kernel_ns();
        let news = runner.infer(request);
        if let Some(longer_s) = faults.now(Kind::SlowGpu, None) {
            thread::sleep(Duration::from_secs_f64(longer_s));
        }
        let (error, request) = match news {
            Ok(reply) => {
                if !outbox.say(InferenceNews::Done(Box::new(reply))) {
                    return;
                }
                continue;
            }
            Err(failed) => *failed,
        };
        losses.push_back(began_ns);
        losses.retain(|at_ns| began_ns.saturating_sub(*at_ns) < LOSSES_NS);
        if !is_lost(&error) || losses.len() > LOSSES {
            outbox.say(InferenceNews::Failed(error.to_string()));
            return;
        }
        let lost = InferenceNews::Lost { detail: error.to_string(), request: Box::new(request) };
        if !outbox.say(lost) {
            return;
        }
        runner = match runner.reopen() {
            Ok(runner) => runner,
            Err(error) => {
                outbox.say(InferenceNews::Failed(reopen_failed(&error)));
                return;
            }
        };
        if !outbox.say(InferenceNews::Back) {
            return;
        }
    }
}

fn reopen_failed(error: &EngineError) -> String {
    format!("the GPU was lost, and does not open again: {error}")
}
