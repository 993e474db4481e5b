//! The controller behind a serial line.

use embedded_io::{Read, ReadReady, Write, WriteReady};

use crate::PROTOCOL_VERSION;
use crate::controller::{Controller, WholeTick};
use crate::frame::{Decoder, Header, MAX_REPLY_FRAME, encode};
use crate::message::Message;
use crate::output::{JointOutput, StopCircuit};

/// Limit of the bytes read in one poll: it bounds a poll's work on a flooded line.
const READ_BUDGET: usize = 4096;

/// Buffer size for waiting frames in bytes.
const TX_BYTES: usize = 3072;

const _: () = assert!(TX_BYTES >= 2 * MAX_REPLY_FRAME);

/// Serial line `S`, controller, decoder and outgoing frames.
///
/// It never waits for the line: a frame that does not fit is dropped and counted.
pub struct Bridge<S, J, E> {
    serial: S,
    controller: Controller<J, E>,
    decoder: Decoder,
    outbox: Outbox,
    telemetry_due_us: u64,
}

impl<S, J, E> Bridge<S, J, E>
where
    S: Read + ReadReady + Write + WriteReady,
    J: JointOutput,
    E: StopCircuit,
{
    /// A controller on a line.
    pub fn new(serial: S, controller: Controller<J, E>) -> Self {
        Self { serial, controller, decoder: Decoder::new(), outbox: Outbox::new(), telemetry_due_us: 0 }
    }

    /// The controller.
    pub fn controller(&self) -> &Controller<J, E> {
        &self.controller
    }

    /// The controller, to reach its joints' driver.
    pub fn controller_mut(&mut self) -> &mut Controller<J, E> {
        &mut self.controller
    }

    /// Returns the line.
    pub fn into_serial(self) -> S {
        self.serial
    }

    /// Sends another protocol version, for tests of the host.
    #[cfg(feature = "sim")]
    pub(crate) fn set_version(&mut self, version: u8) {
        self.outbox.version = version;
    }

    /// One iteration, to be called each [`tick_us`](crate::controller::Config::tick_us): reads received frames, ticks
    /// the controller, sends telemetry when it is due, and answers.
    ///
    /// An error of the line affects only this iteration's reading or writing.
    pub fn poll(&mut self, now_us: u64) -> Option<WholeTick> {
        self.receive(now_us);
        let whole = self.controller.tick(now_us);
        // Before the first hello there is no receiver.
        if self.controller.session() != 0 && now_us >= self.telemetry_due_us {
            let period_us = u64::from(self.controller.config().telemetry_us);
            // A late one does not delay the next one.
            self.telemetry_due_us = self.telemetry_due_us.saturating_add(period_us).max(now_us);
            let state = self.controller.state(&self.decoder.counters(), self.outbox.dropped);
            self.outbox.push(&Message::State(state), self.controller.session(), now_us);
        }
        let _ = self.outbox.drain(&mut self.serial);
        whole
    }

    fn receive(&mut self, now_us: u64) {
        let mut budget = READ_BUDGET;
        let mut bytes = [0; 64];
        while budget > 0 && matches!(self.serial.read_ready(), Ok(true)) {
            let count = match self.serial.read(&mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(count) => count,
            };
            budget = budget.saturating_sub(count);
            for byte in bytes.iter().take(count) {
                let answer = match self.decoder.feed(*byte) {
                    None => continue,
                    Some(Ok(frame)) => self.controller.handle(&frame, now_us),
                    Some(Err(error)) => {
                        if error.is_line_error() {
                            self.controller.bad_frame(now_us);
                        }
                        self.controller.handle_error(&error)
                    }
                };
                if let Some(answer) = answer {
                    self.outbox.push(&answer, self.controller.session(), now_us);
                }
            }
        }
    }
}

/// Complete outgoing frames in a fixed buffer, which is emptied before it is reused.
struct Outbox {
    bytes: [u8; TX_BYTES],
    sent: usize,
    length: usize,
    sequence: u32,
    dropped: u32,
    version: u8,
}

impl Outbox {
    fn new() -> Self {
        Self { bytes: [0; TX_BYTES], sent: 0, length: 0, sequence: 0, dropped: 0, version: PROTOCOL_VERSION }
    }

    fn push(&mut self, message: &Message<'_>, session: u32, now_us: u64) {
        let header = Header { version: self.version, ..Header::new(self.sequence, session, now_us) };
        let room = self.bytes.get_mut(self.length..).unwrap_or(&mut []);
        match encode(&header, message, room) {
            Ok(count) => {
                self.length = self.length.saturating_add(count);
                self.sequence = self.sequence.wrapping_add(1);
            }
            Err(_) => self.dropped = self.dropped.wrapping_add(1),
        }
    }

    fn drain<S: Write + WriteReady>(&mut self, serial: &mut S) -> Result<(), S::Error> {
        while self.sent < self.length && serial.write_ready()? {
            let waiting = self.bytes.get(self.sent..self.length).unwrap_or(&[]);
            let count = serial.write(waiting)?;
            if count == 0 {
                return Ok(());
            }
            self.sent = self.sent.saturating_add(count);
        }
        if self.sent >= self.length {
            self.sent = 0;
            self.length = 0;
        }
        Ok(())
    }
}
