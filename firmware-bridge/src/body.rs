//! Byte layouts of the messages' bodies, as [`crate::message::SCHEMA`] has them.

use crate::MAX_CHUNK_STEPS;
use crate::joint::{
    FollowingLimit, JointSpec, JointTable, JointVec, Name, OverloadLimit, StallLimit, StopBehaviour, TemperatureLimit,
    Unit,
};
use crate::message::{
    Ack, Chunk, Fault, FaultReport, HeartbeatReply, HelloReply, Interpolation, Message, Mode, Positions, Progress,
    Reason, State, kind,
};
use crate::wire::{Full, Reader, Writer};

const FLAG_ENERGISED: u8 = 1;
const FLAG_ESTOP: u8 = 1 << 1;
const FLAG_PROGRESS: u8 = 1 << 2;
const FLAG_FAULT_CHUNK: u8 = 1 << 3;

/// The joint of a fault that is no joint's.
const NO_JOINT: u8 = u8::MAX;

const LIMIT_FOLLOWING: u8 = 1;
const LIMIT_STALL: u8 = 1 << 1;
const LIMIT_OVERLOAD: u8 = 1 << 2;
const LIMIT_TEMPERATURE: u8 = 1 << 3;
const LIMIT_VOLTAGE: u8 = 1 << 4;

impl<'a> Message<'a> {
    /// The type byte, see [`kind`].
    pub fn kind(&self) -> u8 {
        match self {
            Self::Hello { .. } => kind::HELLO,
            Self::Chunk(_) => kind::CHUNK,
            Self::Heartbeat => kind::HEARTBEAT,
            Self::Arm => kind::ARM,
            Self::Disarm => kind::DISARM,
            Self::Stop => kind::STOP,
            Self::ClearFault => kind::CLEAR_FAULT,
            Self::HelloReply(_) => kind::HELLO_REPLY,
            Self::State(_) => kind::STATE,
            Self::Ack(_) => kind::ACK,
            Self::HeartbeatReply(_) => kind::HEARTBEAT_REPLY,
        }
    }

    pub(crate) fn write(&self, w: &mut Writer<'_>) -> Result<(), Full> {
        match self {
            Self::Hello { schema } => w.u32(*schema),
            Self::Chunk(chunk) => write_chunk(chunk, w),
            Self::Heartbeat | Self::Arm | Self::Disarm | Self::Stop | Self::ClearFault => Ok(()),
            Self::HelloReply(reply) => write_hello_reply(reply, w),
            Self::State(state) => write_state(state, w),
            Self::Ack(ack) => {
                w.u32(ack.sequence)?;
                w.u8(ack.kind)?;
                w.u8(ack.reason as u8)?;
                w.u16(ack.first_step)?;
                w.u64(ack.start_us)
            }
            Self::HeartbeatReply(reply) => {
                w.u32(reply.sequence)?;
                w.u64(reply.host_time_us)?;
                w.u64(reply.received_us)
            }
        }
    }

    /// The message of a type and body; `None` when the body is not one of that type.
    pub(crate) fn read(kind: u8, body: &'a [u8]) -> Option<Self> {
        let mut r = Reader::new(body);
        let message = match kind {
            kind::HELLO => Self::Hello { schema: r.u32()? },
            kind::CHUNK => Self::Chunk(read_chunk(&mut r)?),
            kind::HEARTBEAT => Self::Heartbeat,
            kind::ARM => Self::Arm,
            kind::DISARM => Self::Disarm,
            kind::STOP => Self::Stop,
            kind::CLEAR_FAULT => Self::ClearFault,
            kind::HELLO_REPLY => Self::HelloReply(read_hello_reply(&mut r)?),
            kind::STATE => Self::State(read_state(&mut r)?),
            kind::ACK => Self::Ack(Ack {
                sequence: r.u32()?,
                kind: r.u8()?,
                reason: Reason::from_u8(r.u8()?)?,
                first_step: r.u16()?,
                start_us: r.u64()?,
            }),
            kind::HEARTBEAT_REPLY => Self::HeartbeatReply(HeartbeatReply {
                sequence: r.u32()?,
                host_time_us: r.u64()?,
                received_us: r.u64()?,
            }),
            _ => return None,
        };
        r.is_empty().then_some(message)
    }

    /// Whether some message has this type byte.
    pub(crate) fn is_known(kind: u8) -> bool {
        matches!(kind, kind::HELLO..=kind::CLEAR_FAULT | kind::HELLO_REPLY..=kind::HEARTBEAT_REPLY)
    }
}

fn write_chunk(chunk: &Chunk<'_>, w: &mut Writer<'_>) -> Result<(), Full> {
    w.u32(chunk.id)?;
    w.u64(chunk.start_us)?;
    w.u32(chunk.period_us)?;
    w.u32(chunk.validity_us)?;
    w.u8(chunk.interpolation as u8)?;
    w.u8(chunk.joints)?;
    w.u16(chunk.steps)?;
    for value in chunk.positions.iter() {
        w.f32(value)?;
    }
    Ok(())
}

fn read_chunk<'a>(r: &mut Reader<'a>) -> Option<Chunk<'a>> {
    let id = r.u32()?;
    let start_us = r.u64()?;
    let period_us = r.u32()?;
    let validity_us = r.u32()?;
    let interpolation = match r.u8()? {
        0 => Interpolation::Linear,
        1 => Interpolation::Hermite,
        _ => return None,
    };
    let joints = r.u8()?;
    let steps = r.u16()?;
    let bytes = usize::from(steps).checked_mul(usize::from(joints))?.checked_mul(4)?;
    Some(Chunk {
        id,
        start_us,
        period_us,
        validity_us,
        interpolation,
        joints,
        steps,
        positions: Positions::Wire(r.take(bytes)?),
    })
}

/// Whether the chunk's counts fit the wire and each other.
pub(crate) fn chunk_is_consistent(chunk: &Chunk<'_>) -> bool {
    usize::from(chunk.steps).checked_mul(usize::from(chunk.joints)) == Some(chunk.positions.len())
        && usize::from(chunk.steps) <= MAX_CHUNK_STEPS
}

fn flag(set: bool, flag: u8) -> u8 {
    if set { flag } else { 0 }
}

fn write_name(name: &Name, w: &mut Writer<'_>) -> Result<(), Full> {
    let name = name.as_str();
    w.u8(u8::try_from(name.len()).map_err(|_| Full)?)?;
    w.bytes(name.as_bytes())
}

fn read_name(r: &mut Reader<'_>) -> Option<Name> {
    let length = r.u8()?;
    Name::new(core::str::from_utf8(r.take(usize::from(length))?).ok()?)
}

fn write_hello_reply(reply: &HelloReply, w: &mut Writer<'_>) -> Result<(), Full> {
    w.u32(reply.schema)?;
    write_name(&reply.identity, w)?;
    w.u16(reply.buffer_depth)?;
    w.u32(reply.tick_us)?;
    w.u32(reply.telemetry_us)?;
    w.u32(reply.deadman_us)?;
    w.u8(reply.joints.stop as u8)?;
    w.u8(reply.joints.len())?;
    for joint in reply.joints.as_slice() {
        write_name(&joint.name, w)?;
        w.u8(joint.unit as u8)?;
        for limit in [joint.min, joint.max, joint.velocity, joint.acceleration, joint.jump, joint.reach] {
            w.f32(limit)?;
        }
        write_limits(joint, w)?;
    }
    Ok(())
}

fn read_hello_reply(r: &mut Reader<'_>) -> Option<HelloReply> {
    let mut reply = HelloReply {
        schema: r.u32()?,
        identity: read_name(r)?,
        buffer_depth: r.u16()?,
        tick_us: r.u32()?,
        telemetry_us: r.u32()?,
        deadman_us: r.u32()?,
        joints: JointTable::new(),
    };
    reply.joints.stop = StopBehaviour::from_u8(r.u8()?)?;
    for _ in 0..r.u8()? {
        let mut joint = JointSpec {
            name: read_name(r)?,
            unit: Unit::from_u8(r.u8()?)?,
            min: r.f32()?,
            max: r.f32()?,
            velocity: r.f32()?,
            acceleration: r.f32()?,
            jump: r.f32()?,
            reach: r.f32()?,
            following: None,
            stall: None,
            overload: None,
            temperature: None,
            voltage: None,
        };
        read_limits(&mut joint, r)?;
        reply.joints.push(joint).ok()?;
    }
    Some(reply)
}

/// A joint's limits that lead to faults; those that it has not are zeros.
fn write_limits(joint: &JointSpec, w: &mut Writer<'_>) -> Result<(), Full> {
    w.u8(flag(joint.following.is_some(), LIMIT_FOLLOWING)
        | flag(joint.stall.is_some(), LIMIT_STALL)
        | flag(joint.overload.is_some(), LIMIT_OVERLOAD)
        | flag(joint.temperature.is_some(), LIMIT_TEMPERATURE)
        | flag(joint.voltage.is_some(), LIMIT_VOLTAGE))?;
    let following = joint.following.unwrap_or(FollowingLimit { error: 0.0, time_ms: 0 });
    w.f32(following.error)?;
    w.u16(following.time_ms)?;
    let stall = joint.stall.unwrap_or(StallLimit { error: 0.0, motion: 0.0, current_a: 0.0, time_ms: 0 });
    w.f32(stall.error)?;
    w.f32(stall.motion)?;
    w.f32(stall.current_a)?;
    w.u16(stall.time_ms)?;
    let overload = joint.overload.unwrap_or(OverloadLimit { current_a: 0.0, time_ms: 0 });
    w.f32(overload.current_a)?;
    w.u16(overload.time_ms)?;
    let temperature = joint.temperature.unwrap_or(TemperatureLimit { stop_c: 0, release_c: 0 });
    w.u8(temperature.stop_c)?;
    w.u8(temperature.release_c)?;
    let [low, high] = joint.voltage.unwrap_or([0.0; 2]);
    w.f32(low)?;
    w.f32(high)
}

fn read_limits(joint: &mut JointSpec, r: &mut Reader<'_>) -> Option<()> {
    let limits = r.u8()?;
    if limits & !(LIMIT_FOLLOWING | LIMIT_STALL | LIMIT_OVERLOAD | LIMIT_TEMPERATURE | LIMIT_VOLTAGE) != 0 {
        return None;
    }
    let has = |limit| limits & limit != 0;
    let following = FollowingLimit { error: r.f32()?, time_ms: r.u16()? };
    let stall = StallLimit { error: r.f32()?, motion: r.f32()?, current_a: r.f32()?, time_ms: r.u16()? };
    let overload = OverloadLimit { current_a: r.f32()?, time_ms: r.u16()? };
    let temperature = TemperatureLimit { stop_c: r.u8()?, release_c: r.u8()? };
    let voltage = [r.f32()?, r.f32()?];
    joint.following = has(LIMIT_FOLLOWING).then_some(following);
    joint.stall = has(LIMIT_STALL).then_some(stall);
    joint.overload = has(LIMIT_OVERLOAD).then_some(overload);
    joint.temperature = has(LIMIT_TEMPERATURE).then_some(temperature);
    joint.voltage = has(LIMIT_VOLTAGE).then_some(voltage);
    Some(())
}

fn write_state(state: &State, w: &mut Writer<'_>) -> Result<(), Full> {
    let (mode, fault) = state.mode.to_bytes();
    let progress = state.progress.unwrap_or(Progress { chunk: 0, consumed: 0, steps_left: 0 });
    let joints = state.measured.as_slice().len();
    let report = match (state.mode, &state.fault) {
        (Mode::Faulted(fault), Some(report)) if report.fault == fault => Some(report),
        (Mode::Faulted(_), _) | (_, Some(_)) => return Err(Full),
        (_, None) => None,
    };
    if state.commanded.as_slice().len() != joints {
        return Err(Full);
    }
    w.u8(mode)?;
    w.u8(fault)?;
    w.u8(flag(state.energised, FLAG_ENERGISED)
        | flag(state.estop, FLAG_ESTOP)
        | flag(state.progress.is_some(), FLAG_PROGRESS)
        | flag(report.is_some_and(|report| report.chunk.is_some()), FLAG_FAULT_CHUNK))?;
    w.u8(u8::try_from(joints).map_err(|_| Full)?)?;
    w.u32(state.last_sequence)?;
    w.u32(progress.chunk)?;
    w.u16(progress.consumed)?;
    w.u16(progress.steps_left)?;
    w.u32(state.clamps)?;
    w.u32(state.starved)?;
    w.u32(state.crc_errors)?;
    w.u32(state.frame_errors)?;
    w.u32(state.frames_dropped)?;
    for value in state.measured.as_slice().iter().chain(state.commanded.as_slice()) {
        w.f32(*value)?;
    }
    let Some(report) = report else { return Ok(()) };
    w.u8(report.joint.unwrap_or(NO_JOINT))?;
    w.u8(report.cause)?;
    w.u32(report.chunk.unwrap_or(0))?;
    w.f32(report.value)?;
    w.f32(report.low)?;
    w.f32(report.high)
}

fn read_state(r: &mut Reader<'_>) -> Option<State> {
    let mode = Mode::from_bytes(r.u8()?, r.u8()?)?;
    let flags = r.u8()?;
    if flags & !(FLAG_ENERGISED | FLAG_ESTOP | FLAG_PROGRESS | FLAG_FAULT_CHUNK) != 0 {
        return None;
    }
    let joints = r.u8()?;
    let last_sequence = r.u32()?;
    let progress = Progress { chunk: r.u32()?, consumed: r.u16()?, steps_left: r.u16()? };
    Some(State {
        mode,
        energised: flags & FLAG_ENERGISED != 0,
        estop: flags & FLAG_ESTOP != 0,
        last_sequence,
        progress: (flags & FLAG_PROGRESS != 0).then_some(progress),
        clamps: r.u32()?,
        starved: r.u32()?,
        crc_errors: r.u32()?,
        frame_errors: r.u32()?,
        frames_dropped: r.u32()?,
        measured: read_joints(joints, r)?,
        commanded: read_joints(joints, r)?,
        fault: match mode {
            Mode::Faulted(fault) => Some(read_fault(fault, flags, r)?),
            _ if flags & FLAG_FAULT_CHUNK != 0 => return None,
            _ => None,
        },
    })
}

fn read_fault(fault: Fault, flags: u8, r: &mut Reader<'_>) -> Option<FaultReport> {
    let joint = r.u8()?;
    let cause = r.u8()?;
    let chunk = r.u32()?;
    Some(FaultReport {
        fault,
        joint: (joint != NO_JOINT).then_some(joint),
        cause,
        value: r.f32()?,
        low: r.f32()?,
        high: r.f32()?,
        chunk: (flags & FLAG_FAULT_CHUNK != 0).then_some(chunk),
    })
}

fn read_joints(joints: u8, r: &mut Reader<'_>) -> Option<JointVec> {
    let mut values = JointVec::zeros(joints);
    if values.as_slice().len() != usize::from(joints) {
        return None;
    }
    for value in values.as_mut_slice() {
        *value = r.f32()?;
    }
    Some(values)
}
