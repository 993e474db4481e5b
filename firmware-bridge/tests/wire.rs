//! The wire: pinned bytes, detection of errors, resynchronisation.
#![expect(clippy::expect_used, reason = "a test's helpers fail the test as its body does")]

use firmware_bridge::frame::{Decoder, FrameError, Header, MAX_FRAME, MAX_RAW, MAX_REPLY_FRAME, encode};
use firmware_bridge::joint::{
    FollowingLimit, JointSpec, JointTable, JointVec, Name, OverloadLimit, StallLimit, StopBehaviour, TemperatureLimit,
    Unit,
};
use firmware_bridge::message::{
    Ack, Chunk, ControllerState, Fault, FaultReport, HeartbeatReply, HelloReply, Interpolation, Message, Mode,
    Positions, Progress, Reason, SCHEMA_HASH,
};
use firmware_bridge::{MAX_CHUNK_STEPS, MAX_JOINTS, MAX_NAME};
use proptest::prelude::*;

const HEADER: Header = Header { version: 3, sequence: 0x0403_0201, session: 0x0807_0605, time_us: 0x1122 };

fn frame(message: &Message<'_>) -> Vec<u8> {
    let mut out = vec![0xEE; MAX_FRAME];
    let length = encode(&HEADER, message, &mut out).expect("fits");
    out.truncate(length);
    out
}

/// COBS, CRC and header taken off with code of this test's own.
fn body(message: &Message<'_>) -> Vec<u8> {
    let wire = frame(message);
    let (last, wire) = wire.split_last().expect("not empty");
    assert_eq!(*last, 0);
    assert!(!wire.contains(&0));
    let mut raw = Vec::new();
    let mut rest = wire;
    while let Some((&code, tail)) = rest.split_first() {
        let (run, tail) = tail.split_at(usize::from(code) - 1);
        raw.extend_from_slice(run);
        if code != 0xFF && !tail.is_empty() {
            raw.push(0);
        }
        rest = tail;
    }
    let (content, sum) = raw.split_at(raw.len() - 4);
    let mut crc = u32::MAX;
    for byte in content {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    assert_eq!(sum, (!crc).to_le_bytes(), "CRC-32 of header and body");
    let (head, body) = content.split_at(18);
    assert_eq!(head[0], 3, "version");
    assert_eq!(head[1], message.kind(), "type");
    assert_eq!(head[2..10], [1, 2, 3, 4, 5, 6, 7, 8], "sequence, session");
    assert_eq!(head[10..], [0x22, 0x11, 0, 0, 0, 0, 0, 0], "time");
    body.to_vec()
}

fn joint(name: &str) -> JointSpec {
    JointSpec {
        name: Name::new(name).expect("short"),
        unit: Unit::Metre,
        min: -1.0,
        max: 1.0,
        velocity: 2.0,
        acceleration: 4.0,
        jump: 0.5,
        reach: 8.0,
        following: Some(FollowingLimit { error: 0.25, time_ms: 0x0201 }),
        stall: Some(StallLimit { error: 0.125, motion: 0.5, current_a: 1.0, time_ms: 3 }),
        overload: Some(OverloadLimit { current_a: 2.0, time_ms: 4 }),
        temperature: Some(TemperatureLimit { stop_c: 60, release_c: 70 }),
        voltage: Some([4.0, 8.0]),
    }
}

fn chunk(positions: &[f32]) -> Message<'_> {
    Message::Chunk(Chunk {
        id: 7,
        start_us: 0x0102,
        period_us: 20_000,
        validity_us: 0x0003_0201,
        interpolation: Interpolation::Linear,
        joints: 2,
        steps: 2,
        positions: Positions::Native(positions),
    })
}

fn state() -> ControllerState {
    ControllerState {
        mode: Mode::Faulted(Fault::Estop),
        energised: true,
        estop: true,
        last_sequence: 9,
        progress: Some(Progress { chunk: 5, consumed: 3, steps_left: 0x0201 }),
        clamps: 6,
        starved: 11,
        crc_errors: 7,
        frame_errors: 8,
        frames_dropped: 10,
        measured: JointVec::from_slice(&[1.0]).expect("few"),
        commanded: JointVec::from_slice(&[-2.0]).expect("few"),
        fault: Some(FaultReport {
            fault: Fault::Estop,
            joint: Some(12),
            cause: 13,
            value: 0.5,
            low: -1.0,
            high: 1.0,
            chunk: Some(14),
        }),
    }
}

fn hello_reply(joints: JointTable) -> Message<'static> {
    Message::HelloReply(HelloReply {
        schema: 0x0403_0201,
        identity: Name::new("xyz").expect("short"),
        buffer_depth: 64,
        tick_us: 2000,
        telemetry_us: 10_000,
        deadman_us: 150_000,
        joints,
    })
}

#[test]
fn schema_is_pinned() {
    assert_eq!(SCHEMA_HASH, 0xBB79F0CD, "a layout changed: is the version new?");
}

#[test]
fn whole_frames_are_pinned() {
    // Made by Python's zlib.crc32 and a COBS of its own.
    #[rustfmt::skip]
    assert_eq!(frame(&Message::Heartbeat), [
        0x0D, 0x03, 0x03, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x22, 0x11, 0x01, 0x01,
        0x01, 0x01, 0x01, 0x05, 0x85, 0xD0, 0xD9, 0x37, 0x00,
    ]);
    let hello = Message::Hello { schema: 0x0A0B_0C0D };
    #[rustfmt::skip]
    assert_eq!(frame(&hello), [
        0x0D, 0x03, 0x01, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x08, 0x22, 0x11, 0x01, 0x01,
        0x01, 0x01, 0x01, 0x09, 0x0D, 0x0C, 0x0B, 0x0A, 0x6D, 0x67, 0x98, 0x82, 0x00,
    ]);
}

#[test]
fn bodies_are_pinned() {
    let hello = Message::Hello { schema: 0x0403_0201 };
    assert_eq!(body(&hello), [1, 2, 3, 4]);
    for (message, kind) in
        [(Message::Heartbeat, 3), (Message::Arm, 4), (Message::Disarm, 5), (Message::Stop, 6), (Message::ClearFault, 7)]
    {
        assert_eq!((body(&message), message.kind()), (vec![], kind));
    }
    let positions = [1.0, -2.0, 0.0, 0.5];
    #[rustfmt::skip]
    assert_eq!(body(&chunk(&positions)), [
        7, 0, 0, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0x20, 0x4E, 0, 0, 1, 2, 3, 0, 0, 2, 2, 0,
        0, 0, 0x80, 0x3F, 0, 0, 0, 0xC0, 0, 0, 0, 0, 0, 0, 0, 0x3F,
    ]);
    let mut joints = JointTable::new();
    joints.push(joint("ab")).expect("valid");
    joints.stop = StopBehaviour::RampThenLimp;
    #[rustfmt::skip]
    assert_eq!(body(&hello_reply(joints)), [
        1, 2, 3, 4, 3, b'x', b'y', b'z', 64, 0, 0xD0, 7, 0, 0, 0x10, 0x27, 0, 0, 0xF0, 0x49, 2, 0, 2, 1,
        2, b'a', b'b', 1, 0, 0, 0x80, 0xBF, 0, 0, 0x80, 0x3F, 0, 0, 0, 0x40, 0, 0, 0x80, 0x40,
        0, 0, 0, 0x3F, 0, 0, 0, 0x41, 0b1_1111, 0, 0, 0x80, 0x3E, 1, 2,
        0, 0, 0, 0x3E, 0, 0, 0, 0x3F, 0, 0, 0x80, 0x3F, 3, 0, 0, 0, 0, 0x40, 4, 0, 60, 70,
        0, 0, 0x80, 0x40, 0, 0, 0, 0x41,
    ]);
    #[rustfmt::skip]
    assert_eq!(body(&Message::State(state())), [
        4, 2, 15, 1, 9, 0, 0, 0, 5, 0, 0, 0, 3, 0, 1, 2, 6, 0, 0, 0, 11, 0, 0, 0, 7, 0, 0, 0, 8, 0, 0, 0,
        10, 0, 0, 0, 0, 0, 0x80, 0x3F, 0, 0, 0, 0xC0,
        12, 13, 14, 0, 0, 0, 0, 0, 0, 0x3F, 0, 0, 0x80, 0xBF, 0, 0, 0x80, 0x3F,
    ]);
    let healthy = ControllerState { mode: Mode::Holding, fault: None, ..state() };
    assert_eq!(body(&Message::State(healthy)).len(), 44, "a fault's cause is there with a fault alone");
    let ack = Message::Ack(Ack { sequence: 1, kind: 2, reason: Reason::NotArmed, first_step: 3, start_us: 4 });
    assert_eq!(body(&ack), [1, 0, 0, 0, 2, 12, 3, 0, 4, 0, 0, 0, 0, 0, 0, 0]);
    let reply = Message::HeartbeatReply(HeartbeatReply { sequence: 1, host_time_us: 2, received_us: 3 });
    #[rustfmt::skip]
    assert_eq!(body(&reply), [1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0]);
}

/// What a fresh decoder makes of `bytes`.
fn decode(bytes: &[u8]) -> Vec<Result<(), FrameError>> {
    let mut decoder = Decoder::new();
    let mut out = Vec::new();
    for byte in bytes {
        if let Some(result) = decoder.feed(*byte) {
            out.push(result.map(|_| ()));
        }
    }
    out
}

fn assert_round_trip(message: &Message<'_>) {
    let mut decoder = Decoder::new();
    let wire = frame(message);
    let (last, rest) = wire.split_last().expect("not empty");
    for byte in rest {
        assert!(decoder.feed(*byte).is_none());
    }
    let frame = decoder.feed(*last).expect("complete").expect("good");
    assert_eq!((frame.header, frame.message), (HEADER, *message));
}

#[test]
fn the_largest_messages_fit_and_come_back() {
    let positions: Vec<f32> = (0..MAX_CHUNK_STEPS * MAX_JOINTS).map(|value| value as f32 - 300.0).collect();
    let largest = Message::Chunk(Chunk {
        id: u32::MAX,
        start_us: u64::MAX,
        period_us: u32::MAX,
        validity_us: u32::MAX,
        interpolation: Interpolation::Hermite,
        joints: MAX_JOINTS as u8,
        steps: MAX_CHUNK_STEPS as u16,
        positions: Positions::Native(&positions),
    });
    assert_round_trip(&largest);
    assert!(frame(&largest).len() <= MAX_FRAME);
    let mut joints = JointTable::new();
    while joints.push(joint(&"n".repeat(MAX_NAME))).is_ok() {}
    assert_eq!(usize::from(joints.len()), MAX_JOINTS);
    assert_round_trip(&hello_reply(joints));
    assert!(frame(&hello_reply(joints)).len() <= MAX_REPLY_FRAME);
    assert_round_trip(&Message::State(state()));
}

#[test]
fn what_does_not_fit_is_not_encoded() {
    let wire = frame(&Message::State(state()));
    for room in 0..wire.len() {
        let mut out = vec![0; room];
        assert!(encode(&HEADER, &Message::State(state()), &mut out).is_err());
    }
    let contradiction = chunk(&[1.0; 3]);
    assert!(encode(&HEADER, &contradiction, &mut [0; MAX_FRAME]).is_err());
}

#[test]
fn each_single_bit_flip_is_detected() {
    let wire = frame(&chunk(&[1.0, -2.0, 0.0, 0.5]));
    for bit in 0..wire.len() * 8 {
        let mut flipped = wire.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        // A frame whose own end was hit ends with the next one's.
        flipped.push(0);
        let results = decode(&flipped);
        assert!(!results.is_empty(), "bit {bit} went unnoticed");
        assert!(results.iter().all(Result::is_err), "bit {bit} was accepted");
    }
}

#[test]
fn the_decoder_resynchronises_at_the_next_zero() {
    let good = frame(&Message::Arm);
    let mut long = vec![0xFF; MAX_RAW + 600];
    long.push(0);
    for (garbage, error) in [
        (vec![9, 1, 2, 0], FrameError::Cobs),
        (vec![3, 1, 2, 0], FrameError::TooShort),
        (long, FrameError::TooLong),
        ([&[23][..], &[7; 22], &[0]].concat(), FrameError::Crc),
    ] {
        let stream = [&good[..], &garbage, &good].concat();
        assert_eq!(decode(&stream), [Ok(()), Err(error), Ok(())]);
    }
    assert_eq!(decode(&[0, 0, 0]), [], "idle zeros are not frames");
}

#[test]
fn whole_frames_of_another_kind_are_distinguished_from_noise() {
    let header = Header { version: 1, ..HEADER };
    let mut out = [0; 64];
    let length = encode(&header, &Message::Arm, &mut out).expect("fits");
    assert_eq!(decode(&out[..length]), [Err(FrameError::Version { found: 1, header })]);
}

proptest! {
    /// Random bytes neither panic nor make a frame, and a good frame after them arrives.
    #[test]
    fn random_bytes_are_survived(noise in proptest::collection::vec(any::<u8>(), 0..6000)) {
        let stream = [&noise[..], &[0], &frame(&Message::Stop)].concat();
        let results = decode(&stream);
        prop_assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        prop_assert!(results.last().is_some_and(Result::is_ok));
    }

    /// Bodies of random bytes behind a good CRC do not panic the readers of messages.
    #[test]
    fn random_bodies_are_survived(kind in any::<u8>(), body in proptest::collection::vec(any::<u8>(), 0..300)) {
        let raw = [&[3, kind][..], &[0; 16], &body].concat();
        let sum = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC).checksum(&raw);
        let raw = [&raw[..], &sum.to_le_bytes()].concat();
        let mut wire = vec![0; raw.len() + 8];
        let length = cobs::encode(&raw, &mut wire);
        wire.truncate(length);
        wire.push(0);
        let results = decode(&wire);
        let expected = matches!(
            results[..],
            [Ok(()) | Err(FrameError::UnknownType { .. } | FrameError::Malformed { .. })]
        );
        prop_assert!(expected, "{:?}", results);
    }
}
