//! Servos on a half-duplex serial bus.

use embedded_io::{Read, ReadReady, Write, WriteReady};

use super::servo::{Content, Packet, Received, ServoProtocol, Status};
use super::{JointOutput, OutputError, Reading};
use crate::fault::Alarms;

/// One exchange in this many asks a servo for its health; the others ask all for their positions.
const HEALTH_EXCHANGES: u8 = 8;

/// Answers with an alert before it counts as one without a cause.
const CAUSE_ANSWERS: u8 = 12;

/// Ticks for the servos to answer a question before the next one.
const PATIENCE_TICKS: u8 = 3;

/// Bytes read in one tick, at most.
const READ_BUDGET: usize = 512;

/// Buffer size for an incomplete answer in bytes.
const ANSWER: usize = 16;

/// One joint's servo.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BusServo {
    /// Its address on the bus.
    pub id: u8,
    /// Its counts at joint position 0.
    pub zero: i32,
    /// Counts per unit of the joint, negative if it turns the other way; not 0. A radian of a servo with 4096 counts a
    /// turn has 651.9.
    pub counts_per_unit: f32,
}

impl BusServo {
    /// Counts of a whole turn of an STS or X series servo, per radian.
    pub const PER_RADIAN: f32 = 4096.0 / core::f32::consts::TAU;

    fn counts(&self, position: f32) -> i32 {
        let exact = position * self.counts_per_unit;
        // A cast of a float saturates.
        self.zero.saturating_add(if exact < 0.0 { (exact - 0.5) as i32 } else { (exact + 0.5) as i32 })
    }

    fn position(&self, counts: i32) -> f32 {
        counts.saturating_sub(self.zero) as f32 / self.counts_per_unit
    }
}

/// The state of one servo.
#[derive(Debug, Clone, Copy)]
struct Seen {
    /// Readings since the controller's last call.
    news: Reading,
    /// Whether it has ever reported a position.
    known: bool,
    /// Answers since the start of its alert, 0 without one.
    alert: u8,
    /// The cause.
    cause: Alarms,
}

impl Seen {
    const NOTHING: Self = Self {
        news: Reading { position: None, current_a: None, temperature_c: None, voltage_v: None, alarms: None },
        known: false,
        alert: 0,
        cause: Alarms::NONE,
    };

    /// Whether the cause of an alert is still unknown.
    fn lacks_cause(&self) -> bool {
        self.alert > 0 && self.cause.is_empty()
    }

    fn take(&mut self, status: &Status, position: Option<f32>) {
        if let Some(position) = position {
            self.news.position = Some(position);
            self.known = true;
        }
        if let Content::Health(health) = status.content {
            self.news.current_a = health.current_a.or(self.news.current_a);
            self.news.temperature_c = health.temperature_c.or(self.news.temperature_c);
            self.news.voltage_v = health.voltage_v.or(self.news.voltage_v);
            self.cause = health.alarms.unwrap_or(self.cause);
        }
        if status.alert {
            self.alert = self.alert.saturating_add(1);
        } else {
            self.alert = 0;
            self.cause = Alarms::NONE;
        }
        let cause = match (self.lacks_cause(), self.alert < CAUSE_ANSWERS) {
            (true, true) => return,
            (true, false) => Alarms::OTHER,
            (false, _) => self.cause,
        };
        self.news.alarms = Some(status.alarms.and(cause));
    }
}

/// The last torque command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Torque {
    /// None: a controller that restarts does not drop the arm.
    Unsaid,
    On,
    Off,
}

/// `N` servos of one protocol on the serial line `S`, at most 16.
///
/// Each tick makes one exchange: goals to all servos, then one question, which all servos answer in turn; occasionally
/// the question goes to a single servo, for its current, temperature, voltage and alarms. Nothing is sent while they
/// answer, so that a one-wire line works; if the answers need more than a tick, every second tick has an exchange. It
/// never waits. Before the first command or release it only asks.
#[derive(Debug)]
pub struct ServoBus<S, P, const N: usize> {
    serial: S,
    protocol: P,
    servos: [BusServo; N],
    seen: [Seen; N],
    answer: [u8; ANSWER],
    answer_len: usize,
    /// Servos that have not answered the last question.
    missing: usize,
    waited_ticks: u8,
    /// Whether the controller commands positions.
    driven: bool,
    torque: Torque,
    exchanges: u8,
    /// The next servo to ask for its health.
    next_health: usize,
    sending: Packet,
    sent: usize,
}

impl<S, P, const N: usize> ServoBus<S, P, N>
where
    S: Read + ReadReady + Write + WriteReady,
    P: ServoProtocol,
{
    /// Servos with unknown positions.
    pub fn new(serial: S, protocol: P, servos: [BusServo; N]) -> Self {
        const { assert!(N <= 16 && P::LONGEST_ANSWER <= ANSWER) };
        Self {
            serial,
            protocol,
            servos,
            seen: [Seen::NOTHING; N],
            answer: [0; ANSWER],
            answer_len: 0,
            missing: 0,
            waited_ticks: 0,
            driven: false,
            torque: Torque::Unsaid,
            exchanges: 0,
            next_health: 0,
            sending: Packet::new(),
            sent: 0,
        }
    }

    /// Whether all servos have reported their positions. A board calls [`JointOutput::measure`] each tick until they
    /// have, before its controller's first tick.
    pub fn is_known(&self) -> bool {
        self.seen.iter().all(|seen| seen.known)
    }

    fn receive(&mut self) -> Result<(), OutputError> {
        let mut budget = READ_BUDGET;
        let mut bytes = [0; 32];
        while budget > 0 && self.serial.read_ready().map_err(|_| OutputError::All)? {
            let count = self.serial.read(&mut bytes).map_err(|_| OutputError::All)?;
            if count == 0 {
                break;
            }
            budget = budget.saturating_sub(count);
            for byte in bytes.iter().take(count) {
                self.take(*byte);
            }
        }
        Ok(())
    }

    fn take(&mut self, byte: u8) {
        if let Some(place) = self.answer.get_mut(self.answer_len) {
            *place = byte;
            self.answer_len = self.answer_len.saturating_add(1);
        }
        loop {
            let answer = self.answer.get(..self.answer_len).unwrap_or(&[]);
            let length = match self.protocol.examine(answer) {
                Received::Incomplete if self.answer_len < ANSWER => return,
                Received::Incomplete | Received::Noise => 1,
                Received::Other { length } => length,
                Received::Status { length, status } => {
                    let mut servos = self.servos.iter().zip(&mut self.seen);
                    if let Some((servo, seen)) = servos.find(|(servo, _)| servo.id == status.id) {
                        let position = match status.content {
                            Content::Position(counts) if P::COUNTS.contains(&counts) => Some(servo.position(counts)),
                            _ => None,
                        };
                        seen.take(&status, position);
                        self.missing = self.missing.saturating_sub(1);
                    }
                    length
                }
            };
            let rest = self.answer_len.saturating_sub(length.max(1));
            let from = self.answer_len.saturating_sub(rest);
            for place in 0..rest {
                let byte = self.answer.get(from.saturating_add(place)).copied().unwrap_or(0);
                if let Some(to) = self.answer.get_mut(place) {
                    *to = byte;
                }
            }
            self.answer_len = rest;
        }
    }

    fn send(&mut self) -> Result<(), OutputError> {
        while let Some(waiting) = self.sending.as_slice().get(self.sent..)
            && !waiting.is_empty()
            && self.serial.write_ready().map_err(|_| OutputError::All)?
        {
            let count = self.serial.write(waiting).map_err(|_| OutputError::All)?;
            if count == 0 {
                break;
            }
            self.sent = self.sent.saturating_add(count);
        }
        Ok(())
    }

    /// Starts an exchange if the bus is free, with or without goals.
    fn exchange(&mut self, goals: Option<&[f32]>) -> Result<(), OutputError> {
        self.send()?;
        if self.missing > 0 {
            self.waited_ticks = self.waited_ticks.saturating_add(1);
            if self.waited_ticks < PATIENCE_TICKS {
                return Ok(());
            }
            self.answer_len = 0;
        }
        if self.sent < self.sending.as_slice().len() {
            return Ok(());
        }
        self.sending.clear();
        self.sent = 0;
        let ids = self.servos.iter().map(|servo| servo.id);
        match goals {
            Some(goals) => {
                let goals = self.servos.iter().zip(goals).map(|(servo, goal)| (servo.id, servo.counts(*goal)));
                self.protocol.write_goals(goals, &mut self.sending);
                if self.torque != Torque::On {
                    self.torque = Torque::On;
                    self.protocol.write_torque(ids.clone(), true, &mut self.sending);
                }
            }
            // Repeated each time: a colliding answer may have damaged it.
            None if self.torque == Torque::Off => self.protocol.write_torque(ids.clone(), false, &mut self.sending),
            None => {}
        }
        self.exchanges = self.exchanges.wrapping_add(1);
        self.missing = if self.exchanges.is_multiple_of(HEALTH_EXCHANGES) {
            self.ask_one();
            1
        } else {
            self.protocol.read_positions(ids, &mut self.sending);
            N
        };
        self.waited_ticks = 0;
        self.send()
    }

    /// Asks the servo whose alert has no cause for it, or the next servo for its health.
    fn ask_one(&mut self) {
        let mut servos = self.servos.iter().zip(&self.seen);
        if let Some((servo, _)) = servos.find(|(_, seen)| seen.lacks_cause()) {
            return self.protocol.read_alarms(servo.id, &mut self.sending);
        }
        let servo = self.servos.get(self.next_health).or_else(|| self.servos.first());
        if let Some(servo) = servo {
            self.protocol.read_health(servo.id, &mut self.sending);
        }
        self.next_health = self.next_health.saturating_add(1).checked_rem(N).unwrap_or(0);
    }
}

impl<S, P, const N: usize> JointOutput for ServoBus<S, P, N>
where
    S: Read + ReadReady + Write + WriteReady,
    P: ServoProtocol,
{
    /// Reads the servos' answers; call it each tick, before [`JointOutput::command`].
    fn measure(&mut self, readings: &mut [Reading]) -> Result<(), OutputError> {
        self.receive()?;
        if !self.driven {
            self.exchange(None)?;
        }
        for (seen, reading) in self.seen.iter_mut().zip(readings) {
            *reading = core::mem::take(&mut seen.news);
        }
        Ok(())
    }

    fn command(&mut self, positions: &[f32]) -> Result<(), OutputError> {
        self.driven = true;
        self.exchange(Some(positions))
    }

    fn release(&mut self) -> Result<(), OutputError> {
        self.driven = false;
        self.torque = Torque::Off;
        // At once, even during the servos' answers; but not within a packet.
        self.missing = 0;
        self.exchange(None)
    }
}
