//! The controller's state machine, pure in time: it knows no clock, `now_us` is an argument.
//!
//! | mode | frame or event | next mode | joints |
//! |---|---|---|---|
//! | Disarmed | arm | Holding | driven, hold the measured pose |
//! | Disarmed | disarm | Disarmed | released |
//! | Holding | chunk reaches its start | Active | follow the chunk |
//! | Active | chunk reaches its start | Active | follow the newer chunk from where they are |
//! | Active | last step over, or validity over | Holding | ramp to rest, hold |
//! | Holding, Active | stop | Stopping, then Holding | ramp to rest, hold |
//! | Holding, Active | disarm | Stopping, then Disarmed | ramp to rest, released |
//! | Holding, Active | hello of another session | Stopping, then Disarmed | ramp to rest, hold |
//! | Holding, Active | host silent | Faulted | at rest within the deadman time, hold |
//! | any | emergency stop line open or unreadable | Faulted | released at once |
//! | any | driver or measurement fails | Faulted | ramp to rest, hold |
//! | Faulted | clear fault, at rest and the line closed | Disarmed | as they were |
//!
//! All else leaves the mode as it is and is answered with a [`Reason`](crate::message::Reason). The first fault is kept
//! until it is cleared. While joints are driven, no command is further than
//! [`JointSpec::jump`](crate::joint::JointSpec::jump) from the measured pose.

use embedded_hal::digital::InputPin;

use crate::MAX_JOINTS;
use crate::frame::Counters;
use crate::joint::{JointTable, JointVec};
use crate::message::{Fault, Mode, Progress, State};
use crate::motion::{Setpoint, StoredChunk, deceleration, ramp_time_us};
use crate::output::JointOutput;

mod answer;
mod drive;

/// Most ticks that a late one stands for.
const MOST_TICKS: u64 = 4;

/// What the controller is built for.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The joints in the output's order.
    pub joints: JointTable,
    /// Period of [`Controller::tick`] in microseconds.
    pub tick_us: u32,
    /// Period of the telemetry in microseconds; kept within 5 and 20 ms, 200 and 50 Hz.
    pub telemetry_us: u32,
    /// Longest time from the host's last good frame to joints at rest, in microseconds, plus one
    /// tick.
    pub deadman_us: u32,
    /// Longest ramp to rest in microseconds; a joint that cannot do it with its own acceleration
    /// brakes harder.
    pub ramp_us: u32,
    /// How far in the future a chunk may start, in microseconds.
    pub ahead_us: u32,
    /// Positions outside the limits are clamped; positions outside by more than this many times
    /// the joint's whole range refuse the chunk.
    pub reject_ranges: f32,
}

impl Config {
    /// 500 Hz ticks, 100 Hz telemetry, deadman 150 ms, ramps of at most 50 ms.
    pub fn new(joints: JointTable) -> Self {
        Self {
            joints,
            tick_us: 2_000,
            telemetry_us: 10_000,
            deadman_us: 150_000,
            ramp_us: 50_000,
            ahead_us: 5_000_000,
            reject_ranges: 1.0,
        }
    }
}

/// The controller: joints behind `J`, emergency stop line `E`.
///
/// The line is closed in normal operation: high is good, and low, a cut wire with a pull-down, or
/// a pin that cannot be read is a stop.
pub struct Controller<J, E> {
    config: Config,
    output: J,
    estop: E,
    mode: Mode,
    /// The mode after [`Mode::Stopping`].
    stop_to: Mode,
    release_at_rest: bool,
    energised: bool,
    estop_open: bool,
    session: u32,
    last_sequence: u32,
    heard_us: u64,
    last_tick_us: Option<u64>,
    /// Time that has passed for the clock and not yet for the joints, less than a tick either way.
    carried_us: i64,
    measured: JointVec,
    measured_good: bool,
    setpoints: [Setpoint; MAX_JOINTS],
    decelerations: [f32; MAX_JOINTS],
    current: StoredChunk,
    next: StoredChunk,
    progress: Option<Progress>,
    clamps: u32,
    starved: u32,
}

impl<J: JointOutput, E: InputPin> Controller<J, E> {
    /// A disarmed controller without a session. It touches nothing before its first tick.
    pub fn new(config: Config, output: J, estop: E) -> Self {
        let telemetry_us = config.telemetry_us.clamp(5_000, 20_000);
        Self {
            measured: JointVec::zeros(config.joints.len()),
            config: Config { telemetry_us, ..config },
            output,
            estop,
            mode: Mode::Disarmed,
            stop_to: Mode::Disarmed,
            release_at_rest: false,
            energised: false,
            estop_open: false,
            session: 0,
            last_sequence: 0,
            heard_us: 0,
            last_tick_us: None,
            carried_us: 0,
            measured_good: false,
            setpoints: [Setpoint::default(); MAX_JOINTS],
            decelerations: [0.0; MAX_JOINTS],
            current: StoredChunk::EMPTY,
            next: StoredChunk::EMPTY,
            progress: None,
            clamps: 0,
            starved: 0,
        }
    }

    /// What it was built for.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it is doing.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The host's session, 0 before the first hello.
    pub fn session(&self) -> u32 {
        self.session
    }

    /// The joints' driver.
    pub fn output_mut(&mut self) -> &mut J {
        &mut self.output
    }

    /// Telemetry as of the last tick, with the decoder's counts.
    pub fn state(&self, counters: &Counters, frames_dropped: u32) -> State {
        let mut commanded = JointVec::zeros(self.config.joints.len());
        for (to, from) in commanded.as_mut_slice().iter_mut().zip(&self.setpoints) {
            *to = from.position;
        }
        State {
            mode: self.mode,
            energised: self.energised,
            estop: self.estop_open,
            last_sequence: self.last_sequence,
            progress: self.progress,
            clamps: self.clamps,
            starved: self.starved,
            crc_errors: counters.crc,
            frame_errors: counters.other_than_crc(),
            frames_dropped,
            measured: self.measured,
            commanded,
        }
    }

    /// One control tick at `now_us`: reads the stop line and the joints, watches the host, and
    /// commands the joints.
    ///
    /// The joints move in whole ticks: a tick that comes late moves them as far as the ticks that
    /// it stands for would have, at most four.
    pub fn tick(&mut self, now_us: u64) {
        let tick_us = u64::from(self.config.tick_us.max(1));
        let since_us = self.last_tick_us.map_or(tick_us, |last| now_us.saturating_sub(last));
        if since_us == 0 {
            return;
        }
        self.last_tick_us = Some(now_us);
        let ticks = self.ticks_passed(since_us, tick_us);

        self.estop_open = !matches!(self.estop.is_high(), Ok(true));
        if self.estop_open {
            self.fault(Fault::Estop);
            self.release();
        }
        self.measure();
        if !self.measured_good {
            self.fault(Fault::MeasurementFailed);
        }
        if self.is_armed() && self.silence_ends(now_us) {
            self.fault(Fault::HostSilent);
        }
        for late in (0..ticks).rev() {
            self.step(now_us.saturating_sub(late.saturating_mul(tick_us)));
        }
        self.command();
    }

    /// Whole ticks in the time since the last one, to the nearest; the rest is carried over.
    fn ticks_passed(&mut self, since_us: u64, tick_us: u64) -> u64 {
        let carried = u64::try_from(self.carried_us.saturating_add_unsigned(since_us)).unwrap_or(0);
        let ticks = carried.saturating_add(tick_us / 2).checked_div(tick_us).unwrap_or(1);
        if ticks > MOST_TICKS {
            self.carried_us = 0;
            return MOST_TICKS;
        }
        self.carried_us = i64::try_from(carried).unwrap_or(0).saturating_sub_unsigned(ticks.saturating_mul(tick_us));
        ticks
    }

    fn stop(&mut self, then: Mode) {
        match self.mode {
            Mode::Holding | Mode::Active => {
                self.mode = Mode::Stopping;
                self.stop_to = then;
                self.drop_chunks();
            }
            Mode::Stopping if then == Mode::Disarmed => self.stop_to = then,
            Mode::Stopping | Mode::Disarmed | Mode::Faulted(_) => {}
        }
    }

    fn fault(&mut self, fault: Fault) {
        if !matches!(self.mode, Mode::Faulted(_)) {
            self.mode = Mode::Faulted(fault);
            self.drop_chunks();
        }
    }

    fn drop_chunks(&mut self) {
        self.current.clear();
        self.next.clear();
        self.progress = None;
        self.begin_ramp();
    }

    fn begin_ramp(&mut self) {
        let joints = self.config.joints.as_slice().iter().zip(&self.setpoints);
        for (place, (joint, at)) in self.decelerations.iter_mut().zip(joints) {
            *place = deceleration(at.velocity, joint, self.config.ramp_us);
        }
    }

    fn is_armed(&self) -> bool {
        matches!(self.mode, Mode::Holding | Mode::Active)
    }

    fn is_at_rest(&self) -> bool {
        let joints = self.config.joints.as_slice().iter();
        joints.zip(&self.setpoints).all(|(_, at)| at.velocity == 0.0)
    }

    /// Whether the ramp to rest must begin for the joints to be at rest when the time is over.
    fn silence_ends(&self, now_us: u64) -> bool {
        let joints = self.config.joints.as_slice().iter().zip(&self.setpoints);
        let ramp_us =
            joints.map(|(joint, at)| ramp_time_us(at.velocity, joint, self.config.ramp_us)).max().unwrap_or(0);
        let silent_us = now_us.saturating_sub(self.heard_us);
        silent_us.saturating_add(u64::from(ramp_us)) >= u64::from(self.config.deadman_us)
    }
}
