//! Checks of `robot.toml`: the limits of every number, and values that depend on each other.

use std::fmt::Display;
use std::str::FromStr;

use super::{CameraSource, ChunkSection, ControlSection, RecordSection, RobotConfig};
use crate::action::ChunkPolicy;
use crate::bounds::{self, Bounds};

/// A value that no robot can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}, found {found}")]
pub struct ValueError {
    /// The key.
    pub field: String,
    /// The accepted values.
    pub expected: String,
    /// The value.
    pub found: String,
}

fn within<T: Copy + Display + FromStr + PartialOrd>(
    field: impl Display,
    bounds: &Bounds<T>,
    value: T,
) -> Result<(), ValueError> {
    let refuse = |e: bounds::OutOfBounds| ValueError { field: field.to_string(), expected: e.expected, found: e.found };
    bounds.check(value).map(drop).map_err(refuse)
}

fn refuse(field: &str, expected: &str, found: &str) -> Result<(), ValueError> {
    Err(ValueError { field: field.to_owned(), expected: expected.to_owned(), found: found.to_owned() })
}

impl RobotConfig {
    /// Checks every value. Accepted values cannot overflow later.
    ///
    /// # Errors
    /// The first [`ValueError`].
    pub fn check(&self) -> Result<(), ValueError> {
        match (&self.model.prompt, &self.model.tokens) {
            (Some(_), Some(_)) => refuse("model", "either prompt or tokens", "both")?,
            (None, None) => refuse("model", "either prompt or tokens", "neither")?,
            _ => {}
        }
        within("model.seed", &bounds::SEED, self.model.seed)?;
        within("scene.seed", &bounds::SEED, self.scene.seed)?;
        self.control.check()?;
        self.chunks.check()?;
        if let Some(record) = &self.record {
            within("record.limit_mb", &bounds::RECORD_MB, record.limit_mb)?;
        }
        within("link.baud", &bounds::BAUD, self.link.baud)?;
        if !self.link.is_simulated() && self.link.joints.is_empty() {
            refuse("link.joints", "the names of the controller's joints", "none")?;
        }
        self.cameras.iter().enumerate().try_for_each(|(index, camera)| camera.source.check(index))
    }
}

impl ControlSection {
    fn check(&self) -> Result<(), ValueError> {
        within("control.action_rate_hz", &bounds::ACTION_RATE_HZ, self.action_rate_hz)?;
        within("control.tick_rate_hz", &bounds::TICK_RATE_HZ, self.tick_rate_hz)?;
        within("control.max_image_age_ms", &bounds::IMAGE_AGE_MS, self.max_image_age_ms)?;
        within("control.max_image_skew_ms", &bounds::IMAGE_SKEW_MS, self.max_image_skew_ms)?;
        within("control.realtime_priority", &bounds::REALTIME_PRIORITY, self.realtime_priority)
    }

    /// Time between two steps of a chunk.
    pub fn period_us(&self) -> u32 {
        (1e6 / self.action_rate_hz) as u32
    }

    /// Time between two control ticks.
    pub fn tick_ns(&self) -> u64 {
        (1e9 / self.tick_rate_hz) as u64
    }

    /// Age of an image beyond which the loop holds.
    pub fn max_image_age_ns(&self) -> u64 {
        self.max_image_age_ms.saturating_mul(1_000_000)
    }

    /// Time between the images of two cameras beyond which the loop holds.
    pub fn max_image_skew_ns(&self) -> u64 {
        self.max_image_skew_ms.saturating_mul(1_000_000)
    }
}

impl ChunkSection {
    fn check(&self) -> Result<(), ValueError> {
        within("chunks.replan_steps", &bounds::REPLAN_STEPS, self.replan_steps)?;
        within("chunks.validity_ms", &bounds::VALIDITY_MS, self.validity_ms)?;
        if let Some(steps) = self.execution_horizon {
            within("chunks.execution_horizon", &bounds::EXECUTION_HORIZON, steps)?;
        }
        match self.policy {
            ChunkPolicy::Replace => Ok(()),
            ChunkPolicy::Ensemble { decay } => within("chunks.policy.decay", &bounds::ENSEMBLE_DECAY, decay),
            ChunkPolicy::Rtc { horizon, max_guidance, .. } => {
                within("chunks.policy.horizon", &bounds::RTC_HORIZON, horizon)?;
                within("chunks.policy.max_guidance", &bounds::RTC_GUIDANCE, max_guidance)
            }
        }
    }

    /// No step is followed later than this after the images were taken.
    pub fn validity_us(&self) -> u64 {
        self.validity_ms.saturating_mul(1000)
    }
}

impl RecordSection {
    /// How much of the folder may be taken.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_mb.saturating_mul(1 << 20)
    }
}

impl CameraSource {
    fn check(&self, index: usize) -> Result<(), ValueError> {
        let field = |name: &str| format!("camera[{index}].source.{name}");
        match self {
            #[cfg(feature = "v4l")]
            CameraSource::V4l(v4l) => {
                within(field("width"), &bounds::CAMERA_PIXELS, v4l.width)?;
                within(field("height"), &bounds::CAMERA_PIXELS, v4l.height)?;
                v4l.rate_hz.map_or(Ok(()), |rate| within(field("rate_hz"), &bounds::CAMERA_RATE_HZ, rate))
            }
            CameraSource::Folder(folder) => pictures(field("rate_hz"), folder.rate_hz),
            CameraSource::Scene(scene) => pictures(field("rate_hz"), scene.rate_hz),
        }
    }
}

/// Checks the rate of a camera of pictures.
fn pictures(field: String, rate_hz: f32) -> Result<(), ValueError> {
    if rate_hz == 0.0 { Ok(()) } else { within(field, &bounds::PICTURE_RATE_HZ, rate_hz) }
}
