//! The whole loop in simulated time, on one thread and without a clock: the core, the firmware's controller on simulated joints, two
//! cameras and a model.

use std::io::ErrorKind;

use firmware_bridge::message::Fault;

use super::*;
use crate::events::{ImageProblem, LoopFault};
use crate::link::LinkEvent;

mod simulation;

use simulation::*;

#[test]
fn a_simulated_minute_of_the_whole_loop() {
    let mut s = simulation(|_| {});
    let start = s.now;
    s.run_ms(2_000);
    let modes: Vec<LoopMode> = s.modes(start).into_iter().map(|(mode, _)| mode).collect();
    assert_eq!(modes, [LoopMode::Warm, LoopMode::Ready, LoopMode::Active]);
    assert_eq!(s.controller.mode(), Mode::Active, "it arms, and the controller follows chunks");
    let (accepted, way) = (s.core.counts.chunks, s.way(start));
    s.run_ms(8_000);
    assert!(s.core.counts.chunks > accepted + 30 && s.way(start) > way + 5.0, "{:?}", s.core.counts);
    assert_eq!((s.core.counts.refused, s.core.counts.late), (0, 0));

    // A camera stalls: hold, and go on by itself.
    s.surroundings.camera_broken = true;
    let stalled = s.now;
    s.run_ms(500);
    assert!(
        matches!(s.modes(stalled)[..], [(mode, ms)] if mode == hold(|c| c.images = true) && (260..=320).contains(&ms))
    );
    let is_old = |(_, e): &(HostNs, LoopEvent)| match e {
        LoopEvent::Mode { detail: Detail::Images(ImageProblem::Old { view, .. }), .. } => view == "wrist",
        _ => false,
    };
    assert!(s.surroundings.events.iter().any(is_old));
    assert_eq!(s.controller.mode(), Mode::Holding);
    assert!(s.rests(1_000));
    s.surroundings.camera_broken = false;
    let again = s.now;
    s.run_ms(1_000);
    assert!(matches!(s.modes(again)[..], [(LoopMode::Active, ms)] if ms <= 40), "{:?}", s.modes(again));
    assert!(s.way(again) > 0.3);

    // The line is lost: the controller stops by itself. It is opened again, cleared and armed.
    s.unplug();
    let lost = s.now;
    s.run_ms(200);
    assert_eq!(s.modes(lost), [(hold(|c| c.line = true), 0)]);
    assert_eq!(s.controller.mode(), Mode::Faulted(Fault::HostSilent));
    assert!(s.is_reconnecting() && s.rests(1_000));
    s.broken.cable = false;
    let again = s.now;
    s.run_ms(1_500);
    let modes = s.modes(again);
    assert!(matches!(modes[..], [(LoopMode::Ready, ..=10), (LoopMode::Active, ..=600)]), "{modes:?}");
    assert!(s.surroundings.sent.iter().any(|(at, message)| *at > again && *message == Message::ClearFault));
    assert!(s.way(again) > 0.3);

    // The controller hangs for a while that its own deadman does not see.
    s.broken.frozen = true;
    let hung = s.now;
    s.run_ms(400);
    assert!(matches!(s.modes(hung)[..], [(mode, ..=170)] if mode == hold(|c| c.silent = true)));
    s.broken.frozen = false;
    s.run_ms(2_000);
    assert_eq!(s.core.mode, LoopMode::Active);

    // The GPU is lost, and comes back.
    let lost = s.now;
    s.drop_inference();
    s.give(Input::Inference(InferenceNews::Lost("lost".to_owned())));
    assert_eq!(s.core.mode, hold(|c| c.model = true));
    s.run_ms(300);
    assert!(s.rests(500));
    s.give(Input::Inference(InferenceNews::Back));
    s.run_ms(700);
    assert!(matches!(s.modes(lost)[..], [_, (LoopMode::Active, 800..=810)]), "{:?}", s.modes(lost));
    assert!(s.way(lost) > 0.3);

    // A person has the arm rest, and move again.
    s.give(Input::Operator(Request::Disarm));
    s.run_ms(300);
    assert_eq!((s.core.mode, s.controller.mode()), (LoopMode::Ready, Mode::Disarmed));
    assert!(s.rests(500));
    s.give(Input::Operator(Request::Arm));
    s.run_ms(1_000);
    assert_eq!(s.core.mode, LoopMode::Active);

    // The rest of the minute, and the end: the joints ramp to rest and are released.
    s.run_ms(60_000 - s.now.since(start) / MS);
    assert!(s.core.counts.chunks > 150, "{:?}", s.core.counts);
    s.give(Input::Operator(Request::Stop));
    let stopped = s.now;
    s.run_ms(1_000);
    assert!(s.core.is_finished() && s.now.since(stopped) < 460 * MS, "{}", s.now.since(stopped));
    let last: Vec<&Message> =
        s.surroundings.sent.iter().filter(|(at, _)| *at >= stopped).map(|(_, message)| message).collect();
    assert_eq!((last[0], last[last.len() - 1]), (&Message::Stop, &Message::Disarm));
    assert_eq!(s.controller.mode(), Mode::Disarmed);
    s.check();
}

/// The cases in which a person has to ask for arming.
#[test]
fn who_arms() {
    for (arm_at_start, rearm, at_start, again) in
        [(true, true, true, true), (true, false, true, false), (false, true, false, false)]
    {
        let mut s = simulation(|settings| (settings.arm_at_start, settings.rearm) = (arm_at_start, rearm));
        s.run_ms(1_000);
        assert_eq!(s.core.mode == LoopMode::Active, at_start, "{arm_at_start} {rearm}");
        s.unplug();
        s.run_ms(300);
        s.broken.cable = false;
        s.run_ms(1_000);
        assert_eq!(s.core.mode, if again { LoopMode::Active } else { LoopMode::Ready }, "{arm_at_start} {rearm}");
        s.give(Input::Operator(Request::Arm));
        s.run_ms(1_000);
        assert_eq!(s.core.mode, LoopMode::Active, "a person asked for it");
        s.check();
    }
}

#[test]
fn a_dry_run_infers_and_sends_only_heartbeats() {
    let mut s = simulation(|settings| settings.dry_run = true);
    s.run_ms(2_000);
    assert_eq!(s.core.mode, LoopMode::Active);
    let inferred =
        s.surroundings.events.iter().filter(|(_, event)| matches!(event, LoopEvent::Inferred { .. })).count();
    assert!(inferred > 10, "{inferred}");
    assert!(s.surroundings.sent.iter().all(|(_, message)| *message == Message::Heartbeat));
}

#[test]
fn a_run_ends_when_its_time_is_over() {
    let mut s = simulation(|settings| settings.length_ns = Some(3_000 * MS));
    s.run_ms(10_000);
    assert!(s.core.is_finished() && s.core.mode == LoopMode::Stop);
    let modes = s.modes(HostNs(0));
    let at = |mode: LoopMode| modes.iter().find(|(to, _)| *to == mode).map(|(_, at)| *at).unwrap();
    assert_eq!(at(LoopMode::Stop) - at(LoopMode::Active), 3_000 + (10 - at(LoopMode::Active) % 10) % 10);
}

/// What ends the loop before it moves anything, and in which mode.
#[test]
fn failures_before_the_loop_is_ready_end_it() {
    let cases: [(fn() -> Input<'static>, LoopFault); 3] = [
        (|| Input::Link(LinkEvent::Lost { kind: ErrorKind::BrokenPipe }), LoopFault::Link),
        (|| Input::Inference(InferenceNews::Lost("lost".to_owned())), LoopFault::Inference),
        (|| Input::Inference(InferenceNews::Failed("failed".to_owned())), LoopFault::Inference),
    ];
    for (input, fault) in cases {
        let mut s = simulation(|_| {});
        assert_eq!(s.core.mode, LoopMode::Warm);
        s.give(input());
        assert_eq!(s.core.mode, LoopMode::Fault(fault));
        s.run_ms(1_000);
        assert!(s.core.is_finished());
        assert!(!s.surroundings.sent.iter().any(|(_, message)| *message == Message::Arm));
    }
}

/// The clock jumps ahead by an hour, or back: a heartbeat goes out at once, and the jump does not count for the length of the run.
#[test]
fn a_clock_that_jumps_is_noticed_and_heartbeats_continue() {
    for by_s in [3_600_i64, -1] {
        let mut s = simulation(|settings| settings.length_ns = Some(10_000 * MS));
        s.run_ms(2_000);
        let before = s.now;
        let now = Now { at: HostNs(before.0.saturating_add_signed(by_s * 1_000_000_000)), clock: s.clock() };
        s.core.on(now, Input::Tick { due: before }, &mut s.outbox);
        let effects: Vec<Effect> = std::iter::from_fn(|| s.outbox.next()).collect();
        let jumped = |e: &Effect| matches!(e, Effect::Emit(LoopEvent::ClockJumped { by_ms }) if *by_ms == by_s * 1000);
        assert!(effects.iter().any(jumped), "{effects:?}");
        assert!(effects.iter().any(|e| matches!(e, Effect::Send(Message::Heartbeat))), "{effects:?}");
        assert_eq!(s.core.mode, LoopMode::Active);
    }
}
