//! The control loop without threads, clocks or I/O: inputs with their times come in, effects go out.
//!
//! The shell (`control/run`) carries the effects out in order. The parts are [`mode`], the table of modes, [`arming`], [`resend`],
//! [`freshness`], [`chunks`] and [`limits`]; [`receive`] takes the controller's messages.

mod arming;
mod chunks;
mod freshness;
mod limits;
mod mode;
mod outbox;
mod receive;
mod resend;
#[cfg(test)]
mod tests;

use firmware_bridge::joint::JointTable;
use firmware_bridge::message::Mode;

use self::arming::{Arming, Step, TRIES};
use self::chunks::Chunks;
pub(super) use self::freshness::{Freshness, ImageStatus};
use self::limits::Limits;
use self::mode::{Command, next};
pub(super) use self::outbox::{Effect, InferenceNews, Input, Message, Now, Outbox, Request, SendError};
use self::resend::{ChunkOnWay, ChunkStep, Resend};
use crate::action::Planner;
use crate::clock::{HostNs, NS_PER_S};
use crate::events::{ChunkTimes, Detail, Inference, LoopEvent, LoopMode, ModeEvent};

/// Heartbeats go out this often: three times within the controller's shortest deadman time of 150 ms.
const HEARTBEAT_NS: u64 = 40_000_000;
/// Time from the order to stop to the last message, in which the controller ramps to rest.
const STOP_NS: u64 = 400_000_000;
/// A tick that comes this much later than the one before, or before it, means that the clock jumped or the loop hung.
const JUMP_NS: u64 = NS_PER_S;

/// How the loop is to behave.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Name of the line's device.
    pub(super) device: String,
    /// Bits per second of the line.
    pub(super) baud: u32,
    /// Do all but arm and send.
    pub(super) dry_run: bool,
    pub(super) arm_at_start: bool,
    pub(super) rearm: bool,
    /// End this long after the loop became active.
    pub(super) length_ns: Option<u64>,
}

/// The line to the controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Open,
    Opening,
    /// The loop ends without one.
    Gone,
}

/// The controller's last report.
#[derive(Debug)]
struct Reported {
    /// The joints' positions; a guess before the first report, which only the warm-up sees.
    measured: Vec<f32>,
    /// The controller's mode; `None` until it reports on this line.
    mode: Option<Mode>,
    /// Its count of starved ticks.
    starved: Option<u32>,
}

/// Counters of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Chunks that the controller accepted.
    pub(super) chunks: u64,
    pub(super) refused: u64,
    /// Chunks that were not sent.
    pub(super) late: u64,
    /// Controller ticks without a step to follow, while the loop was active.
    pub(super) starved: u64,
    /// From the loop's begin to the first accepted chunk.
    pub(super) first_action_ns: Option<u64>,
}

/// The core of the control loop.
#[derive(Debug)]
pub(super) struct ControlCore {
    settings: Settings,
    pub(super) mode: LoopMode,
    /// Why the loop ended in a fault.
    pub(super) fault: Detail,
    line: Line,
    limits: Limits,
    controller: Reported,
    arming: Arming,
    freshness: Freshness,
    chunks: Chunks,
    resend: Resend,
    pub(super) counts: Counts,
    model_lost: bool,
    started: HostNs,
    last_tick: HostNs,
    /// When the last heartbeat was sent.
    beat: Option<HostNs>,
    /// When the loop became active for the first time.
    active: Option<HostNs>,
    /// When the last chunk was sent.
    last_chunk: Option<HostNs>,
    /// When the loop began to end, and when it sent its last message.
    ending: Option<HostNs>,
    released: Option<HostNs>,
}

impl ControlCore {
    /// A loop on an open line to a controller with these joints.
    pub(super) fn new(
        settings: Settings,
        joints: JointTable,
        freshness: Freshness,
        (planner, seed): (Planner, u64),
        started: HostNs,
    ) -> ControlCore {
        let limits = Limits::new(joints);
        let controller = Reported { measured: limits.nearest_to_zero(), mode: None, starved: None };
        ControlCore {
            resend: Resend::new(settings.baud),
            settings,
            mode: LoopMode::Boot,
            fault: Detail::None,
            line: Line::Open,
            limits,
            controller,
            arming: Arming::default(),
            freshness,
            chunks: Chunks::new(planner, seed),
            counts: Counts::default(),
            model_lost: false,
            started,
            last_tick: started,
            beat: None,
            active: None,
            last_chunk: None,
            ending: None,
            released: None,
        }
    }

    /// Takes an input; its effects are put into `out`.
    pub(super) fn on(&mut self, now: Now, input: Input<'_>, out: &mut Outbox) {
        match input {
            Input::Opened => self.happened(now, ModeEvent::Opened, Detail::None, out),
            Input::Tick { due } => self.tick(now, due, out),
            Input::Retry => self.retry(now, out),
            Input::Operator(Request::Arm) => self.arming.want(true),
            Input::Operator(Request::Disarm) => {
                self.arming.want(false);
                self.happened(now, ModeEvent::DisarmAsked, Detail::None, out);
            }
            Input::Operator(Request::Stop) => self.happened(now, ModeEvent::StopAsked, Detail::None, out),
            Input::Images(images) => self.images(now, images, out),
            Input::ImagesTaken(images) => {
                let request = self.chunks.request(now, images, &self.controller.measured);
                out.push(Effect::Infer(request));
            }
            Input::Inference(news) => self.inference(now, news, out),
            Input::Link(event) => self.receive(now, event, out),
            Input::Reconnected => {
                self.line = Line::Open;
                self.happened(now, ModeEvent::LinkOpened, Detail::None, out);
            }
            Input::ReconnectFailed => {
                let detail = Detail::LineLost("the line's thread ended".to_owned());
                self.line = Line::Gone;
                self.happened(now, ModeEvent::InferenceFailed, detail, out);
            }
            Input::Sent { message, began, sent } => self.sent(now, message, began, sent, out),
        }
    }

    /// Whether the loop has ended: the controller had time to ramp to rest, and was disarmed.
    pub(super) fn is_finished(&self) -> bool {
        let is_gone = self.ending.is_some() && self.line != Line::Open;
        is_gone || self.released.is_some_and(|released| self.last_tick.since(released) >= HEARTBEAT_NS)
    }

    /// The joints' positions by the last report; before it, a guess.
    pub(super) fn measured(&self) -> &[f32] {
        &self.controller.measured
    }

    /// When [`Input::Retry`] is due before the next tick.
    pub(super) fn resend_due(&self) -> Option<HostNs> {
        self.resend.due(self.chunks.planner.pending())
    }

    fn tick(&mut self, now: Now, due: HostNs, out: &mut Outbox) {
        let mut due = due.min(now.at);
        if now.at < self.last_tick || now.at.since(self.last_tick) > JUMP_NS {
            let by_ns = now.at.0 as i64 - self.last_tick.0 as i64;
            out.emit(LoopEvent::ClockJumped { by_ms: by_ns / 1_000_000 });
            let moved = |at: HostNs| HostNs(at.0.saturating_add_signed(by_ns));
            for at in [&mut self.active, &mut self.ending, &mut self.released].into_iter().flatten() {
                *at = moved(*at);
            }
            (due, self.beat) = (now.at, None);
            self.arming.ask_at_once();
        }
        self.last_tick = now.at;
        if !self.mode.is_over() {
            out.emit(LoopEvent::Tick { due, at: now.at });
        }
        let length = self.active.zip(self.settings.length_ns);
        if length.is_some_and(|(since, length_ns)| now.at >= since.after(length_ns)) {
            self.happened(now, ModeEvent::StopAsked, Detail::None, out);
        }
        if self.released.is_some() {
            return;
        }
        if self.ending.is_some_and(|ending| now.at.since(ending) >= STOP_NS) {
            self.released = Some(now.at);
            out.send(Message::Disarm);
        } else if self.beat.is_none_or(|beat| now.at.since(beat) >= HEARTBEAT_NS) {
            self.beat = Some(now.at);
            out.send(Message::Heartbeat);
        }
    }

    fn retry(&mut self, now: Now, out: &mut Outbox) {
        if self.released.is_some() {
            return;
        }
        if self.mode == LoopMode::Ready {
            self.arm(now, out);
        }
        match self.resend.step(now.at, now.controller(now.at), self.chunks.planner.pending()) {
            ChunkStep::Wait => {}
            ChunkStep::Send(chunk) => out.send(Message::Chunk(chunk)),
            ChunkStep::Reported => self.accepted(now.at),
            ChunkStep::Over(on_way) => {
                out.emit(LoopEvent::NeverArrived { number: on_way.number, tries: on_way.tries() });
                self.chunks.planner.refused();
            }
        }
        // A stop may be lost on the way.
        if self.resend.stop_again(now.at, self.mode, self.controller.mode) {
            self.resend.stopped(now.at);
            out.send(Message::Stop);
        }
    }

    /// Requests arming if it is wanted, and repeats an unanswered request.
    fn arm(&mut self, now: Now, out: &mut Outbox) {
        match self.arming.step(now.at) {
            Step::Wait => {}
            Step::Ask if self.settings.dry_run => self.happened(now, ModeEvent::Armed, Detail::None, out),
            Step::Ask => self.happened(now, ModeEvent::ArmAsked, Detail::None, out),
            Step::GiveUp(refused) => {
                let reported = self.controller.mode.is_some();
                let detail = Detail::NeverArmed { tries: TRIES, reported, refused };
                self.happened(now, ModeEvent::ControllerFault, detail, out);
            }
        }
    }

    /// Checks the images' ages, and infers when the model is free and a chunk is due.
    fn images(&mut self, now: Now, images: &[ImageStatus], out: &mut Outbox) {
        if !matches!(self.mode, LoopMode::Active | LoopMode::Hold(_)) {
            return;
        }
        match self.freshness.problem(now.at, images) {
            Some(problem) => self.happened(now, ModeEvent::ImagesStale, problem.into(), out),
            None => self.happened(now, ModeEvent::ImagesFresh, Detail::None, out),
        }
        let model = if self.model_lost { ModeEvent::ModelLost } else { ModeEvent::ModelBack };
        self.happened(now, model, Detail::None, out);
        if self.mode == LoopMode::Active && self.chunks.wants(images.iter().map(|image| image.taken)) {
            self.infer(out);
        }
    }

    /// Begins an inference, unless one is under way.
    fn infer(&mut self, out: &mut Outbox) {
        if self.chunks.begin() {
            out.push(Effect::TakeImages);
        }
    }

    fn inference(&mut self, now: Now, news: InferenceNews, out: &mut Outbox) {
        match news {
            _ if self.mode.is_over() => {}
            InferenceNews::Done(inference) => {
                self.chunks.end();
                if self.mode == LoopMode::Active && !self.settings.dry_run {
                    // The chunk leaves before anything is written about its inference.
                    self.plan(now, &inference, out);
                }
                self.chunks.due_from(inference.output.finished);
                let cold = self.mode == LoopMode::Warm;
                out.emit(LoopEvent::Inferred { inference, cold, collected: now.at });
                if cold {
                    self.happened(now, ModeEvent::Warmed, Detail::None, out);
                }
            }
            InferenceNews::Lost(why) => {
                self.chunks.end();
                self.model_lost = true;
                out.emit(LoopEvent::GpuLost { why: why.clone() });
                self.happened(now, ModeEvent::ModelLost, Detail::Inference(why), out);
            }
            InferenceNews::Back => {
                self.model_lost = false;
                self.chunks.due_from(now.at);
                out.emit(LoopEvent::GpuBack);
            }
            InferenceNews::Failed(why) => {
                self.happened(now, ModeEvent::InferenceFailed, Detail::Inference(why), out);
            }
        }
    }

    fn plan(&mut self, now: Now, inference: &Inference, out: &mut Outbox) {
        let number = inference.request.number;
        match self.chunks.plan(now, inference, &self.limits) {
            None => {}
            Some(Ok(chunk)) => {
                let times = ChunkTimes {
                    taken: inference.request.oldest().unwrap_or(now.at),
                    inferred: HostNs(inference.output.gpu.host.done_ns),
                    began: now.at,
                    previous: self.last_chunk,
                    ..ChunkTimes::default()
                };
                self.resend.begin(ChunkOnWay::new(chunk.clone(), number, times));
                out.send(Message::Chunk(chunk));
            }
            Some(Err(late)) => {
                self.counts.late += 1;
                out.emit(LoopEvent::NotPlanned { number, late });
            }
        }
    }

    fn sent(&mut self, now: Now, message: &Message, began: HostNs, sent: Result<u32, SendError>, out: &mut Outbox) {
        let sequence = sent.as_ref().ok().copied();
        match message {
            Message::Arm => self.arming.sent(now.at, sequence),
            Message::Chunk(chunk) => {
                if let Some(on_way) = self.resend.sent(chunk, began, now.at, sequence) {
                    let (number, times) = (on_way.number, on_way.times);
                    self.last_chunk = Some(now.at);
                    out.emit(LoopEvent::Sent { chunk: chunk.clone(), number, times });
                }
            }
            _ => {}
        }
        match sent {
            Ok(_) | Err(SendError::NoLine) => {}
            Err(SendError::Later(error)) => out.emit(LoopEvent::NotSent { why: error.to_string() }),
            Err(SendError::Lost(error)) => {
                if self.mode.is_over() {
                    self.line = Line::Gone;
                }
                self.line_lost(now, Detail::LineLost(error), out);
            }
        }
    }

    /// The controller follows a chunk.
    fn accepted(&mut self, at: HostNs) {
        self.counts.chunks += 1;
        self.counts.first_action_ns.get_or_insert(at.since(self.started));
    }

    fn line_lost(&mut self, now: Now, detail: Detail, out: &mut Outbox) {
        if matches!(self.mode, LoopMode::Boot | LoopMode::Warm) {
            self.line = Line::Gone;
        }
        self.happened(now, ModeEvent::LinkLost, detail, out);
    }

    /// The permission to move is gone, without anybody's wish.
    fn lost_permission(&mut self, out: &mut Outbox) {
        if self.arming.lost(self.settings.rearm) {
            out.emit(LoopEvent::NotRearmed);
        }
    }

    /// Changes the mode as the table has it, and does what belongs to that.
    fn happened(&mut self, now: Now, event: ModeEvent, detail: Detail, out: &mut Outbox) {
        let (to, command) = next(self.mode, event);
        if to != self.mode {
            let from = std::mem::replace(&mut self.mode, to);
            out.emit(LoopEvent::Mode { from, to, event, detail: detail.clone(), at: now.at });
            if from == LoopMode::Active {
                // Nothing of what was planned before may follow what comes now.
                self.chunks.forget();
                self.resend.forget();
            }
            match to {
                LoopMode::Active => {
                    self.chunks.due_from(now.at);
                    self.active.get_or_insert(now.at);
                }
                LoopMode::Ready => self.arming.begin(),
                LoopMode::Fault(_) => (self.fault, self.ending) = (detail, Some(now.at)),
                LoopMode::Stop => self.ending = Some(now.at),
                _ => {}
            }
        }
        match command {
            Command::None => {}
            Command::WarmUp => self.infer(out),
            Command::BeginReady => {
                if self.settings.arm_at_start || self.settings.dry_run {
                    self.arming.want(true);
                } else if !self.arming.is_wanted() {
                    out.emit(LoopEvent::AwaitsArming);
                }
            }
            Command::Arm => {
                if let Some(message) = self.arming.request(now.at, self.controller.mode.is_some()) {
                    out.send(message);
                }
            }
            Command::Disarm => out.send(Message::Disarm),
            Command::SendStop => {
                self.resend.stopped(now.at);
                out.send(Message::Stop);
            }
            Command::Reconnect => {
                (self.controller.mode, self.controller.starved) = (None, None);
                self.lost_permission(out);
                self.line = Line::Opening;
                out.push(Effect::Reconnect);
            }
        }
    }
}
