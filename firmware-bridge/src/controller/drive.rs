//! One tick's measurement and motion.

use super::Controller;
use super::monitor::Watch;
use crate::MAX_JOINTS;
use crate::fault::{Fault, FaultReport};
use crate::joint::JointVec;
use crate::message::Mode;
use crate::motion::{Setpoint, brake, follow};
use crate::output::{JointOutput, OutputError, Reading, StopCircuit};

impl<J: JointOutput, E: StopCircuit> Controller<J, E> {
    /// Takes the joints' readings, and latches any fault that they show.
    pub(super) fn measure(&mut self, elapsed_us: u32, counted_us: u32) {
        let mut readings = [Reading::default(); MAX_JOINTS];
        let readings = readings.get_mut(..usize::from(self.config.joints.len())).unwrap_or(&mut []);
        let measured = self.output.measure(readings);
        let armed = matches!(self.mode, Mode::Holding | Mode::Active | Mode::Stopping);
        let energised = self.energised;
        let measurement_us = self.config.measurement_us;
        let joints = self.config.joints.as_slice().iter().zip(&self.setpoints);
        let mut first = None;
        let mut release = false;
        for (index, (reading, (monitor, (joint, at)))) in
            readings.iter().zip(self.monitors.iter_mut().zip(joints)).enumerate()
        {
            let goal = energised.then_some(at.position);
            let watch = Watch { elapsed_us, counted_us, goal, armed, measurement_us };
            if let Some(finding) = monitor.take(reading, joint, &watch) {
                release |= finding.release;
                if first.is_none() {
                    first = Some(FaultReport { joint: u8::try_from(index).ok(), ..finding.report });
                }
            }
        }
        if let Err(error) = measured {
            self.output_fault(Fault::MeasurementFailed, error);
        }
        if let Some(report) = first {
            self.fault(report);
        }
        if release && energised {
            self.release();
        }
    }

    fn output_fault(&mut self, fault: Fault, error: OutputError) {
        let joint = match error {
            OutputError::All => None,
            OutputError::Joint(joint) => Some(joint),
        };
        self.fault(FaultReport { joint, ..FaultReport::of(fault) });
    }

    /// Makes the measured pose the goal, at rest.
    pub(super) fn adopt_measured(&mut self) {
        for (at, monitor) in self.setpoints.iter_mut().zip(&self.monitors) {
            *at = Setpoint { position: monitor.measured(), velocity: 0.0 };
        }
    }

    /// Releases the joints, driven or not.
    pub(super) fn release(&mut self) {
        self.release_at_rest = false;
        self.energised = false;
        if let Err(error) = self.output.release() {
            self.output_fault(Fault::OutputFailed, error);
        }
        self.adopt_measured();
    }

    /// One tick of the joints: selects the chunk, moves the setpoints, and ends a stop at rest.
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
            let joints = self.config.joints.as_slice().iter().zip(&self.monitors);
            let setpoints = self.setpoints.iter_mut().zip(&self.decelerations);
            for ((joint, monitor), (at, deceleration)) in joints.zip(setpoints) {
                let (next, limited) = match path.next() {
                    Some(point) => follow(*at, point, monitor.position(), joint, dt_s),
                    None => (brake(*at, joint, dt_s, *deceleration), false),
                };
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

    /// Commands the joints to their setpoints.
    pub(super) fn command(&mut self) {
        if !self.energised {
            return;
        }
        let mut commanded = JointVec::zeros(self.config.joints.len());
        for (to, from) in commanded.as_mut_slice().iter_mut().zip(&self.setpoints) {
            *to = from.position;
        }
        if let Err(error) = self.output.command(commanded.as_slice()) {
            self.output_fault(Fault::OutputFailed, error);
        }
    }
}
