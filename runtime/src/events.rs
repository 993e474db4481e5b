//! The control loop's events, as one typed stream.
//!
//! The loop and its threads emit each event once. Its sinks are the log, the telemetry ring, the recording, the
//! picture, the service manager, injected faults, and the channel of an [`Events`] if it has one.

use std::sync::{Arc, mpsc};
use std::time::Instant;

use firmware_bridge::message::{Ack, ControllerState, Fault, Reason};

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
    /// The instant that `taken` marks.
    pub source: StampSource,
    /// When the camera's thread received it.
    pub dequeued: HostNs,
}

/// A request for an inference. The images travel beside it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct InferenceRequest {
    /// Its number, counted from 1.
    pub number: u32,
    /// Seed of the noise.
    pub seed: u64,
    /// The joints' positions.
    pub state: Vec<f32>,
    /// Times of the images, one per view, in the model's order.
    pub images: Vec<ImageStamp>,
    /// The controller's position when the images were taken; `None` while its clock is unknown.
    pub start: Option<InferenceStart>,
    /// When the model was idle, a chunk was due, and the newest image had arrived.
    pub due: HostNs,
    /// When the images were copied.
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

/// The phase of an injected fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultPhase {
    /// It begins.
    Begins,
    /// It happens once, without duration.
    Happens,
    /// It ends.
    Ends,
}

/// An event of the loop or its threads.
#[derive(Clone, Debug)]
pub enum LoopEvent {
    /// A control tick began.
    Tick {
        /// Its due time.
        due: HostNs,
        /// Its start.
        at: HostNs,
    },
    /// The clock jumped, or the loop hung.
    ClockJumped {
        /// The jump in milliseconds.
        by_ms: i64,
    },
    /// The loop changed its mode.
    Mode {
        /// The previous mode.
        from: LoopMode,
        /// The new mode.
        to: LoopMode,
        /// The event that changed it.
        event: ModeEvent,
        /// The reason, unless the event alone is one.
        detail: Detail,
        /// Time of the change.
        at: HostNs,
    },
    /// The loop is ready, and a person must request arming.
    AwaitsArming,
    /// The permission to move was lost, and a person must request it again.
    NotRearmed,
    /// The controller was asked for permission to move, and has not given it yet.
    NotArmed {
        /// The reason.
        why: String,
    },
    /// The line rejected a message.
    NotSent {
        /// The reason.
        why: String,
    },
    /// The controller's report.
    Report {
        /// Its state.
        report: Box<ControllerState>,
        /// When the controller made it.
        made: ControllerUs,
        /// When it arrived.
        received: HostNs,
    },
    /// The controller's answer to a message.
    Ack {
        /// The answer.
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
        /// The chunk in progress, 0 for none.
        chunk: u32,
        /// When its report arrived.
        received: HostNs,
    },
    /// An inference has finished.
    Inferred {
        /// The inference.
        inference: Arc<Inference>,
        /// Whether it is the first, whose actions are discarded.
        cold: bool,
        /// When the control thread received it.
        collected: HostNs,
    },
    /// A chunk was sent for the first time.
    Sent {
        /// The chunk.
        chunk: Arc<Planned>,
        /// Number of its inference.
        number: u32,
        /// Its times.
        times: ChunkTimes,
    },
    /// A chunk was not sent.
    NotPlanned {
        /// Number of its inference.
        number: u32,
        /// The reason.
        late: Late,
    },
    /// The controller accepted a chunk.
    Obeyed {
        /// Number of its inference.
        number: u32,
        /// Exposure of its oldest image.
        taken: HostNs,
        /// When it was first sent.
        sent: HostNs,
        /// When the controller's answer arrived.
        received: HostNs,
        /// When the controller received it, and the error bound of that time in nanoseconds, if its clock is known.
        applied: Option<(HostNs, u64)>,
    },
    /// The controller refused a chunk.
    Refused {
        /// Number of its inference.
        number: u32,
        /// The reason.
        reason: Reason,
        /// When its answer arrived.
        received: HostNs,
    },
    /// A chunk was not answered while its steps were valid.
    NeverArrived {
        /// Number of its inference.
        number: u32,
        /// Number of attempts.
        tries: usize,
    },
    /// The GPU is lost and is being opened again.
    GpuLost {
        /// The error.
        why: String,
    },
    /// The model is on a GPU again.
    GpuBack,
    /// A camera delivers no image.
    NoImage {
        /// Its view.
        view: String,
        /// The error.
        error: Arc<CameraError>,
    },
    /// A camera delivers images again.
    ImagesAgain {
        /// Its view.
        view: String,
    },
    /// The line could not be opened yet; the next attempt follows.
    LineNotOpen {
        /// The error.
        why: String,
    },
    /// The recording ended before the run.
    RecordingStopped {
        /// The reason.
        why: String,
    },
    /// The wall clock was set while the run was recorded.
    WallClockSet {
        /// The change in seconds.
        by_s: f64,
    },
    /// An injected fault changes its phase.
    Injected {
        /// The fault.
        fault: String,
        /// Its phase.
        phase: FaultPhase,
    },
}

/// Times of a chunk's stages on the control thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkTimes {
    /// Exposure of its oldest image.
    pub taken: HostNs,
    /// The GPU finished.
    pub inferred: HostNs,
    /// Planning started.
    pub began: HostNs,
    /// Its positions were limited, and it was passed to the line.
    pub limited: HostNs,
    /// The line received it.
    pub sent: HostNs,
    /// The previous chunk was sent.
    pub previous: Option<HostNs>,
}

/// Sends events of all threads: logs each event, and passes it on with its time to a channel, if there is one.
#[derive(Clone, Debug, Default)]
pub struct Events(Option<mpsc::Sender<(Instant, LoopEvent)>>);

impl Events {
    /// Also passes events on to `sender`.
    #[must_use]
    pub fn to(sender: mpsc::Sender<(Instant, LoopEvent)>) -> Events {
        Events(Some(sender))
    }

    /// Emits an event.
    pub(crate) fn emit(&self, event: LoopEvent) {
        let now = Instant::now();
        event.log();
        if let Some(sender) = &self.0 {
            // The receiver may end before the loop.
            let _ = sender.send((now, event));
        }
    }
}
