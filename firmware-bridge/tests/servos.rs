//! Back-ends: servos on a bus and on PWM channels, and the ring between interrupt and main loop.
#![expect(clippy::expect_used, clippy::panic, reason = "a test's helpers fail the test as its body does")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::rc::Rc;

use embedded_hal::pwm::{ErrorType as PwmErrorType, SetDutyCycle};
use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};
use firmware_bridge::message::Alarms;
use firmware_bridge::output::{
    BusServo, Content, Dynamixel2, FeetechSts, Health, JointOutput, Packet, PulseRange, PwmServos, Reading, Received,
    ServoBus, ServoProtocol, Status,
};
use firmware_bridge::ring::{Ring, RingSerial};

fn sent(write: impl FnOnce(&mut Packet)) -> Vec<u8> {
    let mut packet = Packet::new();
    write(&mut packet);
    packet.as_slice().to_vec()
}

fn status(id: u8, content: Content) -> Status {
    Status { id, alarms: Alarms::NONE, alert: false, content }
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
    let status = status(2, Content::Position(2079));
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
    let right = status(1, Content::Position(0x0518));
    assert_eq!(FeetechSts.examine(&answer), Received::Status { length: 8, status: right });
    let mut wrong = answer;
    wrong[7] ^= 1;
    assert_eq!(FeetechSts.examine(&wrong), Received::Noise);
    let negative = [0xFF, 0xFF, 0x01, 0x04, 0x00, 0x05, 0x80, 0x75];
    let status = status(1, Content::Position(-5));
    assert_eq!(FeetechSts.examine(&negative), Received::Status { length: 8, status });
}

/// STS servos with the addresses 1 to 3 on a line that echoes, written for this test alone.
#[derive(Default)]
struct Servos {
    goals: [u16; 4],
    torque: [bool; 4],
    positions: [u16; 4],
    error: [u8; 4],
    /// Registers 62 to 70: voltage, temperature and current among them.
    health: [[u8; 9]; 4],
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
                [0x82, 62, 9, id, _] => self.say(*id, &self.health[usize::from(*id)].clone()),
                other => panic!("{other:?}"),
            }
            rest = after;
        }
        assert_eq!(rest, [], "not a packet");
    }

    fn answer(&mut self, id: u8) {
        let at = usize::from(id);
        if self.torque[at] {
            self.positions[at] = self.goals[at];
        }
        self.say(id, &self.positions[at].to_le_bytes());
    }

    fn say(&mut self, id: u8, parameters: &[u8]) {
        if self.mute[usize::from(id)] {
            return;
        }
        let mut content = vec![id, parameters.len() as u8 + 2, self.error[usize::from(id)]];
        content.extend(parameters);
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

/// One tick: what is learnt, and the goals, if any.
fn tick(bus: &mut ServoBus<Line, FeetechSts, 3>, goals: Option<&[f32]>) -> [Reading; 3] {
    let mut readings = [Reading::default(); 3];
    bus.measure(&mut readings).expect("the line is good");
    if let Some(goals) = goals {
        bus.command(goals).expect("the line is good");
    }
    readings
}

#[test]
fn servos_on_a_bus_are_measured_driven_and_released() {
    let (mut bus, servos) = bus();
    let positions = servos.borrow().positions;
    servos.borrow_mut().torque = [true; 4];
    servos.borrow_mut().goals = positions;
    assert_eq!(tick(&mut bus, None), [Reading::default(); 3], "not asked before");
    assert!(!bus.is_known());
    let at = tick(&mut bus, None).map(|reading| reading.position.expect("all answered"));
    assert!(bus.is_known());
    assert_eq!(at[..2], [-1.048, 0.0]);
    assert!((at[2] - 952.0 / 651.9).abs() < 1e-3);
    for _ in 0..40 {
        tick(&mut bus, None);
    }
    assert_eq!(servos.borrow().torque, [true; 4], "to measure neither drives nor drops an arm");

    let command = [-1.0, 0.5, 1.0];
    servos.borrow_mut().torque = [false; 4];
    for _ in 0..4 {
        tick(&mut bus, Some(&command));
    }
    assert_eq!(servos.borrow().torque, [false, true, true, true]);
    assert_eq!(servos.borrow().goals, [0, 1048, 1548, 2700]);
    let at = tick(&mut bus, Some(&command)).map(|reading| reading.position.expect("answers"));
    for (at, command) in at.iter().zip(command) {
        assert!((at - command).abs() < 1e-3, "{at} is not {command}");
    }
    bus.release().expect("sent");
    assert_eq!(servos.borrow().torque, [false; 4]);
    servos.borrow_mut().torque[2] = true;
    tick(&mut bus, None);
    assert_eq!(servos.borrow().torque, [false; 4], "said again");
}

/// What a bus knows of its servos besides their positions: each is asked in turn, and each answer has the alarms.
#[test]
fn a_servos_health_and_alarms_are_reported() {
    let (mut bus, servos) = bus();
    for id in 1..=3_u8 {
        // 7.4 V, 40 + id °C, −100 counts of 6.5 mA.
        servos.borrow_mut().health[usize::from(id)] = [74, 40 + id, 0, 0, 0, 0, 0, 100, 0x80];
    }
    let (mut heat, mut gap, mut longest) = ([None; 3], 0, 0);
    for _ in 0..60 {
        let readings = tick(&mut bus, Some(&[0.0; 3]));
        gap = if readings[0].position.is_some() { 0 } else { gap + 1 };
        longest = longest.max(gap);
        for (heat, reading) in heat.iter_mut().zip(readings) {
            *heat = reading.temperature_c.or(*heat);
            if reading.temperature_c.is_some() {
                assert!(reading.current_a.is_some_and(|current_a| (current_a + 0.65).abs() < 1e-5));
                assert!(reading.voltage_v.is_some_and(|volts| (volts - 7.4).abs() < 1e-5));
            }
        }
    }
    assert_eq!(heat, [Some(41.0), Some(42.0), Some(43.0)]);
    assert!(longest <= 2, "{longest} ticks without a position");
    servos.borrow_mut().error[2] = 0x20;
    let alarms = (0..4).find_map(|_| tick(&mut bus, Some(&[0.0; 3]))[1].alarms.filter(|alarms| !alarms.is_empty()));
    assert_eq!(alarms, Some(Alarms::OVERLOAD));
    servos.borrow_mut().error[2] = 0x40;
    let other = (0..4).find_map(|_| tick(&mut bus, Some(&[0.0; 3]))[1].alarms.filter(|a| *a != Alarms::OVERLOAD));
    assert_eq!(other, Some(Alarms::OTHER), "a bit that no manual explains");
}

#[test]
fn a_missing_servo_gives_no_reading_and_holds_no_other_up() {
    let (mut bus, servos) = bus();
    for _ in 0..4 {
        tick(&mut bus, Some(&[0.0; 3]));
    }
    servos.borrow_mut().mute[3] = true;
    let requests = servos.borrow().requests;
    let readings: Vec<_> = (0..40).map(|_| tick(&mut bus, Some(&[0.0; 3]))).collect();
    assert!(readings[1..].iter().all(|reading| reading[2] == Reading::default()));
    assert!(readings.iter().filter(|reading| reading[0].position.is_some()).count() > 5);
    assert!(servos.borrow().requests > requests + 5, "the others are asked on");
}

/// A position that no servo of the series has is none.
#[test]
fn counts_outside_a_servos_range_are_no_position() {
    let (mut bus, servos) = bus();
    servos.borrow_mut().positions = [0, 4096, 32767, 0x8001];
    for _ in 0..10 {
        assert!(tick(&mut bus, None).iter().all(|reading| reading.position.is_none()));
    }
}

/// Answers with flipped bits are left out, and the bus goes on.
#[test]
fn a_noisy_bus_gives_no_wrong_position() {
    let (mut bus, servos) = bus();
    servos.borrow_mut().noise = 37;
    let mut good = 0;
    for _ in 0..2000 {
        let [first, second, _] = tick(&mut bus, None).map(|reading| reading.position);
        good += usize::from(first.is_some());
        assert!(first.is_none_or(|at| at == -1.048) && second.is_none_or(|at| at == 0.0), "{first:?} {second:?}");
        // Never driven: the positions stay.
    }
    assert!(good > 500, "{good} of 2000");
}

/// An alert of a Dynamixel is asked for its cause, and that is told with the answers that follow.
#[test]
fn a_dynamixels_alert_is_asked_for_its_cause() {
    // CRC-16 of protocol 2 (polynomial 0x8005), bit by bit.
    let packet = |id: u8, error: u8, parameters: &[u8]| {
        let length = (parameters.len() as u16 + 4).to_le_bytes();
        let mut bytes = vec![0xFF, 0xFF, 0xFD, 0, id, length[0], length[1], 0x55, error];
        bytes.extend(parameters);
        let mut crc = 0_u16;
        for byte in &bytes {
            crc ^= u16::from(*byte) << 8;
            for _ in 0..8 {
                crc = if crc & 0x8000 == 0 { crc << 1 } else { crc << 1 ^ 0x8005 };
            }
        }
        bytes.extend(crc.to_le_bytes());
        bytes
    };
    let examined = |bytes: &[u8]| match Dynamixel2.examine(bytes) {
        Received::Status { length, status } if length == bytes.len() => status,
        other => panic!("{other:?}"),
    };
    let health = Health { temperature_c: Some(41.0), voltage_v: Some(12.0), ..Health::default() };
    assert_eq!(examined(&packet(1, 0, &[120, 0, 41])), status(1, Content::Health(health)));
    let cause = Health { alarms: Some(Alarms::TEMPERATURE.and(Alarms::OVERLOAD)), ..Health::default() };
    let alert = Status { alert: true, ..status(1, Content::Health(cause)) };
    assert_eq!(examined(&packet(1, 0x80, &[0x24])), alert);
    let refused = Status { alarms: Alarms::OTHER, ..status(1, Content::None) };
    assert_eq!(examined(&packet(1, 0x07, &[])), refused);

    /// One servo at 2048 counts whose alert lasts; it tells its cause where it is asked.
    #[derive(Clone)]
    struct Alert(Rc<RefCell<VecDeque<u8>>>, bool, fn(u8, u8, &[u8]) -> Vec<u8>);
    impl ErrorType for Alert {
        type Error = Infallible;
    }
    impl ReadReady for Alert {
        fn read_ready(&mut self) -> Result<bool, Infallible> {
            Ok(!self.0.borrow().is_empty())
        }
    }
    impl Read for Alert {
        fn read(&mut self, out: &mut [u8]) -> Result<usize, Infallible> {
            let mut line = self.0.borrow_mut();
            let count = out.len().min(line.len());
            for place in &mut out[..count] {
                *place = line.pop_front().expect("counted");
            }
            Ok(count)
        }
    }
    impl WriteReady for Alert {
        fn write_ready(&mut self) -> Result<bool, Infallible> {
            Ok(true)
        }
    }
    impl Write for Alert {
        fn write(&mut self, bytes: &[u8]) -> Result<usize, Infallible> {
            let asks = |register: u16| {
                let [low, high] = register.to_le_bytes();
                bytes.windows(3).any(|window| window == [0x82, low, high])
            };
            if asks(132) {
                self.0.borrow_mut().extend((self.2)(1, 0x80, &2048_i32.to_le_bytes()));
            } else if asks(70) && self.1 {
                self.0.borrow_mut().extend((self.2)(1, 0x80, &[0x20]));
            }
            Ok(bytes.len())
        }
        fn flush(&mut self) -> Result<(), Infallible> {
            Ok(())
        }
    }
    for (tells, expected) in [(true, Alarms::OVERLOAD), (false, Alarms::OTHER)] {
        let line = Alert(Rc::default(), tells, packet);
        let servo = BusServo { id: 1, zero: 2048, counts_per_unit: BusServo::PER_RADIAN };
        let mut bus = ServoBus::new(line, Dynamixel2, [servo]);
        let alarms = (0..40).find_map(|_| {
            let mut readings = [Reading::default()];
            bus.measure(&mut readings).expect("the line is good");
            bus.command(&[0.0]).expect("the line is good");
            readings[0].alarms.filter(|alarms| !alarms.is_empty())
        });
        assert_eq!(alarms, Some(expected));
    }
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
    let measured = |servos: &mut PwmServos<SharedChannel, 2>| {
        let mut readings = [Reading::default(); 2];
        servos.measure(&mut readings).expect("infallible");
        readings.map(|reading| reading.position.expect("known"))
    };
    assert_eq!(measured(&mut servos), [0.25, 0.0], "at rest");
    servos.command(&[0.0, 0.5]).expect("infallible");
    let duties = || channels.clone().map(|channel| channel.0.borrow().0);
    assert_eq!(duties(), [750, 625]);
    assert_eq!(measured(&mut servos), [0.0, 0.5]);
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
