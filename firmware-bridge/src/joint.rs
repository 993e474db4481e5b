//! Joints: names, units, limits, and short vectors of one value per joint.

use core::fmt;

use crate::layout::{code_bytes, codes, record};
use crate::schema::Part;
use crate::wire::{Context, Flagged, Full, Reader, Wire, Writer};
use crate::{MAX_JOINTS, MAX_NAME};

codes! {
    /// Unit of a joint's position; velocity is per second, acceleration per second squared.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum Unit {
        /// Radian, a revolute joint.
        #[default]
        Radian = 0,
        /// Metre, a prismatic joint.
        Metre = 1,
        /// Share of the stroke, 0 closed to 1 open: a gripper.
        Share = 2,
    }
}

/// A name of at most [`MAX_NAME`] bytes of UTF-8, stored in place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; MAX_NAME],
    len: u8,
}

impl Name {
    /// The empty name.
    pub const EMPTY: Self = Self { bytes: [0; MAX_NAME], len: 0 };

    /// The name, or `None` when it is longer than [`MAX_NAME`] bytes.
    pub fn new(name: &str) -> Option<Self> {
        let mut bytes = [0; MAX_NAME];
        let place = bytes.get_mut(..name.len())?;
        for (to, from) in place.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        let len = u8::try_from(name.len()).ok()?;
        Some(Self { bytes, len })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.bytes.get(..usize::from(self.len)).and_then(|bytes| core::str::from_utf8(bytes).ok()).unwrap_or("")
    }
}

/// Its length in a byte, then its bytes.
impl<'a> Wire<'a> for Name {
    const MAX: usize = <u8 as Wire>::MAX.saturating_add(MAX_NAME);
    const TEXT: &'static str = "$_len u8, $ u8[$_len]";

    fn write(&self, w: &mut Writer<'_>) -> Result<(), Full> {
        self.len.write(w)?;
        w.bytes(self.as_str().as_bytes())
    }

    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let length = u8::read(r)?;
        Self::new(core::str::from_utf8(r.take(usize::from(length))?).ok()?)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

record! {
    /// One joint of the controller. The controller enforces these limits for all received and measured values.
    #[derive(Debug, Clone, Copy, PartialEq)]
    pub struct JointSpec {
        /// Name, the same on host and controller.
        pub name: Name,
        /// Unit of every position.
        pub unit: Unit,
        /// Lowest position.
        pub min: f32,
        /// Highest position.
        pub max: f32,
        /// Highest speed per second.
        pub velocity: f32,
        /// Highest acceleration per second squared; also the deceleration of a stop.
        pub acceleration: f32,
        /// Largest lead of the goal over the measured position.
        ///
        /// It must exceed the lag of the servo at full speed, or it limits the speed.
        pub jump: f32,
        /// Highest speed of the joint when it moves by itself, by hand or by its weight, per second; at least
        /// [`JointSpec::velocity`]. A reading beyond this reach does not count as a measurement.
        pub reach: f32,
        [flags "limits"]
        /// The joint does not follow its goal.
        pub following: Option<FollowingLimit>,
        /// The joint does not move although its goal is elsewhere. `None` for a gripper, which stalls on its object.
        pub stall: Option<StallLimit>,
        /// The motor draws too much current; only if the driver measures it.
        pub overload: Option<OverloadLimit>,
        /// The motor is too hot; only if the driver measures it.
        pub temperature: Option<TemperatureLimit>,
        /// Supply voltage in volts, lowest and highest; only if the driver measures it.
        pub voltage as "v": Option<[f32; 2]>,
    }
}

record! {
    /// The distance between goal and measured position that counts as a fault.
    #[derive(Debug, Clone, Copy, PartialEq, Default)]
    pub struct FollowingLimit {
        /// The distance, in the joint's unit.
        pub error as "following_error": f32,
        /// Its duration, in milliseconds.
        pub time_ms as "following_ms": u16,
    }
}

record! {
    /// The stall that counts as a fault.
    #[derive(Debug, Clone, Copy, PartialEq, Default)]
    pub struct StallLimit {
        /// Least distance of goal and measured position, in the joint's unit.
        pub error as "stall_error": f32,
        /// A joint that moves farther than this within the time is not stalled, in the joint's unit.
        pub motion as "stall_motion": f32,
        /// Least current in ampere, if the driver measures it; 0 to ignore the current.
        pub current_a as "stall_current_a": f32,
        /// Its duration, in milliseconds.
        pub time_ms as "stall_ms": u16,
    }
}

record! {
    /// The motor current that counts as a fault.
    #[derive(Debug, Clone, Copy, PartialEq, Default)]
    pub struct OverloadLimit {
        /// The current, in ampere.
        pub current_a as "overload_a": f32,
        /// Its duration, in milliseconds.
        pub time_ms as "overload_ms": u16,
    }
}

record! {
    /// The motor temperature that counts as a fault.
    #[derive(Debug, Clone, Copy, PartialEq, Default, Eq)]
    pub struct TemperatureLimit {
        /// Degrees Celsius at which the joints stop as [`StopBehaviour`] declares.
        pub stop_c: u8,
        /// Degrees Celsius at which the joints are released even if they should hold; above `stop_c`.
        pub release_c: u8,
    }
}

impl Flagged for FollowingLimit {}
impl Flagged for StallLimit {}
impl Flagged for OverloadLimit {}
impl Flagged for TemperatureLimit {}

code_bytes!(Unit, StopBehaviour);

impl JointSpec {
    /// A joint with limits derived from its speed. Acceleration: full speed in 1/8 s. Jump: 1/4 s of full speed. Reach:
    /// four times full speed. Following error: 0.8 of `jump` for 500 ms. Stall: 0.4 of `jump` for 1 s with less than
    /// 0.04 of it in motion. Current, temperature and voltage are not limited.
    pub fn new(name: Name, unit: Unit, [min, max]: [f32; 2], velocity: f32) -> Self {
        let jump = velocity * 0.25;
        Self {
            name,
            unit,
            min,
            max,
            velocity,
            acceleration: velocity * 8.0,
            jump,
            reach: velocity * 4.0,
            following: Some(FollowingLimit { error: jump * 0.8, time_ms: 500 }),
            stall: Some(StallLimit { error: jump * 0.4, motion: jump * 0.04, current_a: 0.0, time_ms: 1_000 }),
            overload: None,
            temperature: None,
            voltage: None,
        }
    }

    /// The joint with another [`JointSpec::jump`], and matching limits of following error and stall.
    #[must_use]
    pub fn with_jump(self, jump: f32) -> Self {
        let following = self.following.map(|limit| FollowingLimit { error: jump * 0.8, ..limit });
        let stall = self.stall.map(|limit| StallLimit { error: jump * 0.4, motion: jump * 0.04, ..limit });
        Self { jump, following, stall, ..self }
    }

    /// Whether all limits are finite, ordered and positive.
    pub fn is_valid(&self) -> bool {
        let positive = |value: f32| value.is_finite() && value > 0.0;
        let following = self.following.is_none_or(|limit| positive(limit.error) && limit.time_ms > 0);
        let stall = self.stall.is_none_or(|limit| {
            positive(limit.error)
                && positive(limit.motion)
                && limit.current_a.is_finite()
                && limit.current_a >= 0.0
                && limit.time_ms > 0
        });
        let overload = self.overload.is_none_or(|limit| positive(limit.current_a) && limit.time_ms > 0);
        let temperature = self.temperature.is_none_or(|limit| limit.stop_c > 0 && limit.stop_c < limit.release_c);
        let voltage = self.voltage.is_none_or(|[low, high]| low >= 0.0 && high.is_finite() && low < high);
        self.min.is_finite()
            && self.max.is_finite()
            && self.min < self.max
            && positive(self.velocity)
            && positive(self.acceleration)
            && positive(self.jump)
            && self.reach.is_finite()
            && self.reach >= self.velocity
            && following
            && stall
            && overload
            && temperature
            && voltage
    }

    const EMPTY: Self = Self {
        name: Name::EMPTY,
        unit: Unit::Radian,
        min: 0.0,
        max: 0.0,
        velocity: 0.0,
        acceleration: 0.0,
        jump: 0.0,
        reach: 0.0,
        following: None,
        stall: None,
        overload: None,
        temperature: None,
        voltage: None,
    };
}

codes! {
    /// The joints' behaviour at a fault. An open emergency stop always releases them at once; the host's stop or disarm
    /// always ramps to rest.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum StopBehaviour {
        /// The goal freezes: the shortest way to rest, and the hardest on gears and load. The servos then hold under
        /// torque and warm up.
        Hold = 0,
        /// Ramp to rest, then hold under torque: the arm keeps its load. Holding a load for long overheats servos: a
        /// joint that reaches [`TemperatureLimit::release_c`] releases the arm, which then drops.
        #[default]
        RampThenHold = 1,
        /// Ramp to rest, then release: no servo overheats, and an arm without brakes drops under its weight.
        RampThenLimp = 2,
    }
}

impl fmt::Display for StopBehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hold => "hold (the goal freezes; servos stay under torque and warm up)",
            Self::RampThenHold => "ramp then hold (servos stay under torque and warm up)",
            Self::RampThenLimp => "ramp then limp (servos are released and the arm drops)",
        })
    }
}

/// The reason why a joint was not added to a [`JointTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JointError {
    /// The table already holds [`MAX_JOINTS`] joints.
    TooMany,
    /// [`JointSpec::is_valid`] is false.
    InvalidLimits,
}

impl fmt::Display for JointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => write!(f, "more than {MAX_JOINTS} joints"),
            Self::InvalidLimits => f.write_str(
                "joint limits must be finite and positive, min below max, reach at least the speed, times at least \
                 1 ms, and a release temperature above the stop temperature",
            ),
        }
    }
}

impl core::error::Error for JointError {}

/// Up to [`MAX_JOINTS`] joints in the order of every per-joint vector, and their behaviour at a fault.
#[derive(Clone, Copy)]
pub struct JointTable {
    joints: [JointSpec; MAX_JOINTS],
    len: u8,
    /// The joints' behaviour at a fault.
    pub stop: StopBehaviour,
}

impl JointTable {
    /// An empty table; its joints ramp to rest and hold at a fault.
    pub const fn new() -> Self {
        Self { joints: [JointSpec::EMPTY; MAX_JOINTS], len: 0, stop: StopBehaviour::RampThenHold }
    }

    /// Adds a joint at the end.
    ///
    /// # Errors
    /// [`JointError`] if the table is full or the limits are invalid.
    pub fn push(&mut self, joint: JointSpec) -> Result<(), JointError> {
        if !joint.is_valid() {
            return Err(JointError::InvalidLimits);
        }
        let place = self.joints.get_mut(usize::from(self.len)).ok_or(JointError::TooMany)?;
        *place = joint;
        self.len = self.len.saturating_add(1);
        Ok(())
    }

    /// The joints in order.
    pub fn as_slice(&self) -> &[JointSpec] {
        self.joints.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// Number of joints.
    pub fn len(&self) -> u8 {
        self.len
    }

    /// Whether there is no joint.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// The behaviour at a fault, the number of joints in a byte, then each joint.
impl<'a> Wire<'a> for JointTable {
    const MAX: usize =
        StopBehaviour::MAX.saturating_add(<u8 as Wire>::MAX).saturating_add(MAX_JOINTS.saturating_mul(JointSpec::MAX));
    const TEXT: &'static str = "stop u8, joints u8, [#][joints]";
    const PARTS: &'static [Part] = JointSpec::PARTS;

    fn write(&self, w: &mut Writer<'_>) -> Result<(), Full> {
        self.stop.write(w)?;
        self.len.write(w)?;
        self.as_slice().iter().try_for_each(|joint| joint.write(w))
    }

    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let mut joints = Self::new();
        joints.stop = StopBehaviour::read(r)?;
        for _ in 0..u8::read(r)? {
            joints.push(JointSpec::read(r)?).ok()?;
        }
        Some(joints)
    }
}

impl Default for JointTable {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for JointTable {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice() && self.stop == other.stop
    }
}

impl fmt::Debug for JointTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JointTable").field("joints", &self.as_slice()).field("stop", &self.stop).finish()
    }
}

/// One value per joint in the joint's unit, stored in place.
#[derive(Clone, Copy)]
pub struct JointVec {
    values: [f32; MAX_JOINTS],
    len: u8,
}

impl JointVec {
    /// The empty vector.
    pub const EMPTY: Self = Self { values: [0.0; MAX_JOINTS], len: 0 };

    /// `len` zeros, at most [`MAX_JOINTS`].
    pub fn zeros(len: u8) -> Self {
        Self { values: [0.0; MAX_JOINTS], len: if usize::from(len) > MAX_JOINTS { 0 } else { len } }
    }

    /// A copy of `values`, or `None` when there are more than [`MAX_JOINTS`].
    pub fn from_slice(values: &[f32]) -> Option<Self> {
        let mut out = Self::zeros(u8::try_from(values.len()).ok()?);
        if out.as_slice().len() != values.len() {
            return None;
        }
        for (to, from) in out.as_mut_slice().iter_mut().zip(values) {
            *to = *from;
        }
        Some(out)
    }

    /// The values in joint order.
    pub fn as_slice(&self) -> &[f32] {
        self.values.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// The values in joint order.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        self.values.get_mut(..usize::from(self.len)).unwrap_or(&mut [])
    }
}

/// As many values as the record has joints.
impl<'a> Wire<'a> for JointVec {
    const MAX: usize = MAX_JOINTS.saturating_mul(<f32 as Wire>::MAX);
    const TEXT: &'static str = "$ f32[joints]";

    fn write(&self, w: &mut Writer<'_>) -> Result<(), Full> {
        if self.as_slice().len() != usize::from(w.context.joints) {
            return Err(Full);
        }
        self.as_slice().iter().try_for_each(|value| value.write(w))
    }

    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let mut values = Self::zeros(r.context.joints);
        if values.as_slice().len() != usize::from(r.context.joints) {
            return None;
        }
        for value in values.as_mut_slice() {
            *value = f32::read(r)?;
        }
        Some(values)
    }

    fn note(&self, context: &mut Context) {
        context.joints = self.len;
    }
}

impl PartialEq for JointVec {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl fmt::Debug for JointVec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_slice(), f)
    }
}
