//! The simulated joints and the stop line from the controller's side, shared with their user.

use core::convert::Infallible;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::vec::Vec;

use embedded_hal::digital::{ErrorType, InputPin};

use super::{Defects, Switches, lock};
use crate::output::{JointOutput, OutputError, Reading, SimulatedJoints};

/// The joints and their defects.
#[derive(Debug)]
pub(super) struct Plant {
    pub(super) joints: SimulatedJoints,
    pub(super) defects: Defects,
    /// The reading of one joint's sensor, or of all, in the next tick.
    pub(super) misread: Option<(Option<usize>, f32)>,
    /// A joint that something stops, and the position that it cannot exceed.
    pub(super) stop: Option<(usize, f32)>,
}

impl Plant {
    pub(super) fn new(joints: SimulatedJoints) -> Self {
        Self { joints, defects: Defects::default(), misread: None, stop: None }
    }

    pub(super) fn step(&mut self, dt_s: f32) {
        let before: Vec<f32> = self.joints.positions().into();
        self.joints.step(dt_s);
        if self.defects.stalled {
            let after = self.joints.positions().iter().zip(before).enumerate();
            let blocked: Vec<f32> =
                after.map(|(joint, (after, before))| if self.defects.is_of(joint) { before } else { *after }).collect();
            self.joints.place(&blocked);
        }
        if let Some((joint, most)) = self.stop {
            let mut stopped: Vec<f32> = self.joints.positions().into();
            if let Some(position) = stopped.get_mut(joint) {
                *position = position.min(most);
            }
            self.joints.place(&stopped);
        }
    }
}

/// The controller's driver of the joints.
pub(super) struct PlantOutput {
    plant: Arc<Mutex<Plant>>,
}

impl PlantOutput {
    pub(super) fn new(plant: Arc<Mutex<Plant>>) -> Self {
        Self { plant }
    }
}

impl JointOutput for PlantOutput {
    fn measure(&mut self, readings: &mut [Reading]) -> Result<(), OutputError> {
        let mut plant = lock(&self.plant);
        plant.joints.measure(readings)?;
        let misread = plant.misread.take();
        for (joint, reading) in readings.iter_mut().enumerate() {
            if plant.defects.is_of(joint) {
                reading.position = plant.defects.reading.or(reading.position);
                reading.temperature_c = plant.defects.temperature_c;
            }
            if let Some((_, wrong)) = misread.filter(|(of, _)| of.is_none_or(|of| of == joint)) {
                reading.position = Some(wrong);
            }
        }
        Ok(())
    }

    fn command(&mut self, positions: &[f32]) -> Result<(), OutputError> {
        lock(&self.plant).joints.command(positions)
    }

    fn release(&mut self) -> Result<(), OutputError> {
        lock(&self.plant).joints.release()
    }
}

/// The emergency stop line: high unless it is opened.
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
