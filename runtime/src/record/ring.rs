//! The files of a recording: a ring on disk that deletes its oldest files.
//!
//! The oldest files are deleted first: recordings of finished runs, then the run's own. The two newest files of the run
//! are kept whatever their size, as are files of other active runs and files without a recording's name.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, BufWriter};
use std::path::PathBuf;

use serde::Serialize;

use super::folder::{self, Ended, Name};
use super::mcap::{ChannelSpec, Writer};
use super::sync::Syncer;
use super::writer::{FLUSH, Item};
use super::{RecordError, RunNote, clock_offset_ns, image, protobuf, schema, wall_ns};
use crate::clock::{NS_PER_S, duration_ns, monotonic_ns};
use crate::events::{Events, LoopEvent};
use crate::fault::{Faults, Kind};

/// Number of files in the ring.
const FILES: u64 = 8;
/// Interval at which data reach the disk: a power cut loses no more.
const SYNC_NS: u64 = 5 * NS_PER_S;
/// A wall clock that is off by this much has been set.
const SET_NS: u128 = NS_PER_S as u128;

/// The files of a run.
pub(super) struct Ring {
    folder: PathBuf,
    /// Bytes.
    limit: u64,
    note: RunNote,
    faults: Faults,
    events: Events,
    syncer: Syncer,
    /// The latest of its files.
    name: Option<Name>,
    file: Option<Open>,
    /// The earlier files, oldest first.
    closed: VecDeque<Closed>,
    wall: Wall,
    warned: Warned,
}

/// The wall clock at its last reading.
struct Wall {
    /// Its offset to CLOCK_MONOTONIC.
    offset_ns: i128,
}

/// Warnings that are logged only once.
#[derive(Default)]
struct Warned {
    small: bool,
    kept: bool,
}

struct Open {
    path: PathBuf,
    writer: Writer<BufWriter<File>>,
    cameras: Vec<u16>,
    joints: Vec<u16>,
    flushed_ns: u64,
    synced_ns: u64,
}

/// A completed file.
struct Closed {
    path: PathBuf,
    size: u64,
    /// Holds the lock, which shows other programs that the run is active.
    held: File,
}

impl Ring {
    /// Starts a run in a folder.
    ///
    /// # Errors
    /// [`RecordError::Io`], [`RecordError::Numbers`].
    pub(super) fn begin(
        folder: PathBuf,
        limit: u64,
        note: RunNote,
        faults: Faults,
        events: Events,
    ) -> Result<Ring, RecordError> {
        let failed = |source| RecordError::Io { path: folder.clone(), source };
        let syncer = Syncer::start().map_err(failed)?;
        let wall = Wall { offset_ns: clock_offset_ns() };
        let (closed, warned) = (VecDeque::new(), Warned::default());
        let mut ring =
            Ring { folder, limit, note, faults, events, syncer, name: None, file: None, closed, wall, warned };
        ring.make_room().map_err(|e| ring.failed(e))?;
        let (name, file) = folder::begin(&ring.folder)?;
        let path = ring.folder.join(name.to_string());
        ring.start(name, file).inspect_err(|_| {
            // It is empty; without this, each attempt would leave a file.
            let _ = std::fs::remove_file(path);
        })?;
        Ok(ring)
    }

    fn failed(&self, source: io::Error) -> RecordError {
        RecordError::Io { path: self.folder.clone(), source }
    }

    /// Continues in another file.
    fn next(&mut self) -> Result<(), RecordError> {
        self.close().map_err(|e| self.failed(e))?;
        // A person may have deleted it.
        std::fs::create_dir_all(&self.folder).map_err(|e| self.failed(e))?;
        self.make_room().map_err(|e| self.failed(e))?;
        let (name, file) = match self.name {
            Some(name) => folder::next(&self.folder, name)?,
            None => folder::begin(&self.folder)?,
        };
        self.start(name, file)
    }

    /// Starts to write a file.
    fn start(&mut self, name: Name, file: File) -> Result<(), RecordError> {
        self.name = Some(name);
        self.open(self.folder.join(name.to_string()), file).map_err(|e| self.failed(e))?;
        let note = self.note.clone();
        // The run note has a chunk of its own, so that it exists however soon the file ends. It is repeated in the next
        // chunk, so that one damaged chunk does not lose the file.
        let noted = self.json(schema::RUN, monotonic_ns(), &note).and_then(|()| self.flush());
        noted.and_then(|()| self.json(schema::RUN, monotonic_ns(), &note)).map_err(|e| self.failed(e))
    }

    fn open(&mut self, path: PathBuf, file: File) -> io::Result<()> {
        let mut writer = Writer::new(BufWriter::new(file), &format!("fathom {}", env!("CARGO_PKG_VERSION")))?;
        for channel in &schema::CHANNELS {
            writer.channel(channel)?;
        }
        let mut channel = |topic: &str, schema: &str, data: &[u8]| {
            let (schema_encoding, encoding) = ("protobuf", "protobuf");
            writer.channel(&ChannelSpec { topic, schema, schema_encoding, data, encoding })
        };
        let (image, joint) = (protobuf::raw_image_descriptor(), protobuf::joint_descriptor());
        let views = self.note.views.iter();
        let cameras =
            views.map(|view| channel(&schema::camera(view), "foxglove.RawImage", &image)).collect::<io::Result<_>>()?;
        let names = self.note.joints.iter();
        let joints =
            names.map(|name| channel(&schema::joint(name), "fathom.Joint", &joint)).collect::<io::Result<_>>()?;
        writer.repeat_channels();
        let now = monotonic_ns();
        self.file = Some(Open { path, writer, cameras, joints, flushed_ns: now, synced_ns: now });
        // The directory entry must survive a power cut, too.
        if let Ok(folder) = File::open(&self.folder) {
            self.syncer.sync(folder);
        }
        Ok(())
    }

    /// Deletes files until another file of an eighth of the limit fits.
    fn make_room(&mut self) -> io::Result<()> {
        let room = self.limit / FILES;
        let mine: u64 = self.closed.iter().map(|closed| closed.size).sum();
        let mut total = mine;
        let fits = |total: u64| total.saturating_add(room) <= self.limit;
        let own = |name: &Name| self.name.is_some_and(|own| own.run == name.run);
        let others: Vec<PathBuf> =
            folder::named(&self.folder)?.into_iter().filter(|(name, _)| !own(name)).map(|(_, path)| path).collect();
        let sizes = others.iter().filter_map(|path| path.symlink_metadata().ok()).filter(|m| m.is_file());
        if !fits(sizes.map(|m| m.len()).fold(total, u64::saturating_add)) {
            // Files of an active run are its own to delete, and are not counted here.
            let mut ended = Vec::new();
            for path in others {
                if let Ok(Some(size)) = Ended::lock(path.clone()).map(|file| file.map(|file| file.size)) {
                    ended.push((path, size));
                    total = total.saturating_add(size);
                }
            }
            for (path, size) in ended {
                if fits(total) {
                    break;
                }
                let deleted = Ended::lock(path.clone()).and_then(|file| file.map_or(Ok(()), Ended::delete));
                if let Err(error) = deleted
                    && !std::mem::replace(&mut self.warned.kept, true)
                {
                    tracing::warn!(path = %path.display(), %error, "an old recording cannot be deleted");
                }
                total -= size;
            }
        }
        while !fits(total) && self.closed.len() > 1 {
            let Some(oldest) = self.closed.pop_front() else { break };
            folder::gone(std::fs::remove_file(&oldest.path))?;
            total -= oldest.size;
        }
        if !fits(total) && !std::mem::replace(&mut self.warned.small, true) {
            let (limit_mb, file_mb) = (self.limit >> 20, total >> 20);
            tracing::warn!(limit_mb, file_mb, "one file of the recording takes most of the limit: raise limit_mb");
        }
        Ok(())
    }

    fn close(&mut self) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        let (held, synced) = (file.writer.out().get_ref().try_clone()?, file.writer.out().get_ref().try_clone()?);
        let size = file.writer.finish()?;
        self.syncer.sync(synced);
        self.closed.push_back(Closed { path: file.path, size, held });
        Ok(())
    }

    /// Ends the run's last file.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn end(mut self) -> io::Result<()> {
        self.close()?;
        self.closed.back().map_or(Ok(()), |last| last.held.sync_all())
    }

    /// Writes buffered data, and checks the file and the clock.
    ///
    /// # Errors
    /// [`RecordError`]; afterwards the recording cannot continue.
    pub(super) fn tend(&mut self) -> Result<(), RecordError> {
        self.flush().map_err(|e| self.failed(e))?;
        let lost = self.file.as_ref().filter(|f| folder::is_deleted(f.writer.out().get_ref(), &f.path));
        if let Some(lost) = lost {
            let path = lost.path.display();
            tracing::warn!(%path, "the file was deleted while it was written: recording into the next one");
            self.file = None;
            self.next()?;
        }
        self.check_wall_clock().map_err(|e| self.failed(e))
    }

    fn flush(&mut self) -> io::Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        let now = monotonic_ns();
        file.flushed_ns = now;
        file.writer.close_chunk()?;
        if now.saturating_sub(file.synced_ns) > SYNC_NS {
            file.synced_ns = now;
            let file = file.writer.out().get_ref().try_clone()?;
            self.syncer.sync(file);
        }
        Ok(())
    }

    /// Records that the wall clock was set. The recording keeps its time base, so that its times stay in order.
    fn check_wall_clock(&mut self) -> io::Result<()> {
        let by_ns = clock_offset_ns() - self.wall.offset_ns;
        if by_ns.unsigned_abs() < SET_NS {
            return Ok(());
        }
        self.wall.offset_ns += by_ns;
        let by_s = by_ns as f64 / NS_PER_S as f64;
        self.events.emit(LoopEvent::WallClockSet { by_s });
        self.log(&format!("the wall clock was set, by {by_s:.3} s"), monotonic_ns())
    }

    fn wall_ns(&self, at_ns: u64) -> u64 {
        wall_ns(at_ns, self.note.realtime_offset_ns)
    }

    fn json(&mut self, topic: &str, at_ns: u64, value: &impl Serialize) -> io::Result<()> {
        let at_ns = self.wall_ns(at_ns);
        let channel = schema::CHANNELS.iter().position(|c| c.topic == topic).unwrap_or(0) as u16;
        let bytes = serde_json::to_vec(value)?;
        match &mut self.file {
            Some(file) => file.writer.message(channel, at_ns, at_ns, &bytes),
            None => Ok(()),
        }
    }

    fn log(&mut self, message: &str, at_ns: u64) -> io::Result<()> {
        let wall_ns = self.wall_ns(at_ns);
        let timestamp = schema::Time { sec: wall_ns / NS_PER_S, nsec: (wall_ns % NS_PER_S) as u32 };
        let (message, name) = (message.to_owned(), "fathom".to_owned());
        let log = schema::Log { timestamp, level: 2, message, name, ..schema::Log::default() };
        self.json(schema::LOG, at_ns, &log)
    }

    /// Writes a message.
    ///
    /// # Errors
    /// [`RecordError`]; afterwards the recording cannot continue.
    pub(super) fn write(&mut self, item: &Item) -> Result<(), RecordError> {
        if self.faults.now(Kind::DiskFull, None).is_some() {
            return Err(self.failed(io::ErrorKind::StorageFull.into()));
        }
        if self.file.as_ref().is_some_and(|f| f.writer.bytes() >= self.limit / FILES) {
            self.next()?;
        }
        self.put(item).map_err(|e| self.failed(e))?;
        let flushed_ns = self.file.as_ref().map(|f| f.flushed_ns);
        let late = flushed_ns.is_some_and(|at| monotonic_ns().saturating_sub(at) > duration_ns(FLUSH));
        if late { self.tend() } else { Ok(()) }
    }

    fn put(&mut self, item: &Item) -> io::Result<()> {
        match item {
            Item::Observation(observation, images) => {
                for (n, (image, view)) in images.iter().zip(&observation.views).enumerate() {
                    let at_ns = self.wall_ns(image.stamp_ns);
                    let bytes = image::encode(image, &view.view, at_ns);
                    if let Some(file) = &mut self.file
                        && let Some(channel) = file.cameras.get(n)
                    {
                        file.writer.message(*channel, at_ns, at_ns, &bytes)?;
                    }
                }
                self.json(schema::OBSERVATION, observation.asked_ns, observation)
            }
            Item::Inference(inference) => self.json(schema::INFERENCE, inference.finished_ns, inference),
            Item::Chunk(chunk) => self.json(schema::CHUNK, chunk.sent_ns, chunk),
            Item::Ack(ack) => self.json(schema::ACK, ack.received_ns, ack),
            Item::State(state) => {
                self.json(schema::STATE, state.received_ns, state)?;
                let at_ns = self.wall_ns(state.received_ns);
                let Some(file) = &mut self.file else { return Ok(()) };
                for (channel, (measured, commanded)) in
                    file.joints.iter().zip(state.measured.iter().zip(&state.commanded))
                {
                    file.writer.message(*channel, at_ns, at_ns, &protobuf::joint(*measured, *commanded))?;
                }
                Ok(())
            }
            Item::Log(message, at_ns) => self.log(message, *at_ns),
        }
    }
}
