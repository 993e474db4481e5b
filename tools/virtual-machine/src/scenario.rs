//! The failures caused on the robot, and the expected results.

use std::thread;
use std::time::{Duration, Instant};

use firmware_bridge::message::{Fault, Mode};

use crate::cable::{Cable, Notes, Sample};
use crate::guest::{Guest, GuestError};

/// Time limit for everything on an emulated processor, including the first start with its compiled shaders.
const BOOT: Duration = Duration::from_secs(600);
/// Time limit for a restart of the service.
const RESTART: Duration = Duration::from_secs(240);
/// Time limit for a chunk, or for an event.
const SOON: Duration = Duration::from_secs(60);
/// Time limit, in seconds, for the loop to become active after its camera is plugged in again, on this processor, too.
const RETURN_S: f64 = 3.0;
/// Time for which no joint may move after a stop.
const STILL: Duration = Duration::from_secs(2);
/// A joint whose command changes by less than this is at rest, in its unit.
const REST: f32 = 1e-5;
/// A chunk accepted less than this ago has most of its motion ahead.
const FRESH: Duration = Duration::from_secs(2);
/// A joint whose command changes by this much in 20 samples is moving, in its unit.
const FAST: f32 = 5e-3;
/// Lateness of a controller's tick on a shared computer.
const LATE_TICK_US: u64 = 20_000;

/// Guest and controller with the cable between them.
#[derive(Debug)]
pub(crate) struct Robot {
    /// The cable to the controller; pulled out before the guest ends.
    pub(crate) cable: Cable,
    /// The guest.
    pub(crate) guest: Guest,
}

/// The reason why a check failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// An error of the guest, or a missed time limit.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// An unexpected result, independent of time.
    #[error("expected {expected}; found {found}")]
    Other {
        /// The expected result.
        expected: String,
        /// The result.
        found: String,
    },
    /// An unexpected result within a time limit.
    #[error("expected {expected}; found {found}")]
    Late {
        /// The expected result.
        expected: String,
        /// The result.
        found: String,
    },
}

impl Failure {
    /// Whether a lack of processor time can explain it.
    pub(crate) fn is_late(&self) -> bool {
        match self {
            Failure::Guest(error) => error.is_late(),
            Failure::Other { .. } => false,
            Failure::Late { .. } => true,
        }
    }
}

/// A check's measurements as text.
type Outcome = Result<String, Failure>;

/// A check: its name, and its function.
pub(crate) type Check = (&'static str, fn(&mut Robot) -> Outcome);

/// The reduced form. Each check starts at the end of the previous one.
pub(crate) const QUICK: [Check; 9] = [
    ("boot: systemd starts the service, and it says READY", boot),
    ("the service runs without root, on devices by their stable names", devices),
    ("the controller accepts chunks, and the joints move", obeys),
    ("camera unplugged: hold, and the joints come to rest", camera_gone),
    ("camera back: the loop continues by itself", camera_back),
    ("serial line unplugged: the joints are at rest within the deadman time", line_gone),
    ("serial line back, by the same name: the arm moves again", line_back),
    ("kill -9: the joints are at rest within the deadman time, and stay there", killed),
    ("the fault is cleared: the arm moves again", cleared),
];

/// Additional checks of the whole form.
pub(crate) const WHOLE: [Check; 3] = [
    ("the program hangs: the joints are at rest within the deadman time, and the watchdog ends it", hung),
    ("the fault is cleared: the arm moves again", cleared),
    ("the service is stopped: the joints ramp to rest and are released, without a fault", stopped),
];

fn expect(fine: bool, expected: impl Into<String>, found: impl Into<String>) -> Result<(), Failure> {
    if fine { Ok(()) } else { Err(Failure::Other { expected: expected.into(), found: found.into() }) }
}

fn expect_in_time(fine: bool, expected: impl Into<String>, found: impl Into<String>) -> Result<(), Failure> {
    if fine { Ok(()) } else { Err(Failure::Late { expected: expected.into(), found: found.into() }) }
}

fn boot(robot: &mut Robot) -> Outcome {
    let active = "until systemctl --quiet is-active fathom; do sleep 5; done; systemctl show --value \
                  --property InactiveExitTimestampMonotonic --property ActiveEnterTimestampMonotonic fathom";
    let times = robot.guest.sh(active, BOOT)?;
    let mut seconds = times.split_whitespace().filter_map(|us| us.parse::<f64>().ok()).map(|us| us / 1e6);
    let (Some(booted_s), Some(ready_s)) = (seconds.next(), seconds.next()) else {
        return Err(Failure::Other { expected: "the unit's times".to_owned(), found: times });
    };
    let restarts = robot.guest.sh("systemctl show --value --property NRestarts fathom", SOON)?;
    expect_in_time(restarts.trim() == "0", "ready at the first try", format!("{} restarts", restarts.trim()))?;
    Ok(format!("{booted_s:.0} s to the service, READY {:.0} s later", ready_s - booted_s))
}

fn devices(robot: &mut Robot) -> Outcome {
    let user = robot.guest.sh("ps -o user= -p $(systemctl show --value -p MainPID fathom)", SOON)?;
    expect(!["", "root"].contains(&user.trim()), "a user of the service's own", user.clone())?;
    let latency = robot.guest.sh("cat /sys/bus/usb-serial/devices/*/latency_timer", SOON)?;
    expect(latency.trim() == "1", "1 ms of latency in the adapter", latency)?;
    let names = robot.guest.sh("cd /dev/fathom && for n in *; do echo $n: $(readlink -f $n); done", SOON)?;
    Ok(format!("user {}; {}", user.trim(), names.trim().replace('\n', ", ")))
}

fn obeys(robot: &mut Robot) -> Outcome {
    let since = robot.cable.now();
    robot.chunks(3, SOON * 2)?;
    let way = robot.cable.notes(|notes| way(notes.since(since)));
    expect(way > 0.01, "joints that move", format!("{way} rad"))?;
    let (interval, silence_us) = (robot.interval(), robot.cable.notes(|notes| notes.longest_silence_us));
    let (interval_s, silence_ms) = (interval.as_secs_f64(), silence_us / 1000);
    Ok(format!("a chunk each {interval_s:.1} s; the host's longest silence {silence_ms} ms; way {way:.2} rad"))
}

fn camera_gone(robot: &mut Robot) -> Outcome {
    let bound_s = robot.interval().as_secs_f64() + 0.2;
    let from = robot.guest.now()?;
    let gone_s = robot.guest.clock_s()?;
    robot.guest.sh("echo vivid.0 >/sys/bus/platform/drivers/vivid/unbind", SOON)?;
    let hold = robot.guest.event(from, "mode", &[("event", "ImagesStale")], SOON)?;
    let hold_s = robot.guest.lines.get(hold).map_or(0.0, |line| line.at_s) - gone_s;
    expect_in_time(hold_s <= bound_s, format!("hold within {bound_s:.1} s"), format!("{hold_s:.1} s"))?;
    // The steps planned before are still executed, but no more.
    robot.until("the controller holding its pose", SOON, |last| last.mode == Mode::Holding)?;
    robot.still()?;
    Ok(format!("hold {hold_s:.2} s after (bound: a chunk's interval + 0.2 s = {bound_s:.1} s), then at rest"))
}

fn camera_back(robot: &mut Robot) -> Outcome {
    let from = robot.guest.now()?;
    let back_s = robot.guest.clock_s()?;
    robot.guest.sh("echo vivid.0 >/sys/bus/platform/drivers/vivid/bind", SOON)?;
    let active = robot.guest.event(from, "mode", &[("to", "active"), ("event", "ImagesFresh")], SOON)?;
    let active_s = robot.guest.lines.get(active).map_or(0.0, |line| line.at_s) - back_s;
    expect_in_time(active_s <= RETURN_S, format!("active within {RETURN_S} s"), format!("{active_s:.2} s"))?;
    robot.chunks(1, SOON)?;
    Ok(format!("active {active_s:.2} s after (bound {RETURN_S} s)"))
}

fn line_gone(robot: &mut Robot) -> Outcome {
    robot.moving()?;
    let from = robot.guest.now()?;
    let mark = robot.cable.now();
    robot.cable.plug(false);
    robot.guest.plug_serial(false)?;
    let rest = robot.rest_after(mark)?;
    robot.guest.event(from, "mode", &[("event", "LinkLost")], SOON)?;
    robot.still()?;
    Ok(rest)
}

fn line_back(robot: &mut Robot) -> Outcome {
    robot.guest.plug_serial(true)?;
    robot.cable.plug(true);
    let (how, after_s) = robot.moves_again()?;
    Ok(format!("{how}, {after_s:.0} s later"))
}

fn killed(robot: &mut Robot) -> Outcome {
    let restarts = robot.restarts()?;
    robot.moving()?;
    let mark = robot.cable.now();
    robot.guest.sh("kill -9 $(systemctl show --value -p MainPID fathom)", SOON)?;
    let rest = robot.rest_after(mark)?;
    robot.started_again(restarts)?;
    robot.latched()?;
    Ok(format!("{rest}; systemd started the program again, and the controller waits for a person"))
}

fn hung(robot: &mut Robot) -> Outcome {
    let restarts = robot.restarts()?;
    robot.moving()?;
    let mark = robot.cable.now();
    robot.guest.sh("kill -STOP $(systemctl show --value -p MainPID fathom)", SOON)?;
    let rest = robot.rest_after(mark)?;
    let ended = "until journalctl --quiet UNIT=fathom.service UNIT_RESULT=watchdog | grep -q .; do sleep 1; done";
    robot.guest.sh(ended, SOON * 2)?;
    robot.started_again(restarts)?;
    robot.latched()?;
    Ok(rest)
}

fn cleared(robot: &mut Robot) -> Outcome {
    robot.clear()?;
    let (_, after_s) = robot.moves_again()?;
    Ok(format!("{after_s:.0} s later"))
}

fn stopped(robot: &mut Robot) -> Outcome {
    robot.moving()?;
    robot.guest.sh("systemctl stop fathom", SOON)?;
    robot.until("the controller disarmed", SOON, |last| last.mode == Mode::Disarmed)?;
    let result = robot.guest.sh("systemctl show --value --property Result fathom", SOON)?;
    expect(result.trim() == "success", "success", result)?;
    Ok("disarmed".to_owned())
}

/// A position in the cable's record.
#[derive(Clone, Copy, Debug)]
struct Mark {
    samples: usize,
    accepted: usize,
}

impl Notes {
    fn since(&self, mark: Mark) -> &[Sample] {
        self.samples.get(mark.samples..).unwrap_or_default()
    }
}

impl Cable {
    fn now(&self) -> Mark {
        self.notes(|notes| Mark { samples: notes.samples.len(), accepted: notes.accepted.len() })
    }
}

/// The longest distance of a joint's command, in its unit.
fn way(samples: &[Sample]) -> f32 {
    let joints = samples.first().map_or(0, |sample| sample.commanded.len());
    let one = |joint: usize| -> f32 {
        let positions = samples.iter().filter_map(|sample| sample.commanded.get(joint));
        positions.clone().zip(positions.skip(1)).map(|(a, b)| (b - a).abs()).sum()
    };
    (0..joints).map(one).fold(0.0, f32::max)
}

impl Robot {
    /// Waits until the controller's last sample is `wanted`.
    fn until(&self, what: &str, within: Duration, wanted: impl Fn(&Sample) -> bool) -> Result<(), Failure> {
        let since = Instant::now();
        while !self.cable.notes(|notes| notes.samples.last().is_some_and(&wanted)) {
            if since.elapsed() > within {
                return Err(GuestError::Late { what: what.to_owned(), within }.into());
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Waits until the controller accepted `count` more chunks.
    fn chunks(&self, count: usize, within: Duration) -> Result<(), Failure> {
        let (mark, since) = (self.cable.now(), Instant::now());
        while self.cable.now().accepted < mark.accepted + count {
            if since.elapsed() > within {
                return Err(GuestError::Late { what: format!("{count} chunks accepted"), within }.into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Interval between chunks, from the last three.
    fn interval(&self) -> Duration {
        self.cable.notes(|notes| match notes.accepted.last_chunk::<3>() {
            Some([first, _, last]) => last.duration_since(*first) / 2,
            None => SOON,
        })
    }

    /// Waits until the joints move along a chunk that has just started, so that they keep moving for some time.
    fn moving(&self) -> Result<(), Failure> {
        let since = Instant::now();
        loop {
            let moves = self.cable.notes(|notes| {
                let fresh = notes.accepted.last().is_some_and(|accepted| accepted.elapsed() < FRESH);
                let last = notes.samples.last_chunk::<20>().map_or(&[][..], |last| last);
                fresh && last.iter().all(|sample| sample.mode == Mode::Active) && way(last) > FAST
            });
            if moves {
                return Ok(());
            }
            if since.elapsed() > SOON * 2 {
                return Err(GuestError::Late { what: "joints that move".to_owned(), within: SOON * 2 }.into());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Checks that the joints do not move for some time.
    fn still(&self) -> Result<(), Failure> {
        let mark = self.cable.now();
        thread::sleep(STILL);
        let (samples, way) = self.cable.notes(|notes| {
            let since = notes.since(mark);
            (since.len(), way(since))
        });
        expect(way <= REST, "joints at rest", format!("a way of {way} in {samples} samples"))?;
        expect_in_time(samples > 10, "telemetry of joints at rest", format!("{samples} samples"))
    }

    /// Checks that after the host fell silent, at `mark`, the joints came to rest within the controller's deadman time,
    /// by its own clock.
    fn rest_after(&self, mark: Mark) -> Outcome {
        let silent = Mode::Faulted(Fault::HostSilent);
        self.until("the controller noticing that the host is silent", SOON, |last| last.mode == silent)?;
        thread::sleep(STILL);
        self.cable.notes(|notes| {
            let samples = notes.since(mark);
            let end = samples.last().map(|sample| sample.commanded.clone()).unwrap_or_default();
            let moves = |sample: &&Sample| sample.commanded.iter().zip(&end).any(|(a, b)| (a - b).abs() > REST);
            let moved = samples.iter().filter(moves).count();
            expect_in_time(moved > 0, "joints that moved when the host fell silent", "joints at rest")?;
            let Some((resting, hello)) = samples.iter().rfind(moves).zip(notes.hello) else {
                return Err(Failure::Other { expected: "telemetry".to_owned(), found: "none".to_owned() });
            };
            // The first sample without movement is one period late.
            let after_us = resting.time_us + u64::from(hello.telemetry_us) - resting.received_us.min(resting.time_us);
            let bound_us = u64::from(hello.deadman_us + hello.tick_us + hello.telemetry_us) + LATE_TICK_US;
            let (after_ms, bound_ms) = (after_us / 1000, bound_us / 1000);
            expect_in_time(after_us <= bound_us, format!("rest within {bound_ms} ms"), format!("{after_ms} ms"))?;
            Ok(format!("at rest {after_ms} ms after the host's last frame (deadman {} ms)", hello.deadman_us / 1000))
        })
    }

    fn restarts(&mut self) -> Result<String, Failure> {
        Ok(self.guest.sh("systemctl show --value --property NRestarts fathom", SOON)?)
    }

    fn started_again(&mut self, before: String) -> Result<(), Failure> {
        let since = Instant::now();
        while self.restarts()? == before {
            if since.elapsed() > SOON {
                return Err(GuestError::Late { what: "another start by systemd".to_owned(), within: SOON }.into());
            }
            thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    /// Checks that the new process finds the latched fault, and moves nothing.
    fn latched(&mut self) -> Result<(), Failure> {
        let mark = self.cable.now();
        let from = self.guest.now()?;
        self.guest.event(from, "controller_latched", &[], RESTART)?;
        let way = self.cable.notes(|notes| way(notes.since(mark)));
        expect(way <= REST, "joints at rest until the fault is cleared", format!("a way of {way}"))
    }

    /// A person's steps for a latched fault.
    fn clear(&mut self) -> Result<(), Failure> {
        self.guest.sh("systemctl stop fathom", SOON)?;
        self.guest.sh("fathom clear-fault --config /etc/fathom/robot.toml", SOON)?;
        self.guest.sh("systemctl start --no-block fathom", SOON)?;
        Ok(())
    }

    /// Checks that the arm moves again, by itself or after a person cleared a fault: returns which, and after how many
    /// seconds.
    fn moves_again(&mut self) -> Result<(&'static str, f64), Failure> {
        let (mark, from, since) = (self.cable.now(), self.guest.now()?, Instant::now());
        let mut how = "by itself";
        loop {
            if self.cable.now().accepted > mark.accepted {
                return Ok((how, since.elapsed().as_secs_f64()));
            }
            if how == "by itself" && self.guest.event(from, "controller_latched", &[], Duration::ZERO).is_ok() {
                self.clear()?;
                how = "after the latched fault was cleared";
            }
            if since.elapsed() > RESTART {
                return Err(GuestError::Late { what: "a chunk accepted".to_owned(), within: RESTART }.into());
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}
