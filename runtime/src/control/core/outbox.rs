//! Inputs and effects of the loop's core.

use std::collections::VecDeque;
use std::sync::Arc;

use super::freshness::ImageStatus;
use crate::action::Planned;
use crate::clock::{ControllerUs, HostNs};
use crate::events::{ImageStamp, Inference, InferenceRequest, LoopEvent};
use crate::link::{ClockOffset, LinkError, LinkEvent};

/// The time of an input.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Now {
    pub(crate) at: HostNs,
    /// The controller's clock, where the line is open and the clock is known.
    pub(crate) clock: Option<ClockOffset>,
}

impl Now {
    /// An instant by the controller's clock.
    pub(crate) fn controller(&self, at: HostNs) -> Option<ControllerUs> {
        self.clock.map(|clock| ControllerUs(clock.to_controller_us(at.0)))
    }
}

/// An input of the core.
#[derive(Debug)]
pub(crate) enum Input<'a> {
    /// Everything is open.
    Opened,
    /// A control tick begins, which was due at this time.
    Tick { due: HostNs },
    /// A repeated message may be due: at the end of each tick, and at [`ControlCore::resend_due`](super::ControlCore).
    Retry,
    /// A person or the system asks for something.
    Operator(Request),
    /// The cameras, in the views' order.
    Images(&'a [ImageStatus]),
    /// [`Effect::TakeImages`] is done.
    ImagesTaken(Vec<ImageStamp>),
    /// From the inference thread.
    Inference(InferenceNews),
    /// From the link.
    Link(LinkEvent),
    /// [`Effect::Reconnect`] is done, with a controller that is disarmed.
    Reconnected,
    /// There will be no line.
    ReconnectFailed,
    /// [`Effect::Send`] was carried out from `began` to now.
    Sent { message: &'a Message, began: HostNs, sent: Result<u32, SendError> },
}

/// A person or the system asks for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Arm,
    Disarm,
    Stop,
}

/// The inference thread's news.
#[derive(Debug)]
pub(crate) enum InferenceNews {
    Done(Arc<Inference>),
    /// The GPU is lost and is being opened again; the inference is not made.
    Lost(String),
    /// The model is on a GPU again.
    Back,
    /// It gave up.
    Failed(String),
}

/// Why a message was not sent.
#[derive(Debug)]
pub(crate) enum SendError {
    /// No line is open.
    NoLine,
    /// The line does not keep up. The core tries again later; the controller's deadman decides when that is too late.
    Later(LinkError),
    /// The line is gone.
    Lost(String),
}

/// A message to the controller.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Message {
    Heartbeat,
    Arm,
    ClearFault,
    /// Ramp to rest and release the joints.
    Disarm,
    /// Ramp to rest.
    Stop,
    Chunk(Arc<Planned>),
}

/// An effect for the shell to carry out.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Send a message, and answer with [`Input::Sent`].
    Send(Message),
    /// Take the newest images over, and answer with [`Input::ImagesTaken`].
    TakeImages,
    /// Infer from the images that were taken.
    Infer(InferenceRequest),
    /// Close the line and open it again, as often as it takes.
    Reconnect,
    /// Pass an event on to the sinks.
    Emit(LoopEvent),
}

/// The effects of an input, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox(VecDeque<Effect>);

impl Outbox {
    pub(crate) fn push(&mut self, effect: Effect) {
        self.0.push_back(effect);
    }

    pub(crate) fn send(&mut self, message: Message) {
        self.push(Effect::Send(message));
    }

    pub(crate) fn emit(&mut self, event: LoopEvent) {
        self.push(Effect::Emit(event));
    }

    /// The next effect to carry out.
    pub(crate) fn next(&mut self) -> Option<Effect> {
        self.0.pop_front()
    }
}
