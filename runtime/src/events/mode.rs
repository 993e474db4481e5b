//! The control loop's modes, and the events and reasons that change them.

use std::fmt;

use firmware_bridge::fault::FaultReport;
use firmware_bridge::message::{Fault, Reason};

/// The control loop's mode. ARCHITECTURE.md has the table of changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopMode {
    /// Opening cameras, link and model.
    Boot,
    /// The first inference runs; the arm does not move.
    Warm,
    /// Warm and disarmed: the arm does not move before arming is requested.
    Ready,
    /// Chunks are sent.
    Active,
    /// The controller holds. The loop sends no chunk until all causes have ended.
    Hold(Causes),
    /// The controller ramps to rest; the loop ends.
    Stop,
    /// The loop ends with an error; the controller rests.
    Fault(LoopFault),
}

impl LoopMode {
    /// Whether the loop is ending.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, LoopMode::Stop | LoopMode::Fault(_))
    }
}

/// The reasons for a hold: at least one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Causes {
    /// A camera delivers no image, an image is too old, or two are too far apart.
    pub images: bool,
    /// The controller is silent.
    pub silent: bool,
    /// The GPU is lost and is being opened again.
    pub model: bool,
    /// The line to the controller was lost and is being opened again.
    pub line: bool,
}

/// The reason for a fault of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoopFault {
    /// The line was lost before the loop was ready.
    Link,
    /// The controller latched a fault that needs a person, or refused to be armed.
    Controller,
    /// The model failed, or the GPU was lost repeatedly.
    Inference,
}

/// An event that affects the loop's mode. Lasting conditions are reported repeatedly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeEvent {
    /// Everything is open.
    Opened,
    /// The first inference has finished.
    Warmed,
    /// Arming is requested.
    ArmAsked,
    /// The controller may move (or dry run: nothing is sent).
    Armed,
    /// Disarming is requested.
    DisarmAsked,
    /// All images are young enough and near enough to each other.
    ImagesFresh,
    /// They are not.
    ImagesStale,
    /// The controller responds again.
    LinkRestored,
    /// The controller is silent.
    LinkSilent,
    /// The line was lost, or the controller restarted.
    LinkLost,
    /// The line is open again, with a controller that is disarmed.
    LinkOpened,
    /// The controller stopped because it lost the host.
    HostLost,
    /// The controller latched another fault, or refused to be armed.
    ControllerFault,
    /// The GPU is lost.
    ModelLost,
    /// The model is on a GPU again.
    ModelBack,
    /// The model failed, or the GPU cannot be opened.
    InferenceFailed,
    /// The user or the system asks for the end.
    StopAsked,
}

/// Why the newest images may not be acted on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageProblem {
    /// There is no camera any more.
    #[error("camera {view} gives no image")]
    Gone {
        /// The camera's view.
        view: String,
    },
    /// The newest image of a camera is too old.
    #[error("camera {view}: the newest image is {age_ms} ms old, at most {most_ms} ms allowed")]
    Old {
        /// The camera's view.
        view: String,
        /// Its age.
        age_ms: u64,
        /// The greatest age that is allowed.
        most_ms: u64,
    },
    /// The newest images of two cameras were taken too far apart.
    #[error("cameras {older} and {newer}: {apart_ms} ms apart, at most {most_ms} ms allowed")]
    Apart {
        /// View of the older image.
        older: String,
        /// View of the newer image.
        newer: String,
        /// Time between them.
        apart_ms: u64,
        /// The greatest time between them that is allowed.
        most_ms: u64,
    },
}

/// Why the mode changed, if the event alone is not reason enough.
#[derive(Clone, Debug, Default, PartialEq, thiserror::Error)]
pub enum Detail {
    /// The event is reason enough.
    #[default]
    #[error("")]
    None,
    /// The images are not fresh.
    #[error(transparent)]
    Images(#[from] ImageProblem),
    /// No message arrived from the controller.
    #[error("no message from the controller for {for_ms} ms")]
    ControllerSilent {
        /// For how long.
        for_ms: u64,
    },
    /// The controller's deadman stopped the joints.
    #[error("the controller stopped: it received nothing from the host")]
    HostLost,
    /// The controller does not know the session any more.
    #[error("the controller restarted")]
    ControllerRestarted,
    /// The controller has another protocol version.
    #[error("the controller has protocol version {found}")]
    WrongVersion {
        /// The controller's.
        found: u8,
    },
    /// The line was lost.
    #[error("{0}")]
    LineLost(String),
    /// The controller refused a chunk because it is disarmed.
    #[error("the controller is disarmed")]
    Disarmed,
    /// The controller latched a fault.
    #[error("the controller latched {fault:?}: {cause}; --clear-fault clears it")]
    Latched {
        /// The fault.
        fault: Fault,
        /// Its values.
        report: Option<FaultReport>,
        /// The report as text, with the joint's name.
        cause: String,
    },
    /// The controller refused to be armed.
    #[error("the controller refused to be armed: {reason:?}{}", clear_hint(*reason))]
    ArmingRefused {
        /// Its reason.
        reason: Reason,
    },
    /// The controller gave no permission to move.
    #[error("no permission to move after {tries} tries (pose reported: {reported}) {refused}")]
    NeverArmed {
        /// How often it was asked.
        tries: u32,
        /// Whether it reported a pose.
        reported: bool,
        /// The controller's last reason, if it gave one.
        refused: String,
    },
    /// The GPU is lost, or inference failed.
    #[error("{0}")]
    Inference(String),
}

fn clear_hint(reason: Reason) -> &'static str {
    if reason == Reason::Faulted { "; --clear-fault clears a latched fault" } else { "" }
}

impl fmt::Display for LoopMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LoopMode::Boot => "boot",
            LoopMode::Warm => "warm",
            LoopMode::Ready => "ready",
            LoopMode::Active => "active",
            LoopMode::Hold(causes) => return write!(f, "hold ({causes})"),
            LoopMode::Stop => "stop",
            LoopMode::Fault(LoopFault::Link) => "fault (line)",
            LoopMode::Fault(LoopFault::Controller) => "fault (controller)",
            LoopMode::Fault(LoopFault::Inference) => "fault (inference)",
        })
    }
}

impl fmt::Display for Causes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = [(self.images, "images"), (self.silent, "silent"), (self.model, "model"), (self.line, "line")];
        let mut named = all.into_iter().filter(|(is, _)| *is).map(|(_, name)| name);
        f.write_str(named.next().unwrap_or("nothing"))?;
        named.try_for_each(|name| write!(f, ", {name}"))
    }
}
