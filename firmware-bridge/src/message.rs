//! Messages of host and controller. The declaration of each gives the byte layout of its body.
//!
//! All numbers are little-endian, positions are IEEE 754 binary32. [`SCHEMA`] has the layouts as text; the tests in
//! `tests/wire.rs` pin the bytes.

pub use crate::fault::{Alarms, Fault, FaultReport};
use crate::frame::Header;
use crate::joint::{JointTable, JointVec, Name};
use crate::layout::{code_bytes, codes, messages, record};
use crate::schema::{Line, Text, longest};
use crate::wire::{CRC, Flagged, Full, Reader, Wire, Writer};
use crate::{MAX_CHUNK_STEPS, MAX_JOINTS};

const TEXT: &Text =
    &Text::of(&Line { kind: None, name: "header", parts: Header::PARTS, max: Header::MAX }, Message::LINES);

/// The layouts as text; [`SCHEMA_HASH`] is its CRC-32.
///
/// Any change of a layout changes this text, so that the hello reveals builds with different layouts.
pub const SCHEMA: &str = TEXT.as_str();

/// CRC-32 of [`SCHEMA`], exchanged in the hello.
pub const SCHEMA_HASH: u32 = CRC.checksum(SCHEMA.as_bytes());

/// `start_us` of a chunk that starts when the controller receives it.
pub const START_NOW: u64 = 0;

/// Longest body: a chunk with all steps and joints. Excludes header, CRC and COBS.
pub const MAX_BODY: usize = longest(Message::LINES, 0);

/// Longest body the controller sends: a hello reply with all joints and longest names.
pub const MAX_REPLY_BODY: usize = longest(Message::LINES, 0x80);

/// Positions of a chunk, `[step][joint]`, in wire format or native.
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

/// The rest of the body.
impl<'a> Wire<'a> for Positions<'a> {
    const MAX: usize = MAX_CHUNK_STEPS.saturating_mul(MAX_JOINTS).saturating_mul(<f32 as Wire>::MAX);
    const TEXT: &'static str = "$ f32[steps][joints]";

    fn write(&self, w: &mut Writer<'_>) -> Result<(), Full> {
        self.iter().try_for_each(|value| value.write(w))
    }

    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let bytes = r.rest();
        bytes.len().is_multiple_of(<f32 as Wire>::MAX).then_some(Self::Wire(bytes))
    }
}

impl PartialEq for Positions<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().map(f32::to_bits).eq(other.iter().map(f32::to_bits))
    }
}

codes! {
    /// The controller's motion between two steps of a chunk.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub enum Interpolation {
        /// Straight line in joint space.
        #[default]
        Linear = 0,
        /// Cubic Hermite in joint space: the velocity is continuous, and every position is between its two steps.
        Hermite = 1,
    }
}

code_bytes!(Interpolation, Reason);

record! {
    /// An action chunk: step `k` is the pose at `start_us + k * period_us` of the controller's clock.
    #[derive(Debug, Clone, Copy, PartialEq)]
    pub struct Chunk<'a> {
        /// The host's number of the chunk, echoed in the state.
        pub id: u32,
        /// Controller time of step 0 in microseconds; [`START_NOW`] for the time of arrival.
        pub start_us: u64,
        /// Time between steps in microseconds, at least 1.
        pub period_us: u32,
        /// No step is executed later than this after the start, in microseconds.
        pub validity_us: u32,
        /// Path between steps.
        pub interpolation: Interpolation,
        /// Joints per step.
        pub joints: u8,
        /// Steps, 1 to [`MAX_CHUNK_STEPS`].
        pub steps: u16,
        /// `steps * joints` positions in the joints' units.
        pub positions as "position": Positions<'a>,
    }
}

record! {
    /// The controller's description of itself.
    #[derive(Debug, Clone, Copy, PartialEq)]
    pub struct HelloReply {
        /// The controller's [`SCHEMA_HASH`].
        pub schema: u32,
        /// The controller's identity, which a host's configuration may require.
        pub identity: Name,
        /// Longest chunk in steps.
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
}

/// The controller's mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No permission to move: chunks are refused.
    Disarmed,
    /// Armed without a chunk: the pose is held.
    Holding,
    /// Armed and executing a chunk.
    Active,
    /// Ramping to rest after a stop, a disarm or a hello of another host.
    Stopping,
    /// A fault is latched: ramping to rest or at rest until it is cleared.
    Faulted(Fault),
}

impl<'a> Wire<'a> for Mode {
    const MAX: usize = 2;
    const TEXT: &'static str = "mode u8, fault u8";

    fn write(&self, w: &mut Writer<'_>) -> Result<(), Full> {
        let (mode, fault) = match *self {
            Self::Disarmed => (0, None),
            Self::Holding => (1, None),
            Self::Active => (2, None),
            Self::Stopping => (3, None),
            Self::Faulted(fault) => (4, Some(fault)),
        };
        w.context.fault = fault;
        w.bytes(&[mode, fault.map_or(0, |fault| fault as u8)])
    }

    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let mode = match (u8::read(r)?, u8::read(r)?) {
            (0, 0) => Self::Disarmed,
            (1, 0) => Self::Holding,
            (2, 0) => Self::Active,
            (3, 0) => Self::Stopping,
            (4, fault) => {
                r.context.fault = Some(Fault::from_u8(fault)?);
                Self::Faulted(r.context.fault?)
            }
            _ => return None,
        };
        Some(mode)
    }
}

impl Flagged for Progress {}

record! {
    /// The controller's position in its chunk, by its own count.
    ///
    /// It remains after the chunk's end, until the joints stop, disarm or fault.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
    pub struct Progress {
        /// [`Chunk::id`].
        pub chunk: u32,
        /// Consumed steps, including those skipped at the start. During the chunk: the current step, 0-based;
        /// afterwards the number of steps reached, at most the chunk's.
        ///
        /// The difference of two values is the number of steps consumed during an inference.
        pub consumed: u16,
        /// Steps after the current one: the queue depth. 0 after the chunk's end.
        pub steps_left: u16,
    }
}

record! {
    /// Telemetry. The frame's time is the controller's time of the sample.
    #[derive(Debug, Clone, Copy, PartialEq)]
    pub struct ControllerState {
        /// The controller's mode.
        pub mode: Mode,
        [flags "flags"]
        /// Whether the joints are driven.
        pub energised: bool,
        /// Whether the emergency stop line is open.
        pub estop: bool,
        [joints "joints"]
        /// The sequence of the host's last accepted or refused frame of this session.
        pub last_sequence: u32,
        /// The chunk in progress, or the last one.
        pub progress: Option<Progress>,
        /// Number of times that a position, speed or jump limit held a joint back, counted per joint and tick, and per
        /// position of a chunk; wraps.
        pub clamps: u32,
        /// Ticks of armed joints between the end of a chunk and the start of the next; wraps.
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
        /// The latched fault's cause; present only if [`ControllerState::mode`] is [`Mode::Faulted`], with the same
        /// fault.
        pub fault: Option<FaultReport>,
    }
}

codes! {
    /// The controller's verdict on a frame.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub enum Reason {
        /// Accepted.
        Ok = 0,
        /// The frame is of another protocol version.
        WrongVersion = 1,
        /// The controller does not receive this type.
        UnknownType = 2,
        /// The body does not match its type.
        Malformed = 3,
        /// The session differs from the last hello's: the controller or the host restarted.
        WrongSession = 4,
        /// The sequence does not follow the last frame's.
        Stale = 5,
        /// The chunk's validity has ended.
        Expired = 6,
        /// The chunk starts too far in the future.
        TooFarAhead = 7,
        /// The number of joints is not the controller's.
        WrongJointCount = 8,
        /// No steps, more than the buffer holds, or a period of zero.
        BadShape = 9,
        /// A position is NaN or infinite.
        NonFinite = 10,
        /// A position is so far outside the limits that it must be an error.
        OutOfLimits = 11,
        /// Not armed.
        NotArmed = 12,
        /// Ramping to rest; try again when it holds.
        Stopping = 13,
        /// A fault is latched, or its cause lasts.
        Faulted = 14,
        /// A joint to be armed is outside its limits: move it within them by hand.
        OutsideLimits = 15,
        /// The joints' positions are unknown.
        NotMeasured = 16,
    }
}

record! {
    /// The controller's answer to one frame of the host.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct Ack {
        /// The answered frame's sequence.
        pub sequence: u32,
        /// The answered frame's type byte, see [`kind`].
        pub kind as "type": u8,
        /// The verdict.
        pub reason: Reason,
        /// For an accepted chunk: the first step that is executed; earlier steps had passed on arrival.
        pub first_step: u16,
        /// For an accepted chunk: the controller time of its step 0 in microseconds, otherwise 0.
        pub start_us: u64,
    }
}

record! {
    /// The controller's answer to a heartbeat; with the frame's time, it gives three of the four time stamps of a clock
    /// comparison.
    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    pub struct HeartbeatReply {
        /// The heartbeat's sequence.
        pub sequence: u32,
        /// The heartbeat's header time, host clock in microseconds.
        pub host_time_us: u64,
        /// When it was received, controller clock in microseconds.
        pub received_us: u64,
    }
}

messages! {
    /// All messages of both directions.
    #[derive(Debug, Clone, Copy, PartialEq)]
    #[expect(clippy::large_enum_variant, reason = "there is no allocator to box with")]
    pub enum Message<'a> {
        /// Host: hello. Opens the session of the frame's header.
        0x01 hello HELLO
        Hello {
            /// The host's [`SCHEMA_HASH`].
            schema: u32
        },
        /// Host: execute this chunk.
        0x02 chunk CHUNK
        Chunk(chunk: Chunk<'a>),
        /// Host: heartbeat.
        0x03 heartbeat HEARTBEAT
        Heartbeat,
        /// Host: arm, permission to move.
        0x04 arm ARM
        Arm,
        /// Host: disarm: ramp to rest, then release the joints.
        0x05 disarm DISARM
        Disarm,
        /// Host: stop: ramp to rest and hold. Accepted with any session and sequence.
        0x06 stop STOP
        Stop,
        /// Host: clear the fault.
        0x07 clear_fault CLEAR_FAULT
        ClearFault,
        /// Controller: answer to a hello.
        0x81 hello_reply HELLO_REPLY
        HelloReply(reply: HelloReply),
        /// Controller: telemetry.
        0x82 state STATE
        State(state: ControllerState),
        /// Controller: verdict on a frame.
        0x83 ack ACK
        Ack(ack: Ack),
        /// Controller: answer to a heartbeat.
        0x84 heartbeat_reply HEARTBEAT_REPLY
        HeartbeatReply(reply: HeartbeatReply),
    }
}

impl Chunk<'_> {
    /// Whether there are as many positions as steps and joints.
    pub(crate) fn is_whole(&self) -> bool {
        usize::from(self.steps).checked_mul(usize::from(self.joints)) == Some(self.positions.len())
    }
}
