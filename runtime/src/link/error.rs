//! Errors between host and controller.

use std::io;
use std::time::Duration;

use firmware_bridge::message::{Fault, Reason};

/// An error of the link. Each names the device.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// There is no such device.
    #[error("serial device {device} does not exist: is the controller plugged in?")]
    Absent {
        /// Path of the device.
        device: String,
    },
    /// Another program has the device.
    #[error("serial device {device} is in use by another program")]
    Busy {
        /// Path of the device.
        device: String,
    },
    /// This user may not open the device.
    #[error("no permission to open serial device {device}: add the user to its group (often dialout)")]
    Permission {
        /// Path of the device.
        device: String,
    },
    /// The device did not open for another reason.
    #[error("serial device {device} did not open")]
    Open {
        /// Path of the device.
        device: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The link's threads did not start.
    #[error("no thread for the link on {device}")]
    Thread {
        /// Path of the device.
        device: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The device is lost: unplugged, or its driver failed.
    #[error("the link on {device} is lost ({kind})")]
    Lost {
        /// Path of the device.
        device: String,
        /// The kind of the error that ended it.
        kind: io::ErrorKind,
    },
    /// No answer in time.
    #[error("no answer on {device} to {what} within {waited:?}")]
    NoReply {
        /// Path of the device.
        device: String,
        /// The message without an answer.
        what: &'static str,
        /// The time limit.
        waited: Duration,
    },
    /// The controller has another protocol version.
    #[error("the controller on {device} has protocol version {found}, this host {expected}: flash matching firmware")]
    ProtocolVersion {
        /// Path of the device.
        device: String,
        /// This host's version.
        expected: u8,
        /// The controller's version.
        found: u8,
    },
    /// Same version, but other message layouts.
    #[error(
        "the controller on {device} has message layouts {found:08x}, this host {expected:08x}: flash matching firmware"
    )]
    Schema {
        /// Path of the device.
        device: String,
        /// This host's schema hash.
        expected: u32,
        /// The controller's schema hash.
        found: u32,
    },
    /// The controller drives another number of joints.
    #[error("the controller on {device} has {found} joints, the configuration {expected}")]
    JointCount {
        /// Path of the device.
        device: String,
        /// Joints of the configuration.
        expected: usize,
        /// Joints of the controller.
        found: usize,
    },
    /// The controller's joints have other names or another order.
    #[error("the controller on {device} has joints {found:?}, the configuration {expected:?}")]
    JointNames {
        /// Path of the device.
        device: String,
        /// Names in the configuration.
        expected: Vec<String>,
        /// Names of the controller.
        found: Vec<String>,
    },
    /// Another controller than that of the configuration.
    #[error("the controller on {device} is {found:?}, the configuration expects {expected:?} (link.controller)")]
    Identity {
        /// Path of the device.
        device: String,
        /// The controller of the configuration.
        expected: String,
        /// The controller that answered.
        found: String,
    },
    /// The controller has latched a fault that needs a person.
    #[error("the controller on {device} latched {fault:?}: {cause}; remove the cause; --clear-fault clears the fault")]
    Latched {
        /// Path of the device.
        device: String,
        /// The fault.
        fault: Fault,
        /// Joint, value and limits as text.
        cause: String,
    },
    /// A latched fault cannot be cleared.
    #[error("the controller on {device} does not clear its fault: its cause lasts")]
    CauseLasts {
        /// Path of the device.
        device: String,
    },
    /// A latched fault was not cleared.
    #[error("the controller on {device} does not clear its fault: {reason:?}")]
    NotCleared {
        /// Path of the device.
        device: String,
        /// The controller's verdict.
        reason: Reason,
    },
    /// A message that needs the hello was sent before it.
    #[error("no hello on {device} yet")]
    NoHello {
        /// Path of the device.
        device: String,
    },
    /// Frames are queued faster than the line sends them.
    #[error("the line on {device} is too slow: its queue of frames is full")]
    Backlog {
        /// Path of the device.
        device: String,
    },
    /// The chunk is empty, longer than the controller's buffer, or not a whole number of steps.
    #[error("a chunk of {values} values is not 1 to {most_steps} steps of {joints} joints with a period, for {device}")]
    ChunkShape {
        /// Path of the device.
        device: String,
        /// Values of the chunk.
        values: usize,
        /// Joints of the controller.
        joints: usize,
        /// The controller's buffer in steps.
        most_steps: usize,
    },
    /// A position of the chunk is NaN or infinite.
    #[error("a chunk for {device} is not finite at step {step}, joint {joint}")]
    NonFinite {
        /// Path of the device.
        device: String,
        /// Step, 0-based.
        step: usize,
        /// Joint, 0-based.
        joint: usize,
    },
    /// A host time cannot be converted before the controller's clock is known.
    #[error("the clock of the controller on {device} is not known yet")]
    NoClock {
        /// Path of the device.
        device: String,
    },
}
