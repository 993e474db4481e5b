//! Simulated joints: a first-order lag behind the command, with the joints' top speed.

use core::convert::Infallible;

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::vec::Vec;

use embedded_hal::digital::{ErrorType, InputPin};

use super::{SimConfig, Switches, lock};
use crate::motion::within;
use crate::output::JointOutput;

#[derive(Debug)]
pub(super) struct Plant {
    positions: Vec<f32>,
    /// Where the joints are driven; where they are when nothing drives them.
    commands: Vec<f32>,
    velocities: Vec<f32>,
    lag_s: f32,
    driven: bool,
}

impl Plant {
    pub(super) fn new(config: &SimConfig) -> Self {
        let positions: Vec<f32> = config.joints.iter().map(|joint| joint.initial).collect();
        Self {
            commands: positions.clone(),
            positions,
            velocities: config.joints.iter().map(|joint| joint.velocity).collect(),
            lag_s: config.lag_s.max(1e-6),
            driven: false,
        }
    }

    pub(super) fn positions(&self) -> &[f32] {
        &self.positions
    }

    pub(super) fn place(&mut self, positions: &[f32]) {
        for (to, from) in self.positions.iter_mut().zip(positions) {
            *to = *from;
        }
    }

    /// Lets `dt_s` seconds pass.
    pub(super) fn step(&mut self, dt_s: f32) {
        if !self.driven {
            return;
        }
        let share = (dt_s / self.lag_s).min(1.0);
        let joints = self.positions.iter_mut().zip(&self.commands);
        for ((position, command), velocity) in joints.zip(&self.velocities) {
            let reach = velocity * dt_s;
            *position += within((command - *position) * share, -reach, reach);
        }
    }
}

/// The controller's way to the joints.
pub(super) struct PlantOutput {
    plant: Arc<Mutex<Plant>>,
}

impl PlantOutput {
    pub(super) fn new(plant: Arc<Mutex<Plant>>) -> Self {
        Self { plant }
    }
}

impl JointOutput for PlantOutput {
    type Error = Infallible;

    fn measure(&mut self, positions: &mut [f32]) -> Result<(), Infallible> {
        for (to, from) in positions.iter_mut().zip(lock(&self.plant).positions()) {
            *to = *from;
        }
        Ok(())
    }

    fn command(&mut self, positions: &[f32]) -> Result<(), Infallible> {
        let mut plant = lock(&self.plant);
        plant.driven = true;
        for (to, from) in plant.commands.iter_mut().zip(positions) {
            *to = *from;
        }
        Ok(())
    }

    fn release(&mut self) -> Result<(), Infallible> {
        lock(&self.plant).driven = false;
        Ok(())
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
