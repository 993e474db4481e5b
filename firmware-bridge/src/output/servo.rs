//! The packets of bus servos: Feetech's STS series, and Dynamixel's protocol 2.

use core::ops::RangeInclusive;

use crc::{CRC_16_UMTS, Crc, Table};

use crate::fault::Alarms;

/// Longest sequence of packets sent at once: goals, torque and a question to 16 servos.
const PACKET: usize = 384;

static DYNAMIXEL_CRC: Crc<u16, Table<1>> = Crc::<u16, Table<1>>::new(&CRC_16_UMTS);

const SYNC_READ: u8 = 0x82;
const SYNC_WRITE: u8 = 0x83;
const BROADCAST: u8 = 0xFE;

/// Outgoing packets in a fixed buffer.
#[derive(Debug, Clone)]
pub struct Packet {
    bytes: [u8; PACKET],
    len: usize,
    overflowed: bool,
}

impl Packet {
    /// No bytes.
    pub fn new() -> Self {
        Self { bytes: [0; PACKET], len: 0, overflowed: false }
    }

    /// The bytes; empty if there were too many.
    pub fn as_slice(&self) -> &[u8] {
        if self.overflowed { &[] } else { self.bytes.get(..self.len).unwrap_or(&[]) }
    }

    /// Removes all bytes.
    pub fn clear(&mut self) {
        self.len = 0;
        self.overflowed = false;
    }

    fn push(&mut self, byte: u8) {
        match self.bytes.get_mut(self.len) {
            Some(place) => {
                *place = byte;
                self.len = self.len.saturating_add(1);
            }
            None => self.overflowed = true,
        }
    }

    fn extend(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.push(*byte);
        }
    }

    fn since(&self, start: usize) -> &[u8] {
        self.bytes.get(start..self.len).unwrap_or(&[])
    }
}

impl Default for Packet {
    fn default() -> Self {
        Self::new()
    }
}

/// A servo's answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Status {
    /// The servo.
    pub id: u8,
    /// The alarms in the answer itself.
    pub alarms: Alarms,
    /// Whether the servo has an alarm whose cause must be requested ([`ServoProtocol::read_alarms`]).
    pub alert: bool,
    /// The requested content.
    pub content: Content,
}

/// The content of an answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Content {
    /// Nothing.
    None,
    /// Its position, in its counts.
    Position(i32),
    /// Its health.
    Health(Health),
}

/// A servo's health; `None` for values that the answer lacks.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Health {
    /// Current in ampere.
    pub current_a: Option<f32>,
    /// Temperature in degrees Celsius.
    pub temperature_c: Option<f32>,
    /// Supply voltage in volts.
    pub voltage_v: Option<f32>,
    /// The cause of its alert.
    pub alarms: Option<Alarms>,
}

/// The front of the received bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Received {
    /// Incomplete: more bytes are needed.
    Incomplete,
    /// No answer starts here: skip the first byte.
    Noise,
    /// A complete packet that is not a servo's answer, such as an echo.
    Other {
        /// Its bytes.
        length: usize,
    },
    /// An answer.
    Status {
        /// Its bytes.
        length: usize,
        /// Its content.
        status: Status,
    },
}

/// A servo protocol's packets.
pub trait ServoProtocol {
    /// Longest answer to a question, in bytes.
    const LONGEST_ANSWER: usize;

    /// The range of a servo's counts.
    const COUNTS: RangeInclusive<i32>;

    /// Sends each servo to a position, in its counts.
    fn write_goals(&self, goals: impl Iterator<Item = (u8, i32)> + Clone, out: &mut Packet);

    /// Switches all servos' torque.
    fn write_torque(&self, ids: impl Iterator<Item = u8> + Clone, on: bool, out: &mut Packet);

    /// Asks all servos for their positions; they answer one after the other.
    fn read_positions(&self, ids: impl Iterator<Item = u8> + Clone, out: &mut Packet);

    /// Asks one servo for its health.
    fn read_health(&self, id: u8, out: &mut Packet);

    /// Asks one servo for the cause of its alert.
    fn read_alarms(&self, id: u8, out: &mut Packet);

    /// Classifies the front of `bytes`.
    fn examine(&self, bytes: &[u8]) -> Received;
}

/// Feetech's STS series (such as STS3215): little-endian registers, positions 0 to 4095. The bits of its error byte are
/// those of [`Alarms`].
#[derive(Debug, Clone, Copy, Default)]
pub struct FeetechSts;

impl FeetechSts {
    const TORQUE: u8 = 40;
    const GOAL: u8 = 42;
    const PRESENT: u8 = 56;
    /// Voltage in 0.1 V, temperature in °C, three unused registers, two of them after the status, and the current in
    /// 6.5 mA with its sign in the top bit.
    const HEALTH: u8 = 62;
    const HEALTH_BYTES: u8 = 9;
    const AMPERE: f32 = 0.0065;
    const TOP: i32 = 4095;
    const KNOWN_ALARMS: u8 = 0b10_1111;

    fn alarms(error: u8) -> Alarms {
        let unknown = if error & !Self::KNOWN_ALARMS == 0 { Alarms::NONE } else { Alarms::OTHER };
        Alarms(error & Self::KNOWN_ALARMS).and(unknown)
    }

    /// Asks by the broadcast address, so that the echo of a one-wire line cannot be a servo's answer.
    fn sync_read(register: u8, bytes: u8, ids: impl Iterator<Item = u8>, out: &mut Packet) {
        Self::packet(out, SYNC_READ, |out| {
            out.extend(&[register, bytes]);
            for id in ids {
                out.push(id);
            }
        });
    }

    /// `FF FF FE length instruction parameters checksum`; `parameters` pushes them.
    fn packet(out: &mut Packet, instruction: u8, parameters: impl FnOnce(&mut Packet)) {
        out.extend(&[0xFF, 0xFF]);
        let start = out.len;
        out.extend(&[BROADCAST, 0, instruction]);
        parameters(out);
        // Id and length are not counted, instruction and checksum are.
        let length = out.len.saturating_sub(start).saturating_sub(1);
        if let Some(place) = out.bytes.get_mut(start.saturating_add(1)) {
            *place = u8::try_from(length).unwrap_or(0);
        }
        let sum = Self::checksum(out.since(start));
        out.push(sum);
    }

    fn checksum(bytes: &[u8]) -> u8 {
        !bytes.iter().fold(0, |sum, byte| u8::wrapping_add(sum, *byte))
    }
}

impl ServoProtocol for FeetechSts {
    const LONGEST_ANSWER: usize = 15;
    const COUNTS: RangeInclusive<i32> = 0..=Self::TOP;

    fn write_goals(&self, goals: impl Iterator<Item = (u8, i32)> + Clone, out: &mut Packet) {
        Self::packet(out, SYNC_WRITE, |out| {
            out.extend(&[Self::GOAL, 2]);
            for (id, goal) in goals {
                let [low, high, ..] = goal.clamp(0, Self::TOP).to_le_bytes();
                out.extend(&[id, low, high]);
            }
        });
    }

    fn write_torque(&self, ids: impl Iterator<Item = u8> + Clone, on: bool, out: &mut Packet) {
        Self::packet(out, SYNC_WRITE, |out| {
            out.extend(&[Self::TORQUE, 1]);
            for id in ids {
                out.extend(&[id, u8::from(on)]);
            }
        });
    }

    fn read_positions(&self, ids: impl Iterator<Item = u8> + Clone, out: &mut Packet) {
        Self::sync_read(Self::PRESENT, 2, ids, out);
    }

    fn read_health(&self, id: u8, out: &mut Packet) {
        Self::sync_read(Self::HEALTH, Self::HEALTH_BYTES, core::iter::once(id), out);
    }

    /// Each answer already has the alarms.
    fn read_alarms(&self, id: u8, out: &mut Packet) {
        self.read_health(id, out);
    }

    fn examine(&self, bytes: &[u8]) -> Received {
        match bytes {
            [0xFF, 0xFF, 0xFF, ..] => Received::Noise,
            [] | [0xFF] | [0xFF, 0xFF] | [0xFF, 0xFF, _] => Received::Incomplete,
            [0xFF, 0xFF, id, length, rest @ ..] if (2..=11).contains(length) => {
                let Some((content, _)) = rest.split_at_checked(usize::from(*length)) else {
                    return Received::Incomplete;
                };
                let length = content.len().saturating_add(4);
                let sum = bytes.get(2..length.saturating_sub(1)).map(Self::checksum);
                if content.last().copied() != sum {
                    return Received::Noise;
                }
                let signed = |low: u8, high: u8| {
                    let raw = i32::from(u16::from_le_bytes([low, high & 0x7F]));
                    if high & 0x80 == 0 { raw } else { raw.wrapping_neg() }
                };
                let [error, parameters @ .., _] = content else { return Received::Other { length } };
                let content = match parameters {
                    _ if *id == BROADCAST => return Received::Other { length },
                    [] => Content::None,
                    [low, high] => Content::Position(signed(*low, *high)),
                    [volts, celsius, _, _, _, _, _, low, high] => Content::Health(Health {
                        current_a: Some(signed(*low, *high) as f32 * Self::AMPERE),
                        temperature_c: Some(f32::from(*celsius)),
                        voltage_v: Some(f32::from(*volts) * 0.1),
                        alarms: None,
                    }),
                    _ => return Received::Other { length },
                };
                let status = Status { id: *id, alarms: Self::alarms(*error), alert: false, content };
                Received::Status { length, status }
            }
            _ => Received::Noise,
        }
    }
}

/// Dynamixel's protocol 2 with the registers of the X series (such as XL330, XL430, XM430).
#[derive(Debug, Clone, Copy, Default)]
pub struct Dynamixel2;

impl Dynamixel2 {
    const TORQUE: u16 = 64;
    const GOAL: u16 = 116;
    const PRESENT: u16 = 132;
    /// Voltage in 0.1 V and temperature in °C. The current is omitted, since its unit depends on the model.
    const HEALTH: u16 = 144;
    const HARDWARE_ERROR: u16 = 70;
    /// Bit of the error byte: a hardware error, whose cause is in its register.
    const ALERT: u8 = 0x80;
    const STATUS: u8 = 0x55;
    const MARK: [u8; 4] = [0xFF, 0xFF, 0xFD, 0x00];

    fn sync_read(register: u16, bytes: u16, ids: impl Iterator<Item = u8>, out: &mut Packet) {
        Self::packet(out, SYNC_READ, |push| {
            push(&register.to_le_bytes());
            push(&bytes.to_le_bytes());
            for id in ids {
                push(&[id]);
            }
        });
    }

    /// The alarms of a hardware error status.
    fn alarms(error: u8) -> Alarms {
        let bits = [
            (0, Alarms::VOLTAGE),
            (2, Alarms::TEMPERATURE),
            (3, Alarms::SENSOR),
            (4, Alarms::CURRENT),
            (5, Alarms::OVERLOAD),
        ];
        let known = bits.iter().filter(|(bit, _)| error & (1_u8 << bit) != 0);
        let alarms = known.fold(Alarms::NONE, |all, (_, alarm)| all.and(*alarm));
        if error != 0 && alarms.is_empty() { Alarms::OTHER } else { alarms }
    }

    /// `FF FF FD 00 FE length instruction parameters CRC`, with `FD` inserted after each `FF FF FD` of instruction and
    /// parameters; `parameters` receives the pusher.
    fn packet(out: &mut Packet, instruction: u8, parameters: impl FnOnce(&mut dyn FnMut(&[u8]))) {
        let start = out.len;
        out.extend(&Self::MARK);
        out.extend(&[BROADCAST, 0, 0, instruction]);
        let (mut before, mut last) = (0, instruction);
        parameters(&mut |bytes| {
            for byte in bytes {
                out.push(*byte);
                if [before, last, *byte] == [0xFF, 0xFF, 0xFD] {
                    out.push(0xFD);
                }
                (before, last) = (last, *byte);
            }
        });
        // Instruction, parameters and CRC.
        let length = out.len.saturating_sub(start).saturating_sub(5);
        if let Some(place) = out.bytes.get_mut(start.saturating_add(5)..start.saturating_add(7)) {
            let bytes = u16::try_from(length).unwrap_or(0).to_le_bytes();
            for (place, byte) in place.iter_mut().zip(bytes) {
                *place = byte;
            }
        }
        let sum = DYNAMIXEL_CRC.checksum(out.since(start));
        out.extend(&sum.to_le_bytes());
    }
}

impl ServoProtocol for Dynamixel2 {
    const LONGEST_ANSWER: usize = 16;
    const COUNTS: RangeInclusive<i32> = i32::MIN..=i32::MAX;

    fn write_goals(&self, goals: impl Iterator<Item = (u8, i32)> + Clone, out: &mut Packet) {
        Self::packet(out, SYNC_WRITE, |push| {
            push(&Self::GOAL.to_le_bytes());
            push(&4_u16.to_le_bytes());
            for (id, goal) in goals {
                push(&[id]);
                push(&goal.to_le_bytes());
            }
        });
    }

    fn write_torque(&self, ids: impl Iterator<Item = u8> + Clone, on: bool, out: &mut Packet) {
        Self::packet(out, SYNC_WRITE, |push| {
            push(&Self::TORQUE.to_le_bytes());
            push(&1_u16.to_le_bytes());
            for id in ids {
                push(&[id, u8::from(on)]);
            }
        });
    }

    fn read_positions(&self, ids: impl Iterator<Item = u8> + Clone, out: &mut Packet) {
        Self::sync_read(Self::PRESENT, 4, ids, out);
    }

    fn read_health(&self, id: u8, out: &mut Packet) {
        Self::sync_read(Self::HEALTH, 3, core::iter::once(id), out);
    }

    fn read_alarms(&self, id: u8, out: &mut Packet) {
        Self::sync_read(Self::HARDWARE_ERROR, 1, core::iter::once(id), out);
    }

    fn examine(&self, bytes: &[u8]) -> Received {
        let (mark, rest) = bytes.split_at_checked(Self::MARK.len()).unwrap_or((bytes, &[]));
        if !Self::MARK.starts_with(mark) {
            return Received::Noise;
        }
        let [id, low, high, rest @ ..] = rest else { return Received::Incomplete };
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        if !(3..=9).contains(&length) {
            return Received::Noise;
        }
        let Some((content, _)) = rest.split_at_checked(length) else { return Received::Incomplete };
        let length = length.saturating_add(7);
        let Some((content, sum)) = content.split_last_chunk::<2>() else { return Received::Noise };
        let counted = bytes.get(..length.saturating_sub(2)).unwrap_or(&[]);
        if DYNAMIXEL_CRC.checksum(counted) != u16::from_le_bytes(*sum) {
            return Received::Noise;
        }
        let [Self::STATUS, error, parameters @ ..] = content else { return Received::Other { length } };
        // Four bytes of position, or five with an inserted one.
        let content = match parameters {
            [] => Content::None,
            [error] => Content::Health(Health { alarms: Some(Self::alarms(*error)), ..Health::default() }),
            [low, high, celsius] => Content::Health(Health {
                temperature_c: Some(f32::from(*celsius)),
                voltage_v: Some(f32::from(u16::from_le_bytes([*low, *high])) * 0.1),
                ..Health::default()
            }),
            [a, b, c, d] => Content::Position(i32::from_le_bytes([*a, *b, *c, *d])),
            [0xFF, 0xFF, 0xFD, 0xFD, d] => Content::Position(i32::from_le_bytes([0xFF, 0xFF, 0xFD, *d])),
            [a, 0xFF, 0xFF, 0xFD, 0xFD] => Content::Position(i32::from_le_bytes([*a, 0xFF, 0xFF, 0xFD])),
            _ => Content::None,
        };
        // A failed instruction has no cause in a register.
        let alarms = if error & !Self::ALERT == 0 { Alarms::NONE } else { Alarms::OTHER };
        let status = Status { id: *id, alarms, alert: error & Self::ALERT != 0, content };
        Received::Status { length, status }
    }
}
