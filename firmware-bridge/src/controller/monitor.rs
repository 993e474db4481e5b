//! One joint's readings: accepts them as measurements, and detects faults. Pure in time.

use crate::fault::{Alarms, Fault, FaultReport};
use crate::joint::JointSpec;
use crate::output::Reading;

/// Consecutive readings that must agree before a joint counts as measured, and before a temperature, a voltage or an
/// alarm counts: with a checksum of 8 bits, one broken answer in 256 passes.
const AGREEING: u8 = 3;

/// Largest difference between a reading's time and its tick's, in microseconds, for a moving joint.
const SLACK_US: u32 = 4_000;

/// A tick's inputs for a joint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Watch {
    /// Time since the last tick, in microseconds.
    pub(super) elapsed_us: u32,
    /// The same, limited to the ticks that a late tick replaces: the joint is not blamed for a controller that hung.
    pub(super) counted_us: u32,
    /// The goal of a driven joint.
    pub(super) goal: Option<f32>,
    /// Whether the host may move the joint: then only reachable readings count.
    pub(super) armed: bool,
    /// Time without a measurement that counts as a fault, in microseconds.
    pub(super) measurement_us: u32,
}

/// A fault of one joint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Finding {
    /// The fault; the controller adds joint and chunk.
    pub(super) report: FaultReport,
    /// Whether holding would destroy the motor.
    pub(super) release: bool,
}

impl Finding {
    const fn of(fault: Fault, value: f32, low: f32, high: f32) -> Self {
        Self { report: FaultReport::of(fault).bounds(value, low, high), release: false }
    }
}

/// A reading that the joint cannot have reached.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Doubt {
    value: f32,
    low: f32,
    high: f32,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct JointMonitor {
    measured: f32,
    /// Whether `measured` is the joint's probable position.
    known: bool,
    /// Time since the last measurement.
    age_us: u32,
    /// The same, in ticks that were not late.
    silent_us: u32,
    /// The last reading since then that did not count.
    doubt: Option<Doubt>,
    /// The alternative position, and the number of readings that agree on it.
    instead: f32,
    agreeing: u8,
    following_us: u32,
    /// The joint's position when it last moved.
    still_at: f32,
    still_us: u32,
    current_a: Option<f32>,
    overload_us: u32,
    hot: u8,
    too_hot: u8,
    voltage: u8,
    alarms: u8,
}

impl JointMonitor {
    pub(super) const NEW: Self = Self {
        measured: 0.0,
        known: false,
        age_us: 0,
        silent_us: 0,
        doubt: None,
        instead: f32::NAN,
        agreeing: 0,
        following_us: 0,
        still_at: 0.0,
        still_us: 0,
        current_a: None,
        overload_us: 0,
        hot: 0,
        too_hot: 0,
        voltage: 0,
        alarms: 0,
    };

    /// The last plausible position; 0 before the first.
    pub(super) fn measured(&self) -> f32 {
        self.measured
    }

    /// The joint's position, if known.
    pub(super) fn position(&self) -> Option<f32> {
        self.known.then_some(self.measured)
    }

    /// Takes a tick's reading; returns any fault that it shows.
    pub(super) fn take(&mut self, reading: &Reading, joint: &JointSpec, watch: &Watch) -> Option<Finding> {
        self.age_us = self.age_us.saturating_add(watch.elapsed_us);
        self.silent_us = self.silent_us.saturating_add(watch.counted_us);
        if let Some(position) = reading.position {
            self.take_position(position, joint, watch.armed);
        }
        self.current_a = reading.current_a.filter(|current| current.is_finite()).map(f32::abs).or(self.current_a);
        // In the order of causes: a motor that is too hot stalls, and a stalled joint does not follow.
        let found = self.without_measurement(watch);
        let found = found.or_else(|| self.alarm(reading)).or_else(|| self.temperature(reading, joint));
        let found = found.or_else(|| self.voltage(reading, joint)).or_else(|| self.overload(joint, watch));
        let found = found.or_else(|| self.stall(joint, watch));
        found.or_else(|| self.following(joint, watch))
    }

    fn take_position(&mut self, position: f32, joint: &JointSpec, armed: bool) {
        let reach = |from: f32, since_us: u32| {
            let reach = joint.reach * since_us.saturating_add(SLACK_US) as f32 * 1e-6;
            (from - reach, from + reach)
        };
        let (low, high) = reach(self.measured, self.age_us);
        if self.known && low <= position && position <= high {
            self.believe(position);
            return;
        }
        self.doubt = Some(Doubt { value: position, low, high });
        if armed {
            return;
        }
        let (low, high) = reach(self.instead, SLACK_US);
        self.agreeing = if low <= position && position <= high { self.agreeing.saturating_add(1) } else { 1 };
        self.instead = position;
        if self.agreeing >= AGREEING && position.is_finite() {
            self.known = true;
            self.believe(position);
        }
    }

    fn believe(&mut self, position: f32) {
        self.measured = position;
        self.age_us = 0;
        self.silent_us = 0;
        self.doubt = None;
        self.agreeing = 0;
        self.instead = f32::NAN;
    }

    fn without_measurement(&mut self, watch: &Watch) -> Option<Finding> {
        if self.silent_us < watch.measurement_us {
            return None;
        }
        self.known = false;
        Some(match self.doubt {
            Some(Doubt { value, low, high }) => Finding::of(Fault::ImplausibleReading, value, low, high),
            None => {
                let seconds = |us: u32| us as f32 * 1e-6;
                Finding::of(Fault::MeasurementFailed, seconds(self.age_us), 0.0, seconds(watch.measurement_us))
            }
        })
    }

    fn alarm(&mut self, reading: &Reading) -> Option<Finding> {
        let alarms = reading.alarms?;
        if !agree(&mut self.alarms, !alarms.is_empty()) {
            return None;
        }
        let Alarms(cause) = alarms;
        let report = FaultReport { cause, ..FaultReport::of(Fault::ServoAlarm) };
        Some(Finding { report: report.bounds(f32::from(cause), 0.0, 0.0), release: false })
    }

    fn temperature(&mut self, reading: &Reading, joint: &JointSpec) -> Option<Finding> {
        let (limit, celsius) = (joint.temperature?, reading.temperature_c?);
        let (stop, release) = (f32::from(limit.stop_c), f32::from(limit.release_c));
        let hot = agree(&mut self.hot, celsius >= stop);
        let too_hot = agree(&mut self.too_hot, celsius >= release);
        let found = Finding::of(Fault::Overheated, celsius, f32::MIN, stop);
        hot.then_some(Finding { release: too_hot, ..found })
    }

    fn voltage(&mut self, reading: &Reading, joint: &JointSpec) -> Option<Finding> {
        let ([low, high], volts) = (joint.voltage?, reading.voltage_v?);
        let outside = agree(&mut self.voltage, !(low <= volts && volts <= high));
        outside.then_some(Finding::of(Fault::VoltageOutOfRange, volts, low, high))
    }

    fn overload(&mut self, joint: &JointSpec, watch: &Watch) -> Option<Finding> {
        let (limit, current_a) = (joint.overload?, self.current_a?);
        let over = current_a > limit.current_a;
        let lasts = lasts(&mut self.overload_us, over, watch.counted_us, limit.time_ms);
        lasts.then_some(Finding::of(Fault::Overload, current_a, 0.0, limit.current_a))
    }

    fn stall(&mut self, joint: &JointSpec, watch: &Watch) -> Option<Finding> {
        let limit = joint.stall?;
        let error = watch.goal.map_or(0.0, |goal| (goal - self.measured).abs());
        let moved = (self.measured - self.still_at).abs() > limit.motion;
        let pulls = self.current_a.is_none_or(|current_a| current_a >= limit.current_a);
        let stalled = error > limit.error && pulls && !moved;
        if !stalled {
            self.still_at = self.measured;
        }
        let lasts = lasts(&mut self.still_us, stalled, watch.counted_us, limit.time_ms);
        lasts.then_some(Finding::of(Fault::Stalled, error, 0.0, limit.error))
    }

    fn following(&mut self, joint: &JointSpec, watch: &Watch) -> Option<Finding> {
        let limit = joint.following?;
        let error = watch.goal.map_or(0.0, |goal| (goal - self.measured).abs());
        let lasts = lasts(&mut self.following_us, error > limit.error, watch.counted_us, limit.time_ms);
        lasts.then_some(Finding::of(Fault::FollowingError, error, 0.0, limit.error))
    }
}

/// Counts consecutive readings with `bad`; returns whether there are enough.
fn agree(count: &mut u8, bad: bool) -> bool {
    *count = if bad { count.saturating_add(1) } else { 0 };
    *count >= AGREEING
}

/// Sums the time for which `bad` lasts; returns whether the limit is reached.
fn lasts(sum_us: &mut u32, bad: bool, tick_us: u32, limit_ms: u16) -> bool {
    *sum_us = if bad { sum_us.saturating_add(tick_us) } else { 0 };
    *sum_us >= u32::from(limit_ms).saturating_mul(1_000)
}
