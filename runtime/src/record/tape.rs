//! The recording of a run: files of a ring on disk, written by a thread of its own.
//!
//! What is recorded never waits: when the disk is slower than the robot, messages are left out and counted. When the disk
//! is full or fails the recording ends with a warning, and the loop goes on.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use firmware_bridge::joint::JointTable;
use firmware_bridge::message as wire;
use serde::Serialize;

use super::mcap::{ChannelSpec, Writer};
use super::{RecordError, RunNote, image, protobuf, schema};
use crate::action::Planned;
use crate::camera::{Image, PixelFormat};
use crate::clock::{NS_PER_S, monotonic_ns};
use crate::config::RecordSection;
use crate::control::thinker::{Reply, Request};
use crate::fault::{Faults, Kind};

/// Messages that wait for the disk, at most.
const WAITING: usize = 512;
/// The ring has this many files.
const FILES: u64 = 8;
/// What is held back is written this often, so that a crash loses no more.
const FLUSH: Duration = Duration::from_secs(1);

enum Item {
    Observation(Box<schema::Observation>, Vec<Image>),
    Inference(schema::Inference),
    Chunk(schema::Chunk),
    Ack(schema::Ack),
    State(schema::State),
    Log(String, u64),
}

/// The recording of a run.
#[derive(Debug)]
pub struct Tape {
    items: Option<SyncSender<Item>>,
    views: Vec<String>,
    left_out: AtomicU64,
    told: AtomicBool,
    thread: Option<JoinHandle<()>>,
}

impl Tape {
    /// Begins a recording.
    ///
    /// # Errors
    /// [`RecordError::Io`] when the folder cannot be made or written to.
    pub(crate) fn start(section: &RecordSection, note: RunNote, faults: Faults) -> Result<Tape, RecordError> {
        let folder = section.folder.clone();
        let failed = |source| RecordError::Io { path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let run = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let views = note.views.clone();
        let mut ring =
            Ring { folder: folder.clone(), limit: section.limit_mb << 20, run, files: 0, note, faults, file: None };
        ring.open().map_err(failed)?;
        tracing::info!(folder = %folder.display(), limit_mb = section.limit_mb, "recording");
        let (items, inbox) = sync_channel(WAITING);
        let thread = thread::Builder::new().name("record".into()).spawn(move || write(ring, &inbox)).map_err(failed)?;
        Ok(Tape {
            items: Some(items),
            views,
            left_out: AtomicU64::new(0),
            told: AtomicBool::new(false),
            thread: Some(thread),
        })
    }

    fn put(&self, item: Item) {
        let Some(items) = &self.items else { return };
        // A thread that is gone has said why.
        if let Err(TrySendError::Full(_)) = items.try_send(item) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            if !self.told.swap(true, Ordering::Relaxed) {
                tracing::warn!("the disk is slower than the robot: the recording has gaps");
            }
        }
    }

    /// What an inference is given.
    pub(crate) fn request(&self, request: &Request, tokens: &[i32]) {
        let view = |(view, image): (&String, &Image)| schema::View {
            view: view.clone(),
            stamp_ns: image.stamp_ns,
            stamp: image.stamp.to_string(),
            dequeued_ns: image.dequeued_ns,
            sequence: image.sequence,
            age_ms: request.asked_ns.saturating_sub(image.stamp_ns) as f64 / 1e6,
            format: match image.format {
                PixelFormat::Rgb24 | PixelFormat::Mjpeg => "rgb24",
                PixelFormat::Yuyv => "yuyv",
                PixelFormat::Nv12 => "nv12",
            }
            .to_owned(),
        };
        let observation = schema::Observation {
            number: request.number,
            seed: request.seed,
            state: request.state.clone(),
            tokens: tokens.to_vec(),
            guide: request.guide.clone(),
            views: self.views.iter().zip(&request.images).map(view).collect(),
            asked_ns: request.asked_ns,
        };
        self.put(Item::Observation(Box::new(observation), request.images.clone()));
    }

    /// What the model made of it.
    pub(crate) fn inference(&self, reply: &Reply) {
        self.put(Item::Inference(schema::Inference {
            number: reply.request.number,
            actions: reply.actions.clone(),
            started_ns: reply.started_ns,
            inferred_ns: reply.inferred_ns,
            finished_ns: reply.finished_ns,
            stages: reply.gpu.stages.iter().map(|s| (s.stage.to_string(), s.ns)).collect(),
        }));
    }

    /// What is sent.
    pub(crate) fn chunk(&self, planned: &Planned, number: u32, stamp_ns: u64, sent_ns: u64) {
        self.put(Item::Chunk(schema::Chunk {
            number,
            id: planned.id,
            base: planned.base,
            delay: planned.delay,
            start_us: planned.start_us,
            validity_us: planned.validity_us,
            stamp_ns,
            sent_ns,
            positions: planned.positions.clone(),
        }));
    }

    /// What the controller answered.
    pub(crate) fn ack(&self, ack: &wire::Ack, controller_us: u64, received_ns: u64) {
        self.put(Item::Ack(schema::Ack {
            sequence: ack.sequence,
            kind: ack.kind,
            reason: format!("{:?}", ack.reason),
            first_step: ack.first_step,
            start_us: ack.start_us,
            controller_us,
            received_ns,
        }));
    }

    /// What the controller reported.
    pub(crate) fn report(&self, state: &wire::State, joints: &JointTable, controller_us: u64, received_ns: u64) {
        self.put(Item::State(schema::State {
            mode: format!("{:?}", state.mode),
            chunk: state.progress.map(|p| p.chunk),
            consumed: state.progress.map_or(0, |p| p.consumed),
            steps_left: state.progress.map_or(0, |p| p.steps_left),
            clamps: state.clamps,
            starved: state.starved,
            crc_errors: state.crc_errors,
            measured: state.measured.as_slice().to_vec(),
            commanded: state.commanded.as_slice().to_vec(),
            fault: state.fault.map(|report| schema::Fault::of(&report, joints)),
            controller_us,
            received_ns,
        }));
    }

    /// What happened to the loop.
    pub(crate) fn event(&self, text: &str) {
        self.put(Item::Log(text.to_owned(), monotonic_ns()));
    }
}

impl Drop for Tape {
    fn drop(&mut self) {
        self.items = None;
        if let Some(thread) = self.thread.take() {
            // It writes what it has; a panic was already printed.
            let _ = thread.join();
        }
        let left_out = self.left_out.load(Ordering::Relaxed);
        if left_out > 0 {
            tracing::warn!(left_out, "messages are missing in the recording");
        }
    }
}

fn write(mut ring: Ring, inbox: &Receiver<Item>) {
    loop {
        let done = match inbox.recv_timeout(FLUSH) {
            Ok(item) => ring.write(&item),
            Err(RecvTimeoutError::Timeout) => ring.flush(),
            Err(RecvTimeoutError::Disconnected) => {
                if let Err(error) = ring.close() {
                    tracing::warn!(%error, "the recording's last file has no index");
                }
                return;
            }
        };
        if let Err(error) = done {
            tracing::warn!(folder = %ring.folder.display(), %error, "recording stopped; the robot goes on");
            return;
        }
    }
}

/// The files of the folder that are recordings, oldest first.
pub(super) fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
            name.starts_with("fathom-") && name.ends_with(".mcap")
        })
        .collect();
    files.sort();
    Ok(files)
}

struct Ring {
    folder: PathBuf,
    limit: u64,
    /// Seconds since 1970 at which the run began: names of files sort by it.
    run: u64,
    files: u64,
    note: RunNote,
    faults: Faults,
    file: Option<Open>,
}

struct Open {
    writer: Writer<BufWriter<File>>,
    cameras: Vec<u16>,
    joints: Vec<u16>,
    flushed_ns: u64,
}

impl Ring {
    /// Opens the next file, after making room for it.
    fn open(&mut self) -> io::Result<()> {
        self.close()?;
        let room = self.limit / FILES;
        let sized = files(&self.folder)?.into_iter().map(|path| {
            let size = path.metadata().map_or(0, |m| m.len());
            (path, size)
        });
        let sized: Vec<(PathBuf, u64)> = sized.collect();
        let mut total: u64 = sized.iter().map(|(_, size)| size).sum();
        for (path, size) in sized {
            if total + room <= self.limit {
                break;
            }
            std::fs::remove_file(&path)?;
            total -= size;
        }
        let name = format!("fathom-{:010}-{:05}.mcap", self.run, self.files);
        self.files += 1;
        let out = BufWriter::new(File::create(self.folder.join(name))?);
        let mut writer = Writer::new(out, &format!("fathom {}", env!("CARGO_PKG_VERSION")))?;
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
        self.file = Some(Open { writer, cameras, joints, flushed_ns: monotonic_ns() });
        let note = self.note.clone();
        self.json(schema::RUN, monotonic_ns(), &note)
    }

    fn close(&mut self) -> io::Result<()> {
        self.file.take().map_or(Ok(()), |file| file.writer.finish())
    }

    fn flush(&mut self) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            file.flushed_ns = monotonic_ns();
            file.writer.close_chunk()?;
        }
        Ok(())
    }

    fn wall_ns(&self, at_ns: u64) -> u64 {
        at_ns.saturating_add(self.note.realtime_offset_ns)
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

    fn write(&mut self, item: &Item) -> io::Result<()> {
        if self.faults.now(Kind::DiskFull, None).is_some() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.file.as_ref().is_some_and(|f| f.writer.bytes() >= self.limit / FILES) {
            self.open()?;
        }
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
                self.json(schema::OBSERVATION, observation.asked_ns, observation)?;
            }
            Item::Inference(inference) => self.json(schema::INFERENCE, inference.finished_ns, inference)?,
            Item::Chunk(chunk) => self.json(schema::CHUNK, chunk.sent_ns, chunk)?,
            Item::Ack(ack) => self.json(schema::ACK, ack.received_ns, ack)?,
            Item::State(state) => {
                self.json(schema::STATE, state.received_ns, state)?;
                let at_ns = self.wall_ns(state.received_ns);
                let Some(file) = &mut self.file else { return Ok(()) };
                for (channel, (measured, commanded)) in
                    file.joints.iter().zip(state.measured.iter().zip(&state.commanded))
                {
                    file.writer.message(*channel, at_ns, at_ns, &protobuf::joint(*measured, *commanded))?;
                }
            }
            Item::Log(message, at_ns) => {
                let wall_ns = self.wall_ns(*at_ns);
                let timestamp = schema::Time { sec: wall_ns / NS_PER_S, nsec: (wall_ns % NS_PER_S) as u32 };
                let (message, name) = (message.clone(), "fathom".to_owned());
                let log = schema::Log { timestamp, level: 2, message, name, ..schema::Log::default() };
                self.json(schema::LOG, *at_ns, &log)?;
            }
        }
        let late = self
            .file
            .as_ref()
            .is_some_and(|f| monotonic_ns().saturating_sub(f.flushed_ns) > crate::clock::duration_ns(FLUSH));
        if late { self.flush() } else { Ok(()) }
    }
}
