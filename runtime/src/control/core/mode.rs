//! The loop's modes, as a pure function: from a mode and an event to the next mode and a command. ARCHITECTURE.md has the table.

use crate::events::{Causes, LoopFault, LoopMode, ModeEvent};

/// An action of the loop at a change of its mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Nothing.
    None,
    /// Run the first inference.
    WarmUp,
    /// The loop is ready: arm, or wait for a person to ask for it.
    BeginReady,
    /// Ask the controller for permission to move.
    Arm,
    /// Have the controller ramp to rest and release the joints.
    Disarm,
    /// Have the controller ramp to rest.
    SendStop,
    /// Open the line again.
    Reconnect,
}

/// The next mode, and the command at the change.
pub(super) fn next(mode: LoopMode, event: ModeEvent) -> (LoopMode, Command) {
    use Command as C;
    use LoopMode as M;
    use ModeEvent as E;
    match (mode, event) {
        (M::Stop | M::Fault(_), _) => (mode, C::None),
        (_, E::StopAsked) => (M::Stop, C::SendStop),
        (_, E::InferenceFailed) => (M::Fault(LoopFault::Inference), C::SendStop),
        (M::Boot | M::Warm, E::LinkLost) => (M::Fault(LoopFault::Link), C::None),
        (M::Boot, E::Opened) => (M::Warm, C::WarmUp),
        (_, E::ControllerFault) => (M::Fault(LoopFault::Controller), C::SendStop),
        (M::Boot | M::Warm, E::ModelLost) => (M::Fault(LoopFault::Inference), C::None),
        (M::Warm, E::Warmed) => (M::Ready, C::BeginReady),
        (M::Boot | M::Warm, _) => (mode, C::None),
        (M::Ready, E::ArmAsked) => (M::Ready, C::Arm),
        (M::Ready, E::Armed) => (M::Active, C::None),
        (M::Ready, E::LinkLost) => hold(mode, |c| c.line = true, C::Reconnect),
        (M::Ready, _) => (M::Ready, C::None),
        (M::Active | M::Hold(_), E::DisarmAsked) => (M::Ready, C::Disarm),
        (M::Active | M::Hold(_), E::HostLost) => (M::Ready, C::None),
        (M::Hold(causes), E::LinkOpened) if causes.line => (M::Ready, C::None),
        (M::Active | M::Hold(_), E::ImagesStale) => hold(mode, |c| c.images = true, C::SendStop),
        (M::Active | M::Hold(_), E::LinkSilent) => hold(mode, |c| c.silent = true, C::SendStop),
        (M::Active | M::Hold(_), E::ModelLost) => hold(mode, |c| c.model = true, C::SendStop),
        (M::Active | M::Hold(_), E::LinkLost) => hold(mode, |c| c.line = true, C::Reconnect),
        (M::Hold(causes), E::ImagesFresh) => (go_on(Causes { images: false, ..causes }), C::None),
        (M::Hold(causes), E::LinkRestored) => (go_on(Causes { silent: false, ..causes }), C::None),
        (M::Hold(causes), E::ModelBack) => (go_on(Causes { model: false, ..causes }), C::None),
        (M::Active | M::Hold(_), _) => (mode, C::None),
    }
}

/// The same mode and no command, where the cause is known already.
fn hold(mode: LoopMode, add: impl FnOnce(&mut Causes), command: Command) -> (LoopMode, Command) {
    let before = if let LoopMode::Hold(causes) = mode { causes } else { Causes::default() };
    let mut causes = before;
    add(&mut causes);
    (LoopMode::Hold(causes), if causes == before { Command::None } else { command })
}

fn go_on(causes: Causes) -> LoopMode {
    if causes == Causes::default() { LoopMode::Active } else { LoopMode::Hold(causes) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;
    use {Command as C, LoopFault as F, LoopMode as M, ModeEvent as E};

    const EVENTS: [ModeEvent; 17] = [
        E::Opened,
        E::Warmed,
        E::ArmAsked,
        E::Armed,
        E::DisarmAsked,
        E::ImagesFresh,
        E::ImagesStale,
        E::LinkRestored,
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
    fn holds() -> impl Iterator<Item = LoopMode> {
        let bit = |set: u8, n: u8| set >> n & 1 == 1;
        (1..16).map(move |set| {
            M::Hold(Causes { images: bit(set, 0), silent: bit(set, 1), model: bit(set, 2), line: bit(set, 3) })
        })
    }

    fn modes() -> impl Iterator<Item = LoopMode> {
        let over = [M::Stop, M::Fault(F::Link), M::Fault(F::Controller), M::Fault(F::Inference)];
        [M::Boot, M::Warm, M::Ready, M::Active].into_iter().chain(holds()).chain(over)
    }

    /// A row of ARCHITECTURE.md's table.
    struct Row {
        modes: Vec<LoopMode>,
        event: ModeEvent,
        expected: Box<dyn Fn(LoopMode) -> (LoopMode, Command)>,
    }

    fn row(
        modes: impl IntoIterator<Item = LoopMode>,
        event: ModeEvent,
        expected: impl Fn(LoopMode) -> (LoopMode, Command) + 'static,
    ) -> Row {
        Row { modes: modes.into_iter().collect(), event, expected: Box::new(expected) }
    }

    fn with(mode: LoopMode, set: impl Fn(&mut Causes)) -> (LoopMode, Causes) {
        let before = if let M::Hold(causes) = mode { causes } else { Causes::default() };
        let mut causes = before;
        set(&mut causes);
        (if causes == Causes::default() { M::Active } else { M::Hold(causes) }, before)
    }

    /// A cause is added: the command comes once.
    fn adds(set: impl Fn(&mut Causes) + 'static, command: Command) -> impl Fn(LoopMode) -> (LoopMode, Command) {
        move |mode| {
            let (after, before) = with(mode, &set);
            (after, if after == M::Hold(before) { C::None } else { command })
        }
    }

    fn removes(set: impl Fn(&mut Causes) + 'static) -> impl Fn(LoopMode) -> (LoopMode, Command) {
        move |mode| (with(mode, &set).0, C::None)
    }

    fn to(mode: LoopMode, command: Command) -> impl Fn(LoopMode) -> (LoopMode, Command) {
        move |_| (mode, command)
    }

    /// The rows, in the order of ARCHITECTURE.md.
    fn rows() -> Vec<Row> {
        let moving = || [M::Active].into_iter().chain(holds());
        let ready = || [M::Ready].into_iter().chain(moving());
        let running = || [M::Boot, M::Warm].into_iter().chain(ready());
        let cut = || holds().filter(|s| matches!(s, M::Hold(c) if c.line));
        vec![
            row([M::Boot], E::Opened, to(M::Warm, C::WarmUp)),
            row([M::Warm], E::Warmed, to(M::Ready, C::BeginReady)),
            row([M::Ready], E::ArmAsked, to(M::Ready, C::Arm)),
            row([M::Ready], E::Armed, to(M::Active, C::None)),
            row(moving(), E::DisarmAsked, to(M::Ready, C::Disarm)),
            row(moving(), E::ImagesStale, adds(|c| c.images = true, C::SendStop)),
            row(holds(), E::ImagesFresh, removes(|c| c.images = false)),
            row(moving(), E::LinkSilent, adds(|c| c.silent = true, C::SendStop)),
            row(holds(), E::LinkRestored, removes(|c| c.silent = false)),
            row(moving(), E::ModelLost, adds(|c| c.model = true, C::SendStop)),
            row(holds(), E::ModelBack, removes(|c| c.model = false)),
            row(ready(), E::LinkLost, adds(|c| c.line = true, C::Reconnect)),
            row(cut(), E::LinkOpened, to(M::Ready, C::None)),
            row(moving(), E::HostLost, to(M::Ready, C::None)),
            row(running(), E::ControllerFault, to(M::Fault(F::Controller), C::SendStop)),
            row([M::Boot, M::Warm], E::LinkLost, to(M::Fault(F::Link), C::None)),
            row([M::Boot, M::Warm], E::ModelLost, to(M::Fault(F::Inference), C::None)),
            row(running(), E::InferenceFailed, to(M::Fault(F::Inference), C::SendStop)),
            row(running(), E::StopAsked, to(M::Stop, C::SendStop)),
        ]
    }

    fn check(number: usize) {
        let rows = rows();
        let row = &rows[number - 1];
        assert!(!row.modes.is_empty());
        for mode in &row.modes {
            assert_eq!(next(*mode, row.event), (row.expected)(*mode), "{mode} on {:?}", row.event);
        }
    }

    macro_rules! rows {
        ($($name:ident: $number:literal,)*) => { $(#[test] fn $name() { check($number); })* };
    }

    rows! {
        opened_warms_up: 1,
        warmed_is_ready: 2,
        arming_is_asked_for: 3,
        armed_is_active: 4,
        disarming_is_asked_for: 5,
        stale_images_hold: 6,
        fresh_images_go_on: 7,
        a_silent_controller_holds: 8,
        a_controller_that_responds_again_resumes: 9,
        a_lost_gpu_holds: 10,
        a_gpu_again_resumes: 11,
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
            for mode in &row.modes {
                assert!(seen.insert(format!("{mode} {:?}", row.event)), "{mode} on {:?} twice", row.event);
            }
        }
        for mode in modes() {
            for event in EVENTS {
                if !seen.contains(&format!("{mode} {event:?}")) {
                    assert_eq!(next(mode, event), (mode, C::None), "{mode} on {event:?}");
                }
            }
        }
    }
}
