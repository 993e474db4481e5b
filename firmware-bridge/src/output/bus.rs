//! Servos on a half-duplex serial bus.

use embedded_io::{Read, ReadReady, Write, WriteReady};

use super::JointOutput;
use super::servo::{Packet, Received, ServoProtocol};

/// Ticks without an answer after which a servo is missing.
const STALE_TICKS: u16 = 25;

/// Ticks in which the servos may answer a question, before the next one is asked.
const PATIENCE_TICKS: u8 = 3;

/// Bytes read in one tick, at most.
const READ_BUDGET: usize = 512;

/// Bytes kept of an answer that is not complete.
const ANSWER: usize = 16;

/// One joint's servo.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BusServo {
    /// Its address on the bus.
    pub id: u8,
    /// Its counts where the joint is at 0.
    pub zero: i32,
    /// Counts per unit of the joint, negative where it turns the other way; not 0. A radian of
    /// a servo with 4096 counts a turn has 651.9.
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

/// What is wrong with a bus of servos.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BusError {
    /// The serial line failed.
    Line,
    /// A servo has not answered for 25 ticks.
    Silent {
        /// The servo.
        id: u8,
    },
    /// A servo reports an error, such as overload or heat.
    Alarm {
        /// The servo.
        id: u8,
        /// Its error byte.
        error: u8,
    },
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    position: f32,
    age_ticks: u16,
    error: u8,
}

/// `N` servos of one protocol on the serial line `S`, at most 16.
///
/// Each tick one exchange: goals to all servos, then one question that all answer one after the
/// other. While they answer nothing is sent, so that a line of one wire works; where answers do not
/// fit into a tick, every second tick has an exchange. It never waits.
#[derive(Debug)]
pub struct ServoBus<S, P, const N: usize> {
    serial: S,
    protocol: P,
    servos: [BusServo; N],
    seen: [Seen; N],
    answer: [u8; ANSWER],
    answer_len: usize,
    /// Servos that have not answered the last question yet.
    missing: usize,
    waited_ticks: u8,
    /// Whether the controller commands positions.
    driven: bool,
    /// Whether the servos were told so.
    torque: bool,
    sending: Packet,
    sent: usize,
}

impl<S, P, const N: usize> ServoBus<S, P, N>
where
    S: Read + ReadReady + Write + WriteReady,
    P: ServoProtocol,
{
    /// Servos whose positions are not known yet.
    pub fn new(serial: S, protocol: P, servos: [BusServo; N]) -> Self {
        const { assert!(N <= 16 && P::LONGEST_ANSWER <= ANSWER) };
        Self {
            serial,
            protocol,
            servos,
            seen: [Seen { position: f32::NAN, age_ticks: STALE_TICKS, error: 0 }; N],
            answer: [0; ANSWER],
            answer_len: 0,
            missing: 0,
            waited_ticks: 0,
            driven: false,
            torque: false,
            sending: Packet::new(),
            sent: 0,
        }
    }

    /// Whether all servos have answered lately. A board calls [`JointOutput::measure`] each tick
    /// until they have, before its controller's first tick.
    pub fn is_known(&self) -> bool {
        self.seen.iter().all(|seen| seen.age_ticks < STALE_TICKS)
    }

    fn receive(&mut self) -> Result<(), BusError> {
        let mut budget = READ_BUDGET;
        let mut bytes = [0; 32];
        while budget > 0 && self.serial.read_ready().map_err(|_| BusError::Line)? {
            let count = self.serial.read(&mut bytes).map_err(|_| BusError::Line)?;
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
                        seen.error = status.error;
                        if let Some(counts) = status.position {
                            seen.position = servo.position(counts);
                            seen.age_ticks = 0;
                        }
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

    fn send(&mut self) -> Result<(), BusError> {
        while let Some(waiting) = self.sending.as_slice().get(self.sent..)
            && !waiting.is_empty()
            && self.serial.write_ready().map_err(|_| BusError::Line)?
        {
            let count = self.serial.write(waiting).map_err(|_| BusError::Line)?;
            if count == 0 {
                break;
            }
            self.sent = self.sent.saturating_add(count);
        }
        Ok(())
    }

    /// Begins an exchange when the bus is free: goals to follow, or no torque.
    fn exchange(&mut self, goals: Option<&[f32]>) -> Result<(), BusError> {
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
                if !self.torque {
                    self.torque = true;
                    self.protocol.write_torque(ids.clone(), true, &mut self.sending);
                }
            }
            // Said again each time: an answer on its way may have spoilt it.
            None => self.protocol.write_torque(ids.clone(), false, &mut self.sending),
        }
        self.protocol.read_positions(ids, &mut self.sending);
        self.missing = N;
        self.waited_ticks = 0;
        self.send()
    }
}

impl<S, P, const N: usize> JointOutput for ServoBus<S, P, N>
where
    S: Read + ReadReady + Write + WriteReady,
    P: ServoProtocol,
{
    type Error = BusError;

    /// Takes what the servos answered; to be called each tick, before
    /// [`JointOutput::command`].
    fn measure(&mut self, positions: &mut [f32]) -> Result<(), BusError> {
        for seen in &mut self.seen {
            seen.age_ticks = seen.age_ticks.saturating_add(1);
        }
        self.receive()?;
        if !self.driven {
            self.exchange(None)?;
        }
        for ((servo, seen), position) in self.servos.iter().zip(&self.seen).zip(positions) {
            if seen.age_ticks >= STALE_TICKS {
                return Err(BusError::Silent { id: servo.id });
            }
            *position = seen.position;
        }
        Ok(())
    }

    fn command(&mut self, positions: &[f32]) -> Result<(), BusError> {
        self.driven = true;
        self.exchange(Some(positions))?;
        match self.servos.iter().zip(&self.seen).find(|(_, seen)| seen.error != 0) {
            Some((servo, seen)) => Err(BusError::Alarm { id: servo.id, error: seen.error }),
            None => Ok(()),
        }
    }

    fn release(&mut self) -> Result<(), BusError> {
        self.driven = false;
        self.torque = false;
        // At once, over whatever the servos are saying; not into the middle of a packet.
        self.missing = 0;
        self.exchange(None)
    }
}
