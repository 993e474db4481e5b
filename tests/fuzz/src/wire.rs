//! What arrives on the serial line.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use firmware_bridge::bridge::Bridge;
use firmware_bridge::controller::{Config, Controller};
use firmware_bridge::frame::{Decoder, Header, MAX_FRAME, encode};
use firmware_bridge::joint::{JointSpec, JointTable, Name, Unit};
use firmware_bridge::message::{Message, Mode, SCHEMA_HASH};
use firmware_bridge::output::{NoEstop, SimulatedJoints};

/// Bytes off a line: what the decoder accepts says the same when it is encoded again.
pub fn frame(data: &[u8]) {
    let mut decoder = Decoder::new();
    let (mut once, mut twice) = ([0; MAX_FRAME], [0; MAX_FRAME]);
    for byte in data {
        let Some(Ok(frame)) = decoder.feed(*byte) else { continue };
        let length = encode(&frame.header, &frame.message, &mut once).expect("it came in a frame");
        let mut again = Decoder::new();
        let last = once[..length].iter().filter_map(|byte| {
            let frame = again.feed(*byte)?.expect("its own encoding");
            Some(encode(&frame.header, &frame.message, &mut twice).expect("it came in a frame"))
        });
        let lengths: Vec<usize> = last.collect();
        assert_eq!(lengths, [length]);
        assert_eq!(once[..length], twice[..length]);
    }
}

/// Bodies behind a good CRC, sent to an armed controller: whatever they say, each command is finite and within the
/// joint's limits, and nothing moves without permission.
///
/// The input is a sequence of: type, ticks until the next, length (two bytes), body.
pub fn message(data: &[u8]) {
    let line = Line::default();
    let mut joints = JointTable::new();
    for name in ["a", "b"] {
        let name = Name::new(name).expect("short");
        let spec = JointSpec::new(name, Unit::Radian, [-1.0, 1.0], 2.0).with_jump(0.5);
        joints.push(JointSpec { acceleration: 20.0, ..spec }).expect("valid");
    }
    let arm = SimulatedJoints::new(&joints, &[0.1, -0.1], 0.0);
    let mut bridge = Bridge::new(line.clone(), Controller::new(Config::new(joints), arm, NoEstop));
    let (mut now_us, mut sequence) = (10_000, 0);
    let mut wire = [0; MAX_FRAME];
    // The joints are measured before they are armed.
    for message in [Message::Hello { schema: SCHEMA_HASH }, Message::Heartbeat, Message::Heartbeat, Message::Arm] {
        sequence += 1;
        let length = encode(&Header::new(sequence, 7, now_us), &message, &mut wire).expect("fits");
        line.0.borrow_mut().extend(&wire[..length]);
        turn(&mut bridge, &mut now_us);
    }
    assert_eq!(bridge.controller().mode(), Mode::Holding);
    let mut rest = data;
    while let [kind, ticks, low, high, tail @ ..] = rest {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(tail.len());
        let (body, after) = tail.split_at(length);
        sequence += 1;
        line.0.borrow_mut().extend(framed(*kind, sequence, now_us, body));
        for _ in 0..(*ticks).max(1) {
            turn(&mut bridge, &mut now_us);
        }
        rest = after;
    }
}

/// One tick of 2 ms, with the checks.
fn turn(bridge: &mut Bridge<Line, SimulatedJoints, NoEstop>, now_us: &mut u64) {
    *now_us += 2_000;
    let joints = bridge.controller_mut().output_mut();
    let before = joints.positions().to_vec();
    joints.step(0.002);
    let after = joints.positions().to_vec();
    let state = bridge.controller().state(&Default::default(), 0);
    for (at, was) in after.iter().zip(&before) {
        assert!((-1.0..=1.0).contains(at), "{after:?} {state:?}");
        assert!((at - was).abs() <= 2.0 * 0.002 + 1e-6, "{before:?} {after:?}");
        assert!(state.energised || at == was, "{before:?} {after:?} {state:?}");
    }
    bridge.poll(*now_us);
}

/// A frame of any type and body, with a good CRC.
fn framed(kind: u8, sequence: u32, time_us: u64, body: &[u8]) -> Vec<u8> {
    let mut raw = vec![firmware_bridge::PROTOCOL_VERSION, kind];
    raw.extend(sequence.to_le_bytes());
    raw.extend(7_u32.to_le_bytes());
    raw.extend(time_us.to_le_bytes());
    raw.extend(body);
    raw.extend(sum(&raw).to_le_bytes());
    stuffed(&raw)
}

/// CRC-32 as of frames, and of a recording's chunks.
pub fn sum(bytes: &[u8]) -> u32 {
    let mut sum = u32::MAX;
    for byte in bytes {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xEDB8_8320 & (sum & 1).wrapping_neg());
        }
    }
    !sum
}

/// `COBS(raw) 0x00`.
pub fn stuffed(raw: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for run in raw.split(|byte| *byte == 0) {
        let mut chunks = run.chunks(254).peekable();
        if chunks.peek().is_none() {
            wire.push(1);
        }
        while let Some(chunk) = chunks.next() {
            wire.push(chunk.len() as u8 + 1);
            wire.extend(chunk);
            if chunk.len() == 254 && chunks.peek().is_none() {
                wire.push(1);
            }
        }
    }
    wire.push(0);
    wire
}

#[derive(Clone, Default)]
struct Line(Rc<RefCell<VecDeque<u8>>>);

impl ErrorType for Line {
    type Error = Infallible;
}

impl ReadReady for Line {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(!self.0.borrow().is_empty())
    }
}

impl Read for Line {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Infallible> {
        let mut line = self.0.borrow_mut();
        let count = out.len().min(line.len());
        for (to, from) in out.iter_mut().zip(line.drain(..count)) {
            *to = from;
        }
        Ok(count)
    }
}

impl WriteReady for Line {
    fn write_ready(&mut self) -> Result<bool, Infallible> {
        Ok(true)
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}
