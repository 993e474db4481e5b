//! Faults that a joint, its servo, the line or the emergency stop causes: each is latched, says what it found, and stops
//! the joints as their table declares.

use firmware_bridge::controller::Config;
use firmware_bridge::joint::{
    FollowingLimit, JointSpec, JointTable, OverloadLimit, StallLimit, StopBehaviour, TemperatureLimit,
};
use firmware_bridge::message::{Alarms, Fault, FaultReport, Message, Mode, Reason};
use firmware_bridge::output::Reading;

use super::bench::{Bench, MS, TICK_US};

fn at(position: f32) -> Reading {
    Reading { position: Some(position), ..Reading::default() }
}

/// The latched fault, as the telemetry has it.
fn report(bench: &Bench) -> FaultReport {
    let state = bench.state();
    let report = state.fault.expect("a fault is latched");
    assert_eq!(state.mode, Mode::Faulted(report.fault));
    report
}

fn description(bench: &mut Bench) -> String {
    report(bench).describe(&bench.controller().config().joints.clone()).to_string()
}

/// One reading that no joint can have reached moves nothing and is no fault; one that stays is.
#[test]
fn a_wrong_reading_is_no_measurement_and_one_that_stays_is_a_fault() {
    for wrong in [-3.0, 9.0, f32::NAN, f32::INFINITY, 1e30, -0.4] {
        let mut bench = Bench::of(|joint| joint).arm();
        assert_eq!(bench.chunk(&[0.1, 0.1].repeat(64)), Reason::Ok);
        bench.run(300 * MS);
        let goal = bench.base();
        bench.read([at(wrong), at(0.1)]);
        bench.run(TICK_US);
        bench.rig.borrow_mut().readings = None;
        bench.run(200 * MS);
        assert_eq!((bench.state().mode, bench.base()), (Mode::Active, goal), "once {wrong}");

        bench.read([at(wrong), at(0.1)]);
        bench.run(48 * MS);
        assert_eq!(bench.state().mode, Mode::Active, "{wrong} for 48 ms");
        bench.run(4 * MS);
        let found = report(&bench);
        assert_eq!((found.fault, found.joint, found.chunk), (Fault::ImplausibleReading, Some(0), Some(1)), "{wrong}");
        assert!(found.value == wrong || found.value.is_nan() && wrong.is_nan());
        assert!(found.low < 0.1 && 0.1 < found.high, "{found:?}");
        bench.run(100 * MS);
        assert_eq!(bench.base(), goal, "the goals stay where they were");
    }
}

#[test]
fn a_joint_without_readings_is_a_fault_that_names_it() {
    let mut bench = Bench::armed();
    bench.rig.borrow_mut().stuck = true;
    bench.read([at(0.0), Reading::default()]);
    bench.run(48 * MS);
    assert_eq!(bench.state().mode, Mode::Holding);
    bench.run(4 * MS);
    assert_eq!((report(&bench).fault, report(&bench).joint), (Fault::MeasurementFailed, Some(1)));
    assert!(description(&mut bench).contains("joint wrist: no measurement for 0.050 s"), "{}", description(&mut bench));
    assert_eq!(bench.send(&Message::ClearFault), Reason::Faulted, "its cause lasts");
    bench.rig.borrow_mut().readings = None;
    bench.run(10 * MS);
    assert_eq!(bench.send(&Message::ClearFault), Reason::Ok);
}

/// A driver that fails is one at once, and says which joint where it knows.
#[test]
fn a_failing_driver_is_a_latched_fault() {
    let mut bench = Bench::armed();
    bench.rig.borrow_mut().broken = true;
    bench.run(TICK_US);
    assert_eq!((report(&bench).fault, report(&bench).joint), (Fault::OutputFailed, Some(1)));
    let mut bench = Bench::armed();
    bench.rig.borrow_mut().deaf = true;
    bench.run(TICK_US);
    assert_eq!((report(&bench).fault, report(&bench).joint), (Fault::MeasurementFailed, None));
    assert_eq!(bench.base(), 0.0);
}

/// A tick that comes late is the controller's fault, and no joint's.
#[test]
fn a_controller_that_hung_blames_no_joint() {
    let mut bench = Bench::of(|joint| JointSpec {
        following: Some(FollowingLimit { error: 0.1, time_ms: 20 }),
        stall: Some(StallLimit { error: 0.1, motion: 0.01, current_a: 0.0, time_ms: 20 }),
        ..joint
    })
    .arm();
    bench.read([Reading::default(); 2]);
    bench.tick_after(100 * MS);
    assert_eq!(bench.state().mode, Mode::Holding);
    // Pushed by hand in the meantime, farther than in a tick.
    bench.read([at(0.3), at(0.0)]);
    bench.tick_after(TICK_US);
    assert_eq!((bench.state().mode, bench.state().measured.as_slice()[0]), (Mode::Holding, 0.3));
}

/// Arming moves nothing: not a joint outside its limits, not one that nobody has measured, not by a first reading that is
/// wrong, and not one that is driven already and sags.
#[test]
fn arming_moves_no_joint() {
    for outside in [-1.01, 1.01, 7.0] {
        let mut bench = Bench::of(|joint| joint);
        bench.read([at(outside), at(0.0)]);
        bench.run(20 * MS);
        assert_eq!(bench.send(&Message::Arm), Reason::OutsideLimits, "{outside}");
        assert!(!bench.state().energised);
        bench.read([at(0.98), at(0.0)]);
        bench.run(20 * MS);
        assert_eq!(bench.send(&Message::Arm), Reason::Ok, "moved by hand");
        bench.run(TICK_US);
        assert_eq!(bench.rig.borrow().commanded, Some([0.98, 0.0]));
    }

    let mut bench = Bench::of(|joint| joint);
    for wrong in [0.9, 0.0, -0.7, 0.0, 0.5] {
        bench.read([at(0.3), at(wrong)]);
        bench.run(TICK_US);
    }
    bench.run(60 * MS);
    bench.read([at(0.3), at(0.5)]);
    bench.run(TICK_US);
    assert_eq!(bench.send(&Message::ClearFault), Reason::Ok, "readings agree again");

    let mut bench = Bench::of(|joint| joint).arm();
    bench.run(10 * MS);
    bench.rig.borrow_mut().stuck = true;
    bench.rig.borrow_mut().measured = [-0.02, 0.0];
    bench.run(10 * MS);
    bench.hello();
    bench.run(10 * MS);
    assert_eq!(bench.send(&Message::Arm), Reason::Ok);
    bench.run(10 * MS);
    assert_eq!(bench.rig.borrow().commanded, Some([0.0, 0.0]), "what sags a little is not let down further");
}

#[test]
fn nothing_is_armed_before_its_joints_are_measured() {
    let mut bench = Bench::of(|joint| joint);
    bench.read([at(0.3), Reading::default()]);
    bench.run(60 * MS);
    assert_eq!(bench.send(&Message::Arm), Reason::Faulted, "a silent joint");
    let mut bench = Bench::of(|joint| joint);
    // Not one value of these agrees with that before it.
    for position in [0.6, -0.6].into_iter().cycle().take(14) {
        bench.read([at(position), at(0.0)]);
        bench.run(4 * MS);
    }
    assert_eq!(report(&bench).fault, Fault::ImplausibleReading);
    assert_eq!(bench.send(&Message::Arm), Reason::Faulted);
}

fn following(joint: JointSpec) -> JointSpec {
    JointSpec { following: Some(FollowingLimit { error: 0.2, time_ms: 100 }), ..joint }
}

fn stall(current_a: f32) -> impl Fn(JointSpec) -> JointSpec {
    move |joint| JointSpec { stall: Some(StallLimit { error: 0.1, motion: 0.01, current_a, time_ms: 100 }), ..joint }
}

#[test]
fn a_joint_that_does_not_follow_is_a_fault() {
    let mut bench = Bench::of(following).arm();
    bench.rig.borrow_mut().stuck = true;
    assert_eq!(bench.chunk(&[0.3, 0.0].repeat(64)), Reason::Ok);
    bench.run(700 * MS);
    let found = report(&bench);
    assert_eq!((found.fault, found.joint, found.chunk, found.high), (Fault::FollowingError, Some(0), Some(1), 0.2));
    assert!((0.2..0.31).contains(&found.value), "{found:?}");
    assert!(description(&mut bench).starts_with("joint base: 0."), "{}", description(&mut bench));

    let mut bench = Bench::of(following).arm();
    bench.rig.borrow_mut().stuck = true;
    assert_eq!(bench.chunk(&[0.19, -0.19].repeat(64)), Reason::Ok);
    bench.run(700 * MS);
    assert_ne!(bench.state().mode, Mode::Faulted(Fault::FollowingError), "within its limit");
}

/// A joint that moves, however slowly, is not stalled; where the current is known it has to pull.
#[test]
fn a_joint_that_does_not_move_is_stalled() {
    let run = |current_a: Option<f32>, creep: f32| {
        let mut bench = Bench::of(stall(0.5)).arm();
        bench.rig.borrow_mut().stuck = true;
        assert_eq!(bench.chunk(&[0.3, 0.0].repeat(64)), Reason::Ok);
        let mut position = 0.0;
        for _ in 0..250 {
            position += creep;
            bench.read([Reading { current_a, ..at(position) }, at(0.0)]);
            bench.run(TICK_US);
            if let Mode::Faulted(fault) = bench.state().mode {
                return Some(fault);
            }
        }
        None
    };
    assert_eq!(run(None, 0.0), Some(Fault::Stalled));
    assert_eq!(run(Some(0.6), 0.0), Some(Fault::Stalled));
    assert_eq!(run(Some(-0.6), 0.0), Some(Fault::Stalled), "either way");
    assert_eq!(run(Some(0.4), 0.0), None, "it does not pull");
    assert_eq!(run(None, 0.0004), None, "it moves");
}

#[test]
fn heat_voltage_current_and_alarms_are_faults_if_the_bus_reports_them() {
    let joint = |joint: JointSpec| JointSpec {
        temperature: Some(TemperatureLimit { stop_c: 60, release_c: 70 }),
        voltage: Some([6.0, 8.4]),
        overload: Some(OverloadLimit { current_a: 1.5, time_ms: 50 }),
        ..joint
    };
    let normal = Reading {
        current_a: Some(0.5),
        temperature_c: Some(40.0),
        voltage_v: Some(7.4),
        alarms: Some(Alarms::NONE),
        ..at(0.0)
    };
    for (bad, fault, value, said) in [
        (Reading { temperature_c: Some(60.0), ..normal }, Fault::Overheated, 60.0, "motor at 60 °C, allowed 60 °C"),
        (
            Reading { voltage_v: Some(5.9), ..normal },
            Fault::VoltageOutOfRange,
            5.9,
            "supply of 5.9 V, expected 6.0 to 8.4 V",
        ),
        (Reading { voltage_v: Some(12.0), ..normal }, Fault::VoltageOutOfRange, 12.0, "supply of 12.0 V"),
        (Reading { voltage_v: Some(f32::NAN), ..normal }, Fault::VoltageOutOfRange, f32::NAN, "supply of NaN V"),
        (Reading { current_a: Some(-1.6), ..normal }, Fault::Overload, 1.6, "draws 1.60 A, allowed 1.50 A"),
        (
            Reading { alarms: Some(Alarms::OVERLOAD.and(Alarms::VOLTAGE)), ..normal },
            Fault::ServoAlarm,
            33.0,
            "the servo's alarm: voltage, overload (0x21)",
        ),
    ] {
        let mut bench = Bench::of(joint).arm();
        bench.read([normal; 2]);
        bench.run(300 * MS);
        // One broken answer in 256 passes a servo's checksum.
        bench.read([normal, bad]);
        bench.run(2 * TICK_US);
        bench.read([normal; 2]);
        bench.run(300 * MS);
        assert_eq!(bench.state().mode, Mode::Holding, "twice {bad:?}");
        bench.read([normal, bad]);
        bench.run(60 * MS);
        let found = report(&bench);
        assert_eq!((found.fault, found.joint), (fault, Some(1)));
        assert!(found.value == value || value.is_nan(), "{found:?}");
        assert!(
            description(&mut bench).starts_with("joint wrist: ") && description(&mut bench).contains(said),
            "{}",
            description(&mut bench)
        );
        bench.read([normal; 2]);
        bench.run(300 * MS);
        assert_eq!(bench.state().mode, Mode::Faulted(fault), "latched");
        assert_eq!(bench.send(&Message::ClearFault), Reason::Ok);
    }
}

/// The declared ways to stop at a fault, from full speed, and what comes after.
#[test]
fn a_fault_stops_the_joints_as_they_declare() {
    for (stop, driven) in
        [(StopBehaviour::Hold, true), (StopBehaviour::RampThenHold, true), (StopBehaviour::RampThenLimp, false)]
    {
        let mut joints = JointTable::new();
        let configure = |config: Config| {
            for joint in config.joints.as_slice() {
                joints.push(*joint).expect("valid");
            }
            joints.stop = stop;
            Config { joints, ..config }
        };
        let mut bench = Bench::with(|joint| joint, configure).arm();
        assert_eq!(bench.chunk(&[0.9, 0.0].repeat(64)), Reason::Ok);
        bench.run(200 * MS);
        let from = bench.base();
        bench.rig.borrow_mut().broken = true;
        bench.run(TICK_US);
        bench.rig.borrow_mut().broken = false;
        assert_eq!(report(&bench).fault, Fault::OutputFailed);
        let last = bench.base();
        bench.run(200 * MS);
        let way = bench.base() - last;
        match stop {
            StopBehaviour::Hold => assert_eq!(way, 0.0),
            // From 2 rad/s within 50 ms.
            _ => assert!((0.03..0.06).contains(&way), "{way} from {from}"),
        }
        assert_eq!((bench.state().energised, bench.rig.borrow().commanded.is_some()), (driven, driven), "{stop:?}");
        assert_eq!(bench.send(&Message::ClearFault), Reason::Ok);
        assert_eq!(bench.state().energised, driven, "a cleared fault moves nothing");
    }
}

/// Holding heats a servo: what it was told to hold it holds until it would break.
#[test]
fn a_servo_that_overheats_while_it_holds_is_released() {
    let limit = TemperatureLimit { stop_c: 60, release_c: 70 };
    let mut bench = Bench::of(|joint| JointSpec { temperature: Some(limit), ..joint }).arm();
    let hot = |celsius| [Reading { temperature_c: Some(celsius), ..at(0.0) }, at(0.0)];
    bench.read(hot(65.0));
    bench.run(100 * MS);
    assert_eq!((report(&bench).fault, bench.state().energised), (Fault::Overheated, true), "it holds");
    bench.read(hot(70.0));
    bench.run(2 * TICK_US);
    assert!(bench.state().energised, "two readings prove nothing");
    bench.run(TICK_US);
    assert!(!bench.state().energised && bench.rig.borrow().commanded.is_none(), "released");
    assert_eq!(report(&bench).value, 65.0, "the first cause is kept");
}

#[test]
fn too_many_broken_frames_are_a_fault_of_an_armed_controller() {
    let mut bench = Bench::with(|joint| joint, |config| Config { bad_frames: 20, ..config });
    let noise = |bench: &mut Bench, frames: u32, each_us: u64| {
        for _ in 0..frames {
            bench.run(each_us);
            let now_us = bench.now_us;
            bench.controller().bad_frame(now_us);
        }
    };
    noise(&mut bench, 100, TICK_US);
    assert_eq!(bench.state().mode, Mode::Disarmed, "nobody trusts the line yet");
    bench.run(1_000 * MS);
    let mut bench = bench.arm();
    noise(&mut bench, 100, 50 * MS);
    assert_eq!(bench.state().mode, Mode::Holding, "20 a second are allowed");
    noise(&mut bench, 22, TICK_US);
    assert_eq!(report(&bench).fault, Fault::ErrorRate);
    assert_eq!(description(&mut bench), "more than 20 broken frames a second on the line from the host");
}

#[test]
fn an_open_stop_releases_the_joints_until_a_person_clears_it() {
    let mut bench = Bench::armed();
    assert_eq!(bench.chunk(&[0.3, 0.0].repeat(20)), Reason::Ok);
    bench.run(10 * MS);
    bench.rig.borrow_mut().open = [true, false];
    bench.run(TICK_US);
    assert_eq!((report(&bench).fault, report(&bench).chunk), (Fault::Estop, Some(1)));
    assert_eq!(bench.rig.borrow().commanded, None);
    assert_eq!(bench.send(&Message::ClearFault), Reason::Faulted);
    bench.rig.borrow_mut().open = [false; 2];
    bench.run(TICK_US);
    assert_eq!(bench.state().mode, Mode::Faulted(Fault::Estop), "latched");
    assert_eq!(bench.send(&Message::ClearFault), Reason::Ok);
    assert_eq!(bench.state().mode, Mode::Disarmed);
}

/// Of two channels either one releases the joints; one that does not open with the other has to be seen to.
#[test]
fn the_stops_two_channels_are_compared() {
    let set = |bench: &mut Bench, open, ms| {
        bench.rig.borrow_mut().open = open;
        bench.run(ms * MS);
    };
    for open in [[true, false], [false, true]] {
        let mut bench = Bench::armed();
        bench.rig.borrow_mut().two_channels = true;
        set(&mut bench, open, 2);
        assert_eq!(report(&bench).fault, Fault::Estop);
        assert!(!bench.state().energised, "one channel is enough");
        set(&mut bench, [true, true], 500);
        set(&mut bench, [false, false], 10);
        assert_eq!(bench.send(&Message::ClearFault), Reason::Ok, "both opened");

        let mut bench = bench.arm();
        set(&mut bench, open, 150);
        assert_eq!(report(&bench).fault, Fault::Estop);
        set(&mut bench, open, 100);
        assert_eq!(report(&bench).fault, Fault::EstopDiscrepancy);
        let channel = if open[0] { "channel 1 open" } else { "channel 2 open" };
        assert!(description(&mut bench).contains(channel), "{}", description(&mut bench));
        set(&mut bench, [false, false], 100);
        assert_eq!(bench.send(&Message::ClearFault), Reason::Faulted, "no proof that the other one works");
        set(&mut bench, [true, true], 100);
        assert_eq!(bench.send(&Message::ClearFault), Reason::Faulted, "pressed");
        set(&mut bench, [false, false], 10);
        assert_eq!(bench.send(&Message::ClearFault), Reason::Ok, "pressed and released");

        // A contact that bounces alone, too short to be seen as different.
        let mut bench = bench.arm();
        set(&mut bench, open, 4);
        set(&mut bench, [false, false], 2);
        assert_eq!(report(&bench).fault, Fault::EstopDiscrepancy);
    }
}

/// A controller that its watchdog restarted says so, and moves nothing until somebody has seen it.
#[test]
fn a_reset_by_the_watchdog_is_latched() {
    let mut bench = Bench::of(|joint| joint);
    bench.controller().latch(Fault::WatchdogReset);
    bench.run(20 * MS);
    assert_eq!(bench.send(&Message::Arm), Reason::Faulted);
    assert_eq!(description(&mut bench), "the hardware watchdog restarted the controller");
    assert!(!bench.state().energised);
    assert_eq!(bench.send(&Message::ClearFault), Reason::Ok);
    assert_eq!(bench.send(&Message::Arm), Reason::Ok);
}

/// The watchdog is fed by ticks that did their work, and one that is called twice in one instant did none.
#[test]
fn only_a_tick_that_worked_feeds_the_watchdog() {
    let mut bench = Bench::armed();
    let now_us = bench.now_us;
    assert!(bench.controller().tick(now_us).is_none());
    assert!(bench.controller().tick(now_us + 1).is_some());
}
