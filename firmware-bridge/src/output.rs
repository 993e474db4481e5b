//! What drives the joints and what stops them.

use core::convert::Infallible;

use embedded_hal::digital::{ErrorType, InputPin};
use embedded_hal::pwm::SetDutyCycle;

/// The joints' driver. Vectors hold one value per joint in the joints' units.
pub trait JointOutput {
    /// Why a driver could not do what it was told.
    type Error;

    /// Writes the measured positions into `positions`.
    ///
    /// # Errors
    /// The driver's error; the controller then latches a fault.
    fn measure(&mut self, positions: &mut [f32]) -> Result<(), Self::Error>;

    /// Drives the joints towards `positions`, which are within all limits.
    ///
    /// # Errors
    /// The driver's error; the controller then latches a fault.
    fn command(&mut self, positions: &[f32]) -> Result<(), Self::Error>;

    /// Lets the joints go: no torque until the next command.
    ///
    /// # Errors
    /// The driver's error; the controller then latches a fault.
    fn release(&mut self) -> Result<(), Self::Error>;
}

/// An emergency stop line which is never open: a robot without one.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoEstop;

impl ErrorType for NoEstop {
    type Error = Infallible;
}

impl InputPin for NoEstop {
    fn is_high(&mut self) -> Result<bool, Self::Error> {
        Ok(true)
    }

    fn is_low(&mut self) -> Result<bool, Self::Error> {
        Ok(false)
    }
}

/// How a servo's pulse follows its joint's position, linearly between two points.
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

/// Hobby servos on PWM channels. They measure nothing: the last command counts as measured.
#[derive(Debug)]
pub struct PwmServos<P, const N: usize> {
    channels: [P; N],
    ranges: [PulseRange; N],
    period_us: f32,
    last: [f32; N],
}

impl<P: SetDutyCycle, const N: usize> PwmServos<P, N> {
    /// Servos on `channels` whose PWM period is `period_us` microseconds, resting at `rest`.
    pub fn new(channels: [P; N], ranges: [PulseRange; N], period_us: f32, rest: [f32; N]) -> Self {
        Self { channels, ranges, period_us, last: rest }
    }
}

impl<P: SetDutyCycle, const N: usize> JointOutput for PwmServos<P, N> {
    type Error = P::Error;

    fn measure(&mut self, positions: &mut [f32]) -> Result<(), Self::Error> {
        for (to, from) in positions.iter_mut().zip(&self.last) {
            *to = *from;
        }
        Ok(())
    }

    fn command(&mut self, positions: &[f32]) -> Result<(), Self::Error> {
        let servos = self.channels.iter_mut().zip(&self.ranges).zip(&mut self.last);
        for (((channel, range), last), position) in servos.zip(positions) {
            let share = (position - range.low) / (range.high - range.low);
            let pulse_us = range.low_us + share * (range.high_us - range.low_us);
            let full = channel.max_duty_cycle();
            // A cast of a float saturates, and makes 0, an idle line, of NaN.
            let duty = (pulse_us / self.period_us * f32::from(full)) as u16;
            channel.set_duty_cycle(duty.min(full))?;
            *last = *position;
        }
        Ok(())
    }

    fn release(&mut self) -> Result<(), Self::Error> {
        for channel in &mut self.channels {
            channel.set_duty_cycle_fully_off()?;
        }
        Ok(())
    }
}
