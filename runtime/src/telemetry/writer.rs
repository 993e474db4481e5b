//! The loop's events as spans, counters and marks: in the ring for other programs, and in the table that a run prints
//! at its end.

use fathom_models::nets::flow;

use crate::events::{ChunkTimes, Inference, LoopEvent, LoopMode};
use crate::gpu::GpuTimes;

use super::event::{Event, Kind, Track};
use super::ring::{NAMES, RingWriter};
use super::stages::StageTable;

/// Names of the stages and of the whole paths, as in all outputs.
pub mod stage {
    /// How late a control tick began.
    pub const LATENESS: &str = "control tick: lateness";
    /// From the camera's stamp to the image's arrival in this process.
    pub const CAPTURE: &str = "exposure to dequeue";
    /// From there to the request to the model: usually the image waits for the model, or for steps to be consumed.
    pub const WAIT: &str = "dequeue to request";
    /// From there to the start of the inference on its thread.
    pub const HANDOVER: &str = "request to inference";
    /// Noise, state and prompt are prepared.
    pub const INPUTS: &str = "inputs";
    /// Inputs are copied to the memory from which the GPU reads them.
    pub const UPLOAD: &str = "upload";
    /// Commands are encoded and submitted to the driver.
    pub const SUBMIT: &str = "encode and submit";
    /// From there to the start of the GPU's first stage; includes the GPU's own copy of the inputs.
    pub const GPU_START: &str = "GPU begins";
    /// From the end of the GPU's last stage to the outputs in main memory.
    pub const READBACK: &str = "readback";
    /// The first inference, in which drivers compile and memory is first touched.
    pub const COLD: &str = "cold: first inference";
    /// All flow steps of an inference.
    pub const FLOW: &str = "flow steps";
    /// From the start of the inputs to the outputs in main memory.
    pub const INFERENCE: &str = "= inference";
    /// From the end of the inference's thread to the control thread, which it wakes.
    pub const COLLECT: &str = "inference to control thread";
    /// Actions in the robot's units, on the inference thread.
    pub const UNNORMALISE: &str = "un-normalise";
    /// Actions are joined with the previous chunk, and clamped.
    pub const MERGE: &str = "chunk merge and limits";
    /// The chunk is encoded and passed to the line.
    pub const WRITE: &str = "serial write";
    /// From there to the controller's verdict, which is also the time at which its first step takes effect.
    pub const APPLIED: &str = "line and controller";
    /// From the verdict to its arrival here.
    pub const ACK: &str = "acknowledgement returns";
    /// From exposure to the verdict's arrival.
    pub const ROUND: &str = "= exposure to acknowledgement";
    /// From exposure of the oldest image to the first step that the controller executes.
    pub const AGE: &str = "= observation age at actuation";
    /// The loop's overhead before the GPU: from the time when the model is idle, a chunk is due and the newest image
    /// has arrived, to the submission.
    pub const SUBMITTED: &str = "= capture to submission";
    /// The loop's overhead after the GPU: from its completion signal to the chunk on the line.
    pub const SENT: &str = "= readback to serial line";
    /// From one chunk to the next.
    pub const PERIOD: &str = "= from chunk to chunk";
}

/// Names of counters and marks.
pub mod counter {
    /// Steps of the chunk that the controller has not started.
    pub const STEPS_LEFT: &str = "steps left";
    /// The controller's own count of ticks without a step to execute.
    pub const STARVED: &str = "starved ticks";
    /// Error bound of the controller's clock on the host's, in nanoseconds.
    pub const CLOCK_ERROR: &str = "clock error";
    /// Error bound of the GPU's clock on the host's, in nanoseconds.
    pub const GPU_CLOCK_ERROR: &str = "GPU clock error";
    /// The event that an image's stamp marks: its index in [`StampSource::ALL`](crate::camera::StampSource::ALL).
    pub const STAMP: &str = "stamp";
    /// 1 while chunks are sent, otherwise 0.
    pub const ACTIVE: &str = "active";
    /// The controller refused a chunk; the value is its reason's number.
    pub const REFUSED: &str = "chunk refused";
    /// The controller latched a fault during the chunk; the value is the fault's number.
    pub const FAULT: &str = "controller fault";
}

/// Writes events. It never waits, and allocates only for new names.
#[derive(Debug, Default)]
pub struct EventWriter {
    ring: Option<RingWriter>,
    names: Vec<String>,
    table: StageTable,
}

impl EventWriter {
    /// A writer whose ring has the description `meta`, a JSON text. If the ring cannot be made, the writer logs it and
    /// works without.
    pub fn open(meta: &str) -> EventWriter {
        match RingWriter::create(meta) {
            Ok(ring) => EventWriter::over(ring),
            Err(error) => {
                tracing::warn!(%error, "no ring: fathom-latency live cannot attach to this process");
                EventWriter::default()
            }
        }
    }

    /// A writer that writes `ring`.
    pub fn over(ring: RingWriter) -> EventWriter {
        EventWriter { ring: Some(ring), ..EventWriter::default() }
    }

    /// The table so far.
    pub fn table(&self) -> &StageTable {
        &self.table
    }

    /// The table alone.
    pub fn into_table(self) -> StageTable {
        self.table
    }

    /// Writes an event of the loop.
    pub(crate) fn on(&mut self, event: &LoopEvent) {
        match event {
            LoopEvent::Tick { due, at } => self.span(Track::Control, stage::LATENESS, 0, due.0, at.0),
            LoopEvent::Mode { to, at, .. } => {
                self.counter(Track::Control, counter::ACTIVE, at.0, (*to == LoopMode::Active).into());
            }
            LoopEvent::Report { report, received, .. } => {
                let left = report.progress.map_or(0, |p| p.steps_left);
                self.counter(Track::Controller, counter::STEPS_LEFT, received.0, left.into());
                self.counter(Track::Controller, counter::STARVED, received.0, report.starved.into());
            }
            LoopEvent::ControllerFault { fault, chunk, received } => {
                self.mark(Track::Controller, counter::FAULT, *chunk, received.0, *fault as u64);
            }
            LoopEvent::Refused { number, reason, received } => {
                self.mark(Track::Controller, counter::REFUSED, *number, received.0, *reason as u64);
            }
            LoopEvent::Inferred { inference, cold: true, .. } => {
                let output = &inference.output;
                self.span(Track::Path, stage::COLD, 0, output.started.0, output.inferred.0);
            }
            LoopEvent::Inferred { inference, collected, .. } => self.observation(inference, collected.0),
            LoopEvent::Sent { number, times, .. } => self.sent(*number, times),
            LoopEvent::Obeyed { number, taken, sent, received, applied } => {
                let n = *number;
                if let Some((applied, error_ns)) = applied {
                    self.span(Track::Link, stage::APPLIED, n, sent.0, applied.0);
                    self.span(Track::Controller, stage::ACK, n, applied.0, received.0);
                    self.counter(Track::Controller, counter::CLOCK_ERROR, received.0, *error_ns);
                    self.span(Track::Path, stage::AGE, n, taken.0, applied.0);
                }
                self.span(Track::Path, stage::ROUND, n, taken.0, received.0);
            }
            _ => {}
        }
    }

    /// The stages of an observation from its cameras to the control thread.
    fn observation(&mut self, Inference { request, output }: &Inference, collected_ns: u64) {
        let (n, images) = (request.number, &request.images);
        let Some((index, oldest)) = images.iter().enumerate().min_by_key(|(_, image)| image.taken) else { return };
        for (view, image) in images.iter().enumerate() {
            self.mark(Track::Camera(view as u8), counter::STAMP, n, image.taken.0, image.source as u64);
        }
        for (view, image) in images.iter().enumerate().filter(|(view, _)| *view != index) {
            self.detail(Track::Camera(view as u8), stage::CAPTURE, n, image.taken.0, image.dequeued.0);
        }
        self.span(Track::Camera(index as u8), stage::CAPTURE, n, oldest.taken.0, oldest.dequeued.0);
        self.span(Track::Control, stage::WAIT, n, oldest.dequeued.0, request.asked.0);
        self.span(Track::Inference, stage::HANDOVER, n, request.asked.0, output.started.0);
        self.span(Track::Path, stage::SUBMITTED, n, request.due.0, output.gpu.host.submitted_ns);
        self.inference(&output.gpu, n, output.started.0, output.inferred.0);
        self.span(Track::Inference, stage::UNNORMALISE, n, output.inferred.0, output.finished.0);
        self.span(Track::Control, stage::COLLECT, n, output.finished.0, collected_ns);
    }

    /// The stages of a chunk from the GPU to the line.
    fn sent(&mut self, n: u32, times: &ChunkTimes) {
        self.span(Track::Control, stage::MERGE, n, times.began.0, times.limited.0);
        self.span(Track::Control, stage::WRITE, n, times.limited.0, times.sent.0);
        self.span(Track::Path, stage::SENT, n, times.inferred.0, times.sent.0);
        if let Some(previous) = times.previous {
            self.span(Track::Path, stage::PERIOD, 0, previous.0, times.sent.0);
        }
    }

    /// A stage, from one instant of CLOCK_MONOTONIC to another, of observation `chunk` (0 for none).
    pub fn span(&mut self, track: Track, name: &str, chunk: u32, begin_ns: u64, end_ns: u64) {
        self.table.record(name, end_ns.saturating_sub(begin_ns));
        self.detail(track, name, chunk, begin_ns, end_ns);
    }

    /// A part of a stage, only for the ring.
    pub fn detail(&mut self, track: Track, name: &str, chunk: u32, begin_ns: u64, end_ns: u64) {
        self.push(Kind::Span, track, name, chunk, begin_ns, end_ns.saturating_sub(begin_ns));
    }

    /// The value of a counter.
    pub fn counter(&mut self, track: Track, name: &str, at_ns: u64, value: u64) {
        self.push(Kind::Counter, track, name, 0, at_ns, value);
    }

    /// An instant.
    pub fn mark(&mut self, track: Track, name: &str, chunk: u32, at_ns: u64, value: u64) {
        self.push(Kind::Mark, track, name, chunk, at_ns, value);
    }

    /// The stages of an inference from `began_ns` to `ended_ns`.
    pub fn inference(&mut self, times: &GpuTimes, chunk: u32, began_ns: u64, ended_ns: u64) {
        let host = &times.host;
        self.span(Track::Inference, stage::INPUTS, chunk, began_ns, host.began_ns);
        self.span(Track::Inference, stage::UPLOAD, chunk, host.began_ns, host.filled_ns);
        self.span(Track::Inference, stage::SUBMIT, chunk, host.filled_ns, host.submitted_ns);
        let (mut flow, mut flow_is_there) = (0, false);
        if let Some(first) = times.stages.first() {
            let origin_ns = times.origin.ns;
            // It may have started while the driver was still returning from the submission.
            let first_ns = origin_ns + first.start_ns;
            self.span(Track::Gpu, stage::GPU_START, chunk, host.submitted_ns.min(first_ns), first_ns);
            let mut end_ns = host.submitted_ns;
            for s in &times.stages {
                let begin_ns = origin_ns + s.start_ns;
                end_ns = end_ns.max(begin_ns + s.ns);
                // The time's embedding, if it is a stage, serves all flow steps.
                if flow::is_stage(&s.stage) || &*s.stage == "time" {
                    (flow, flow_is_there) = (flow + s.ns, true);
                    self.detail(Track::Gpu, &s.stage, chunk, begin_ns, begin_ns + s.ns);
                } else {
                    self.span(Track::Gpu, &s.stage, chunk, begin_ns, begin_ns + s.ns);
                }
            }
            if flow_is_there {
                self.table.record(stage::FLOW, flow);
            }
            self.span(Track::Inference, stage::READBACK, chunk, end_ns, host.read_ns);
            self.counter(Track::Gpu, counter::GPU_CLOCK_ERROR, host.read_ns, times.origin.error_ns);
        }
        self.span(Track::Path, stage::INFERENCE, chunk, began_ns, ended_ns);
    }

    fn push(&mut self, kind: Kind, track: Track, name: &str, chunk: u32, begin_ns: u64, value: u64) {
        let Some(ring) = &mut self.ring else { return };
        let name = match self.names.iter().position(|n| n == name) {
            // The ring gives the last number to all names that do not fit.
            Some(number) => number.min(NAMES - 1) as u16,
            None => {
                self.names.push(name.to_owned());
                ring.name(name)
            }
        };
        ring.push(&Event { kind, track, name, chunk, begin_ns, value });
    }
}
