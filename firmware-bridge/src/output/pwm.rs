//! Hobby servos on PWM channels of `embedded-hal`.

use embedded_hal::pwm::SetDutyCycle;

use super::{JointOutput, OutputError, Reading};

/// The linear relation of a servo's pulse to its joint's position, given by two points.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PulseRange {
    /// Position at [`PulseRange::low_us`].
    pub low: f32,
    /// Position at [`PulseRange::high_us`]; not equal to `low`.
    pub high: f32,
    /// Pulse at `low` in microseconds.
    pub low_us: f32,
    /// Pulse at `high` in microseconds.
    pub high_us: f32,
}

/// Hobby servos on PWM channels. They have no feedback: the last command counts as measured.
///
/// The position of such a servo is unknown when its pulses start: the first command after power-on or a release moves
/// it to the last commanded position, at first `rest`, at its own speed. Place the arm there before arming.
#[derive(Debug)]
pub struct PwmServos<P, const N: usize> {
    channels: [P; N],
    ranges: [PulseRange; N],
    period_us: f32,
    last: [f32; N],
}

impl<P: SetDutyCycle, const N: usize> PwmServos<P, N> {
    /// Servos on `channels` whose PWM period is `period_us` microseconds, with the rest position `rest`.
    pub fn new(channels: [P; N], ranges: [PulseRange; N], period_us: f32, rest: [f32; N]) -> Self {
        Self { channels, ranges, period_us, last: rest }
    }
}

impl<P: SetDutyCycle, const N: usize> JointOutput for PwmServos<P, N> {
    fn measure(&mut self, readings: &mut [Reading]) -> Result<(), OutputError> {
        for (to, from) in readings.iter_mut().zip(&self.last) {
            to.position = Some(*from);
        }
        Ok(())
    }

    fn command(&mut self, positions: &[f32]) -> Result<(), OutputError> {
        let servos = self.channels.iter_mut().zip(&self.ranges).zip(&mut self.last).zip(0..);
        let mut commanded = Ok(());
        for ((((channel, range), last), joint), position) in servos.zip(positions) {
            let share = (position - range.low) / (range.high - range.low);
            let pulse_us = range.low_us + share * (range.high_us - range.low_us);
            let full = channel.max_duty_cycle();
            // A cast of a float saturates; NaN becomes 0, an idle line.
            let duty = (pulse_us / self.period_us * f32::from(full)) as u16;
            match channel.set_duty_cycle(duty.min(full)) {
                Ok(()) => *last = *position,
                Err(_) => commanded = commanded.and(Err(OutputError::Joint(joint))),
            }
        }
        commanded
    }

    fn release(&mut self) -> Result<(), OutputError> {
        let mut released = Ok(());
        for (channel, joint) in self.channels.iter_mut().zip(0..) {
            if channel.set_duty_cycle_fully_off().is_err() {
                released = released.and(Err(OutputError::Joint(joint)));
            }
        }
        released
    }
}
