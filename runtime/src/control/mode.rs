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
    /// Warm and disarmed: nothing moves before somebody asks for it.
    Ready,
    /// Chunks are sent.
    Active,
    /// The controller was told to rest. No chunk is sent until all causes are gone.
    Hold(Causes),
    /// The controller ramps to rest; the loop ends.
    Stop,
    /// The loop ends with an error; the controller stops by itself or was told to.
    Fault(Fault),
}

/// Why the loop holds: at least one of these.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Causes {
    /// A camera gives no image, an image is too old, or two are too far apart.
    pub images: bool,
    /// The controller is silent.
    pub silent: bool,
    /// The GPU is lost and is being opened again.
    pub model: bool,
    /// The line to the controller is gone and is being opened again.
    pub line: bool,
}

/// Why the loop gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The line was gone before the loop was ready.
    Link,
    /// The controller latched a fault that a person has to see to, or refused to be armed.
    Controller,
    /// The model failed, or the GPU was lost again and again.
    Inference,
}

/// What happened. What lasts is told again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Everything is open.
    Opened,
    /// The first inference is done.
    Warmed,
    /// Somebody asks for the arm to move.
    ArmAsked,
    /// The controller may move (or nothing is to be sent: dry run).
    Armed,
    /// Somebody asks for the arm to rest.
    DisarmAsked,
    /// All images are young enough and near enough to each other.
    ImagesFresh,
    /// They are not.
    ImagesStale,
    /// The controller speaks again.
    LinkHeard,
    /// The controller is silent.
    LinkSilent,
    /// The line is gone, or the controller restarted.
    LinkLost,
    /// The line is open again, with a controller that is disarmed.
    LinkOpened,
    /// The controller stopped because it did not hear the host.
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

/// What the loop does about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Nothing.
    None,
    /// Run the first inference.
    WarmUp,
    /// Say that the loop is ready.
    TellReady,
    /// Ask the controller for permission to move.
    Arm,
    /// Tell the controller to ramp to rest and to release the joints.
    Disarm,
    /// Tell the controller to ramp to rest.
    SendStop,
    /// Open the line again.
    Reconnect,
}

/// The next state, and what to do on the way.
pub fn next(state: State, event: Event) -> (State, Command) {
    use Command as C;
    use Event as E;
    use State as S;
    match (state, event) {
        (S::Stop | S::Fault(_), _) => (state, C::None),
        (_, E::StopAsked) => (S::Stop, C::SendStop),
        (_, E::InferenceFailed) => (S::Fault(Fault::Inference), C::SendStop),
        (S::Boot | S::Warm, E::LinkLost) => (S::Fault(Fault::Link), C::None),
        (S::Boot, E::Opened) => (S::Warm, C::WarmUp),
        (_, E::ControllerFault) => (S::Fault(Fault::Controller), C::SendStop),
        (S::Boot | S::Warm, E::ModelLost) => (S::Fault(Fault::Inference), C::None),
        (S::Warm, E::Warmed) => (S::Ready, C::TellReady),
        (S::Boot | S::Warm, _) => (state, C::None),
        (S::Ready, E::ArmAsked) => (S::Ready, C::Arm),
        (S::Ready, E::Armed) => (S::Active, C::None),
        (S::Ready, E::LinkLost) => hold(state, |c| c.line = true, C::Reconnect),
        (S::Ready, _) => (S::Ready, C::None),
        (S::Active | S::Hold(_), E::DisarmAsked) => (S::Ready, C::Disarm),
        (S::Active | S::Hold(_), E::HostLost) => (S::Ready, C::None),
        (S::Hold(causes), E::LinkOpened) if causes.line => (S::Ready, C::None),
        (S::Active | S::Hold(_), E::ImagesStale) => hold(state, |c| c.images = true, C::SendStop),
        (S::Active | S::Hold(_), E::LinkSilent) => hold(state, |c| c.silent = true, C::SendStop),
        (S::Active | S::Hold(_), E::ModelLost) => hold(state, |c| c.model = true, C::SendStop),
        (S::Active | S::Hold(_), E::LinkLost) => hold(state, |c| c.line = true, C::Reconnect),
        (S::Hold(causes), E::ImagesFresh) => (go_on(Causes { images: false, ..causes }), C::None),
        (S::Hold(causes), E::LinkHeard) => (go_on(Causes { silent: false, ..causes }), C::None),
        (S::Hold(causes), E::ModelBack) => (go_on(Causes { model: false, ..causes }), C::None),
        (S::Active | S::Hold(_), _) => (state, C::None),
    }
}

/// The same state and no command, where the cause is known already.
fn hold(state: State, add: impl FnOnce(&mut Causes), command: Command) -> (State, Command) {
    let before = if let State::Hold(causes) = state { causes } else { Causes::default() };
    let mut causes = before;
    add(&mut causes);
    (State::Hold(causes), if causes == before { Command::None } else { command })
}

fn go_on(causes: Causes) -> State {
    if causes == Causes::default() { State::Active } else { State::Hold(causes) }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Boot => "boot",
            State::Warm => "warm",
            State::Ready => "ready",
            State::Active => "active",
            State::Hold(causes) => return write!(f, "hold ({causes})"),
            State::Stop => "stop",
            State::Fault(Fault::Link) => "fault (line)",
            State::Fault(Fault::Controller) => "fault (controller)",
            State::Fault(Fault::Inference) => "fault (inference)",
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use {Command as C, Event as E, Fault as F, State as S};

    const EVENTS: [Event; 17] = [
        E::Opened,
        E::Warmed,
        E::ArmAsked,
        E::Armed,
        E::DisarmAsked,
        E::ImagesFresh,
        E::ImagesStale,
        E::LinkHeard,
        E::LinkSilent,
        E::LinkLost,
        E::LinkOpened,
        E::HostLost,
        E::ControllerFault,
        E::ModelLost,
        E::ModelBack,
        E::InferenceFailed,
        E::StopAsked,
    ];

    /// Every subset of causes that is a hold.
    fn holds() -> impl Iterator<Item = State> {
        let bit = |set: u8, n: u8| set >> n & 1 == 1;
        (1..16).map(move |set| {
            S::Hold(Causes { images: bit(set, 0), silent: bit(set, 1), model: bit(set, 2), line: bit(set, 3) })
        })
    }

    fn states() -> impl Iterator<Item = State> {
        let over = [S::Stop, S::Fault(F::Link), S::Fault(F::Controller), S::Fault(F::Inference)];
        [S::Boot, S::Warm, S::Ready, S::Active].into_iter().chain(holds()).chain(over)
    }

    /// A row of ARCHITECTURE.md's table.
    struct Row {
        states: Vec<State>,
        event: Event,
        expected: Box<dyn Fn(State) -> (State, Command)>,
    }

    fn row(
        states: impl IntoIterator<Item = State>,
        event: Event,
        expected: impl Fn(State) -> (State, Command) + 'static,
    ) -> Row {
        Row { states: states.into_iter().collect(), event, expected: Box::new(expected) }
    }

    fn with(state: State, set: impl Fn(&mut Causes)) -> (State, Causes) {
        let before = if let S::Hold(causes) = state { causes } else { Causes::default() };
        let mut causes = before;
        set(&mut causes);
        (if causes == Causes::default() { S::Active } else { S::Hold(causes) }, before)
    }

    /// A cause is added: told once.
    fn adds(set: impl Fn(&mut Causes) + 'static, command: Command) -> impl Fn(State) -> (State, Command) {
        move |state| {
            let (after, before) = with(state, &set);
            (after, if after == S::Hold(before) { C::None } else { command })
        }
    }

    fn removes(set: impl Fn(&mut Causes) + 'static) -> impl Fn(State) -> (State, Command) {
        move |state| (with(state, &set).0, C::None)
    }

    fn to(state: State, command: Command) -> impl Fn(State) -> (State, Command) {
        move |_| (state, command)
    }

    /// The rows, in the order of ARCHITECTURE.md.
    fn rows() -> Vec<Row> {
        let moving = || [S::Active].into_iter().chain(holds());
        let ready = || [S::Ready].into_iter().chain(moving());
        let running = || [S::Boot, S::Warm].into_iter().chain(ready());
        let cut = || holds().filter(|s| matches!(s, S::Hold(c) if c.line));
        vec![
            row([S::Boot], E::Opened, to(S::Warm, C::WarmUp)),
            row([S::Warm], E::Warmed, to(S::Ready, C::TellReady)),
            row([S::Ready], E::ArmAsked, to(S::Ready, C::Arm)),
            row([S::Ready], E::Armed, to(S::Active, C::None)),
            row(moving(), E::DisarmAsked, to(S::Ready, C::Disarm)),
            row(moving(), E::ImagesStale, adds(|c| c.images = true, C::SendStop)),
            row(holds(), E::ImagesFresh, removes(|c| c.images = false)),
            row(moving(), E::LinkSilent, adds(|c| c.silent = true, C::SendStop)),
            row(holds(), E::LinkHeard, removes(|c| c.silent = false)),
            row(moving(), E::ModelLost, adds(|c| c.model = true, C::SendStop)),
            row(holds(), E::ModelBack, removes(|c| c.model = false)),
            row(ready(), E::LinkLost, adds(|c| c.line = true, C::Reconnect)),
            row(cut(), E::LinkOpened, to(S::Ready, C::None)),
            row(moving(), E::HostLost, to(S::Ready, C::None)),
            row(running(), E::ControllerFault, to(S::Fault(F::Controller), C::SendStop)),
            row([S::Boot, S::Warm], E::LinkLost, to(S::Fault(F::Link), C::None)),
            row([S::Boot, S::Warm], E::ModelLost, to(S::Fault(F::Inference), C::None)),
            row(running(), E::InferenceFailed, to(S::Fault(F::Inference), C::SendStop)),
            row(running(), E::StopAsked, to(S::Stop, C::SendStop)),
        ]
    }

    fn check(number: usize) {
        let rows = rows();
        let row = &rows[number - 1];
        assert!(!row.states.is_empty());
        for state in &row.states {
            assert_eq!(next(*state, row.event), (row.expected)(*state), "{state} on {:?}", row.event);
        }
    }

    macro_rules! rows {
        ($($name:ident: $number:literal,)*) => { $(#[test] fn $name() { check($number); })* };
    }

    rows! {
        opened_warms_up: 1,
        warmed_is_ready_and_told: 2,
        arming_is_asked_for: 3,
        armed_is_active: 4,
        disarming_is_asked_for: 5,
        stale_images_hold: 6,
        fresh_images_go_on: 7,
        a_silent_controller_holds: 8,
        a_heard_controller_goes_on: 9,
        a_lost_gpu_holds: 10,
        a_gpu_again_goes_on: 11,
        a_lost_line_is_opened_again: 12,
        an_opened_line_is_ready_to_be_armed: 13,
        a_controller_that_did_not_hear_the_host_is_armed_again: 14,
        a_latched_fault_ends_the_loop: 15,
        a_line_lost_before_ready_ends_the_loop: 16,
        a_gpu_lost_before_ready_ends_the_loop: 17,
        a_failed_model_ends_the_loop: 18,
        a_stop_ends_the_loop: 19,
    }

    /// What no row has changes nothing and does nothing; and no pair is in two rows.
    #[test]
    fn all_else_changes_nothing() {
        let rows = rows();
        let mut seen = HashSet::new();
        for row in &rows {
            for state in &row.states {
                assert!(seen.insert(format!("{state} {:?}", row.event)), "{state} on {:?} twice", row.event);
            }
        }
        for state in states() {
            for event in EVENTS {
                if !seen.contains(&format!("{state} {event:?}")) {
                    assert_eq!(next(state, event), (state, C::None), "{state} on {event:?}");
                }
            }
        }
    }
}
