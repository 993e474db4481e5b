//! The control loop's events, as one typed stream.
//!
//! The loop and its threads emit each event once. The log, the telemetry ring, the recording, the picture, the service manager and
//! faults on purpose are sinks of the stream, and so is the channel of an [`Events`], if it has one.

use std::sync::{Arc, mpsc};
use std::time::Instant;

use firmware_bridge::message::{Ack, Fault, Reason, State as ControllerState};

use crate::action::{InferenceStart, Late, Planned};
use crate::camera::{CameraError, StampSource};
use crate::clock::{ControllerUs, HostNs};
pub use crate::policy::PolicyOutput;

mod log;
mod mode;

pub use self::mode::{Causes, Detail, ImageProblem, LoopFault, LoopMode, ModeEvent};

/// Times of an image that an inference starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageStamp {
    /// When it was taken, by `source`.
    pub taken: HostNs,
    /// The instant of the exposure that `taken` is.
    pub source: StampSource,
    /// When the camera's thread had it.
    pub dequeued: HostNs,
}

/// An inference to start. The images themselves travel beside it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferenceRequest {
    /// Its number, counted from 1.
    pub number: u32,
    /// Seed of the noise.
    pub seed: u64,
    /// The joints' positions.
    pub state: Vec<f32>,
    /// Times of the images, one a view, in the model's order.
    pub images: Vec<ImageStamp>,
    /// Where the controller was when the images were taken; `None` while its clock is not known.
    pub start: Option<InferenceStart>,
    /// When the model was free, a chunk was due, and the newest image was here.
    pub due: HostNs,
    /// When the images were taken over.
    pub asked: HostNs,
}

impl InferenceRequest {
    /// When the oldest image was taken.
    #[must_use]
    pub fn oldest(&self) -> Option<HostNs> {
        self.images.iter().map(|image| image.taken).min()
    }
}

/// A finished inference.
#[derive(Clone, Debug, Default)]
pub struct Inference {
    /// The request.
    pub request: InferenceRequest,
    /// The policy's output.
    pub output: PolicyOutput,
}

/// Where a fault on purpose is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPhase {
    /// It begins.
    Begins,
    /// It happens, and is over at once.
    Happens,
    /// It ends.
    Ends,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum LoopEvent {
    /// A control tick began.
    Tick {
        /// When it should have begun.
        due: HostNs,
        /// When it began.
        at: HostNs,
    },
    /// The clock jumped, or the loop hung.
    ClockJumped {
        /// By how much, in milliseconds.
        by_ms: i64,
    },
    /// The loop is in another mode.
    Mode {
        /// The mode before.
        from: LoopMode,
        /// The mode.
        to: LoopMode,
        /// Which event changed it.
        event: ModeEvent,
        /// Why, if the event alone is not reason enough.
        detail: Detail,
        /// When.
        at: HostNs,
    },
    /// The loop is ready, and a person has to ask for arming.
    AwaitsArming,
    /// The permission to move is gone, and a person has to ask for it again.
    NotRearmed,
    /// The controller was asked for permission to move and gives it later.
    NotArmed {
        /// Why.
        why: String,
    },
    /// The line did not take a message.
    NotSent {
        /// Why.
        why: String,
    },
    /// The controller reported.
    Report {
        /// Its state.
        report: Box<ControllerState>,
        /// When it made the report.
        made: ControllerUs,
        /// When the report arrived.
        received: HostNs,
    },
    /// The controller answered a message.
    Ack {
        /// Its answer.
        ack: Ack,
        /// When it made it.
        made: ControllerUs,
        /// When it arrived.
        received: HostNs,
    },
    /// The controller latched a fault.
    ControllerFault {
        /// The fault.
        fault: Fault,
        /// The chunk that it followed, 0 for none.
        chunk: u32,
        /// When the report of it arrived.
        received: HostNs,
    },
    /// An inference is done.
    Inferred {
        /// It.
        inference: Arc<Inference>,
        /// Whether it is the first, whose actions nobody follows.
        cold: bool,
        /// When the control thread took it over.
        collected: HostNs,
    },
    /// A chunk was sent for the first time.
    Sent {
        /// The chunk.
        chunk: Arc<Planned>,
        /// Number of its inference.
        number: u32,
        /// Times on its way.
        times: ChunkTimes,
    },
    /// A chunk is not sent.
    NotPlanned {
        /// Number of its inference.
        number: u32,
        /// Why.
        late: Late,
    },
    /// The controller follows a chunk.
    Obeyed {
        /// Number of its inference.
        number: u32,
        /// Exposure of its oldest image.
        taken: HostNs,
        /// When it was sent first.
        sent: HostNs,
        /// When the controller's answer arrived.
        received: HostNs,
        /// When the controller took it over and the bound of that time's error in nanoseconds, where its clock is known.
        applied: Option<(HostNs, u64)>,
    },
    /// The controller refused a chunk.
    Refused {
        /// Number of its inference.
        number: u32,
        /// Its reason.
        reason: Reason,
        /// When its answer arrived.
        received: HostNs,
    },
    /// No answer to a chunk came while its steps were valid.
    NeverArrived {
        /// Number of its inference.
        number: u32,
        /// How often it was sent.
        tries: usize,
    },
    /// The GPU is lost and is being opened again.
    GpuLost {
        /// The error.
        why: String,
    },
    /// The model is on a GPU again.
    GpuBack,
    /// A camera gives no image.
    NoImage {
        /// Its view.
        view: String,
        /// Why.
        error: Arc<CameraError>,
    },
    /// A camera gives images again.
    ImagesAgain {
        /// Its view.
        view: String,
    },
    /// The line does not open yet, and is tried again.
    LineNotOpen {
        /// Why.
        why: String,
    },
    /// The recording ended before the run.
    RecordingStopped {
        /// Why.
        why: String,
    },
    /// The wall clock was set while the run was recorded.
    WallClockSet {
        /// By how many seconds.
        by_s: f64,
    },
    /// A fault on purpose goes on.
    Injected {
        /// The fault.
        fault: String,
        /// Where it is.
        phase: FaultPhase,
    },
}

/// When a chunk's parts of the control thread's work were done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkTimes {
    /// Exposure of its oldest image.
    pub taken: HostNs,
    /// The GPU was done.
    pub inferred: HostNs,
    /// Planning began.
    pub began: HostNs,
    /// Its positions were limited, and it was handed to the line.
    pub limited: HostNs,
    /// The line had it.
    pub sent: HostNs,
    /// The chunk before was sent.
    pub previous: Option<HostNs>,
}

/// The way into the stream for threads: logs each event, and passes it on with its time to a channel where there is one.
#[derive(Clone, Debug, Default)]
pub struct Events(Option<mpsc::Sender<(Instant, LoopEvent)>>);

impl Events {
    /// Events that go to `sender`, too.
    #[must_use]
    pub fn to(sender: mpsc::Sender<(Instant, LoopEvent)>) -> Events {
        Events(Some(sender))
    }

    /// Emits an event.
    pub(crate) fn emit(&self, event: LoopEvent) {
        let now = Instant::now();
        event.log();
        if let Some(sender) = &self.0 {
            // The receiver may be gone before the loop.
            let _ = sender.send((now, event));
        }
    }
}
