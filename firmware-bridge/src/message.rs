//! What host and controller say to each other, and the byte layout of each message's body.
//!
//! All numbers are little-endian, positions are IEEE 754 binary32. The layouts are those of
//! [`SCHEMA`]; the tests in `tests/wire.rs` pin the bytes.

pub use crate::fault::{Alarms, Fault, FaultReport};
use crate::joint::{JointTable, JointVec, Name};
use crate::wire::CRC;
use crate::{MAX_CHUNK_STEPS, MAX_JOINTS, MAX_NAME};

/// The layouts as text; [`SCHEMA_HASH`] is its CRC-32.
///
/// Any change of a layout changes this text, so that two builds which disagree on a layout find
/// out in the hello.
pub const SCHEMA: &str = "\
header: version u8, type u8, sequence u32, session u32, time_us u64\n\
01 hello: schema u32\n\
02 chunk: id u32, start_us u64, period_us u32, validity_us u32, interpolation u8, joints u8, steps u16, position f32[steps][joints]\n\
03 heartbeat:\n\
04 arm:\n\
05 disarm:\n\
06 stop:\n\
07 clear_fault:\n\
81 hello_reply: schema u32, identity_len u8, identity u8[identity_len], buffer_depth u16, tick_us u32, telemetry_us u32, deadman_us u32, stop u8, joints u8, [name_len u8, name u8[name_len], unit u8, min f32, max f32, velocity f32, acceleration f32, jump f32, reach f32, limits u8, following_error f32, following_ms u16, stall_error f32, stall_motion f32, stall_current_a f32, stall_ms u16, overload_a f32, overload_ms u16, stop_c u8, release_c u8, min_v f32, max_v f32][joints]\n\
82 state: mode u8, fault u8, flags u8, joints u8, last_sequence u32, chunk u32, consumed u16, steps_left u16, clamps u32, starved u32, crc_errors u32, frame_errors u32, frames_dropped u32, measured f32[joints], commanded f32[joints], if fault [joint u8, cause u8, chunk u32, value f32, low f32, high f32]\n\
83 ack: sequence u32, type u8, reason u8, first_step u16, start_us u64\n\
84 heartbeat_reply: sequence u32, host_time_us u64, received_us u64\n";

/// CRC-32 of [`SCHEMA`], exchanged in the hello.
pub const SCHEMA_HASH: u32 = CRC.checksum(SCHEMA.as_bytes());

/// `start_us` of a chunk which starts when the controller takes it.
pub const START_NOW: u64 = 0;

/// Bytes of a chunk's body before its positions.
const CHUNK_HEAD: usize = 4 + 8 + 4 + 4 + 1 + 1 + 2;

/// Longest body: a chunk of all steps and joints. Counts neither header, CRC nor COBS.
pub const MAX_BODY: usize = CHUNK_HEAD + MAX_CHUNK_STEPS * MAX_JOINTS * 4;

/// Longest body the controller sends: a hello reply with all joints and longest names.
pub const MAX_REPLY_BODY: usize =
    4 + (1 + MAX_NAME) + 2 + 4 + 4 + 4 + 1 + 1 + MAX_JOINTS * (1 + MAX_NAME + 1 + 6 * 4 + LIMITS);
/// Bytes of a joint's limits that lead to faults.
const LIMITS: usize = 1 + (4 + 2) + (3 * 4 + 2) + (4 + 2) + 2 + 2 * 4;
const STATE_MAX: usize = 4 + 4 + 4 + 2 + 2 + 5 * 4 + 2 * 4 * MAX_JOINTS + (2 + 4 + 3 * 4);

const _: () = assert!(MAX_REPLY_BODY <= MAX_BODY && STATE_MAX <= MAX_REPLY_BODY);

/// Type byte of each message. The host's have the top bit clear, the controller's have it set.
pub mod kind {
    /// Host asks who is there.
    pub const HELLO: u8 = 0x01;
    /// Host sends positions.
    pub const CHUNK: u8 = 0x02;
    /// Host is alive.
    pub const HEARTBEAT: u8 = 0x03;
    /// Host asks for permission to move.
    pub const ARM: u8 = 0x04;
    /// Host gives the permission back.
    pub const DISARM: u8 = 0x05;
    /// Host asks for a ramp to rest.
    pub const STOP: u8 = 0x06;
    /// Host has seen the fault.
    pub const CLEAR_FAULT: u8 = 0x07;
    /// Controller describes itself.
    pub const HELLO_REPLY: u8 = 0x81;
    /// Controller's telemetry.
    pub const STATE: u8 = 0x82;
    /// Controller answers a frame.
    pub const ACK: u8 = 0x83;
    /// Controller answers a heartbeat.
    pub const HEARTBEAT_REPLY: u8 = 0x84;
}

/// Positions of a chunk, `[step][joint]`, as they came off the wire or as the host has them.
#[derive(Debug, Clone, Copy)]
pub enum Positions<'a> {
    /// Little-endian binary32.
    Wire(&'a [u8]),
    /// Native floats.
    Native(&'a [f32]),
}

impl<'a> Positions<'a> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Wire(bytes) => bytes.len() / 4,
            Self::Native(values) => values.len(),
        }
    }

    /// Whether there is no value.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The values in order.
    pub fn iter(self) -> impl Iterator<Item = f32> + 'a {
        let (bytes, values): (&[u8], &[f32]) = match self {
            Self::Wire(bytes) => (bytes, &[]),
            Self::Native(values) => (&[], values),
        };
        let (words, _) = bytes.as_chunks::<4>();
        words.iter().map(|word| f32::from_le_bytes(*word)).chain(values.iter().copied())
    }
}

impl PartialEq for Positions<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().map(f32::to_bits).eq(other.iter().map(f32::to_bits))
    }
}

/// How the controller moves between two steps of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Interpolation {
    /// Straight line in joint space.
    #[default]
    Linear = 0,
    /// Cubic Hermite in joint space: the velocity is continuous, and no position is outside the two
    /// steps it lies between.
    Hermite = 1,
}

/// An action chunk: step `k` is the pose at `start_us + k * period_us` of the controller's clock.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chunk<'a> {
    /// The host's name for the chunk, echoed in the state.
    pub id: u32,
    /// Controller time of step 0 in microseconds; [`START_NOW`] for the time of arrival.
    pub start_us: u64,
    /// Time between steps in microseconds, at least 1.
    pub period_us: u32,
    /// No step is followed later than this long after the start, in microseconds.
    pub validity_us: u32,
    /// Path between steps.
    pub interpolation: Interpolation,
    /// Joints per step.
    pub joints: u8,
    /// Steps, 1 to [`MAX_CHUNK_STEPS`].
    pub steps: u16,
    /// `steps * joints` positions in the joints' units.
    pub positions: Positions<'a>,
}

/// The controller's description of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HelloReply {
    /// The controller's [`SCHEMA_HASH`].
    pub schema: u32,
    /// Which controller it is, so that a host can insist on the one of its configuration.
    pub identity: Name,
    /// Longest chunk it takes, in steps.
    pub buffer_depth: u16,
    /// Period of its control tick in microseconds.
    pub tick_us: u32,
    /// Period of its telemetry in microseconds.
    pub telemetry_us: u32,
    /// Longest silence of the host before the joints are at rest, in microseconds.
    pub deadman_us: u32,
    /// The joints in the order of all per-joint vectors.
    pub joints: JointTable,
}

/// What the controller is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No permission to move: chunks are refused.
    Disarmed,
    /// Armed, without a chunk to follow: the pose is held.
    Holding,
    /// Armed and following a chunk.
    Active,
    /// Ramping to rest after a stop, a disarm or a hello of another host.
    Stopping,
    /// A fault is latched: ramping to rest or at rest until it is cleared.
    Faulted(Fault),
}

impl Mode {
    pub(crate) fn to_bytes(self) -> (u8, u8) {
        match self {
            Self::Disarmed => (0, 0),
            Self::Holding => (1, 0),
            Self::Active => (2, 0),
            Self::Stopping => (3, 0),
            Self::Faulted(fault) => (4, fault as u8),
        }
    }

    pub(crate) fn from_bytes(mode: u8, fault: u8) -> Option<Self> {
        match (mode, fault) {
            (0, 0) => Some(Self::Disarmed),
            (1, 0) => Some(Self::Holding),
            (2, 0) => Some(Self::Active),
            (3, 0) => Some(Self::Stopping),
            (4, fault) => Fault::from_u8(fault).map(Self::Faulted),
            _ => None,
        }
    }
}

/// Where the controller is in its chunk, by its own count.
///
/// It stays when the chunk is over, until the joints stop, disarm or fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// [`Chunk::id`].
    pub chunk: u32,
    /// Steps that are over, those skipped at its beginning included: while the chunk is followed,
    /// the step being followed, 0-based; afterwards how far it came, at most its steps.
    ///
    /// A host that wants to know how many steps passed while it was thinking takes the difference
    /// of two of these.
    pub consumed: u16,
    /// Steps to come, without the one being followed: the queue depth. 0 when the chunk is over.
    pub steps_left: u16,
}

/// Telemetry. The frame's time is the controller's time of the sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct State {
    /// What the controller is doing.
    pub mode: Mode,
    /// Whether the joints are driven.
    pub energised: bool,
    /// Whether the emergency stop line is open.
    pub estop: bool,
    /// The sequence of the host's last obeyed or refused frame of this session.
    pub last_sequence: u32,
    /// The chunk being followed, or the last one that was.
    pub progress: Option<Progress>,
    /// How often a joint was held back by a position, speed or jump limit, counted per joint and
    /// tick, and per position of a chunk; wraps.
    pub clamps: u32,
    /// Ticks of armed joints whose chunk was over before another began; wraps.
    pub starved: u32,
    /// Frames with a wrong CRC since power-on; wraps.
    pub crc_errors: u32,
    /// Other broken frames since power-on; wraps.
    pub frame_errors: u32,
    /// Frames not sent because the line was full; wraps.
    pub frames_dropped: u32,
    /// Measured positions.
    pub measured: JointVec,
    /// Commanded positions; as many as measured.
    pub commanded: JointVec,
    /// The latched fault's cause; exactly where [`State::mode`] is [`Mode::Faulted`], with its fault.
    pub fault: Option<FaultReport>,
}

/// The controller's verdict on a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// Obeyed.
    Ok = 0,
    /// The frame is of another protocol version.
    WrongVersion = 1,
    /// Not a message a host sends.
    UnknownType = 2,
    /// The body is not that of its type.
    Malformed = 3,
    /// The session is not that of the last hello: the controller or the host restarted.
    WrongSession = 4,
    /// The sequence is not after that of the last frame.
    Stale = 5,
    /// The chunk's validity is over.
    Expired = 6,
    /// The chunk starts too far in the future.
    TooFarAhead = 7,
    /// Not the controller's number of joints.
    WrongJointCount = 8,
    /// No steps, more than the buffer holds, or a period of zero.
    BadShape = 9,
    /// A position is NaN or infinite.
    NonFinite = 10,
    /// A position is so far outside the limits that it cannot be meant.
    OutOfLimits = 11,
    /// Not armed.
    NotArmed = 12,
    /// Ramping to rest; try again when it holds.
    Stopping = 13,
    /// A fault is latched, or its cause lasts.
    Faulted = 14,
    /// A joint to be armed is outside its limits: it has to be moved within them by hand.
    OutsideLimits = 15,
    /// The joints' positions are not known yet, or not any more.
    NotMeasured = 16,
}

impl Reason {
    const ALL: [Self; 17] = [
        Self::Ok,
        Self::WrongVersion,
        Self::UnknownType,
        Self::Malformed,
        Self::WrongSession,
        Self::Stale,
        Self::Expired,
        Self::TooFarAhead,
        Self::WrongJointCount,
        Self::BadShape,
        Self::NonFinite,
        Self::OutOfLimits,
        Self::NotArmed,
        Self::Stopping,
        Self::Faulted,
        Self::OutsideLimits,
        Self::NotMeasured,
    ];

    pub(crate) fn from_u8(value: u8) -> Option<Self> {
        Self::ALL.get(usize::from(value)).copied()
    }
}

/// The controller's answer to one frame of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// The answered frame's sequence.
    pub sequence: u32,
    /// The answered frame's type byte, see [`kind`].
    pub kind: u8,
    /// The verdict.
    pub reason: Reason,
    /// For an obeyed chunk: its first step which is applied; those before were over on arrival.
    pub first_step: u16,
    /// For an obeyed chunk: the controller time of its step 0 in microseconds, else 0.
    pub start_us: u64,
}

/// The controller's answer to a heartbeat; with the frame's time, three of the four time stamps
/// of a clock comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// The heartbeat's sequence.
    pub sequence: u32,
    /// The heartbeat's header time, host clock in microseconds.
    pub host_time_us: u64,
    /// When it was received, controller clock in microseconds.
    pub received_us: u64,
}

/// All messages of both directions.
#[derive(Debug, Clone, Copy, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "there is no allocator to box with")]
pub enum Message<'a> {
    /// Host: who is there? Opens the session of the frame's header.
    Hello {
        /// The host's [`SCHEMA_HASH`].
        schema: u32,
    },
    /// Host: follow these positions.
    Chunk(Chunk<'a>),
    /// Host: I am alive.
    Heartbeat,
    /// Host: you may move.
    Arm,
    /// Host: ramp to rest, then release the joints.
    Disarm,
    /// Host: ramp to rest and hold. Obeyed whatever its session and sequence.
    Stop,
    /// Host: I have seen the fault.
    ClearFault,
    /// Controller: who I am.
    HelloReply(HelloReply),
    /// Controller: telemetry.
    State(State),
    /// Controller: verdict on a frame.
    Ack(Ack),
    /// Controller: answer to a heartbeat.
    HeartbeatReply(HeartbeatReply),
}
