//! The controller's state machine, pure in time: it reads no clock; `now_us` is an argument.
//!
//! | mode | frame or event | next mode | joints |
//! |---|---|---|---|
//! | Disarmed | arm, all joints measured and within their limits | Holding | driven, hold the measured pose |
//! | Disarmed, driven | arm | Holding | hold their goals |
//! | Disarmed | disarm | Disarmed | released |
//! | Holding | chunk reaches its start | Active | follow the chunk |
//! | Active | chunk reaches its start | Active | follow the newer chunk from where they are |
//! | Active | last step over, or validity over | Holding | ramp to rest, hold |
//! | Holding, Active | stop | Stopping, then Holding | ramp to rest, hold |
//! | Holding, Active | disarm | Stopping, then Disarmed | ramp to rest, released |
//! | Holding, Active | hello of another session | Stopping, then Disarmed | ramp to rest, hold |
//! | Holding, Active | host silent | Faulted | at rest within the deadman time |
//! | Holding, Active | too many broken frames | Faulted | stop as the joint table declares |
//! | any | a channel of the emergency stop open or unreadable | Faulted | released at once |
//! | any | driver fails, or a joint's limits that lead to faults | Faulted | stop as the joint table declares |
//! | any | a motor at its release temperature | Faulted | released at once |
//! | Faulted | clear fault, at rest, stop closed and proved, joints measured | Disarmed | as they were |
//!
//! Everything else leaves the mode unchanged and is answered with a [`Reason`](crate::message::Reason). The first fault
//! is kept until it is cleared, except that a discrepancy of the emergency stop replaces the stop itself.
//!
//! **Invariant**, from arming to release: whatever is measured and received, no goal is outside a joint's limits, and
//! each differs from the last one by no more than the joint's speed and acceleration allow in the ticks between them. A
//! goal may stop short: a ramp to rest brakes as hard as its time demands. Arming moves nothing: the first goal is the
//! measured position.

use crate::MAX_JOINTS;
use crate::fault::{Fault, FaultReport};
use crate::frame::Counters;
use crate::joint::{JointTable, JointVec, Name, StopBehaviour};
use crate::message::{ControllerState, Mode, Progress};
use crate::motion::{Setpoint, StoredChunk, deceleration, ramp_time_us};
use crate::output::{JointOutput, StopCircuit};

mod answer;
mod drive;
mod error_rate;
mod estop;
mod monitor;

use error_rate::ErrorRate;
use estop::EmergencyStop;
use monitor::JointMonitor;

/// Most ticks that a late tick replaces.
const MOST_TICKS: u64 = 4;

/// The controller's configuration.
#[derive(Debug, Clone, Copy)]
pub struct Config {
    /// The controller's identity, sent to the host.
    pub identity: Name,
    /// The joints in the output's order.
    pub joints: JointTable,
    /// Period of [`Controller::tick`] in microseconds.
    pub tick_us: u32,
    /// Period of the telemetry in microseconds; kept within 5 and 20 ms, 200 and 50 Hz.
    pub telemetry_us: u32,
    /// Longest time from the host's last good frame to joints at rest, in microseconds, plus one tick.
    pub deadman_us: u32,
    /// Longest ramp to rest in microseconds; a joint whose own acceleration is too low brakes harder.
    pub ramp_us: u32,
    /// Limit on a chunk's start in the future, in microseconds.
    pub ahead_us: u32,
    /// Positions outside the limits are clamped; a position outside by more than this many times the joint's whole
    /// range refuses the chunk.
    pub reject_ranges: f32,
    /// Longest time without a measurement of a joint, in microseconds.
    pub measurement_us: u32,
    /// Longest time for which the channels of the emergency stop may differ, in microseconds.
    pub discrepancy_us: u32,
    /// Limit on broken frames of the host in a second, while armed.
    pub bad_frames: u16,
}

impl Config {
    /// A controller without an identity: 500 Hz ticks, 100 Hz telemetry, deadman 150 ms, ramps of at most 50 ms, 50 ms
    /// without a measurement, 200 ms between the channels of the emergency stop, 100 broken frames a second.
    pub fn new(joints: JointTable) -> Self {
        Self {
            identity: Name::EMPTY,
            joints,
            tick_us: 2_000,
            telemetry_us: 10_000,
            deadman_us: 150_000,
            ramp_us: 50_000,
            ahead_us: 5_000_000,
            reject_ranges: 1.0,
            measurement_us: 50_000,
            discrepancy_us: 200_000,
            bad_frames: 100,
        }
    }
}

/// Proof that a control tick did all of its work: it read the emergency stop and the joints, supervised the host and
/// commanded the joints. Only this feeds a hardware watchdog.
#[derive(Debug)]
pub struct WholeTick(());

/// The controller: joints behind `J`, emergency stop `E`.
pub struct Controller<J, E> {
    config: Config,
    output: J,
    estop: E,
    mode: Mode,
    /// The cause of the latched fault, if any.
    report: FaultReport,
    /// The mode after [`Mode::Stopping`].
    stop_to: Mode,
    release_at_rest: bool,
    energised: bool,
    estop_open: bool,
    stop: EmergencyStop,
    stop_proved: bool,
    error_rate: ErrorRate,
    session: u32,
    last_sequence: u32,
    received_us: u64,
    last_tick_us: Option<u64>,
    /// Elapsed time that the joints have not used yet, less than a tick either way.
    carried_us: i64,
    monitors: [JointMonitor; MAX_JOINTS],
    setpoints: [Setpoint; MAX_JOINTS],
    decelerations: [f32; MAX_JOINTS],
    current: StoredChunk,
    next: StoredChunk,
    progress: Option<Progress>,
    clamps: u32,
    starved: u32,
}

impl<J: JointOutput, E: StopCircuit> Controller<J, E> {
    /// A disarmed controller without a session. It does nothing before its first tick.
    pub fn new(config: Config, output: J, estop: E) -> Self {
        let telemetry_us = config.telemetry_us.clamp(5_000, 20_000);
        Self {
            config: Config { telemetry_us, ..config },
            output,
            estop,
            mode: Mode::Disarmed,
            report: FaultReport::of(Fault::WatchdogReset),
            stop_to: Mode::Disarmed,
            release_at_rest: false,
            energised: false,
            estop_open: false,
            stop: EmergencyStop::NEW,
            stop_proved: true,
            error_rate: ErrorRate::NEW,
            session: 0,
            last_sequence: 0,
            received_us: 0,
            last_tick_us: None,
            carried_us: 0,
            monitors: [JointMonitor::NEW; MAX_JOINTS],
            setpoints: [Setpoint::default(); MAX_JOINTS],
            decelerations: [0.0; MAX_JOINTS],
            current: StoredChunk::EMPTY,
            next: StoredChunk::EMPTY,
            progress: None,
            clamps: 0,
            starved: 0,
        }
    }

    /// Latches a fault from before power-on, such as a watchdog reset; nothing moves until it is cleared.
    pub fn latch(&mut self, fault: Fault) {
        self.fault(FaultReport::of(fault));
    }

    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Its mode.
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

    /// Telemetry of the last tick, with the decoder's counters.
    pub fn state(&self, counters: &Counters, frames_dropped: u32) -> ControllerState {
        let mut commanded = JointVec::zeros(self.config.joints.len());
        for (to, from) in commanded.as_mut_slice().iter_mut().zip(&self.setpoints) {
            *to = from.position;
        }
        let mut measured = JointVec::zeros(self.config.joints.len());
        for (to, from) in measured.as_mut_slice().iter_mut().zip(&self.monitors) {
            *to = from.measured();
        }
        ControllerState {
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
            measured,
            commanded,
            fault: matches!(self.mode, Mode::Faulted(_)).then_some(self.report),
        }
    }

    /// One control tick at `now_us`: reads the emergency stop and the joints, supervises the host, and commands the
    /// joints. `None` if no time has passed since the last one.
    ///
    /// The joints move in whole ticks: a late tick moves them as far as the missed ticks would have, at most four.
    pub fn tick(&mut self, now_us: u64) -> Option<WholeTick> {
        let tick_us = u64::from(self.config.tick_us.max(1));
        let since_us = self.last_tick_us.map_or(tick_us, |last| now_us.saturating_sub(last));
        if since_us == 0 {
            return None;
        }
        self.last_tick_us = Some(now_us);
        let ticks = self.ticks_passed(since_us, tick_us);
        let elapsed_us = u32::try_from(since_us).unwrap_or(u32::MAX);
        let counted_us = u32::try_from(since_us.min(tick_us.saturating_mul(MOST_TICKS))).unwrap_or(u32::MAX);

        self.check_stop(counted_us);
        self.measure(elapsed_us, counted_us);
        if self.is_armed() && self.silence_ends(now_us) {
            let seconds = |us: u64| us as f32 * 1e-6;
            let silent = seconds(now_us.saturating_sub(self.received_us));
            let allowed = seconds(self.config.deadman_us.into());
            self.fault(FaultReport::of(Fault::HostSilent).bounds(silent, 0.0, allowed));
        }
        for late in (0..ticks).rev() {
            self.step(now_us.saturating_sub(late.saturating_mul(tick_us)));
        }
        self.command();
        Some(WholeTick(()))
    }

    /// Counts a broken frame of the host. Too many of them are a fault while armed: an error that the CRC misses
    /// becomes likely.
    pub fn bad_frame(&mut self, now_us: u64) {
        let limit = self.config.bad_frames.max(1);
        if self.error_rate.count(now_us, limit) && self.is_armed() {
            let limit = f32::from(limit);
            self.fault(FaultReport::of(Fault::ErrorRate).bounds(limit, 0.0, limit));
        }
    }

    fn check_stop(&mut self, counted_us: u32) {
        let state = self.stop.take(self.estop.read(), counted_us, self.config.discrepancy_us);
        self.estop_open = state.open;
        self.stop_proved = !state.discrepancy;
        if state.discrepancy {
            let report = FaultReport { cause: state.channels, ..FaultReport::of(Fault::EstopDiscrepancy) };
            if self.mode == Mode::Faulted(Fault::Estop) {
                self.mode = Mode::Faulted(report.fault);
                self.report = FaultReport { chunk: self.report.chunk, ..report };
            }
            self.fault(report);
        } else if state.open {
            self.fault(FaultReport { cause: state.channels, ..FaultReport::of(Fault::Estop) });
        }
        if (state.open || state.discrepancy) && self.energised {
            self.release();
        }
    }

    /// Whole ticks since the last one, rounded; the remainder is carried over.
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

    /// Latches a fault and starts the stop that the joint table declares.
    fn fault(&mut self, report: FaultReport) {
        if matches!(self.mode, Mode::Faulted(_)) {
            return;
        }
        self.report = FaultReport { chunk: self.progress.map(|progress| progress.chunk), ..report };
        self.mode = Mode::Faulted(report.fault);
        self.drop_chunks();
        match self.config.joints.stop {
            StopBehaviour::Hold => self.decelerations = [f32::INFINITY; MAX_JOINTS],
            StopBehaviour::RampThenHold => {}
            StopBehaviour::RampThenLimp => self.release_at_rest = true,
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

    /// Whether the ramp to rest must start now for the joints to be at rest in time.
    fn silence_ends(&self, now_us: u64) -> bool {
        let joints = self.config.joints.as_slice().iter().zip(&self.setpoints);
        let ramp_us =
            joints.map(|(joint, at)| ramp_time_us(at.velocity, joint, self.config.ramp_us)).max().unwrap_or(0);
        let silent_us = now_us.saturating_sub(self.received_us);
        silent_us.saturating_add(u64::from(ramp_us)) >= u64::from(self.config.deadman_us)
    }
}
