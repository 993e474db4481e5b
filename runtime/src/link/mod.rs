//! The host's end of the serial line to the motor controller.
//!
//! The wire format is that of the crate `firmware_bridge`. Two threads move the bytes. Only [`Link::hello`] and
//! [`Link::wait_ack`] wait, so that the control loop may call all other methods in its tick. The control loop itself
//! sends the heartbeats: a loop that hangs sends none, and the controller then stops the joints.
//!
//! Host times are CLOCK_MONOTONIC in nanoseconds (`_ns`), controller times are its own clock in
//! microseconds (`_us`); [`Link::clock`] relates them.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::Duration;

use firmware_bridge::PROTOCOL_VERSION;
use firmware_bridge::frame::Header;
use firmware_bridge::message::{Ack, Chunk, ControllerState, HelloReply, Interpolation, Message, Positions, START_NOW};

use crate::fault::{Faults, FaultyReader, FaultyWriter, Kind};
use crate::waker::Waker;

mod clock;
mod error;
mod line;
mod receive;
mod session;

pub use clock::{ClockOffset, Exchange, host_now_ns};
pub use error::LinkError;
pub use line::LinkCounters;

use line::{Line, SendError};
use session::open_error;

/// A heartbeat expires after this: a late one would report a live loop that may hang.
const HEARTBEAT_WORTH_NS: u64 = 100_000_000;

/// A hello, an arm or a clear expires after this.
const REQUEST_WORTH_NS: u64 = 500_000_000;

/// Time-out of one read; bounds how long a dropped link holds its device.
const READ_TIMEOUT: Duration = Duration::from_millis(20);

/// Limit on the events that wait for [`Link::poll`] during [`Link::wait_ack`].
const BACKLOG: usize = 256;

/// When step 0 of a chunk is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// On arrival at the controller. A chunk that was delayed on the line then starts late; prefer a time.
    Now,
    /// At this controller time in microseconds.
    ControllerUs(u64),
    /// At this host time, CLOCK_MONOTONIC in nanoseconds.
    HostNs(u64),
}

/// An action chunk to send: step `k` is due at the start plus `k * period_us`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ActionChunk<'a> {
    /// The host's number of it, echoed in [`ControllerState::progress`].
    pub id: u32,
    /// When step 0 is due.
    pub start: Start,
    /// Time between steps in microseconds, at least 1.
    pub period_us: u32,
    /// No step is executed later than this after the start, in microseconds.
    pub validity_us: u32,
    /// The controller's motion between steps.
    pub interpolation: Interpolation,
    /// `[step][joint]` in the joints' units, in the controller's order of joints.
    pub positions: &'a [f32],
}

/// Input from the line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LinkEvent {
    /// The controller's verdict on a frame.
    Ack {
        /// The verdict, with the frame's sequence and the chunk's start.
        ack: Ack,
        /// When the controller made it.
        controller_us: u64,
        /// When it arrived.
        received_ns: u64,
    },
    /// Telemetry.
    State {
        /// The controller's state.
        state: ControllerState,
        /// When the controller made it.
        controller_us: u64,
        /// When it arrived.
        received_ns: u64,
    },
    /// No good frame for the time of [`Link::set_silence`]. Reported once, until [`LinkEvent::Restored`].
    Silent {
        /// When the last one arrived.
        last_received_ns: u64,
    },
    /// Good frames again after [`LinkEvent::Silent`].
    Restored,
    /// The controller does not know this session: it restarted. Send a hello and arm again.
    ControllerReset,
    /// The controller has another protocol version.
    WrongVersion {
        /// The controller's version.
        found: u8,
    },
    /// The device is lost, and no event follows. Open a new link.
    Lost {
        /// The kind of the error that ended it.
        kind: io::ErrorKind,
    },
}

impl LinkEvent {
    /// Time of arrival, CLOCK_MONOTONIC; `None` for events without a frame.
    #[must_use]
    pub fn received_ns(&self) -> Option<u64> {
        match self {
            LinkEvent::Ack { received_ns, .. } | LinkEvent::State { received_ns, .. } => Some(*received_ns),
            _ => None,
        }
    }
}

/// A link to one controller. Dropping it closes the device; the controller then stops the joints.
pub struct Link {
    device: String,
    line: Line,
    session: u32,
    sequence: u32,
    controller: Option<Box<HelloReply>>,
    /// The only accepted controller.
    identity: Option<String>,
    clock: Option<ClockOffset>,
    silence: Duration,
    last_received_ns: u64,
    is_silent: bool,
    lost: Option<io::ErrorKind>,
    waiting: VecDeque<LinkEvent>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("device", &self.device)
            .field("session", &self.session)
            .field("sequence", &self.sequence)
            .field("lost", &self.lost)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// Opens a serial device exclusively, and discards pending input.
    ///
    /// # Errors
    /// [`LinkError::Absent`], [`LinkError::Busy`], [`LinkError::Permission`] or
    /// [`LinkError::Open`].
    pub fn open(device: &str, baud: u32) -> Result<Self, LinkError> {
        let failed = |error| open_error(device, error);
        let reader = serialport::new(device, baud).timeout(READ_TIMEOUT).open().map_err(failed)?;
        reader.clear(serialport::ClearBuffer::Input).map_err(failed)?;
        let writer = reader.try_clone().map_err(failed)?;
        Self::over(device, reader, writer)
    }

    /// As [`Link::open`], on a line with injected faults.
    ///
    /// # Errors
    /// As [`Link::open`]; [`LinkError::Absent`] while the line is unplugged.
    pub(crate) fn open_with_faults(device: &str, baud: u32, faults: &Faults) -> Result<Self, LinkError> {
        if !faults.any_of_line() {
            return Self::open(device, baud);
        }
        if faults.now(Kind::SerialUnplug, None).is_some() {
            return Err(LinkError::Absent { device: device.to_owned() });
        }
        let failed = |error| open_error(device, error);
        let reader = serialport::new(device, baud).timeout(READ_TIMEOUT).open().map_err(failed)?;
        reader.clear(serialport::ClearBuffer::Input).map_err(failed)?;
        let writer = FaultyWriter::new(reader.try_clone().map_err(failed)?, faults.clone());
        Self::over(device, FaultyReader::new(reader, faults.clone()), writer)
    }

    /// A link over any two ends of a line called `device`.
    ///
    /// Reads should time out within about 20 ms: a reader that waits forever outlives the link.
    ///
    /// # Errors
    /// [`LinkError::Thread`].
    pub fn over(
        device: &str,
        reader: impl Read + Send + 'static,
        writer: impl Write + Send + 'static,
    ) -> Result<Self, LinkError> {
        let line =
            Line::start(reader, writer).map_err(|source| LinkError::Thread { device: device.to_owned(), source })?;
        Ok(Self {
            device: device.to_owned(),
            line,
            session: 0,
            sequence: 0,
            controller: None,
            identity: None,
            clock: None,
            silence: Duration::from_millis(150),
            last_received_ns: host_now_ns(),
            is_silent: false,
            lost: None,
            waiting: VecDeque::with_capacity(BACKLOG),
        })
    }

    /// Time without a good frame until [`LinkEvent::Silent`]; default: 150 ms.
    pub fn set_silence(&mut self, silence: Duration) {
        self.silence = silence;
    }

    /// Restricts hellos to the controller with this identity; without one, any controller is accepted.
    pub fn set_identity(&mut self, identity: Option<String>) {
        self.identity = identity;
    }

    /// Wakes `waker` whenever [`Link::poll`] may return an event.
    pub(crate) fn wakes(&self, waker: Waker) {
        self.line.wakes(waker);
    }

    /// The controller's last good answer to a hello.
    pub fn controller(&self) -> Option<&HelloReply> {
        self.controller.as_deref()
    }

    /// The controller's clock, once it has answered a heartbeat.
    pub fn clock(&self) -> Option<ClockOffset> {
        self.clock
    }

    /// Path of the device.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Counts of frames and errors.
    pub fn counters(&self) -> LinkCounters {
        self.line.counters()
    }

    /// Asks for permission to move; the verdict arrives as [`LinkEvent::Ack`]. Returns the sequence.
    ///
    /// # Errors
    /// [`LinkError::Lost`], [`LinkError::Backlog`].
    pub fn arm(&mut self) -> Result<u32, LinkError> {
        self.send(&Message::Arm)
    }

    /// Ramp to rest, then release the joints. Returns the sequence.
    ///
    /// # Errors
    /// [`LinkError::Lost`], [`LinkError::Backlog`].
    pub fn disarm(&mut self) -> Result<u32, LinkError> {
        self.send(&Message::Disarm)
    }

    /// Ramp to rest and hold. Returns the sequence.
    ///
    /// # Errors
    /// [`LinkError::Lost`], [`LinkError::Backlog`].
    pub fn stop(&mut self) -> Result<u32, LinkError> {
        self.send(&Message::Stop)
    }

    /// Clears a latched fault whose cause has ended; the controller is then disarmed. Returns the sequence.
    ///
    /// # Errors
    /// [`LinkError::Lost`], [`LinkError::Backlog`].
    pub fn clear_fault(&mut self) -> Result<u32, LinkError> {
        self.send(&Message::ClearFault)
    }

    /// Keeps the controller's deadman from stopping the joints, and measures its clock: send at least three per deadman
    /// time. Returns the sequence.
    ///
    /// # Errors
    /// [`LinkError::Lost`], [`LinkError::Backlog`].
    pub fn heartbeat(&mut self) -> Result<u32, LinkError> {
        self.send(&Message::Heartbeat)
    }

    /// Sends a chunk, which supersedes earlier ones from its start on; the verdict arrives as [`LinkEvent::Ack`].
    /// Returns the sequence.
    ///
    /// # Errors
    /// [`LinkError::NoHello`], [`LinkError::ChunkShape`], [`LinkError::NonFinite`],
    /// [`LinkError::NoClock`] for a host time before the first heartbeat was answered,
    /// [`LinkError::Lost`], [`LinkError::Backlog`].
    pub fn send_chunk(&mut self, chunk: &ActionChunk<'_>) -> Result<u32, LinkError> {
        let controller = self.controller.as_ref().ok_or_else(|| LinkError::NoHello { device: self.device.clone() })?;
        let joints = controller.joints.len();
        let values = chunk.positions.len();
        let steps = values.checked_div(usize::from(joints)).unwrap_or(0);
        let shape = u16::try_from(steps).ok().filter(|steps| {
            (1..=controller.buffer_depth).contains(steps)
                && usize::from(*steps) * usize::from(joints) == values
                && chunk.period_us > 0
        });
        let Some(steps) = shape else {
            return Err(LinkError::ChunkShape {
                device: self.device.clone(),
                values,
                joints: joints.into(),
                most_steps: controller.buffer_depth.into(),
            });
        };
        if let Some(at) = chunk.positions.iter().position(|value| !value.is_finite()) {
            return Err(LinkError::NonFinite {
                device: self.device.clone(),
                step: at / usize::from(joints),
                joint: at % usize::from(joints),
            });
        }
        let start_us = match chunk.start {
            Start::Now => START_NOW,
            Start::ControllerUs(time_us) => time_us,
            Start::HostNs(time_ns) => {
                self.clock.ok_or_else(|| LinkError::NoClock { device: self.device.clone() })?.to_controller_us(time_ns)
            }
        };
        let message = Message::Chunk(Chunk {
            id: chunk.id,
            start_us,
            period_us: chunk.period_us,
            validity_us: chunk.validity_us,
            interpolation: chunk.interpolation,
            joints,
            steps,
            positions: Positions::Native(chunk.positions),
        });
        let validity_ns = u64::from(chunk.validity_us).saturating_mul(1_000);
        self.send_until(&message, host_now_ns().saturating_add(validity_ns))
    }

    fn send(&mut self, message: &Message<'_>) -> Result<u32, LinkError> {
        let expires_ns = match message {
            // A stop never expires.
            Message::Stop | Message::Disarm => u64::MAX,
            Message::Heartbeat => host_now_ns().saturating_add(HEARTBEAT_WORTH_NS),
            _ => host_now_ns().saturating_add(REQUEST_WORTH_NS),
        };
        self.send_until(message, expires_ns)
    }

    fn send_until(&mut self, message: &Message<'_>, expires_ns: u64) -> Result<u32, LinkError> {
        if let Some(kind) = self.lost {
            return Err(self.lost_error(kind));
        }
        let sequence = self.sequence.wrapping_add(1);
        let header = Header::new(sequence, self.session, host_now_ns() / 1_000);
        match self.line.send(&header, message, expires_ns) {
            Ok(()) => {
                self.sequence = sequence;
                Ok(sequence)
            }
            Err(SendError::Closed) => Err(self.lost_error(io::ErrorKind::BrokenPipe)),
            // A message with checked counts can always be encoded.
            Err(SendError::Full | SendError::Encode) => Err(LinkError::Backlog { device: self.device.clone() }),
        }
    }

    fn lost_error(&self, kind: io::ErrorKind) -> LinkError {
        LinkError::Lost { device: self.device.clone(), kind }
    }

    fn version_error(&self, found: u8) -> LinkError {
        LinkError::ProtocolVersion { device: self.device.clone(), expected: PROTOCOL_VERSION, found }
    }
}
