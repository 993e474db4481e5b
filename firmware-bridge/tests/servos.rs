//! Back-ends: servos on a bus and on PWM channels, and the ring between interrupt and main loop.
#![expect(clippy::expect_used, clippy::panic, reason = "a test's helpers fail the test as its body does")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;

use embedded_hal::pwm::{ErrorType as PwmErrorType, SetDutyCycle};
use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use firmware_bridge::output::{
    BusError, BusServo, Dynamixel2, FeetechSts, JointOutput, Packet, PulseRange, PwmServos, Received, ServoBus,
    ServoProtocol, Status,
};
use firmware_bridge::ring::{Ring, RingSerial};

fn sent(write: impl FnOnce(&mut Packet)) -> Vec<u8> {
    let mut packet = Packet::new();
    write(&mut packet);
    packet.as_slice().to_vec()
}

/// The examples of ROBOTIS's manual of protocol 2, sync write, sync read and its two answers.
#[test]
fn dynamixels_packets_are_those_of_its_manual() {
    let goals = [(1, 150), (2, 170)];
    #[rustfmt::skip]
    assert_eq!(sent(|out| Dynamixel2.write_goals(goals.into_iter(), out)), [
        0xFF, 0xFF, 0xFD, 0x00, 0xFE, 0x11, 0x00, 0x83, 0x74, 0x00, 0x04, 0x00, 0x01, 0x96, 0x00, 0x00, 0x00, 0x02,
        0xAA, 0x00, 0x00, 0x00, 0x82, 0x87,
    ]);
    assert_eq!(
        sent(|out| Dynamixel2.read_positions([1, 2].into_iter(), out)),
        [0xFF, 0xFF, 0xFD, 0x00, 0xFE, 0x09, 0x00, 0x82, 0x84, 0x00, 0x04, 0x00, 0x01, 0x02, 0xCE, 0xFA]
    );
    let answer = [0xFF, 0xFF, 0xFD, 0x00, 0x02, 0x08, 0x00, 0x55, 0x00, 0x1F, 0x08, 0x00, 0x00, 0xBA, 0xBE];
    let status = Status { id: 2, error: 0, position: Some(2079) };
    assert_eq!(Dynamixel2.examine(&answer), Received::Status { length: 15, status });
    for cut in 0..answer.len() {
        assert_eq!(Dynamixel2.examine(&answer[..cut]), Received::Incomplete, "{cut} bytes");
    }
    let mut wrong = answer;
    wrong[9] ^= 4;
    assert_eq!(Dynamixel2.examine(&wrong), Received::Noise);
    // A goal that looks like the head of a packet has a byte put in.
    let stuffed = sent(|out| Dynamixel2.write_goals([(1, 0x00FD_FFFF)].into_iter(), out));
    assert_eq!(stuffed[13..18], [0xFF, 0xFF, 0xFD, 0xFD, 0x00]);
    assert_eq!(stuffed[5], 13, "the length counts it");
}

/// The answer is the example of Feetech's manual (read of the present position).
#[test]
fn feetechs_packets_are_those_of_its_manual() {
    let goals = [(1, 2048), (2, 9000)];
    assert_eq!(
        sent(|out| FeetechSts.write_goals(goals.into_iter(), out)),
        [0xFF, 0xFF, 0xFE, 10, 0x83, 42, 2, 1, 0x00, 0x08, 2, 0xFF, 0x0F, 0x2F],
        "and a goal beyond the turn is its end"
    );
    assert_eq!(
        sent(|out| FeetechSts.read_positions([1, 2].into_iter(), out)),
        [0xFF, 0xFF, 0xFE, 6, 0x82, 56, 2, 1, 2, 0x3C]
    );
    let answer = [0xFF, 0xFF, 0x01, 0x04, 0x00, 0x18, 0x05, 0xDD];
    let status = Status { id: 1, error: 0, position: Some(0x0518) };
    assert_eq!(FeetechSts.examine(&answer), Received::Status { length: 8, status });
    let mut wrong = answer;
    wrong[7] ^= 1;
    assert_eq!(FeetechSts.examine(&wrong), Received::Noise);
    let negative = [0xFF, 0xFF, 0x01, 0x04, 0x00, 0x05, 0x80, 0x75];
    let status = Status { id: 1, error: 0, position: Some(-5) };
    assert_eq!(FeetechSts.examine(&negative), Received::Status { length: 8, status });
}

/// STS servos with the addresses 1 to 3 on a line that echoes, written for this test alone.
#[derive(Default)]
struct Servos {
    goals: [u16; 4],
    torque: [bool; 4],
    positions: [u16; 4],
    error: [u8; 4],
    mute: [bool; 4],
    /// Bytes on their way to the controller.
    line: VecDeque<u8>,
    requests: usize,
    /// Flips a bit of each n-th byte.
    noise: usize,
    count: usize,
}

impl Servos {
    fn obey(&mut self, bytes: &[u8]) {
        self.line.extend(bytes);
        let mut rest = bytes;
        while let [0xFF, 0xFF, 0xFE, length, tail @ ..] = rest {
            let (content, after) = tail.split_at(usize::from(*length));
            match content {
                [0x83, 42, 2, data @ .., _] => {
                    for servo in data.chunks_exact(3) {
                        self.goals[usize::from(servo[0])] = u16::from_le_bytes([servo[1], servo[2]]);
                    }
                }
                [0x83, 40, 1, data @ .., _] => {
                    for servo in data.chunks_exact(2) {
                        self.torque[usize::from(servo[0])] = servo[1] == 1;
                    }
                }
                [0x82, 56, 2, ids @ .., _] => {
                    self.requests += 1;
                    for id in ids {
                        self.answer(*id);
                    }
                }
                other => panic!("{other:?}"),
            }
            rest = after;
        }
        assert_eq!(rest, [], "not a packet");
    }

    fn answer(&mut self, id: u8) {
        let at = usize::from(id);
        if self.mute[at] {
            return;
        }
        if self.torque[at] {
            self.positions[at] = self.goals[at];
        }
        let [low, high] = self.positions[at].to_le_bytes();
        let content = [id, 4, self.error[at], low, high];
        let sum = content.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        self.line.extend([0xFF, 0xFF].into_iter().chain(content).chain([!sum]));
    }
}

#[derive(Clone, Default)]
struct Line(Rc<RefCell<Servos>>);

impl ErrorType for Line {
    type Error = Infallible;
}

impl ReadReady for Line {
    fn read_ready(&mut self) -> Result<bool, Infallible> {
        Ok(!self.0.borrow().line.is_empty())
    }
}

impl Read for Line {
    fn read(&mut self, out: &mut [u8]) -> Result<usize, Infallible> {
        let mut servos = self.0.borrow_mut();
        let count = out.len().min(servos.line.len());
        for place in &mut out[..count] {
            servos.count += 1;
            let hit = servos.noise > 0 && servos.count.is_multiple_of(servos.noise);
            *place = servos.line.pop_front().expect("counted") ^ u8::from(hit);
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
        self.0.borrow_mut().obey(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> Result<(), Infallible> {
        Ok(())
    }
}

fn bus() -> (ServoBus<Line, FeetechSts, 3>, Rc<RefCell<Servos>>) {
    let line = Line::default();
    let servos = Rc::clone(&line.0);
    servos.borrow_mut().positions = [0, 1000, 2048, 3000];
    let counts_per_unit = [1000.0, -1000.0, BusServo::PER_RADIAN];
    let joints = [1, 2, 3].map(|id| BusServo { id, zero: 2048, counts_per_unit: counts_per_unit[usize::from(id) - 1] });
    (ServoBus::new(line, FeetechSts, joints), servos)
}

#[test]
fn servos_on_a_bus_are_measured_driven_and_released() {
    let (mut bus, servos) = bus();
    let mut at = [0.0; 3];
    assert_eq!(bus.measure(&mut at), Err(BusError::Silent { id: 1 }), "not asked before");
    assert!(!bus.is_known());
    bus.measure(&mut at).expect("all answered");
    assert!(bus.is_known());
    assert_eq!(at[..2], [-1.048, 0.0]);
    assert!((at[2] - 952.0 / 651.9).abs() < 1e-3);
    assert_eq!(servos.borrow().torque, [false; 4], "to measure drives nothing");

    let command = [-1.0, 0.5, 1.0];
    for _ in 0..4 {
        bus.measure(&mut at).expect("answers");
        bus.command(&command).expect("no alarm");
    }
    assert_eq!(servos.borrow().torque, [false, true, true, true]);
    assert_eq!(servos.borrow().goals, [0, 1048, 1548, 2700]);
    bus.measure(&mut at).expect("answers");
    for (at, command) in at.iter().zip(command) {
        assert!((at - command).abs() < 1e-3, "{at} is not {command}");
    }
    bus.release().expect("sent");
    assert_eq!(servos.borrow().torque, [false; 4]);
}

#[test]
fn a_missing_servo_and_an_alarm_are_errors() {
    let (mut bus, servos) = bus();
    let mut at = [0.0; 3];
    let mut tick = |bus: &mut ServoBus<Line, FeetechSts, 3>| {
        bus.measure(&mut at)?;
        bus.command(&[0.0; 3])
    };
    let _ = tick(&mut bus);
    for _ in 0..3 {
        tick(&mut bus).expect("all answer");
    }
    servos.borrow_mut().error[2] = 0x20;
    let alarm = (0..3).find_map(|_| tick(&mut bus).err());
    assert_eq!(alarm, Some(BusError::Alarm { id: 2, error: 0x20 }));
    servos.borrow_mut().error[2] = 0;
    servos.borrow_mut().mute[3] = true;
    let requests = servos.borrow().requests;
    let silent = (0..40).filter_map(|_| tick(&mut bus).err()).last();
    assert_eq!(silent, Some(BusError::Silent { id: 3 }));
    assert!(servos.borrow().requests > requests + 5, "the others are asked on");
}

/// Answers with flipped bits are left out, and the bus goes on.
#[test]
fn a_noisy_bus_gives_no_wrong_position() {
    let (mut bus, servos) = bus();
    servos.borrow_mut().noise = 37;
    let mut at = [0.0; 3];
    let mut good = 0;
    for _ in 0..2000 {
        if bus.measure(&mut at).is_ok() {
            good += 1;
            assert_eq!(at[..2], [-1.048, 0.0]);
        }
        // Never driven: the positions stay.
    }
    assert!(good > 1500, "{good} of 2000");
}

/// A channel of 10,000 counts.
#[derive(Default)]
struct Channel(u16);

impl PwmErrorType for Channel {
    type Error = Infallible;
}

impl SetDutyCycle for Channel {
    fn max_duty_cycle(&self) -> u16 {
        10_000
    }

    fn set_duty_cycle(&mut self, duty: u16) -> Result<(), Infallible> {
        self.0 = duty;
        Ok(())
    }
}

#[derive(Clone, Default)]
struct SharedChannel(Rc<RefCell<Channel>>);

impl PwmErrorType for SharedChannel {
    type Error = Infallible;
}

impl SetDutyCycle for SharedChannel {
    fn max_duty_cycle(&self) -> u16 {
        self.0.borrow().max_duty_cycle()
    }

    fn set_duty_cycle(&mut self, duty: u16) -> Result<(), Infallible> {
        self.0.borrow_mut().set_duty_cycle(duty)
    }
}

#[test]
fn pwm_servos_get_their_pulses() {
    let channels = [SharedChannel::default(), SharedChannel::default()];
    // 20 ms: a count is 2 us.
    let range = PulseRange { low: -1.0, high: 1.0, low_us: 1000.0, high_us: 2000.0 };
    let reversed = PulseRange { low_us: 2000.0, high_us: 1000.0, ..range };
    let mut servos = PwmServos::new(channels.clone(), [range, reversed], 20_000.0, [0.25, 0.0]);
    let mut at = [9.0; 2];
    servos.measure(&mut at).expect("infallible");
    assert_eq!(at, [0.25, 0.0], "at rest");
    servos.command(&[0.0, 0.5]).expect("infallible");
    let duties = || channels.clone().map(|channel| channel.0.borrow().0);
    assert_eq!(duties(), [750, 625]);
    servos.measure(&mut at).expect("infallible");
    assert_eq!(at, [0.0, 0.5]);
    servos.command(&[f32::NAN, 1.0]).expect("infallible");
    assert_eq!(duties(), [0, 500], "not a number is no pulse");
    servos.release().expect("infallible");
    assert_eq!(duties(), [0, 0]);
}

#[test]
fn a_ring_keeps_the_order_and_counts_what_it_loses() {
    static BEGUN: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let (received, sending) = (Ring::<8>::new(), Ring::<4>::new());
    let mut serial = RingSerial::new(&received, &sending, || {
        BEGUN.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    });
    for round in 0..10_u8 {
        for byte in 0..9 {
            assert_eq!(received.push(round + byte), byte < 8);
        }
        let mut out = [0; 5];
        assert!(serial.read_ready().expect("infallible"));
        assert_eq!(serial.read(&mut out), Ok(5));
        assert_eq!(out, [0, 1, 2, 3, 4].map(|byte| round + byte));
        assert_eq!(serial.read(&mut out), Ok(3));
        assert_eq!(serial.read_ready(), Ok(false));
    }
    assert_eq!(received.lost(), 10);
    assert_eq!(serial.write(&[1, 2, 3, 4, 5]), Ok(4));
    assert_eq!(serial.write_ready(), Ok(false));
    assert_eq!(BEGUN.load(std::sync::atomic::Ordering::Relaxed), 1);
    assert_eq!([(); 5].map(|()| sending.pop()), [Some(1), Some(2), Some(3), Some(4), None]);
    assert_eq!(sending.lost(), 0, "what there was no room for is still the writer's");
}
