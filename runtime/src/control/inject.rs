//! Faults on purpose that the control loop itself brings about.

use firmware_bridge::sim::Defects;

use super::run::Loop;
use crate::clock::{jump, set_wall};
use crate::fault::Kind;

impl Loop {
    /// Brings about the faults on purpose of the clocks, of the log and of the simulated controller.
    pub(super) fn inject_faults(&mut self) {
        self.faulty_log.tick(&self.faults);
        if let Some(seconds) = self.faults.once(Kind::ClockJump) {
            jump((seconds * 1e9) as i64);
        }
        if let Some(seconds) = self.faults.once(Kind::WallClock) {
            set_wall((seconds * 1e9) as i64);
        }
        if self.faults.once(Kind::ControllerReset).is_some()
            && let Some(sim) = &self.sim
        {
            sim.reset();
        }
        if self.faults.first(Kind::is_of_controller).is_some()
            && let Some(sim) = &self.sim
        {
            if let Some(position) = self.faults.once(Kind::WrongReading) {
                sim.misread_once(None, position as f32);
            }
            sim.set_defects(Defects {
                joint: None,
                reading: self.faults.now(Kind::StuckReading, None).map(|position| position as f32),
                stalled: self.faults.now(Kind::StalledJoint, None).is_some(),
                temperature_c: self.faults.now(Kind::HotMotor, None).map(|celsius| celsius as f32),
            });
        }
    }
}
