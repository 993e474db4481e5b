//! Hobby servos on PWM channels of `embedded-hal`.

use embedded_hal::pwm::SetDutyCycle;

use super::JointOutput;

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
