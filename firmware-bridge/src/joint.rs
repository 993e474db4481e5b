//! Joints: names, units, limits, and short vectors of one value per joint.

use core::fmt;

use crate::{MAX_JOINTS, MAX_NAME};

/// Unit of a joint's position; velocity is per second, acceleration per second squared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Unit {
    /// Radian, a revolute joint.
    #[default]
    Radian = 0,
    /// Metre, a prismatic joint.
    Metre = 1,
    /// Share of the stroke, 0 closed to 1 open: a gripper.
    Share = 2,
}

impl Unit {
    pub(crate) fn from_u8(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Radian),
            1 => Some(Self::Metre),
            2 => Some(Self::Share),
            _ => None,
        }
    }
}

/// A name of at most [`MAX_NAME`] bytes of UTF-8, stored in place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    bytes: [u8; MAX_NAME],
    len: u8,
}

impl Name {
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

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// One joint as the controller knows it. The controller enforces these limits whatever it is sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JointSpec {
    /// Name, the same on host and controller.
    pub name: Name,
    /// Unit of every other field.
    pub unit: Unit,
    /// Lowest position.
    pub min: f32,
    /// Highest position.
    pub max: f32,
    /// Highest speed per second.
    pub velocity: f32,
    /// Highest acceleration per second squared; also the deceleration of a stop.
    pub acceleration: f32,
    /// How far the commanded position may be from the measured one.
    ///
    /// It must exceed the lag of the servo at full speed, or it limits the speed.
    pub jump: f32,
}

impl JointSpec {
    /// Whether all limits are finite, ordered and positive.
    pub fn is_valid(&self) -> bool {
        let positive = |value: f32| value.is_finite() && value > 0.0;
        self.min.is_finite()
            && self.max.is_finite()
            && self.min < self.max
            && positive(self.velocity)
            && positive(self.acceleration)
            && positive(self.jump)
    }

    const EMPTY: Self = Self {
        name: Name { bytes: [0; MAX_NAME], len: 0 },
        unit: Unit::Radian,
        min: 0.0,
        max: 0.0,
        velocity: 0.0,
        acceleration: 0.0,
        jump: 0.0,
    };
}

/// Why a joint was not added to a [`JointTable`].
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
            Self::InvalidLimits => {
                f.write_str("joint limits must be finite, min below max, and speed, acceleration and jump positive")
            }
        }
    }
}

impl core::error::Error for JointError {}

/// Up to [`MAX_JOINTS`] joints in the order of every per-joint vector.
#[derive(Clone, Copy)]
pub struct JointTable {
    joints: [JointSpec; MAX_JOINTS],
    len: u8,
}

impl JointTable {
    /// A table without joints.
    pub const fn new() -> Self {
        Self { joints: [JointSpec::EMPTY; MAX_JOINTS], len: 0 }
    }

    /// Adds a joint at the end.
    ///
    /// # Errors
    /// [`JointError`] when the table is full or the limits make no sense.
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

impl Default for JointTable {
    fn default() -> Self {
        Self::new()
    }
}

impl PartialEq for JointTable {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl fmt::Debug for JointTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.as_slice()).finish()
    }
}

/// One value per joint, stored in place; the joint's unit applies.
#[derive(Clone, Copy)]
pub struct JointVec {
    values: [f32; MAX_JOINTS],
    len: u8,
}

impl JointVec {
    /// A vector without values.
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
