//! The controller's behaviour under a virtual clock.
#![expect(clippy::expect_used, clippy::panic, reason = "a test's helpers fail the test as its body does")]

use firmware_bridge::message::{Chunk, Fault, Message, Mode, Progress, Reason};

use bench::{Bench, MS, TICK_US, plan};

mod bench;
#[path = "controller/faults.rs"]
mod faults;
#[path = "controller/guard.rs"]
mod guard;
#[path = "controller/limits.rs"]
mod limits;

fn assert_near(value: f32, expected: f32) {
    assert!((value - expected).abs() < 1e-4, "{value} is not {expected}");
}

#[test]
fn a_chunk_is_interpolated_then_held() {
    let mut bench = Bench::armed();
    assert_eq!(bench.chunk(&[0.0, 0.0, 0.1, -0.2, 0.4, 0.0]), Reason::Ok);
    for (at_ms, step, base, wrist) in [
        (2, 0, 0.02, -0.04),
        (6, 0, 0.06, -0.12),
        (10, 1, 0.1, -0.2),
        (14, 1, 0.22, -0.12),
        (20, 2, 0.4, 0.0),
        (28, 2, 0.4, 0.0),
    ] {
        let since_us = at_ms * MS - (bench.now_us - 1_010_000);
        bench.run(since_us);
        let state = bench.state();
        assert_eq!(state.mode, Mode::Active, "at {at_ms} ms");
        let progress = state.progress.expect("active");
        assert_eq!((progress.consumed, progress.steps_left), (step, 2 - step));
        assert_near(state.commanded.as_slice()[0], base);
        assert_near(state.commanded.as_slice()[1], wrist);
    }
    bench.run(400 * MS);
    assert_eq!(bench.state().mode, Mode::Holding);
    let state = bench.state();
    let over = Progress { chunk: 1, consumed: 3, steps_left: 0 };
    assert_eq!(state.progress, Some(over), "the count stays for the host");
    assert_eq!(u64::from(state.starved), (428 - 30) * MS / TICK_US + 1, "all ticks after the third step's period");
    assert_near(bench.base(), 0.4);
}

#[test]
fn a_newer_chunk_supersedes_from_its_start() {
    let mut bench = Bench::armed();
    assert_eq!(bench.chunk(&[0.0, 0.0, 0.1, 0.0, 0.2, 0.0, 0.3, 0.0]), Reason::Ok);
    bench.run(2 * MS);
    let later = Chunk { id: 2, start_us: bench.now_us + 10 * MS, ..plan(&[-0.1, 0.0, -0.1, 0.0]) };
    let ack = bench.ack(&Message::Chunk(later));
    assert_eq!((ack.reason, ack.start_us), (Reason::Ok, bench.now_us + 10 * MS));
    bench.run(8 * MS);
    assert_near(bench.base(), 0.1);
    bench.run(2 * MS);
    assert_near(bench.base(), -0.1);
    assert_eq!(bench.state().progress.map(|at| at.chunk), Some(2));

    // One that began in the past is joined where it should be by now.
    let late = Chunk { start_us: bench.now_us - 15 * MS, ..plan(&[9.0, 0.0, 0.2, 0.0, 0.3, 0.0]) };
    assert_eq!(bench.send(&Message::Chunk(late)), Reason::OutOfLimits);
    let late = Chunk { start_us: bench.now_us - 15 * MS, ..plan(&[0.9, 0.0, 0.2, 0.0, 0.3, 0.0]) };
    assert_eq!(bench.ack(&Message::Chunk(late)).first_step, 1);
    bench.run(2 * MS);
    assert_near(bench.base(), 0.27);
}

#[test]
fn validity_ends_a_chunk() {
    let mut bench = Bench::armed();
    let short = Chunk { validity_us: 5_000, ..plan(&[0.0, 0.0, 0.1, 0.0, 0.4, 0.0]) };
    assert_eq!(bench.send(&Message::Chunk(short)), Reason::Ok);
    bench.run(100 * MS);
    assert_eq!(bench.state().mode, Mode::Holding);
    assert!(bench.base() < 0.05, "{}", bench.base());
    let old = Chunk { start_us: bench.now_us - 6_000, ..short };
    assert_eq!(bench.send(&Message::Chunk(old)), Reason::Expired);
}

#[test]
fn bad_chunks_are_refused_with_their_reason() {
    let mut bench = Bench::new(1e3, 1e6);
    assert_eq!(bench.chunk(&[0.5, 0.5]), Reason::NotArmed);
    assert_eq!(bench.send(&Message::Arm), Reason::Ok);
    let good = [0.5, 0.5];
    let future_us = bench.now_us + 60_000_000;
    #[rustfmt::skip]
    let cases = [
        (plan(&[0.5, f32::NAN]), Reason::NonFinite),
        (plan(&[f32::INFINITY, 0.5]), Reason::NonFinite),
        (plan(&[90.0, 0.5]), Reason::OutOfLimits),
        (plan(&[]), Reason::BadShape),
        (Chunk { joints: 1, steps: 2, ..plan(&good) }, Reason::WrongJointCount),
        (Chunk { period_us: 0, ..plan(&good) }, Reason::BadShape),
        (Chunk { start_us: future_us, ..plan(&good) }, Reason::TooFarAhead),
        (Chunk { start_us: 1, ..plan(&good) }, Reason::Expired),
    ];
    for (chunk, reason) in cases {
        assert_eq!(bench.send(&Message::Chunk(chunk)), reason);
    }
    bench.run(50 * MS);
    assert_eq!((bench.base(), bench.state().mode), (0.0, Mode::Holding));
}

#[test]
fn old_frames_and_other_sessions_are_not_obeyed() {
    let mut bench = Bench::armed();
    bench.sequence -= 1;
    assert_eq!(bench.chunk(&[0.5, 0.5]), Reason::Stale);
    bench.session = 78;
    assert_eq!(bench.chunk(&[0.5, 0.5]), Reason::WrongSession);
    assert_eq!(bench.send(&Message::Stop), Reason::Ok, "a stop is always accepted");
    bench.run(10 * MS);
    assert_eq!(bench.state().mode, Mode::Holding);

    bench.hello();
    bench.run(10 * MS);
    assert_eq!(bench.state().mode, Mode::Disarmed, "another host takes over disarmed");
    assert!(bench.state().energised, "and the pose is held");
    bench.sequence = u32::MAX - 1;
    bench.session = 79;
    bench.hello();
    assert_eq!(bench.sequence, u32::MAX);
    assert_eq!(bench.send(&Message::Arm), Reason::Ok, "the sequence wraps");
}

#[test]
fn positions_are_clamped_and_speed_is_limited() {
    let mut bench = Bench::new(2.0, 1e6);
    assert_eq!(bench.send(&Message::Arm), Reason::Ok);
    assert_eq!(bench.chunk(&[1.5, 0.0].repeat(64)), Reason::Ok);
    let mut last = bench.base();
    for _ in 0..300 {
        bench.run(TICK_US);
        assert!(bench.base() - last <= 2.0 * 0.002 + 1e-6);
        assert!(bench.base() <= 1.0);
        last = bench.base();
    }
    assert_near(bench.base(), 1.0);
    assert!(bench.state().clamps > 64);
}

#[test]
fn a_goal_does_not_lead_the_measured_pose_by_more_than_the_jump() {
    let mut bench = Bench::armed();
    bench.rig.borrow_mut().stuck = true;
    assert_eq!(bench.chunk(&[0.9, 0.9].repeat(10)), Reason::Ok);
    bench.run(50 * MS);
    assert_near(bench.base(), 0.5);
    assert!(bench.state().clamps > 0);
    assert_eq!(bench.chunk(&[-0.2, 0.9].repeat(10)), Reason::Ok);
    bench.run(50 * MS);
    assert_near(bench.base(), -0.2);
}

/// The joints are at rest when the deadman time is over, and stay so until fault and permission
/// are renewed, whatever arrives.
#[test]
fn a_silent_host_stops_the_joints() {
    let mut bench = Bench::new(2.0, 40.0);
    assert_eq!(bench.send(&Message::Arm), Reason::Ok);
    let path: Vec<f32> = (0..64).flat_map(|step| [0.015 * step as f32, 0.0]).collect();
    assert_eq!(bench.chunk(&path), Reason::Ok);
    bench.heartbeats = false;
    bench.run(90 * MS);
    assert_eq!(bench.state().mode, Mode::Active);
    bench.run(60 * MS + TICK_US);
    assert_eq!(bench.state().mode, Mode::Faulted(Fault::HostSilent));
    let rest = bench.base();
    assert!(rest > 0.1);
    bench.heartbeats = true;
    bench.run(500 * MS);
    assert_eq!(bench.base(), rest);
    assert!(bench.state().energised, "the pose is held");
    assert_eq!(bench.chunk(&path), Reason::Faulted);
    assert_eq!(bench.send(&Message::Arm), Reason::Faulted);
    assert_eq!(bench.send(&Message::ClearFault), Reason::Ok);
    assert_eq!(bench.chunk(&path), Reason::NotArmed);
    assert_eq!(bench.send(&Message::Arm), Reason::Ok);
    assert_eq!(bench.chunk(&path), Reason::Ok);
}

#[test]
fn a_disarm_ramps_to_rest_and_releases() {
    let mut bench = Bench::new(2.0, 40.0);
    assert_eq!(bench.send(&Message::Arm), Reason::Ok);
    assert_eq!(bench.chunk(&[1.0, 0.0].repeat(64)), Reason::Ok);
    bench.run(100 * MS);
    assert_eq!(bench.send(&Message::Disarm), Reason::Ok);
    bench.run(TICK_US);
    assert_eq!(bench.state().mode, Mode::Stopping);
    assert_eq!(bench.chunk(&[0.0, 0.0]), Reason::Stopping);
    bench.run(60 * MS);
    assert_eq!(bench.state().mode, Mode::Disarmed);
    assert!(!bench.state().energised);
    assert_eq!(bench.rig.borrow().commanded, None);
}
