//! Drivers of the joints: motion, measurement and emergency stop.

use crate::fault::Alarms;

mod bus;
mod estop;
mod pwm;
mod servo;
mod simulated;

pub use bus::{BusServo, ServoBus};
pub use estop::{NoEstop, StopChannels, StopCircuit, TwoChannels};
pub use pwm::{PulseRange, PwmServos};
pub use servo::{Content, Dynamixel2, FeetechSts, Health, Packet, Received, ServoProtocol, Status};
pub use simulated::SimulatedJoints;

/// A driver's readings of one joint since the last call; `None` if there is none.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Reading {
    /// Position in the joint's unit. The controller decides whether the joint can have reached it.
    pub position: Option<f32>,
    /// Current of the motor in ampere.
    pub current_a: Option<f32>,
    /// Temperature of the motor in degrees Celsius.
    pub temperature_c: Option<f32>,
    /// Supply voltage in volts.
    pub voltage_v: Option<f32>,
    /// The servo's own alarms.
    pub alarms: Option<Alarms>,
}

/// The failed part of a joints' driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputError {
    /// A part common to all joints, such as a bus.
    All,
    /// One joint, by its index in the table.
    Joint(u8),
}

/// The joints' driver. Slices hold one value per joint, in the table's order and units.
pub trait JointOutput {
    /// Writes the readings since the last call into `readings`, which are all empty before. A joint without new
    /// readings stays empty: the controller limits its silence.
    ///
    /// # Errors
    /// The driver cannot measure; the controller then latches a fault.
    fn measure(&mut self, readings: &mut [Reading]) -> Result<(), OutputError>;

    /// Drives the joints towards `positions`, which are within all limits.
    ///
    /// # Errors
    /// A command failed; the controller then latches a fault.
    fn command(&mut self, positions: &[f32]) -> Result<(), OutputError>;

    /// Releases the joints: no torque until the next command.
    ///
    /// # Errors
    /// The joints may still be driven; the controller then latches a fault.
    fn release(&mut self) -> Result<(), OutputError>;
}
