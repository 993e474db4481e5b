//! The two threads of the serial line; the control loop never waits for it.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use firmware_bridge::frame::{Counters, Decoder, FrameError, Header, MAX_FRAME, encode};
use firmware_bridge::message::{Ack, ControllerState, HeartbeatReply, HelloReply, Message};

use super::clock::host_now_ns;
use crate::waker::Waker;

/// Limit on the frames that wait to be sent.
const OUT_FRAMES: usize = 16;

/// Limit on the received messages that wait for the control loop.
const IN_MESSAGES: usize = 256;

/// Bytes passed to the device at once. A longer write to a full device would not time out.
const PIECE: usize = 256;

/// Input that the reader thread received.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly all are messages, and a box each would allocate at the telemetry's rate"
)]
pub(super) enum Inbound {
    Message {
        header: Header,
        body: Body,
        /// CLOCK_MONOTONIC after the read that completed the frame.
        received_ns: u64,
    },
    /// A complete frame of another protocol version.
    Version { found: u8 },
    /// The line ended.
    Closed { kind: ErrorKind },
}

/// A controller's message.
#[derive(Debug)]
pub(super) enum Body {
    Hello(Box<HelloReply>),
    State(ControllerState),
    Ack(Ack),
    Heartbeat(HeartbeatReply),
}

struct Outbound {
    bytes: Vec<u8>,
    /// Not sent after this time, CLOCK_MONOTONIC.
    expires_ns: u64,
}

/// Counters of a link; all wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LinkCounters {
    /// The decoder's counts of the controller's frames.
    pub received: Counters,
    /// Messages of the controller lost because the control loop did not poll.
    pub not_polled: u32,
    /// Frames dropped because they expired in the queue.
    pub expired: u32,
}

#[derive(Default)]
struct Shared {
    exit: AtomicBool,
    received: Mutex<Counters>,
    not_polled: AtomicU32,
    expired: AtomicU32,
    /// Wakes the polling thread.
    waker: OnceLock<Waker>,
}

impl Shared {
    fn wake(&self) {
        if let Some(waker) = self.waker.get() {
            waker.wake();
        }
    }
}

/// The reason why a frame was not queued.
pub(super) enum SendError {
    /// The queue is full.
    Full,
    /// The writer thread has ended.
    Closed,
    /// The message does not fit a frame.
    Encode,
}

/// Reader and writer threads with their queues.
pub(super) struct Line {
    shared: Arc<Shared>,
    inbound: Receiver<Inbound>,
    outbound: Option<SyncSender<Outbound>>,
    free: Receiver<Vec<u8>>,
    threads: Vec<JoinHandle<()>>,
}

impl Line {
    /// Reads should time out within about 20 ms, so that the reader notices a dropped link.
    pub(super) fn start(reader: impl Read + Send + 'static, writer: impl Write + Send + 'static) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (inbound_sender, inbound) = sync_channel(IN_MESSAGES);
        let (outbound, outbound_receiver) = sync_channel(OUT_FRAMES);
        let (free_sender, free) = sync_channel(OUT_FRAMES);
        for _ in 0..OUT_FRAMES {
            // The queue holds all of them.
            let _ = free_sender.try_send(Vec::with_capacity(MAX_FRAME));
        }
        let mut threads = Vec::new();
        let (of_reader, sender) = (Arc::clone(&shared), inbound_sender.clone());
        threads.push(
            thread::Builder::new().name("link-read".into()).spawn(move || read_frames(reader, &of_reader, &sender))?,
        );
        let of_writer = Arc::clone(&shared);
        threads.push(thread::Builder::new().name("link-write".into()).spawn(move || {
            write_frames(writer, &of_writer, &outbound_receiver, &free_sender, &inbound_sender);
        })?);
        Ok(Self { shared, inbound, outbound: Some(outbound), free, threads })
    }

    /// Queues a frame; never waits.
    pub(super) fn send(&self, header: &Header, message: &Message<'_>, expires_ns: u64) -> Result<(), SendError> {
        let mut bytes = self.free.try_recv().map_err(|error| match error {
            TryRecvError::Empty => SendError::Full,
            TryRecvError::Disconnected => SendError::Closed,
        })?;
        bytes.resize(MAX_FRAME, 0);
        let length = encode(header, message, &mut bytes);
        bytes.truncate(*length.as_ref().unwrap_or(&0));
        let queue = self.outbound.as_ref().ok_or(SendError::Closed)?;
        // A message that cannot be encoded is queued empty, so that its buffer returns.
        queue.try_send(Outbound { bytes, expires_ns }).map_err(|error| match error {
            TrySendError::Full(_) => SendError::Full,
            TrySendError::Disconnected(_) => SendError::Closed,
        })?;
        length.map(|_| ()).map_err(|_| SendError::Encode)
    }

    /// Wakes `waker` on every arrival; only the first `waker` counts.
    pub(super) fn wakes(&self, waker: Waker) {
        self.shared.waker.get_or_init(|| waker);
    }

    pub(super) fn try_recv(&self) -> Option<Inbound> {
        self.inbound.try_recv().ok()
    }

    pub(super) fn recv_until(&self, deadline: Instant) -> Option<Inbound> {
        let wait = deadline.saturating_duration_since(Instant::now());
        self.inbound.recv_timeout(wait).ok()
    }

    pub(super) fn counters(&self) -> LinkCounters {
        let received = self.shared.received.lock().unwrap_or_else(PoisonError::into_inner);
        LinkCounters {
            received: *received,
            not_polled: self.shared.not_polled.load(Ordering::Relaxed),
            expired: self.shared.expired.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Line {
    /// Waits briefly for the threads, which hold the device. A thread that hangs in a dead driver is abandoned.
    fn drop(&mut self) {
        self.shared.exit.store(true, Ordering::Relaxed);
        self.outbound = None;
        let deadline = Instant::now() + Duration::from_millis(200);
        while Instant::now() < deadline && self.threads.iter().any(|thread| !thread.is_finished()) {
            thread::sleep(Duration::from_millis(2));
        }
    }
}

fn again(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::Interrupted | ErrorKind::WouldBlock)
}

fn read_frames(mut reader: impl Read, shared: &Shared, sender: &SyncSender<Inbound>) {
    let mut decoder = Decoder::new();
    let mut bytes = [0_u8; 1024];
    while !shared.exit.load(Ordering::Relaxed) {
        let count = match reader.read(&mut bytes) {
            Ok(0) => return close(shared, sender, ErrorKind::UnexpectedEof),
            Ok(count) => count,
            Err(error) if again(&error) => continue,
            Err(error) => return close(shared, sender, error.kind()),
        };
        let received_ns = host_now_ns();
        for byte in bytes.iter().take(count) {
            let inbound = match decoder.feed(*byte) {
                Some(Ok(frame)) => {
                    let body = match frame.message {
                        Message::HelloReply(reply) => Body::Hello(Box::new(reply)),
                        Message::State(state) => Body::State(state),
                        Message::Ack(ack) => Body::Ack(ack),
                        Message::HeartbeatReply(reply) => Body::Heartbeat(reply),
                        // An echo of the host's own message.
                        _ => continue,
                    };
                    Inbound::Message { header: frame.header, body, received_ns }
                }
                Some(Err(FrameError::Version { found, .. })) => Inbound::Version { found },
                Some(Err(_)) | None => continue,
            };
            match sender.try_send(inbound) {
                Ok(()) => shared.wake(),
                Err(TrySendError::Full(_)) => {
                    shared.not_polled.fetch_add(1, Ordering::Relaxed);
                }
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
        *shared.received.lock().unwrap_or_else(PoisonError::into_inner) = decoder.counters();
    }
}

fn write_frames(
    mut writer: impl Write,
    shared: &Shared,
    queue: &Receiver<Outbound>,
    free: &SyncSender<Vec<u8>>,
    sender: &SyncSender<Inbound>,
) {
    // Terminates any partial frame in the controller.
    let mut result = write_pieces(&mut writer, &[0], shared);
    while let Ok(frame) = queue.recv() {
        if result.is_ok() {
            if host_now_ns() <= frame.expires_ns {
                result = write_pieces(&mut writer, &frame.bytes, shared);
            } else {
                shared.expired.fetch_add(1, Ordering::Relaxed);
            }
        }
        if let Err(kind) = result {
            return close(shared, sender, kind);
        }
        if free.try_send(frame.bytes).is_err() {
            return;
        }
    }
}

/// Writes all of `bytes`, for any time that the device takes, until the link is dropped.
fn write_pieces(writer: &mut impl Write, bytes: &[u8], shared: &Shared) -> Result<(), ErrorKind> {
    let mut rest = bytes;
    while !rest.is_empty() && !shared.exit.load(Ordering::Relaxed) {
        let (piece, _) = rest.split_at(rest.len().min(PIECE));
        match writer.write(piece) {
            Ok(0) => return Err(ErrorKind::WriteZero),
            Ok(count) => rest = rest.get(count..).unwrap_or(&[]),
            Err(error) if again(&error) => {}
            Err(error) => return Err(error.kind()),
        }
    }
    Ok(())
}

/// Reports the end of the line; waits for space, since it is the last message.
fn close(shared: &Shared, sender: &SyncSender<Inbound>, kind: ErrorKind) {
    let _ = sender.send(Inbound::Closed { kind });
    shared.wake();
}
