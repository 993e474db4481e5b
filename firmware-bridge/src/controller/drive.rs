//! One tick's motion.

use embedded_hal::digital::InputPin;

use super::Controller;
use crate::joint::{JointSpec, JointVec};
use crate::message::{Fault, Mode};
use crate::motion::{Setpoint, brake, follow, within};
use crate::output::JointOutput;

impl<J: JointOutput, E: InputPin> Controller<J, E> {
    pub(super) fn measure(&mut self) {
        let mut fresh = self.measured;
        self.measured_good =
            self.output.measure(fresh.as_mut_slice()).is_ok() && fresh.as_slice().iter().all(|value| value.is_finite());
        if self.measured_good {
            self.measured = fresh;
        }
    }

    pub(super) fn adopt_measured(&mut self) {
        for (at, measured) in self.setpoints.iter_mut().zip(self.measured.as_slice()) {
            *at = Setpoint { position: *measured, velocity: 0.0 };
        }
    }

    pub(super) fn release(&mut self) {
        self.release_at_rest = false;
        if self.energised {
            self.energised = false;
            if self.output.release().is_err() {
                self.fault(Fault::OutputFailed);
            }
        }
        self.adopt_measured();
    }

    /// One tick of the joints: chooses the chunk, moves the setpoints, and ends a stop at rest.
    pub(super) fn step(&mut self, now_us: u64) {
        let dt_s = self.config.tick_us.max(1) as f32 * 1e-6;
        if self.next.has_started(now_us) {
            core::mem::swap(&mut self.current, &mut self.next);
            self.next.clear();
        }
        let sample = if self.is_armed() { self.current.sample(now_us) } else { None };
        if let Some(sample) = &sample {
            self.mode = Mode::Active;
            self.progress = Some(sample.progress);
        } else if self.mode == Mode::Active {
            self.mode = Mode::Holding;
            self.progress = Some(self.current.ended(now_us));
            self.current.clear();
            self.begin_ramp();
        }
        if self.mode == Mode::Holding && self.progress.is_some() {
            self.starved = self.starved.wrapping_add(1);
        }

        if !self.energised {
            self.adopt_measured();
        } else {
            let mut path = sample.iter().flat_map(|sample| &sample.path);
            let joints = self.config.joints.as_slice().iter().zip(self.measured.as_slice());
            let setpoints = self.setpoints.iter_mut().zip(&self.decelerations);
            for ((joint, measured), (at, deceleration)) in joints.zip(setpoints) {
                let (mut next, mut limited) = match path.next() {
                    Some(point) => follow(*at, point, joint, dt_s),
                    None => (brake(*at, joint, dt_s, *deceleration), false),
                };
                if self.measured_good {
                    limited |= keep_near(&mut next, *at, *measured, joint, dt_s);
                }
                self.clamps = self.clamps.wrapping_add(u32::from(limited));
                *at = next;
            }
        }

        if self.is_at_rest() {
            if self.mode == Mode::Stopping {
                self.mode = self.stop_to;
            }
            if self.release_at_rest {
                self.release();
            }
        }
    }

    /// Sends the joints to their setpoints.
    pub(super) fn command(&mut self) {
        if !self.energised {
            return;
        }
        let mut commanded = JointVec::zeros(self.config.joints.len());
        for (to, from) in commanded.as_mut_slice().iter_mut().zip(&self.setpoints) {
            *to = from.position;
        }
        if self.output.command(commanded.as_slice()).is_err() {
            self.fault(Fault::OutputFailed);
        }
    }
}

/// Keeps a setpoint within the joint's jump of the measured pose; whether it had to.
fn keep_near(next: &mut Setpoint, at: Setpoint, measured: f32, joint: &JointSpec, dt_s: f32) -> bool {
    let near = within(next.position, measured - joint.jump, measured + joint.jump);
    if near == next.position {
        return false;
    }
    let velocity = (near - at.position) / dt_s;
    *next = Setpoint { position: near, velocity: within(velocity, -joint.velocity, joint.velocity) };
    true
}
