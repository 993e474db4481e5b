//! What drives the joints and what stops them.

use core::convert::Infallible;

use embedded_hal::digital::{ErrorType, InputPin};

mod bus;
mod pwm;
mod servo;
mod simulated;

pub use bus::{BusError, BusServo, ServoBus};
pub use pwm::{PulseRange, PwmServos};
pub use servo::{Dynamixel2, FeetechSts, Packet, Received, ServoProtocol, Status};
pub use simulated::SimulatedJoints;

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
