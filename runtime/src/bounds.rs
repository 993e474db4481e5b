//! Limits of all numbers in `robot.toml` and in the programs' options.
//!
//! **Invariant:** values within these limits cannot overflow any product or sum. A number outside them is refused
//! before any device is opened; the error has its name, the range with its unit, and the value.

use std::fmt::Display;
use std::str::FromStr;

/// The range of a number, both ends included.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds<T> {
    /// The least.
    pub least: T,
    /// The greatest.
    pub most: T,
    /// The unit, or the counted thing.
    unit: &'static str,
    /// A further accepted value, or the reason for the limit.
    note: &'static str,
}

/// A number outside its limits.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, found {found}")]
pub struct OutOfBounds {
    /// The range, with its unit.
    pub expected: String,
    /// The value.
    pub found: String,
}

impl<T: Copy + Display + FromStr + PartialOrd> Bounds<T> {
    /// From `least` to `most` of a unit.
    pub const fn new(least: T, most: T, unit: &'static str) -> Bounds<T> {
        Bounds { least, most, unit, note: "" }
    }

    /// Adds a note to the error.
    const fn note(self, note: &'static str) -> Bounds<T> {
        Bounds { note, ..self }
    }

    /// The value if it is within the limits. NaN never is.
    ///
    /// # Errors
    /// [`OutOfBounds`].
    pub fn check(&self, value: T) -> Result<T, OutOfBounds> {
        if value >= self.least && value <= self.most { Ok(value) } else { Err(self.refuse(value.to_string())) }
    }

    /// Parses an option's text.
    ///
    /// # Errors
    /// [`OutOfBounds`].
    pub fn parse(&self, text: &str) -> Result<T, OutOfBounds> {
        match text.trim().parse() {
            Ok(value) => self.check(value).map_err(|_| self.refuse(text.to_owned())),
            Err(_) => Err(self.refuse(format!("{text:?}"))),
        }
    }

    fn refuse(&self, found: String) -> OutOfBounds {
        let space = if self.unit.is_empty() { "" } else { " " };
        let note = if self.note.is_empty() { String::new() } else { format!(" ({})", self.note) };
        OutOfBounds { expected: format!("{} to {}{space}{}{note}", self.least, self.most, self.unit), found }
    }
}

/// A parser of an option's text, for clap.
#[macro_export]
macro_rules! within {
    ($bounds:expr) => {
        |text: &str| $bounds.parse(text)
    };
}

/// `control.action_rate_hz`, and the rate of the latency tool's arm.
pub const ACTION_RATE_HZ: Bounds<f64> = Bounds::new(0.1, 1000.0, "Hz");
/// `control.tick_rate_hz`.
pub const TICK_RATE_HZ: Bounds<f64> = Bounds::new(20.0, 1000.0, "Hz").note("the ticks send the heartbeats");
/// `control.max_image_age_ms`.
pub const IMAGE_AGE_MS: Bounds<u64> = Bounds::new(1, 600_000, "ms");
/// `control.max_image_skew_ms`.
pub const IMAGE_SKEW_MS: Bounds<u64> = Bounds::new(0, 600_000, "ms");
/// `control.realtime_priority`: below the kernel's own threads, which have 50.
pub const REALTIME_PRIORITY: Bounds<u32> = Bounds::new(0, 49, "").note("0: none");
/// `chunks.validity_ms`.
pub const VALIDITY_MS: Bounds<u64> = Bounds::new(1, 600_000, "ms");
/// `chunks.replan_steps`.
pub const REPLAN_STEPS: Bounds<u32> = Bounds::new(0, 100_000, "steps").note("0: as soon as the model is idle");
/// `chunks.execution_horizon`.
pub const EXECUTION_HORIZON: Bounds<usize> = Bounds::new(1, 100_000, "steps").note("default: the whole chunk");
/// `chunks.policy.decay`.
pub const ENSEMBLE_DECAY: Bounds<f32> = Bounds::new(-10.0, 10.0, "");
/// `chunks.policy.horizon`.
pub const RTC_HORIZON: Bounds<usize> = Bounds::new(0, 100_000, "steps");
/// `chunks.policy.max_guidance`.
pub const RTC_GUIDANCE: Bounds<f32> = Bounds::new(1e-6, 1e6, "");
/// `record.limit_mb`.
pub const RECORD_MB: Bounds<u64> = Bounds::new(8, 100_000_000, "MB").note("the oldest files are deleted");
/// `link.baud`.
pub const BAUD: Bounds<u32> = Bounds::new(1200, 20_000_000, "bit/s");
/// `rate_hz` of a picture folder or of a scene's camera.
pub const PICTURE_RATE_HZ: Bounds<f32> = Bounds::new(0.01, 1000.0, "Hz").note("or 0: an image on each request");
/// `rate_hz` of a V4L2 camera.
pub const CAMERA_RATE_HZ: Bounds<u32> = Bounds::new(0, 1000, "Hz").note("0 or absent: the camera's default");
/// `width` and `height` of a camera.
pub const CAMERA_PIXELS: Bounds<u32> = Bounds::new(1, 16_384, "pixels");

/// Duration of a run.
pub const RUN_S: Bounds<f64> = Bounds::new(0.0, 1e9, "s").note("without the option the run has no time limit");
/// Start and duration of an injected fault.
pub const FAULT_S: Bounds<f64> = Bounds::new(0.0, 1e6, "s").note("without +FOR a fault lasts until the run ends");
/// Share of the images or bytes that a fault affects.
pub const FAULT_SHARE: Bounds<f64> = Bounds::new(0.0, 1.0, "").note("a share");
/// Delay that a fault adds to bytes.
pub const FAULT_DELAY_S: Bounds<f64> = Bounds::new(0.0, 600.0, "s");
/// Time that a fault adds to an inference.
pub const FAULT_SLOW_S: Bounds<f64> = Bounds::new(0.0, 3600.0, "s");
/// Jump of the clock.
pub const FAULT_JUMP_S: Bounds<f64> = Bounds::new(1e-3, 1e6, "s").note("CLOCK_MONOTONIC only moves forwards");
/// Change of the wall clock: at most a century.
pub const FAULT_WALL_CLOCK_S: Bounds<f64> = Bounds::new(-3.2e9, 3.2e9, "s");
/// Reading of a joint's sensor during a fault.
pub const FAULT_READING: Bounds<f64> = Bounds::new(-1e6, 1e6, "rad");
/// Temperature of a motor during a fault.
pub const FAULT_CELSIUS: Bounds<f64> = Bounds::new(-100.0, 1000.0, "°C");
/// Log lines that a fault writes in each tick of the loop.
pub const FAULT_LINES: Bounds<f64> = Bounds::new(0.0, 1000.0, "lines");

/// Time limit of one submission to the GPU.
pub const TIMEOUT_S: Bounds<u64> = Bounds::new(1, 86_400, "s");
/// Seeds in options; a TOML file accepts the same range.
pub const SEED: Bounds<u64> = Bounds::new(0, i64::MAX as u64, "");
/// Views of a planned model.
pub const VIEWS: Bounds<usize> = Bounds::new(1, 64, "views");
/// Flow steps of a planned model.
pub const FLOW_STEPS: Bounds<usize> = Bounds::new(1, 1000, "steps");
/// Tokens of a prompt.
pub const PROMPT_TOKENS: Bounds<usize> = Bounds::new(0, 100_000, "tokens");
/// Largest accepted difference of an action, in the robot's units.
pub const TOLERANCE: Bounds<f32> = Bounds::new(0.0, 1e6, "");

/// Duration of a measurement, its warm-up or its pauses.
pub const MEASURE_S: Bounds<f64> = Bounds::new(0.0, 1e7, "s");
/// Age or time that counts as missed beyond this.
pub const DEADLINE_MS: Bounds<f64> = Bounds::new(0.0, 1e9, "ms");
/// Rounds of a measurement, and repetitions in each.
pub const REPEATS: Bounds<u32> = Bounds::new(1, 1_000_000, "times");
/// Width and height of a synthetic image.
pub const IMAGE_PIXELS: Bounds<usize> = Bounds::new(1, 16_384, "pixels");
/// Changes up to this do not count.
pub const FLOOR_PERCENT: Bounds<f64> = Bounds::new(0.0, 1e6, "%");
/// A process number.
pub const PID: Bounds<u32> = Bounds::new(1, i32::MAX as u32, "").note("a process number");
/// Seeds for each observation.
pub const SEEDS: Bounds<u64> = Bounds::new(1, 100_000, "seeds");
/// A cosine.
pub const COSINE: Bounds<f64> = Bounds::new(-1.0, 1.0, "").note("a cosine");
/// Largest error of a joint, in its own unit.
pub const JOINT_ERROR: Bounds<f64> = Bounds::new(0.0, 1e9, "");
/// Delay of an inference in a simulation.
pub const DELAY_MS: Bounds<u64> = Bounds::new(0, 60_000, "ms");
/// Length of a trial of the loop, or of a simulation.
pub const TRIAL_S: Bounds<f64> = Bounds::new(1.0, 1e6, "s");

/// A coordinate of a scene.
pub const SCENE_M: Bounds<f32> = Bounds::new(-1000.0, 1000.0, "m");
/// A length in a scene.
pub const SCENE_LENGTH_M: Bounds<f32> = Bounds::new(1e-4, 1000.0, "m");
/// Range of the seed's displacement of a scene's object.
pub const SCENE_RANDOM_M: Bounds<f32> = Bounds::new(0.0, 1000.0, "m");
/// A component of a direction in a scene.
pub const SCENE_DIRECTION: Bounds<f32> = Bounds::new(-1000.0, 1000.0, "");
/// A position of a joint, or an angle, in a scene.
pub const SCENE_ANGLE_RAD: Bounds<f32> = Bounds::new(-1000.0, 1000.0, "rad");
/// Range of the seed's rotation of a scene's object.
pub const SCENE_TURN_RAD: Bounds<f32> = Bounds::new(0.0, std::f32::consts::TAU, "rad").note("up to one turn");
/// Speed limit of a joint of a scene.
pub const SCENE_SPEED_RAD_S: Bounds<f32> = Bounds::new(1e-3, 1000.0, "rad/s");
/// Vertical angle of view of a camera of a scene.
pub const SCENE_VIEW_RAD: Bounds<f32> = Bounds::new(0.01, 3.1, "rad").note("below half a turn");
/// Width and height of a camera of a scene.
pub const SCENE_PIXELS: Bounds<u32> = Bounds::new(1, 4096, "pixels");
/// Factor by which the seed scales an object of a scene.
pub const SCENE_FACTOR: Bounds<f32> = Bounds::new(0.1, 10.0, "");
/// Azimuth of a place on a scene's table.
pub const SCENE_AZIMUTH_RAD: Bounds<f32> =
    Bounds::new(-std::f32::consts::PI, std::f32::consts::PI, "rad").note("0 is straight ahead");
/// Tolerance of the place of a scene's camera.
pub const SCENE_TOLERANCE_MM: Bounds<f32> = Bounds::new(0.0, 10_000.0, "mm");
/// Tolerance of the direction of a scene's camera.
pub const SCENE_TOLERANCE_DEG: Bounds<f32> = Bounds::new(0.0, 180.0, "degrees");
/// A component of a colour, or of the light.
pub const SCENE_SHARE: Bounds<f32> = Bounds::new(0.0, 1.0, "");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_are_within_and_what_is_no_number_is_not() {
        for value in [0.0, -0.0, 1e9, f64::MIN_POSITIVE, 5e-324] {
            assert_eq!(RUN_S.check(value), Ok(value));
            assert_eq!(RUN_S.parse(&value.to_string()), Ok(value));
        }
        for text in ["inf", "-inf", "NaN", "-1", "1e10", "1e400", "", "1 s", "0x10", "-1e-300"] {
            let said = RUN_S.parse(text).unwrap_err().to_string();
            let expected = "expected 0 to 1000000000 s (without the option the run has no time limit), found ";
            assert!(said.starts_with(expected) && said.contains(text), "{said}");
        }
        for text in ["0", "-1", "1.5", "86401", "18446744073709551616", "١"] {
            let said = TIMEOUT_S.parse(text).unwrap_err().to_string();
            assert!(said.starts_with("expected 1 to 86400 s, found ") && said.contains(text), "{said}");
        }
    }
}
