//! The simulated joints and the stop line as the controller sees them, shared with the outside.

use core::convert::Infallible;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use embedded_hal::digital::{ErrorType, InputPin};

use super::{Switches, lock};
use crate::output::{JointOutput, SimulatedJoints};

/// The controller's way to the joints.
pub(super) struct PlantOutput {
    plant: Arc<Mutex<SimulatedJoints>>,
}

impl PlantOutput {
    pub(super) fn new(plant: Arc<Mutex<SimulatedJoints>>) -> Self {
        Self { plant }
    }
}

impl JointOutput for PlantOutput {
    type Error = Infallible;

    fn measure(&mut self, positions: &mut [f32]) -> Result<(), Infallible> {
        lock(&self.plant).measure(positions)
    }

    fn command(&mut self, positions: &[f32]) -> Result<(), Infallible> {
        lock(&self.plant).command(positions)
    }

    fn release(&mut self) -> Result<(), Infallible> {
        lock(&self.plant).release()
    }
}

/// The emergency stop line: high while nobody has opened it.
pub(super) struct EstopLine {
    switches: Arc<Switches>,
}

impl EstopLine {
    pub(super) fn new(switches: Arc<Switches>) -> Self {
        Self { switches }
    }
}

impl ErrorType for EstopLine {
    type Error = Infallible;
}

impl InputPin for EstopLine {
    fn is_high(&mut self) -> Result<bool, Infallible> {
        Ok(!self.switches.estop.load(Ordering::Relaxed))
    }

    fn is_low(&mut self) -> Result<bool, Infallible> {
        Ok(self.switches.estop.load(Ordering::Relaxed))
    }
}
