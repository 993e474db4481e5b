//! Injected faults that the control loop itself applies.

use firmware_bridge::sim::Defects;

use super::run::Shell;
use crate::clock::jump;
use crate::fault::Kind;
use crate::wall::set_wall;

impl Shell {
    /// Applies the injected faults of the clocks, of the log and of the simulated controller.
    pub(super) fn inject_faults(&mut self) {
        let faults = &self.sinks.faults;
        self.faulty_log.tick(faults);
        if let Some(seconds) = faults.once(Kind::ClockJump) {
            jump((seconds * 1e9) as i64);
        }
        if let Some(seconds) = faults.once(Kind::WallClock) {
            set_wall((seconds * 1e9) as i64);
        }
        if faults.once(Kind::ControllerReset).is_some()
            && let Some(sim) = &self.sim
        {
            sim.reset();
        }
        if faults.first(Kind::is_of_controller).is_some()
            && let Some(sim) = &self.sim
        {
            if let Some(position) = faults.once(Kind::WrongReading) {
                sim.misread_once(None, position as f32);
            }
            sim.set_defects(Defects {
                joint: None,
                reading: faults.now(Kind::StuckReading, None).map(|position| position as f32),
                stalled: faults.now(Kind::StalledJoint, None).is_some(),
                temperature_c: faults.now(Kind::HotMotor, None).map(|celsius| celsius as f32),
            });
        }
    }
}
