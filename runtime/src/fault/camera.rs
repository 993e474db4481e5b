//! A camera that fails.

use std::thread;
use std::time::Duration;

use super::{Dice, Faults, Kind};
use crate::camera::{Camera, CameraError, Image};
use crate::clock::{duration_ns, monotonic_ns};

/// Any camera, with the faults of its view.
pub(crate) struct FaultyCamera {
    inner: Box<dyn Camera>,
    view: String,
    faults: Faults,
    dice: Dice,
    unplugged: bool,
}

impl FaultyCamera {
    pub(crate) fn new(inner: Box<dyn Camera>, view: &str, faults: Faults) -> FaultyCamera {
        FaultyCamera { inner, dice: Dice::new(view), view: view.to_owned(), faults, unplugged: false }
    }

    fn now(&self, kind: Kind) -> Option<f64> {
        self.faults.now(kind, Some(&self.view))
    }

    fn device(&self) -> String {
        format!("view {}", self.view)
    }
}

impl Camera for FaultyCamera {
    fn describe(&self) -> String {
        format!("{}, with faults", self.inner.describe())
    }

    fn capture(&mut self, into: &mut Image, timeout: Duration) -> Result<(), CameraError> {
        let deadline_ns = monotonic_ns().saturating_add(duration_ns(timeout));
        loop {
            if self.now(Kind::CameraUnplug).is_some() {
                let device = self.device();
                return Err(match std::mem::replace(&mut self.unplugged, true) {
                    false => CameraError::Unplugged { device },
                    true => CameraError::Absent { device },
                });
            }
            self.unplugged = false;
            if monotonic_ns() >= deadline_ns {
                return Err(CameraError::Silent { device: self.device(), timeout });
            }
            if self.now(Kind::CameraStall).is_some() {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            self.inner.capture(into, timeout)?;
            // What happened while the image was on its way.
            if self.now(Kind::CameraUnplug).is_some() || self.now(Kind::CameraStall).is_some() {
                continue;
            }
            if self.now(Kind::CameraDrop).is_some_and(|share| self.dice.hits(share)) {
                continue;
            }
            if self.now(Kind::CameraCorrupt).is_some_and(|share| self.dice.hits(share)) {
                into.data.truncate(into.data.len() / 2);
            }
            return Ok(());
        }
    }

    fn true_depth(&self) -> Option<&[f32]> {
        self.inner.true_depth()
    }
}
