//! The recording of a run: the files of a ring on disk, written by a separate thread.
//!
//! The loop never waits for the disk: if the disk is slower than the robot, messages are dropped and counted. If the
//! disk is full or fails, the recording ends with a warning, and the loop continues.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use firmware_bridge::joint::JointTable;
use firmware_bridge::message as wire;

use super::ring::Ring;
use super::{RecordError, RunNote, schema};
use crate::camera::{Image, PixelFormat};
use crate::clock::{ControllerUs, HostNs};
use crate::config::RecordSection;
use crate::events::{Events, Inference, InferenceRequest, LoopEvent};
use crate::fault::Faults;

/// Limit on messages that wait for the disk.
const WAITING: usize = 512;
/// Interval at which buffered messages are written: a crash loses no more.
pub(super) const FLUSH: Duration = Duration::from_secs(1);

pub(super) enum Item {
    Observation(Box<schema::Observation>, Vec<Image>),
    Inference(schema::Inference),
    Chunk(schema::Chunk),
    Ack(schema::Ack),
    State(schema::State),
    Log(String, u64),
}

/// The recording of a run.
#[derive(Debug)]
pub struct RecordingWriter {
    items: Option<SyncSender<Item>>,
    views: Vec<String>,
    joints: JointTable,
    left_out: AtomicU64,
    warned: AtomicBool,
    thread: Option<JoinHandle<()>>,
}

impl RecordingWriter {
    /// Starts a recording.
    ///
    /// # Errors
    /// [`RecordError::Io`] if the folder cannot be made or written to; [`RecordError::Numbers`].
    pub(crate) fn start(
        section: &RecordSection,
        note: RunNote,
        joints: JointTable,
        faults: Faults,
        events: Events,
    ) -> Result<RecordingWriter, RecordError> {
        let folder = section.folder.clone();
        let failed = |source| RecordError::Io { path: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(failed)?;
        let views = note.views.clone();
        let ring = Ring::begin(folder.clone(), section.limit_mb.saturating_mul(1 << 20), note, faults, events.clone())?;
        tracing::info!(folder = %folder.display(), limit_mb = section.limit_mb, "recording");
        let (items, inbox) = sync_channel(WAITING);
        let thread =
            thread::Builder::new().name("record".into()).spawn(move || write(ring, &inbox, &events)).map_err(failed)?;
        Ok(RecordingWriter {
            items: Some(items),
            views,
            joints,
            left_out: AtomicU64::new(0),
            warned: AtomicBool::new(false),
            thread: Some(thread),
        })
    }

    fn put(&self, item: Item) {
        let Some(items) = &self.items else { return };
        // If the thread has ended, it has logged the reason.
        if let Err(TrySendError::Full(_)) = items.try_send(item) {
            self.left_out.fetch_add(1, Ordering::Relaxed);
            if !self.warned.swap(true, Ordering::Relaxed) {
                tracing::warn!("the disk is slower than the robot: the recording has gaps");
            }
        }
    }

    /// Records an observation, with its images: on the inference thread, so that the control thread copies none.
    pub(crate) fn observation(&self, request: &InferenceRequest, images: &[Image], tokens: &[i32]) {
        let view = |(view, image): (&String, &Image)| schema::View {
            view: view.clone(),
            stamp_ns: image.stamp_ns,
            stamp: image.stamp.to_string(),
            dequeued_ns: image.dequeued_ns,
            sequence: image.sequence,
            age_ms: request.asked.since(HostNs(image.stamp_ns)) as f64 / 1e6,
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
            guide: request.start.as_ref().and_then(|start| start.guide.clone()),
            views: self.views.iter().zip(images).map(view).collect(),
            asked_ns: request.asked.0,
        };
        self.put(Item::Observation(Box::new(observation), images.to_vec()));
    }

    /// Records an event of the loop, if recordings have a topic for it.
    pub(crate) fn on(&self, event: &LoopEvent) {
        match event {
            LoopEvent::Mode { from, to, event, detail, at } => {
                self.put(Item::Log(format!("{from} -> {to}: {event:?} {detail}"), at.0));
            }
            LoopEvent::Inferred { inference, .. } => self.put(Item::Inference(of_inference(inference))),
            LoopEvent::Sent { chunk, number, times } => self.put(Item::Chunk(schema::Chunk {
                number: *number,
                id: chunk.id,
                base: chunk.base,
                delay: chunk.delay,
                start_us: chunk.start.0,
                validity_us: chunk.validity_us,
                stamp_ns: times.taken.0,
                sent_ns: times.sent.0,
                positions: chunk.positions.clone(),
            })),
            LoopEvent::Ack { ack, made, received } => self.put(Item::Ack(schema::Ack {
                sequence: ack.sequence,
                kind: ack.kind,
                reason: format!("{:?}", ack.reason),
                first_step: ack.first_step,
                start_us: ack.start_us,
                controller_us: made.0,
                received_ns: received.0,
            })),
            LoopEvent::Report { report, made, received } => {
                self.put(Item::State(of_report(report, &self.joints, *made, *received)));
            }
            _ => {}
        }
    }
}

fn of_inference(Inference { request, output }: &Inference) -> schema::Inference {
    schema::Inference {
        number: request.number,
        actions: output.actions.clone(),
        started_ns: output.started.0,
        inferred_ns: output.inferred.0,
        finished_ns: output.finished.0,
        stages: output.gpu.stages.iter().map(|s| (s.stage.to_string(), s.ns)).collect(),
    }
}

fn of_report(
    state: &wire::ControllerState,
    joints: &JointTable,
    made: ControllerUs,
    received: HostNs,
) -> schema::State {
    schema::State {
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
        controller_us: made.0,
        received_ns: received.0,
    }
}

impl Drop for RecordingWriter {
    fn drop(&mut self) {
        self.items = None;
        if let Some(thread) = self.thread.take() {
            // It writes its queue; a panic has already been printed.
            let _ = thread.join();
        }
        let left_out = self.left_out.load(Ordering::Relaxed);
        if left_out > 0 {
            tracing::warn!(left_out, "messages are missing in the recording");
        }
    }
}

fn write(mut ring: Ring, inbox: &Receiver<Item>, events: &Events) {
    loop {
        let done = match inbox.recv_timeout(FLUSH) {
            Ok(item) => ring.write(&item),
            Err(RecvTimeoutError::Timeout) => ring.tend(),
            Err(RecvTimeoutError::Disconnected) => {
                if let Err(error) = ring.end() {
                    tracing::warn!(%error, "the recording's last file has no index");
                }
                return;
            }
        };
        if let Err(error) = done {
            events.emit(LoopEvent::RecordingStopped { why: error.to_string() });
            // Buffered messages are written if there is space for them.
            let _ = ring.end();
            return;
        }
    }
}
