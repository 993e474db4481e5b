//! The serial cable between guest and controller. It carries bytes while it is plugged in, and records the controller's
//! messages even if the guest does not read them.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fathom_models::errln;
use fathom_models::io::output_file::{OutputError, OutputFile};
use firmware_bridge::frame::Decoder;
use firmware_bridge::message::{HelloReply, Message, Mode, Reason, kind};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Limit on bytes in transit into the guest. A wire holds none: bytes that the guest does not read soon are lost.
const IN_FLIGHT: usize = 4096;
/// Pause when neither end sends.
const PAUSE: Duration = Duration::from_micros(500);

/// The controller's state at a time, from its own telemetry.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// When the cable carried it.
    pub(crate) at: Instant,
    /// The controller's clock, in microseconds.
    pub(crate) time_us: u64,
    /// Its mode.
    pub(crate) mode: Mode,
    /// Commanded positions of the joints.
    pub(crate) commanded: Vec<f32>,
    /// When it last received a frame of the host, by its own clock, in microseconds.
    pub(crate) received_us: u64,
}

/// The record of the cable's traffic.
#[derive(Clone, Debug, Default)]
pub(crate) struct Notes {
    /// All telemetry, in order.
    pub(crate) samples: Vec<Sample>,
    /// Times at which chunks were accepted.
    pub(crate) accepted: Vec<Instant>,
    /// Reasons of refused chunks.
    pub(crate) refused: Vec<Reason>,
    /// The controller's last description of itself.
    pub(crate) hello: Option<HelloReply>,
    /// Longest time between two frames of the host that the controller received during a chunk.
    pub(crate) longest_silence_us: u64,
    received_us: u64,
    /// Start of the last chunk that was accepted.
    start_us: Option<u64>,
}

/// The cable; dropping it pulls it out.
#[derive(Debug)]
pub(crate) struct Cable {
    notes: Arc<Mutex<Notes>>,
    plugged: Arc<AtomicBool>,
    exit: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cable {
    /// Connects a guest's end, a socket, to a controller's: a terminal device, or a socket.
    ///
    /// # Errors
    /// When an end cannot be opened.
    pub(crate) fn lay(guest: &Path, controller: &Path) -> io::Result<Cable> {
        let guest = UnixStream::connect(guest)?;
        rustix::net::sockopt::set_socket_send_buffer_size(&guest, IN_FLIGHT)?;
        let guest = non_blocking(guest.into())?;
        let controller = non_blocking(match UnixStream::connect(controller) {
            Ok(socket) => socket.into(),
            Err(_) => OpenOptions::new().read(true).write(true).open(controller)?.into(),
        })?;
        let (notes, plugged, exit) = (Arc::default(), Arc::new(AtomicBool::new(true)), Arc::default());
        let (their_notes, their_plugged, their_exit) = (Arc::clone(&notes), Arc::clone(&plugged), Arc::clone(&exit));
        let thread = thread::Builder::new().name("cable".into()).spawn(move || {
            if let Err(error) = carry(guest, controller, &their_notes, &their_plugged, &their_exit) {
                errln!("the cable: {error}");
            }
        })?;
        Ok(Cable { notes, plugged, exit, thread: Some(thread) })
    }

    /// Plugs the guest's end in or pulls it out.
    pub(crate) fn plug(&self, plugged: bool) {
        self.plugged.store(plugged, Ordering::Relaxed);
    }

    /// Reads the notes.
    pub(crate) fn notes<R>(&self, look: impl FnOnce(&Notes) -> R) -> R {
        look(&self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.exit.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // An error in it has already been printed.
            let _ = thread.join();
        }
    }
}

fn non_blocking(end: OwnedFd) -> io::Result<File> {
    fcntl_setfl(&end, fcntl_getfl(&end)? | OFlags::NONBLOCK)?;
    Ok(end.into())
}

fn carry(
    mut guest: File,
    mut controller: File,
    notes: &Mutex<Notes>,
    plugged: &AtomicBool,
    exit: &AtomicBool,
) -> io::Result<()> {
    let mut decoder = Decoder::new();
    let mut bytes = [0; 2048];
    while !exit.load(Ordering::Relaxed) {
        let plugged = plugged.load(Ordering::Relaxed);
        let said = taken(guest.read(&mut bytes))?;
        if plugged {
            put(&mut controller, bytes.get(..said).unwrap_or_default())?;
        }
        let answered = taken(controller.read(&mut bytes))?;
        let answer = bytes.get(..answered).unwrap_or_default();
        if plugged {
            put(&mut guest, answer)?;
        }
        if said == 0 && answered == 0 {
            thread::sleep(PAUSE);
            continue;
        }
        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        for byte in answer {
            if let Some(Ok(frame)) = decoder.feed(*byte) {
                notes.note(frame.header.time_us, &frame.message);
            }
        }
    }
    Ok(())
}

/// The bytes read; none if there are none yet.
fn taken(read: io::Result<usize>) -> io::Result<usize> {
    match read {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(0),
        other => other,
    }
}

/// Writes as much as the other end accepts; the rest is lost, as on a wire.
fn put(to: &mut File, bytes: &[u8]) -> io::Result<()> {
    match to.write(bytes) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
        other => other.map(|_| ()),
    }
}

impl Notes {
    /// All telemetry as comma-separated values: the controller's clock, the time when it last received a frame of the
    /// host, its mode, and the joints' commands.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn write(&self, to: &Path) -> Result<(), OutputError> {
        let mut file = OutputFile::create(to)?;
        self.write_rows(&mut file).map_err(|source| file.failed(source))?;
        file.commit()
    }

    fn write_rows(&self, file: &mut impl Write) -> io::Result<()> {
        writeln!(file, "time_us,received_us,mode,commanded")?;
        for sample in &self.samples {
            write!(file, "{},{},{:?}", sample.time_us, sample.received_us, sample.mode)?;
            for position in &sample.commanded {
                write!(file, ",{position}")?;
            }
            writeln!(file)?;
        }
        file.flush()
    }

    fn note(&mut self, time_us: u64, message: &Message<'_>) {
        let at = Instant::now();
        match message {
            Message::State(state) => self.samples.push(Sample {
                at,
                time_us,
                mode: state.mode,
                commanded: state.commanded.as_slice().to_vec(),
                received_us: self.received_us,
            }),
            Message::Ack(ack) => {
                self.received(time_us);
                match ack.reason {
                    _ if ack.kind != kind::CHUNK => {}
                    // A chunk with a slow verdict was sent again.
                    Reason::Ok if self.start_us.replace(ack.start_us) == Some(ack.start_us) => {}
                    Reason::Ok => self.accepted.push(at),
                    reason => self.refused.push(reason),
                }
            }
            Message::HeartbeatReply(reply) => self.received(reply.received_us),
            Message::HelloReply(hello) => self.hello = Some(*hello),
            _ => {}
        }
    }

    fn received(&mut self, time_us: u64) {
        if self.samples.last().is_some_and(|sample| sample.mode == Mode::Active) {
            let silence_us = time_us.saturating_sub(self.received_us);
            self.longest_silence_us = self.longest_silence_us.max(silence_us);
        }
        self.received_us = time_us;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use firmware_bridge::frame::{Header, MAX_FRAME, encode};
    use firmware_bridge::message::SCHEMA_HASH;
    use firmware_bridge::sim::{Sim, SimConfig, SimJoint};

    use super::*;

    /// Waits until the cable has recorded this many more samples; returns whether it did.
    fn more(cable: &Cable, samples: usize) -> bool {
        let (since, before) = (Instant::now(), cable.notes(|notes| notes.samples.len()));
        while since.elapsed() < Duration::from_secs(30) {
            if cable.notes(|notes| notes.samples.len()) >= before + samples {
                return true;
            }
            thread::sleep(PAUSE);
        }
        false
    }

    #[test]
    fn a_cable_that_is_pulled_out_carries_nothing_and_still_records_the_controller() {
        let folder = tempfile::tempdir().expect("a folder");
        let end = folder.path().join("guest.sock");
        let listener = UnixListener::bind(&end).expect("a socket");
        let sim = Sim::start(SimConfig::new(vec![SimJoint::revolute("elbow")])).expect("a pty");
        let cable = Cable::lay(&end, sim.path()).expect("both ends");
        let (mut guest, _) = listener.accept().expect("the cable");
        guest.set_read_timeout(Some(Duration::from_secs(30))).expect("a socket");

        let mut frame = [0; MAX_FRAME];
        let hello = Message::Hello { schema: SCHEMA_HASH };
        let length = encode(&Header::new(1, 7, 1), &hello, &mut frame).expect("it fits");
        guest.write_all(&frame[..length]).expect("the cable takes it");
        assert!(more(&cable, 5), "the hello reached the controller, and its telemetry the cable");
        let mut answer = [0; 64];
        assert!(guest.read(&mut answer).expect("bytes") > 0, "and the guest");

        cable.plug(false);
        assert!(more(&cable, 5), "the controller goes on");
        guest.set_nonblocking(true).expect("a socket");
        while guest.read(&mut answer).is_ok_and(|count| count > 0) {}
        assert!(more(&cable, 5), "and on");
        let read = guest.read(&mut answer).map_err(|error| error.kind());
        assert_eq!(read, Err(ErrorKind::WouldBlock), "nothing reaches the guest");
        cable.plug(true);
        assert!(more(&cable, 5), "plugged in again");
        assert!(guest.read(&mut answer).expect("bytes") > 0, "the guest hears it again");
    }
}
