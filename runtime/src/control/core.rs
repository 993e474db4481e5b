//! The control loop's states, as a pure function: what happened and where we are, to where we go and what is done.
//! Time and I/O stay outside; the table is in ARCHITECTURE.md.

use std::fmt;

/// Where the loop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Opening cameras, link and model.
    Boot,
    /// The first inference runs; nothing moves.
    Warm,
    /// Warm; the controller was asked for permission to move.
    Ready,
    /// Chunks are sent.
    Active,
    /// No chunk is sent until the cause is gone; the controller holds its pose.
    Hold(Hold),
    /// The controller ramps to rest; the loop ends.
    Stop,
    /// The loop ends with an error; the controller stops by itself or was told to.
    Fault(Fault),
}

/// Why the loop holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// An image is too old.
    StaleImage,
    /// The controller is silent.
    Silent,
}

/// Why the loop gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The serial device is gone, or the controller restarted.
    Link,
    /// The controller latched a fault, or refused to be armed.
    Controller,
    /// The model or the GPU failed.
    Inference,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Everything is open.
    Opened,
    /// The first inference is done.
    Warmed,
    /// The controller may move (or nothing is to be sent: dry run).
    Armed,
    /// All images are young enough.
    ImagesFresh,
    /// An image is too old.
    ImagesStale,
    /// The controller speaks again.
    LinkHeard,
    /// The controller is silent.
    LinkSilent,
    /// The serial device is gone, or the controller restarted.
    LinkLost,
    /// The controller latched a fault, or refused to be armed.
    ControllerFault,
    /// The model or the GPU failed.
    InferenceFailed,
    /// The user or the system asks for the end.
    StopAsked,
}

/// What the loop does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Nothing.
    None,
    /// Run the first inference.
    WarmUp,
    /// Ask the controller for permission to move.
    Arm,
    /// Tell the controller to ramp to rest.
    SendStop,
}

/// The next state, and what to do on the way.
pub fn next(state: State, event: Event) -> (State, Command) {
    use Event as E;
    use State as S;
    let over = matches!(state, S::Stop | S::Fault(_));
    let moving = matches!(state, S::Ready | S::Active | S::Hold(_));
    match (state, event) {
        _ if over => (state, Command::None),
        (_, E::StopAsked) => (S::Stop, Command::SendStop),
        (_, E::LinkLost) => (S::Fault(Fault::Link), Command::None),
        (_, E::InferenceFailed) => (S::Fault(Fault::Inference), Command::SendStop),
        (_, E::ControllerFault) if moving => (S::Fault(Fault::Controller), Command::SendStop),
        (S::Boot, E::Opened) => (S::Warm, Command::WarmUp),
        (S::Warm, E::Warmed) => (S::Ready, Command::Arm),
        (S::Ready, E::Armed) => (S::Active, Command::None),
        (S::Active | S::Hold(_), E::LinkSilent) => (S::Hold(Hold::Silent), Command::None),
        (S::Active, E::ImagesStale) => (S::Hold(Hold::StaleImage), Command::None),
        (S::Hold(Hold::StaleImage), E::ImagesFresh) | (S::Hold(Hold::Silent), E::LinkHeard) => {
            (S::Active, Command::None)
        }
        _ => (state, Command::None),
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Boot => "boot",
            State::Warm => "warm",
            State::Ready => "ready",
            State::Active => "active",
            State::Hold(Hold::StaleImage) => "hold (an image is too old)",
            State::Hold(Hold::Silent) => "hold (the controller is silent)",
            State::Stop => "stop",
            State::Fault(Fault::Link) => "fault (link)",
            State::Fault(Fault::Controller) => "fault (controller)",
            State::Fault(Fault::Inference) => "fault (inference)",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: [Event; 11] = [
        Event::Opened,
        Event::Warmed,
        Event::Armed,
        Event::ImagesFresh,
        Event::ImagesStale,
        Event::LinkHeard,
        Event::LinkSilent,
        Event::LinkLost,
        Event::ControllerFault,
        Event::InferenceFailed,
        Event::StopAsked,
    ];

    /// Every row that changes something; all other pairs leave the state as it is and do nothing.
    #[test]
    fn the_table() {
        use {Command as C, Event as E, Fault as F, Hold as H, State as S};
        let stale = S::Hold(H::StaleImage);
        let silent = S::Hold(H::Silent);
        let rows = [
            (S::Boot, E::Opened, S::Warm, C::WarmUp),
            (S::Warm, E::Warmed, S::Ready, C::Arm),
            (S::Ready, E::Armed, S::Active, C::None),
            (S::Active, E::ImagesStale, stale, C::None),
            (S::Active, E::LinkSilent, silent, C::None),
            (stale, E::ImagesFresh, S::Active, C::None),
            (stale, E::LinkSilent, silent, C::None),
            (silent, E::LinkHeard, S::Active, C::None),
            (S::Ready, E::ControllerFault, S::Fault(F::Controller), C::SendStop),
            (S::Active, E::ControllerFault, S::Fault(F::Controller), C::SendStop),
            (stale, E::ControllerFault, S::Fault(F::Controller), C::SendStop),
            (silent, E::ControllerFault, S::Fault(F::Controller), C::SendStop),
        ];
        let running = [S::Boot, S::Warm, S::Ready, S::Active, stale, silent];
        let over = [S::Stop, S::Fault(F::Link), S::Fault(F::Controller), S::Fault(F::Inference)];
        for state in running.into_iter().chain(over) {
            for event in EVENTS {
                let row = rows.iter().find(|r| (r.0, r.1) == (state, event)).map(|r| (r.2, r.3));
                let expected = match event {
                    _ if over.contains(&state) => (state, C::None),
                    E::StopAsked => (S::Stop, C::SendStop),
                    E::LinkLost => (S::Fault(F::Link), C::None),
                    E::InferenceFailed => (S::Fault(F::Inference), C::SendStop),
                    _ => row.unwrap_or((state, C::None)),
                };
                assert_eq!(next(state, event), expected, "{state} on {event:?}");
            }
        }
    }
}
