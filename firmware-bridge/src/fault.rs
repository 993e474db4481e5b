//! The faults for which a controller stops its joints, with their causes.

use core::fmt;

use crate::joint::{JointTable, Unit};
use crate::layout::{codes, record};
use crate::schema::Part;
use crate::wire::{Context, Full, Reader, Wire, Writer};

codes! {
    /// A fault that the controller latches.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Fault {
        /// No frame of the host for the deadman time while armed.
        HostSilent = 1,
        /// A channel of the emergency stop is open, or cannot be read.
        Estop = 2,
        /// The joints' driver refused a command.
        OutputFailed = 3,
        /// A joint gave no measurement for too long, or the joints' driver could not measure.
        MeasurementFailed = 4,
        /// A joint gave only readings that it cannot have reached.
        ImplausibleReading = 5,
        /// A joint did not follow its goal.
        FollowingError = 6,
        /// A joint did not move although its goal was elsewhere.
        Stalled = 7,
        /// A motor is too hot.
        Overheated = 8,
        /// The supply voltage of a motor is outside its limits.
        VoltageOutOfRange = 9,
        /// A motor drew too much current for too long.
        Overload = 10,
        /// A servo reports an alarm of its own.
        ServoAlarm = 11,
        /// Too many of the host's frames were broken.
        ErrorRate = 12,
        /// The two channels of the emergency stop disagree: one is welded, cut or bridged.
        EstopDiscrepancy = 13,
        /// The hardware watchdog restarted the controller.
        WatchdogReset = 14,
    }
}

/// A report's fault: the state's mode already has it.
impl<'a> Wire<'a> for Fault {
    const MAX: usize = 0;
    const TEXT: &'static str = "";

    fn write(&self, w: &mut Writer<'_>) -> Result<(), Full> {
        if w.context.fault == Some(*self) { Ok(()) } else { Err(Full) }
    }

    fn read(r: &mut Reader<'a>) -> Option<Self> {
        r.context.fault
    }
}

/// A servo's alarms, in one set of bits for all families of servos.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Alarms(pub u8);

impl Alarms {
    /// No alarm.
    pub const NONE: Self = Self(0);
    /// The supply voltage is outside the servo's limits.
    pub const VOLTAGE: Self = Self(1);
    /// The position sensor failed.
    pub const SENSOR: Self = Self(1 << 1);
    /// The motor is too hot.
    pub const TEMPERATURE: Self = Self(1 << 2);
    /// The motor draws too much current.
    pub const CURRENT: Self = Self(1 << 3);
    /// An alarm without a cause.
    pub const OTHER: Self = Self(1 << 4);
    /// The load is too high for too long.
    pub const OVERLOAD: Self = Self(1 << 5);

    /// Both sets of alarms.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether no alarm is set.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Alarms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = [
            (Self::VOLTAGE, "voltage"),
            (Self::SENSOR, "position sensor"),
            (Self::TEMPERATURE, "temperature"),
            (Self::CURRENT, "current"),
            (Self::OTHER, "unnamed"),
            (Self::OVERLOAD, "overload"),
        ];
        let mut first = true;
        for (alarm, word) in words {
            if self.0 & alarm.0 != 0 {
                f.write_str(if first { "" } else { ", " })?;
                f.write_str(word)?;
                first = false;
            }
        }
        if first { f.write_str("none") } else { Ok(()) }
    }
}

record! {
    /// A latched fault with its cause.
    #[derive(Debug, Clone, Copy, PartialEq)]
    pub struct FaultReport {
        /// The fault.
        pub fault: Fault,
        /// The joint's index in the table, if the fault concerns one joint.
        pub joint: Option<u8>,
        /// [`Fault::ServoAlarm`]: the servo's alarms. [`Fault::Estop`] and [`Fault::EstopDiscrepancy`]: the open
        /// channels, bit 0 the first. Otherwise 0.
        pub cause: u8,
        /// The chunk in progress.
        pub chunk: Option<u32>,
        /// The measured value: a position in the joint's unit, degrees Celsius, volts, amperes, seconds, or a count of
        /// frames.
        pub value: f32,
        /// The lowest allowed value.
        pub low: f32,
        /// The highest allowed value.
        pub high: f32,
    }
}

/// The joint of a report; the highest number stands for none.
impl<'a> Wire<'a> for Option<u8> {
    const MAX: usize = <u8 as Wire>::MAX;
    const TEXT: &'static str = u8::TEXT;

    fn write(&self, w: &mut Writer<'_>) -> Result<(), Full> {
        self.unwrap_or(u8::MAX).write(w)
    }

    fn read(r: &mut Reader<'a>) -> Option<Self> {
        u8::read(r).map(|joint| (joint != u8::MAX).then_some(joint))
    }
}

/// The report of a state; present only if the mode is a fault.
impl<'a> Wire<'a> for Option<FaultReport> {
    const MAX: usize = FaultReport::MAX;
    const TEXT: &'static str = "if fault [#]";
    const PARTS: &'static [Part] = FaultReport::PARTS;

    fn write(&self, w: &mut Writer<'_>) -> Result<(), Full> {
        match self {
            Some(report) => report.write(w),
            None if w.context.fault.is_some() => Err(Full),
            None => Ok(()),
        }
    }

    fn read(r: &mut Reader<'a>) -> Option<Self> {
        if r.context.fault.is_some() { FaultReport::read(r).map(Some) } else { Some(None) }
    }

    fn note(&self, context: &mut Context) {
        if let Some(report) = self {
            report.note(context);
        }
    }
}

impl FaultReport {
    /// A fault without a joint or a value.
    pub const fn of(fault: Fault) -> Self {
        Self { fault, joint: None, cause: 0, value: 0.0, low: 0.0, high: 0.0, chunk: None }
    }

    pub(crate) const fn bounds(self, value: f32, low: f32, high: f32) -> Self {
        Self { value, low, high, ..self }
    }

    /// The report as a sentence: the joint's name from `joints`, the value and the allowed values.
    pub fn describe<'a>(&'a self, joints: &'a JointTable) -> impl fmt::Display + 'a {
        Described { report: self, joints }
    }
}

struct Described<'a> {
    report: &'a FaultReport,
    joints: &'a JointTable,
}

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let FaultReport { fault, joint, cause, value, low, high, chunk } = self.report;
        let spec = joint.and_then(|joint| self.joints.as_slice().get(usize::from(joint)));
        let name = spec.map_or("?", |spec| spec.name.as_str());
        let unit = match spec.map(|spec| spec.unit) {
            Some(Unit::Radian) => " rad",
            Some(Unit::Metre) => " m",
            Some(Unit::Share) | None => "",
        };
        match fault {
            Fault::HostSilent => write!(f, "the host was silent for {value:.3} s, allowed {high:.3} s"),
            Fault::Estop => write!(f, "emergency stop, {}", Channels(*cause)),
            Fault::EstopDiscrepancy => write!(
                f,
                "the channels of the emergency stop disagree, {}: check both contacts and wires, press the stop and \
                 release it",
                Channels(*cause)
            ),
            Fault::OutputFailed if joint.is_none() => f.write_str("the joints' driver refused a command"),
            Fault::OutputFailed => write!(f, "joint {name}: the driver refused a command"),
            Fault::MeasurementFailed if joint.is_none() => f.write_str("the joints' driver failed to measure"),
            Fault::MeasurementFailed => {
                write!(f, "joint {name}: no measurement for {value:.3} s, allowed {high:.3} s")
            }
            Fault::ImplausibleReading => {
                write!(f, "joint {name}: implausible reading {value:.3}{unit}, expected {low:.3} to {high:.3}{unit}")
            }
            Fault::FollowingError => {
                write!(f, "joint {name}: {value:.3}{unit} away from its goal, allowed {high:.3}{unit}")
            }
            Fault::Stalled => write!(f, "joint {name}: stalled {value:.3}{unit} away from its goal"),
            Fault::Overheated => write!(f, "joint {name}: motor at {value:.0} °C, allowed {high:.0} °C"),
            Fault::VoltageOutOfRange => {
                write!(f, "joint {name}: supply of {value:.1} V, expected {low:.1} to {high:.1} V")
            }
            Fault::Overload => write!(f, "joint {name}: motor draws {value:.2} A, allowed {high:.2} A"),
            Fault::ServoAlarm => write!(f, "joint {name}: the servo's alarm: {} ({cause:#04x})", Alarms(*cause)),
            Fault::ErrorRate => write!(f, "more than {high:.0} broken frames a second on the line from the host"),
            Fault::WatchdogReset => f.write_str("the hardware watchdog restarted the controller"),
        }?;
        match chunk {
            Some(chunk) => write!(f, ", while following chunk {chunk}"),
            None => Ok(()),
        }
    }
}

struct Channels(u8);

impl fmt::Display for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 & 0b11 {
            0 => "both channels closed",
            1 => "channel 1 open",
            2 => "channel 2 open",
            _ => "both channels open",
        })
    }
}
