//! Joints without motors or encoders: a model of their positions.

use super::{JointOutput, OutputError, Reading};
use crate::joint::{JointTable, JointVec};
use crate::motion::within;

/// Joints that follow their command with a first-order lag and their own top speed. Released joints keep their
/// positions.
#[derive(Debug, Clone)]
pub struct SimulatedJoints {
    positions: JointVec,
    /// The commanded positions; `None` while the joints are released.
    commands: Option<JointVec>,
    velocities: JointVec,
    lag_s: f32,
}

impl SimulatedJoints {
    /// `joints` at `initial`, with the time constant `lag_s` of their lag in seconds; 0 is without lag. Joints without
    /// an initial position start at 0.
    pub fn new(joints: &JointTable, initial: &[f32], lag_s: f32) -> Self {
        let mut positions = JointVec::zeros(joints.len());
        let mut velocities = positions;
        for (to, from) in positions.as_mut_slice().iter_mut().zip(initial) {
            *to = *from;
        }
        for (to, joint) in velocities.as_mut_slice().iter_mut().zip(joints.as_slice()) {
            *to = joint.velocity;
        }
        Self { positions, commands: None, velocities, lag_s: lag_s.max(1e-6) }
    }

    /// Positions in joint order.
    pub fn positions(&self) -> &[f32] {
        self.positions.as_slice()
    }

    /// Moves the joints by hand to `positions`.
    pub fn place(&mut self, positions: &[f32]) {
        for (to, from) in self.positions.as_mut_slice().iter_mut().zip(positions) {
            *to = *from;
        }
    }

    /// Advances the model by `dt_s` seconds.
    pub fn step(&mut self, dt_s: f32) {
        let Some(commands) = &self.commands else { return };
        let share = (dt_s / self.lag_s).min(1.0);
        let joints = self.positions.as_mut_slice().iter_mut().zip(commands.as_slice());
        for ((position, command), velocity) in joints.zip(self.velocities.as_slice()) {
            let reach = velocity * dt_s;
            *position += within((command - *position) * share, -reach, reach);
        }
    }
}

impl JointOutput for SimulatedJoints {
    fn measure(&mut self, readings: &mut [Reading]) -> Result<(), OutputError> {
        for (to, from) in readings.iter_mut().zip(self.positions.as_slice()) {
            to.position = Some(*from);
        }
        Ok(())
    }

    fn command(&mut self, positions: &[f32]) -> Result<(), OutputError> {
        self.commands = JointVec::from_slice(positions);
        Ok(())
    }

    fn release(&mut self) -> Result<(), OutputError> {
        self.commands = None;
        Ok(())
    }
}
