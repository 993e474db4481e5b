//! Host and controller over a real pseudo-terminal, and the host's end alone.
#![expect(clippy::expect_used, clippy::panic, reason = "a test's helpers fail the test as its body does")]

use std::time::{Duration, Instant};

use fathom::link::{ActionChunk, ClockOffset, Exchange, Link, LinkError, LinkEvent, Start, host_now_ns};
use firmware_bridge::joint::StopBehaviour;
use firmware_bridge::message::{Fault, Interpolation, Mode, Reason};
use firmware_bridge::sim::{Defects, Sim, SimConfig, SimJoint};

mod noise;

const NAMES: [&str; 3] = ["base", "elbow", "wrist"];
const WAIT: Duration = Duration::from_secs(30);

fn config() -> SimConfig {
    let mut joints: Vec<SimJoint> = NAMES.map(SimJoint::revolute).into();
    joints[1].initial = 0.5;
    SimConfig {
        // A busy machine may keep the test's thread waiting; the deadman's test has its own.
        deadman_us: 10_000_000,
        ..SimConfig::new(joints)
    }
}

fn open(sim: &Sim) -> Link {
    Link::open(sim.path().to_str().expect("ASCII"), 1_000_000).expect("a pty")
}

fn armed(sim: &Sim) -> Link {
    let mut link = open(sim);
    link.hello(&NAMES, WAIT).expect("the same joints");
    let sequence = link.arm().expect("sent");
    assert_eq!(link.wait_ack(sequence, WAIT).expect("acked").reason, Reason::Ok);
    link
}

fn chunk(positions: &[f32]) -> ActionChunk<'_> {
    ActionChunk {
        id: 4,
        start: Start::Now,
        period_us: 50_000,
        validity_us: 5_000_000,
        interpolation: Interpolation::Linear,
        positions,
    }
}

/// Heartbeats and polls until `want` gives something.
fn until<T>(link: &mut Link, beat: bool, mut want: impl FnMut(&LinkEvent) -> Option<T>) -> T {
    let deadline = Instant::now() + WAIT;
    let mut beat_at = Instant::now();
    let mut last = None;
    while Instant::now() < deadline {
        if beat && Instant::now() >= beat_at {
            match link.heartbeat() {
                // The writer may lag behind on a busy machine.
                Ok(_) | Err(LinkError::Backlog { .. }) => {}
                Err(error) => panic!("{error}"),
            }
            beat_at = Instant::now() + Duration::from_millis(20);
        }
        while let Some(event) = link.poll() {
            if let Some(found) = want(&event) {
                return found;
            }
            last = Some(event);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no such event, the last is {last:?}, {:?}", link.counters());
}

/// The verdict on a request, repeated while the joints ramp to rest.
fn settled(link: &mut Link, request: fn(&mut Link) -> Result<u32, LinkError>) -> Reason {
    loop {
        let sequence = request(link).expect("sent");
        let reason = link.wait_ack(sequence, WAIT).expect("acked").reason;
        if reason != Reason::Stopping {
            return reason;
        }
    }
}

#[test]
fn a_chunk_moves_the_simulated_joints() {
    fathom_contention::timed!();
    let sim = Sim::start(config()).expect("a pty");
    let mut link = open(&sim);
    let reply = link.hello(&NAMES, WAIT).expect("the same joints");
    assert_eq!((reply.buffer_depth, reply.joints.len()), (64, 3));
    assert_eq!(reply.joints.as_slice()[1].max, 2.5);

    let refused = link.send_chunk(&chunk(&[0.1; 3])).expect("sent");
    let ack = link.wait_ack(refused, WAIT).expect("acked");
    assert_eq!(ack.reason, Reason::NotArmed);
    let sequence = link.arm().expect("sent");
    assert_eq!(link.wait_ack(sequence, WAIT).expect("acked").reason, Reason::Ok);
    assert_eq!(sim.positions(), [0.0, 0.5, 0.0], "to arm moves nothing");

    let sent_ns = host_now_ns();
    let path: Vec<f32> =
        (1..=40).map(|step| step.min(20)).flat_map(|step| [0.01 * step as f32, 0.5, -0.02 * step as f32]).collect();
    let plan = ActionChunk { start: Start::HostNs(sent_ns + 200_000_000), ..chunk(&path) };
    let sequence = link.send_chunk(&plan).expect("sent");
    let (start_us, received_ns) = until(&mut link, true, |event| match event {
        LinkEvent::Ack { ack, received_ns, .. } if ack.sequence == sequence => {
            assert_eq!((ack.reason, ack.first_step), (Reason::Ok, 0));
            Some((ack.start_us, *received_ns))
        }
        _ => None,
    });
    assert!(received_ns > sent_ns);
    let clock = link.clock().expect("heartbeats were answered");
    let error_us = clock.error_us(host_now_ns() / 1000);
    assert!(error_us < 20_000, "clock known to {error_us} us");
    let start_ns = clock.to_host_ns(start_us);
    assert!(start_ns.abs_diff(sent_ns + 200_000_000) < 2 * error_us * 1000 + 2000);

    let depth = until(&mut link, true, |event| match event {
        LinkEvent::State { state, .. } => state.progress,
        _ => None,
    });
    assert_eq!((depth.chunk, depth.consumed + depth.steps_left), (4, 39));
    until(&mut link, true, |event| match event {
        LinkEvent::State { state, .. } => {
            (state.mode == Mode::Holding && state.measured.as_slice()[0] > 0.19).then_some(())
        }
        _ => None,
    });
    let at = sim.positions();
    for (at, wanted) in at.iter().zip([0.2, 0.5, -0.4]) {
        assert!((at - wanted).abs() < 0.02, "{at} is not {wanted}");
    }
    assert_eq!(link.counters().received.crc, 0);
}

#[test]
fn a_silent_host_and_a_silent_controller_are_noticed() {
    fathom_contention::timed!();
    let sim = Sim::start(SimConfig { deadman_us: 150_000, ..config() }).expect("a pty");
    let mut link = armed(&sim);
    link.send_chunk(&chunk(&[1.0; 3].repeat(60))).expect("sent");
    until(&mut link, false, |event| match event {
        LinkEvent::State { state, .. } => (state.mode == Mode::Faulted(Fault::HostSilent)).then_some(()),
        _ => None,
    });
    assert_eq!(settled(&mut link, Link::clear_fault), Reason::Ok);

    sim.freeze(true);
    until(&mut link, true, |event| matches!(event, LinkEvent::Silent { .. }).then_some(()));
    sim.freeze(false);
    until(&mut link, true, |event| matches!(event, LinkEvent::Restored).then_some(()));
    sim.reset();
    until(&mut link, true, |event| matches!(event, LinkEvent::ControllerReset).then_some(()));
    link.hello(&NAMES, WAIT).expect("it is back");
}

#[test]
fn an_unplugged_controller_is_a_lost_link() {
    let mut sim = Sim::start(config()).expect("a pty");
    let mut link = armed(&sim);
    sim.unplug();
    until(&mut link, false, |event| matches!(event, LinkEvent::Lost { .. }).then_some(()));
    assert!(matches!(link.heartbeat(), Err(LinkError::Lost { .. })));
    let device = link.device().to_owned();
    drop(link);
    let error = Link::open(&device, 1_000_000).expect_err("unplugged");
    assert!(matches!(error, LinkError::Absent { .. }), "{error}");
}

#[test]
fn another_protocol_version_is_a_typed_error() {
    let sim = Sim::start(SimConfig { version: 1, ..config() }).expect("a pty");
    let error = open(&sim).hello(&NAMES, WAIT).expect_err("version 1");
    assert!(matches!(error, LinkError::ProtocolVersion { expected: 3, found: 1, .. }), "{error}");
}

/// A controller of the same joints that is not the one of the configuration: another arm's, at the same socket.
#[test]
fn another_controller_is_a_typed_error() {
    let sim = Sim::start(SimConfig { identity: "left".into(), ..config() }).expect("a pty");
    let mut link = open(&sim);
    link.set_identity(Some("right".to_owned()));
    let error = link.hello(&NAMES, WAIT).expect_err("the other arm");
    let LinkError::Identity { expected, found, .. } = &error else { panic!("{error}") };
    assert_eq!((expected.as_str(), found.as_str()), ("right", "left"));
    assert!(link.send_chunk(&chunk(&[0.0; 3])).is_err(), "nothing is sent to it");
    link.set_identity(Some("left".to_owned()));
    let reply = link.hello(&NAMES, WAIT).expect("this one");
    assert_eq!((reply.identity.as_str(), reply.joints.stop), ("left", StopBehaviour::RampThenHold));
}

/// A joint's fault reaches the host with joint, value, limits and chunk.
#[test]
fn a_joints_fault_is_reported_with_its_cause() {
    let sim = Sim::start(config()).expect("a pty");
    let mut link = armed(&sim);
    link.send_chunk(&chunk(&[0.1; 3].repeat(60))).expect("sent");
    until(&mut link, true, |event| match event {
        LinkEvent::State { state, .. } => (state.mode == Mode::Active).then_some(()),
        _ => None,
    });
    sim.set_defects(Defects { joint: Some(1), reading: Some(-2.25), ..Defects::default() });
    let report = until(&mut link, true, |event| match event {
        LinkEvent::State { state, .. } => state.fault,
        _ => None,
    });
    let found = (report.fault, report.joint, report.value, report.chunk);
    assert_eq!(found, (Fault::ImplausibleReading, Some(1), -2.25, Some(4)));
    let joints = link.controller().expect("said hello").joints;
    let told = report.describe(&joints).to_string();
    assert!(told.starts_with("joint elbow: implausible reading -2.250 rad, expected "), "{told}");
    assert!(told.ends_with(" rad, while following chunk 4"), "{told}");
    assert_eq!(link.latched(WAIT).expect("a report"), Some(report));
}

#[test]
fn other_joints_are_typed_errors() {
    let sim = Sim::start(config()).expect("a pty");
    let mut link = open(&sim);
    let error = link.hello(&["base", "elbow"], WAIT).expect_err("two joints");
    assert!(matches!(error, LinkError::JointCount { expected: 2, found: 3, .. }));
    let error = link.hello(&["base", "wrist", "elbow"], WAIT).expect_err("order");
    assert!(matches!(error, LinkError::JointNames { .. }), "{error}");
    assert!(matches!(link.send_chunk(&chunk(&[0.0; 3])), Err(LinkError::NoHello { .. })));
    link.hello(&NAMES, WAIT).expect("the same joints");
    let error = link.send_chunk(&chunk(&[0.0; 4])).expect_err("four values");
    assert!(matches!(error, LinkError::ChunkShape { values: 4, joints: 3, .. }));
    let error = link.send_chunk(&chunk(&[0.0, 0.0, 0.0, 0.0, f32::NAN, 0.0])).expect_err("NaN");
    assert!(matches!(error, LinkError::NonFinite { step: 1, joint: 1, .. }));
}

#[test]
fn devices_that_do_not_open_are_typed_errors() {
    let error = Link::open("/dev/no-such-controller", 115_200).expect_err("absent");
    assert!(matches!(error, LinkError::Absent { .. }));
    assert!(error.to_string().contains("/dev/no-such-controller"));
    let sim = Sim::start(config()).expect("a pty");
    let first = open(&sim);
    let error = Link::open(first.device(), 115_200).expect_err("busy");
    assert!(matches!(error, LinkError::Busy { .. }), "{error}");
    drop(first);
    open(&sim);
    let error = Link::open(env!("CARGO_MANIFEST_PATH"), 115_200).expect_err("not a serial device");
    assert!(matches!(error, LinkError::Open { .. }), "{error}");
}

#[test]
fn a_clock_offset_is_within_its_error() {
    // Controller 5 s behind; 300 us there, 100 us inside, 700 us back.
    let exchange =
        Exchange { sent_us: 10_000_000, received_us: 5_000_300, replied_us: 5_000_400, returned_us: 10_001_100 };
    let clock = ClockOffset::from_exchange(&exchange).expect("in order");
    let error_us = clock.error_us(exchange.returned_us);
    assert!((500..510).contains(&error_us));
    let told_us = clock.to_controller_us(20_000_000_000);
    assert!(told_us.abs_diff(15_000_000) <= error_us);
    assert_eq!(clock.to_host_ns(told_us), 20_000_000_000);
    assert!(clock.error_us(exchange.returned_us + 10_000_000) >= error_us + 1000, "it ages");
    let worse = Exchange { returned_us: 10_003_000, ..exchange };
    let worse = ClockOffset::from_exchange(&worse).expect("in order");
    assert_eq!(clock.best(worse), clock);
    let jumped = Exchange { received_us: 5_020_300, replied_us: 5_020_400, ..exchange };
    let jumped = Exchange { returned_us: 10_003_000, ..jumped };
    let jumped = ClockOffset::from_exchange(&jumped).expect("in order");
    assert_eq!(clock.best(jumped), jumped, "20 ms are beyond both errors");
    let disorder = Exchange { returned_us: 9_000_000, ..exchange };
    assert_eq!(ClockOffset::from_exchange(&disorder), None);
}
