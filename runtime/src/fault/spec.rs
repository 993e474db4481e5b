//! `--fault SPEC`: the kind of fault, its start and its duration.

use std::fmt;
use std::str::FromStr;

use crate::bounds::{self, Bounds};

/// Kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A camera delivers no image.
    CameraStall,
    /// Images are lost; the value is their share.
    CameraDrop,
    /// Images come with half of their bytes; the value is their share.
    CameraCorrupt,
    /// A camera is unplugged.
    CameraUnplug,
    /// A camera's driver returns empty buffers; the value is their share.
    CameraEmpty,
    /// A camera's JPEG pictures are cut, with an end marker after the cut; the value is their share.
    CameraCut,
    /// Bytes of the line have one bit turned, both ways; the value is their share.
    SerialFlip,
    /// Bytes of the line are lost, both ways; the value is their share.
    SerialLoss,
    /// Bytes of the line are late, both ways; the value is seconds.
    SerialDelay,
    /// The line is unplugged.
    SerialUnplug,
    /// The simulated controller restarts.
    ControllerReset,
    /// The simulated joints' sensors read a wrong position once; the value is the position in radians.
    WrongReading,
    /// The simulated joints' sensors stay at a wrong position; the value is the position in radians.
    StuckReading,
    /// The simulated joints are blocked.
    StalledJoint,
    /// The simulated joints' motors are hot; the value is their temperature in degrees Celsius.
    HotMotor,
    /// An inference takes longer; the value is seconds.
    SlowGpu,
    /// The GPU is lost.
    DeviceLost,
    /// The host's clock jumps; the value is seconds.
    ClockJump,
    /// The wall clock is set during the run; the value is the change in seconds, negative for backwards.
    WallClock,
    /// No space is left for the recording.
    DiskFull,
    /// The reader of the log exits; the value is the number of lines that each control tick still logs.
    LogGone,
    /// The reader of the log hangs; the value is as for [`LogGone`](Kind::LogGone).
    LogStall,
}

impl Kind {
    /// All kinds, with their names and, where they have a value, the one that serves without.
    pub const ALL: [(Kind, &'static str, Option<f64>); 22] = [
        (Kind::CameraStall, "camera-stall", None),
        (Kind::CameraDrop, "camera-drop", Some(0.5)),
        (Kind::CameraCorrupt, "camera-corrupt", Some(1.0)),
        (Kind::CameraUnplug, "camera-unplug", None),
        (Kind::CameraEmpty, "camera-empty", Some(1.0)),
        (Kind::CameraCut, "camera-cut", Some(1.0)),
        (Kind::SerialFlip, "serial-flip", Some(0.01)),
        (Kind::SerialLoss, "serial-loss", Some(0.01)),
        (Kind::SerialDelay, "serial-delay", Some(0.1)),
        (Kind::SerialUnplug, "serial-unplug", None),
        (Kind::ControllerReset, "controller-reset", None),
        (Kind::WrongReading, "wrong-reading", Some(-3.0)),
        (Kind::StuckReading, "stuck-reading", Some(-3.0)),
        (Kind::StalledJoint, "stalled-joint", None),
        (Kind::HotMotor, "hot-motor", Some(75.0)),
        (Kind::SlowGpu, "slow-gpu", Some(1.0)),
        (Kind::DeviceLost, "device-lost", None),
        (Kind::ClockJump, "clock-jump", Some(2.0)),
        (Kind::WallClock, "wall-clock", Some(-1e9)),
        (Kind::DiskFull, "disk-full", None),
        (Kind::LogGone, "log-gone", Some(10.0)),
        (Kind::LogStall, "log-stall", Some(10.0)),
    ];

    /// Whether it has no duration.
    pub fn is_instant(self) -> bool {
        matches!(
            self,
            Kind::ControllerReset | Kind::WrongReading | Kind::DeviceLost | Kind::ClockJump | Kind::WallClock
        )
    }

    /// Whether it is one of the simulated controller and its joints.
    pub(crate) fn is_of_controller(self) -> bool {
        matches!(
            self,
            Kind::ControllerReset | Kind::WrongReading | Kind::StuckReading | Kind::StalledJoint | Kind::HotMotor
        )
    }

    /// Its name in a specification.
    pub fn name(self) -> &'static str {
        Kind::ALL.into_iter().find(|(kind, ..)| *kind == self).map_or("", |(_, name, _)| name)
    }

    /// The limits of its value; `None` for kinds without one.
    fn bounds(self) -> Option<Bounds<f64>> {
        match self {
            Kind::CameraDrop
            | Kind::CameraCorrupt
            | Kind::CameraEmpty
            | Kind::CameraCut
            | Kind::SerialFlip
            | Kind::SerialLoss => Some(bounds::FAULT_SHARE),
            Kind::SerialDelay => Some(bounds::FAULT_DELAY_S),
            Kind::SlowGpu => Some(bounds::FAULT_SLOW_S),
            Kind::ClockJump => Some(bounds::FAULT_JUMP_S),
            Kind::WallClock => Some(bounds::FAULT_WALL_CLOCK_S),
            Kind::WrongReading | Kind::StuckReading => Some(bounds::FAULT_READING),
            Kind::HotMotor => Some(bounds::FAULT_CELSIUS),
            Kind::LogGone | Kind::LogStall => Some(bounds::FAULT_LINES),
            Kind::CameraStall
            | Kind::CameraUnplug
            | Kind::SerialUnplug
            | Kind::ControllerReset
            | Kind::StalledJoint
            | Kind::DeviceLost
            | Kind::DiskFull => None,
        }
    }

    pub(crate) fn is_camera(self) -> bool {
        let images = matches!(self, Kind::CameraDrop | Kind::CameraCorrupt | Kind::CameraEmpty | Kind::CameraCut);
        images || matches!(self, Kind::CameraStall | Kind::CameraUnplug)
    }
}

/// One fault: `KIND[:VIEW][=VALUE][@AT][+FOR]`, times in seconds from when the loop became active.
#[derive(Clone, Debug, PartialEq)]
pub struct Spec {
    /// The kind of fault.
    pub kind: Kind,
    /// With which camera; all where not given.
    pub view: Option<String>,
    /// Its strength; the kind defines the meaning.
    pub value: f64,
    /// When it begins.
    pub at_s: f64,
    /// For how long; to the end where not given.
    pub for_s: Option<f64>,
}

/// A fault that is none.
#[derive(Debug, thiserror::Error)]
#[error("fault {text:?}: expected KIND[:VIEW][=VALUE][@AT][+FOR] in seconds; {problem}")]
pub struct SpecError {
    text: String,
    problem: String,
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Spec, SpecError> {
        let refuse = |problem: String| SpecError { text: text.to_owned(), problem };
        let cut = |text: &'_ str, mark| match text.rsplit_once(mark) {
            Some((rest, value)) => (rest.to_owned(), Some(value.to_owned())),
            None => (text.to_owned(), None),
        };
        let number = |of: &str, bounds: Bounds<f64>, value: Option<String>| {
            value.map(|v| bounds.parse(&v).map_err(|e| refuse(format!("{of}: {e}")))).transpose()
        };
        let (rest, lasting) = cut(text, '+');
        let (rest, at) = cut(&rest, '@');
        let (rest, value) = cut(&rest, '=');
        let (name, view) = cut(&rest, ':');
        let known = Kind::ALL.into_iter().find(|(_, known, _)| *known == name);
        let Some((kind, _, usual)) = known else {
            let names = Kind::ALL.map(|(_, name, _)| name).join(", ");
            return Err(refuse(format!("there is no kind {name:?}, but {names}")));
        };
        let value = match kind.bounds() {
            Some(bounds) => number("VALUE", bounds, value)?,
            None if value.is_some() => return Err(refuse(format!("a value for {name}, which has none"))),
            None => None,
        };
        let value = value.or(usual).unwrap_or(0.0);
        let at_s = number("AT", bounds::FAULT_S, at)?.unwrap_or(0.0);
        let for_s = number("FOR", bounds::FAULT_S, lasting)?;
        if view.is_some() && !kind.is_camera() {
            return Err(refuse(format!("a view for {name}, which is not a camera's")));
        }
        Ok(Spec { kind, view, value, at_s, for_s })
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Kind::ALL.into_iter().find(|(kind, ..)| *kind == self.kind);
        let (name, valued) = name.map_or(("", false), |(_, name, usual)| (name, usual.is_some()));
        f.write_str(name)?;
        if let Some(view) = &self.view {
            write!(f, ":{view}")?;
        }
        if valued {
            write!(f, "={}", self.value)?;
        }
        write!(f, "@{}", self.at_s)?;
        self.for_s.map_or(Ok(()), |s| write!(f, "+{s}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_is_what_it_says() {
        let spec: Spec = "camera-drop:wrist=0.25@3+1.5".parse().unwrap();
        let expected =
            Spec { kind: Kind::CameraDrop, view: Some("wrist".into()), value: 0.25, at_s: 3.0, for_s: Some(1.5) };
        assert_eq!(spec, expected);
        for (_, name, _) in Kind::ALL {
            let spec: Spec = name.parse().unwrap();
            assert_eq!(spec.to_string().parse::<Spec>().unwrap(), spec, "{spec}");
        }
    }

    #[test]
    fn what_is_no_fault_is_refused() {
        for (text, problem) in [
            ("camera-melt", "camera-stall"),
            ("camera-drop=2", "VALUE: expected 0 to 1 (a share), found 2"),
            ("camera-stall=1", "which has none"),
            ("serial-flip:wrist", "not a camera's"),
            ("slow-gpu=x", "VALUE: expected 0 to 3600 s, found \"x\""),
            ("slow-gpu=inf", "VALUE: expected 0 to 3600 s, found inf"),
            ("slow-gpu=NaN", "found NaN"),
            ("slow-gpu=3601", "found 3601"),
            ("serial-delay=-1", "VALUE: expected 0 to 600 s, found -1"),
            ("serial-loss=1e-400x", "1e-400x"),
            ("slow-gpu@-1", "AT: expected 0 to 1000000 s"),
            ("slow-gpu@1e300", "AT: expected 0 to 1000000 s"),
            (
                "slow-gpu@1+inf",
                "FOR: expected 0 to 1000000 s (without +FOR a fault lasts until the run ends), found inf",
            ),
            ("clock-jump=-1", "only moves forwards"),
            ("clock-jump=0", "VALUE: expected 0.001 to 1000000 s"),
            ("clock-jump=1e12", "VALUE: expected 0.001 to 1000000 s"),
            ("log-stall=1e9", "VALUE: expected 0 to 1000 lines"),
            ("wall-clock=1e30", "VALUE: expected -3200000000 to 3200000000 s"),
            ("hot-motor=NaN", "found NaN"),
        ] {
            let said = text.parse::<Spec>().unwrap_err().to_string();
            assert!(said.contains(problem) && said.contains(text), "{said}");
        }
    }
}
