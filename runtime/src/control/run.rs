//! The loop itself: one control thread with a steady tick; cameras and inference have threads of their own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use firmware_bridge::joint::JointTable;
use firmware_bridge::message::{Interpolation, Mode, Reason};

use super::core::{Command, Event, State, next};
use super::robot::{Robot, RunError};
use super::worker::{Reply, Request, Worker};
use crate::bench::math::Vec3;
use crate::camera::Image;
use crate::clock::{monotonic_ns, sleep_until_ns};
use crate::config::CameraSource;
use crate::link::{ActionChunk, Event as LinkEvent, Start};
use crate::picture::{self, Panel};
use crate::telemetry::{Header, Notify, Recorder, RunInfo, StageTable, Track, counter, stage};

/// Heartbeats go out this often: three times within the controller's shortest deadman time of 150 ms.
const HEARTBEAT_NS: u64 = 40_000_000;
/// A request to be armed that was not answered is sent again after this long.
const ARM_RETRY_NS: u64 = 1_000_000_000;
/// Requests to be armed, until the controller is given up.
const ARM_TRIES: u32 = 10;
/// Time from the order to stop to closing the line, in which the controller ramps to rest.
const STOP_NS: u64 = 400_000_000;
/// The arm's path is noted this often.
const PATH_NS: u64 = 50_000_000;

/// What a run is to do besides.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// End this long after the loop became active; else at a signal.
    pub seconds: Option<f64>,
    /// Where to put a picture of the run.
    pub picture: Option<PathBuf>,
    /// Clear a fault that the controller latched before.
    pub clear_fault: bool,
}

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// What was measured on what.
    pub header: Header,
    /// Where the time went.
    pub table: StageTable,
    /// Chunks that the controller obeyed.
    pub chunks: u64,
    /// Chunks that it refused.
    pub refused: u64,
    /// From opening the loop to the first obeyed chunk.
    pub first_action_ns: Option<u64>,
    /// The object of the bench scene that the prompt names, and how near the tool came to it, in metres.
    pub target: Option<(String, f32)>,
    /// Length of the tool's way in the bench scene, in metres, by what the controller measured.
    pub travelled: Option<f32>,
    /// The picture's file.
    pub picture: Option<PathBuf>,
}

/// A chunk on its way to the controller.
#[derive(Clone, Copy, Debug)]
struct Sent {
    sequence: u32,
    /// Number of its observation.
    number: u32,
    /// Exposure of the oldest image.
    stamp_ns: u64,
    sent_ns: u64,
}

struct Loop {
    robot: RobotParts,
    state: State,
    detail: String,
    recorder: Recorder,
    notify: Notify,
    worker: Worker,
    spare: Option<Request>,
    measured: Vec<f32>,
    /// Whether `measured` is the controller's: until then it is a guess, which only the warm-up sees.
    measured_once: bool,
    limits: JointTable,
    /// When the loop last wanted to be armed, and the sequence of its request where one could be sent.
    arming: Option<(Option<u32>, u64)>,
    arm_tries: u32,
    sent: Option<Sent>,
    last_chunk_ns: Option<u64>,
    chunks: u64,
    refused: u64,
    started_ns: u64,
    /// When the loop became active.
    active_ns: Option<u64>,
    first_action_ns: Option<u64>,
    next_seed: u64,
    /// Requests so far.
    asked: u32,
    depth: Vec<(String, usize, Vec<f32>)>,
    path: Vec<Vec3>,
}

/// [`Robot`] without its session, which the worker has.
struct RobotParts {
    config: crate::config::RobotConfig,
    feeds: Vec<super::feed::Feed>,
    views: Vec<String>,
    link: crate::link::Link,
    bench: Option<(Arc<crate::bench::Scene>, firmware_bridge::sim::Joints)>,
}

impl Robot {
    /// Runs until the time is over, a signal comes, or a fault.
    ///
    /// # Errors
    /// [`RunError::Fault`] when the loop gave up; the controller was told to stop, or stops by itself.
    pub fn run(self, options: &RunOptions) -> Result<Outcome, RunError> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        let Robot { config, feeds, views, mut link, session, forward, tokens, state_prompt, bench, sim } = self;
        let header = Header::of(&session, config.model.path.display().to_string(), config.model.seed);
        let info = RunInfo::new(header.clone(), &config.control);
        let limits = link.controller().map(|hello| hello.joints).unwrap_or_default();
        if options.clear_fault {
            link.clear_fault()?;
        }
        let measured = limits.as_slice().iter().map(|j| (0.0_f32).clamp(j.min, j.max)).collect();
        let next_seed = config.model.seed;
        let worker = Worker::start(session, forward, tokens, state_prompt)?;
        let mut run = Loop {
            robot: RobotParts { config, feeds, views, link, bench },
            state: State::Boot,
            detail: String::new(),
            recorder: Recorder::open(&info.to_json()),
            notify: Notify::new(),
            worker,
            spare: Some(Request::default()),
            measured,
            measured_once: false,
            limits,
            arming: None,
            arm_tries: 0,
            sent: None,
            last_chunk_ns: None,
            chunks: 0,
            refused: 0,
            started_ns: monotonic_ns(),
            active_ns: None,
            first_action_ns: None,
            next_seed,
            asked: 0,
            depth: Vec::new(),
            path: Vec::new(),
        };
        run.ticks(options, &stop)?;
        let picture = options.picture.as_ref().map(|path| run.picture(path)).transpose()?;
        let target = run.target();
        let way = run.path.windows(2).map(|p| (p[1] - p[0]).length()).sum();
        let travelled = run.robot.bench.is_some().then_some(way);
        let Loop { state, detail, recorder, chunks, refused, first_action_ns, robot, worker, .. } = run;
        let dry = robot.config.control.dry_run;
        drop((robot, worker, sim));
        match state {
            State::Fault(_) => Err(RunError::Fault { state, detail }),
            // A time was given, and it was not enough for a single chunk.
            _ if options.seconds.is_some() && chunks == 0 && !dry => Err(RunError::Idle { refused }),
            _ => Ok(Outcome {
                header,
                table: recorder.into_table(),
                chunks,
                refused,
                first_action_ns,
                target,
                travelled,
                picture,
            }),
        }
    }
}

impl Loop {
    fn ticks(&mut self, options: &RunOptions, stop: &AtomicBool) -> Result<(), RunError> {
        let period_ns = (1e9 / self.robot.config.control.tick_rate_hz) as u64;
        let length_ns = options.seconds.map(|s| (s * 1e9) as u64);
        let (mut due_ns, mut beat_ns, mut path_ns) = (self.started_ns, 0, 0);
        self.happened(Event::Opened)?;
        while !matches!(self.state, State::Stop | State::Fault(_)) {
            let now = monotonic_ns();
            self.recorder.span(Track::Control, stage::LATENESS, 0, due_ns.min(now), now);
            if stop.load(Ordering::Relaxed)
                || self.active_ns.zip(length_ns).is_some_and(|(since, length)| now >= since + length)
            {
                self.happened(Event::StopAsked)?;
                continue;
            }
            if now.saturating_sub(beat_ns) >= HEARTBEAT_NS {
                beat_ns = now;
                self.sent_or_lost(|link| link.heartbeat())?;
            }
            self.listen()?;
            self.arm(now)?;
            self.look(now)?;
            self.think()?;
            if now.saturating_sub(path_ns) >= PATH_NS {
                path_ns = now;
                self.note_path();
            }
            self.notify.tick();
            due_ns += period_ns;
            if due_ns < monotonic_ns().saturating_sub(period_ns) {
                // More than a tick late: do not run after what is lost.
                due_ns = monotonic_ns();
            }
            sleep_until_ns(due_ns);
        }
        self.notify.stopping();
        // The controller ramps to rest before the line closes.
        let rest = monotonic_ns() + STOP_NS;
        while monotonic_ns() < rest && !matches!(self.state, State::Fault(super::core::Fault::Link)) {
            self.sent_or_lost(|link| link.heartbeat())?;
            sleep_until_ns(monotonic_ns() + HEARTBEAT_NS);
            self.listen()?;
        }
        // The device may be gone; the controller's deadman stops it then.
        let _ = self.robot.link.disarm();
        sleep_until_ns(monotonic_ns() + HEARTBEAT_NS);
        Ok(())
    }

    /// Asks to be armed when ready, again while there is no answer.
    fn arm(&mut self, now: u64) -> Result<(), RunError> {
        let waiting = self.arming.is_some_and(|(_, sent)| now.saturating_sub(sent) <= ARM_RETRY_NS);
        if self.state != State::Ready || waiting {
            return Ok(());
        }
        if self.arm_tries == ARM_TRIES {
            return self.failed(
                Event::ControllerFault,
                format!("no permission to move after {ARM_TRIES} tries (pose reported: {})", self.measured_once),
            );
        }
        self.arm_tries += 1;
        // Without a pose from the controller there is nothing to act from.
        let sequence = if self.measured_once { self.sent_or_lost(|link| link.arm())? } else { None };
        self.arming = Some((sequence, now));
        Ok(())
    }

    /// Goes to the next state and does what belongs to it.
    fn happened(&mut self, event: Event) -> Result<(), RunError> {
        let (state, command) = next(self.state, event);
        if state != self.state {
            tracing::info!(from = %self.state, to = %state, ?event, detail = self.detail, "state");
            self.state = state;
            let active = state == State::Active;
            self.recorder.counter(Track::Control, counter::ACTIVE, monotonic_ns(), active.into());
            if active {
                self.active_ns.get_or_insert_with(monotonic_ns);
            }
        }
        match command {
            Command::None => {}
            Command::WarmUp => self.ask(monotonic_ns()),
            Command::Arm => {
                self.notify.ready("warm");
                if self.robot.config.control.dry_run {
                    return self.happened(Event::Armed);
                }
                // The next tick sends it, and again while the line does not take it.
                self.arming = None;
            }
            Command::SendStop => {
                self.sent_or_lost(|link| link.stop())?;
            }
        }
        Ok(())
    }

    /// Something failed; of several things the first is told.
    fn failed(&mut self, event: Event, detail: String) -> Result<(), RunError> {
        if !matches!(self.state, State::Stop | State::Fault(_)) {
            self.detail = detail;
        }
        self.happened(event)
    }

    /// Sends something. A line that is gone is an event, not an error; one that does not keep up is asked again in a
    /// later tick, and the controller's deadman decides when that is too late.
    fn sent_or_lost(
        &mut self,
        send: impl FnOnce(&mut crate::link::Link) -> Result<u32, crate::link::LinkError>,
    ) -> Result<Option<u32>, RunError> {
        match send(&mut self.robot.link) {
            Ok(sequence) => Ok(Some(sequence)),
            Err(error @ crate::link::LinkError::Backlog { .. }) => {
                tracing::warn!(%error, "not sent");
                Ok(None)
            }
            Err(error) => {
                self.failed(Event::LinkLost, error.to_string())?;
                Ok(None)
            }
        }
    }

    /// Hears what the controller says.
    fn listen(&mut self) -> Result<(), RunError> {
        while let Some(event) = self.robot.link.poll() {
            match event {
                LinkEvent::Ack { ack, controller_us, received_ns } => self.acked(&ack, controller_us, received_ns)?,
                LinkEvent::State { state, received_ns, .. } => {
                    let left = state.progress.map_or(0, |p| p.steps_left);
                    self.recorder.counter(Track::Controller, counter::STEPS_LEFT, received_ns, left.into());
                    self.measured.clear();
                    self.measured.extend_from_slice(state.measured.as_slice());
                    self.measured_once = true;
                    if let Mode::Faulted(fault) = state.mode
                        && self.state != State::Warm
                    {
                        let detail = format!("the controller latched {fault:?}; --clear-fault clears it");
                        self.failed(Event::ControllerFault, detail)?;
                    }
                }
                LinkEvent::Silent { .. } => self.happened(Event::LinkSilent)?,
                LinkEvent::Heard => self.happened(Event::LinkHeard)?,
                LinkEvent::ControllerReset => {
                    self.failed(Event::LinkLost, "the controller restarted".to_owned())?;
                }
                LinkEvent::WrongVersion { found } => {
                    let detail = format!("the controller speaks protocol version {found}");
                    self.failed(Event::LinkLost, detail)?;
                }
                LinkEvent::Lost { kind } => {
                    let detail = format!("{}: {kind}", self.robot.link.device());
                    self.failed(Event::LinkLost, detail)?;
                }
            }
        }
        Ok(())
    }

    fn acked(
        &mut self,
        ack: &firmware_bridge::message::Ack,
        controller_us: u64,
        received_ns: u64,
    ) -> Result<(), RunError> {
        if self.arming.take_if(|(sequence, _)| *sequence == Some(ack.sequence)).is_some() {
            return match ack.reason {
                Reason::Ok => self.happened(Event::Armed),
                // It ramps to rest after the hello that ended another session: asked again a little later.
                Reason::Stopping => {
                    self.arming = Some((None, received_ns));
                    Ok(())
                }
                reason => {
                    let hint = if reason == Reason::Faulted { "; --clear-fault clears a latched fault" } else { "" };
                    self.failed(Event::ControllerFault, format!("the controller refused to be armed: {reason:?}{hint}"))
                }
            };
        }
        let Some(sent) = self.sent.take_if(|sent| sent.sequence == ack.sequence) else { return Ok(()) };
        if ack.reason != Reason::Ok {
            self.refused += 1;
            self.recorder.mark(Track::Controller, counter::REFUSED, sent.number, received_ns, ack.reason as u64);
            tracing::warn!(reason = ?ack.reason, "the controller refused a chunk");
            if matches!(ack.reason, Reason::NotArmed | Reason::Faulted) {
                self.failed(Event::ControllerFault, format!("the controller refused a chunk: {:?}", ack.reason))?;
            }
            return Ok(());
        }
        self.chunks += 1;
        self.first_action_ns.get_or_insert(received_ns.saturating_sub(self.started_ns));
        let (r, n) = (&mut self.recorder, sent.number);
        // The controller follows the chunk from the tick in which it made the verdict. By its clock, whose error is
        // bounded, but never before the chunk was sent or after the verdict came.
        if let Some(clock) = self.robot.link.clock() {
            let applied_ns = clock.to_host_ns(controller_us).clamp(sent.sent_ns, received_ns.max(sent.sent_ns));
            r.span(Track::Link, stage::APPLIED, n, sent.sent_ns, applied_ns);
            r.span(Track::Controller, stage::ACK, n, applied_ns, received_ns);
            r.counter(Track::Controller, counter::CLOCK_ERROR, received_ns, clock.error_us(received_ns / 1000) * 1000);
            r.span(Track::Path, stage::AGE, n, sent.stamp_ns, applied_ns);
        }
        r.span(Track::Path, stage::ROUND, n, sent.stamp_ns, received_ns);
        Ok(())
    }

    /// Checks the images' ages, and asks the model when it is free.
    fn look(&mut self, now: u64) -> Result<(), RunError> {
        if !matches!(self.state, State::Active | State::Hold(_)) {
            return Ok(());
        }
        let most_ns = self.robot.config.control.max_image_age_ms * 1_000_000;
        let oldest = self.robot.feeds.iter().map(super::feed::Feed::stamp_ns).min().unwrap_or(0);
        let fresh = now.saturating_sub(oldest) <= most_ns;
        self.happened(if fresh { Event::ImagesFresh } else { Event::ImagesStale })?;
        if self.state == State::Active {
            self.ask(now);
        }
        Ok(())
    }

    fn ask(&mut self, now: u64) {
        let Some(mut request) = self.spare.take() else { return };
        request.images.resize_with(self.robot.feeds.len(), Image::default);
        for (feed, image) in self.robot.feeds.iter().zip(&mut request.images) {
            feed.newest(image);
        }
        request.state.clone_from(&self.measured);
        request.seed = self.next_seed;
        request.asked_ns = now;
        self.next_seed += 1;
        self.asked += 1;
        request.number = self.asked;
        // A worker that is gone shows in the next poll.
        self.worker.ask(request);
    }

    /// Takes the model's reply, if there is one.
    fn think(&mut self) -> Result<(), RunError> {
        match self.worker.poll() {
            Ok(None) => Ok(()),
            Ok(Some(Ok(reply))) => self.replied(reply),
            Ok(Some(Err(error))) => self.failed(Event::InferenceFailed, error.to_string()),
            Err(()) => self.failed(Event::InferenceFailed, "the inference thread ended".to_owned()),
        }
    }

    fn replied(&mut self, mut reply: Reply) -> Result<(), RunError> {
        let warming = self.state == State::Warm;
        match warming {
            true => self.recorder.span(Track::Path, stage::COLD, 0, reply.started_ns, reply.inferred_ns),
            false => self.record(&reply),
        }
        if self.state == State::Active && !self.robot.config.control.dry_run {
            self.send_chunk(&mut reply)?;
        }
        self.depth = std::mem::take(&mut reply.depth);
        self.spare = Some(reply.request);
        if warming { self.happened(Event::Warmed) } else { Ok(()) }
    }

    fn send_chunk(&mut self, reply: &mut Reply) -> Result<(), RunError> {
        let began = monotonic_ns();
        let limits = self.limits.as_slice();
        for (value, joint) in reply.actions.iter_mut().zip(limits.iter().cycle()) {
            *value = value.clamp(joint.min, joint.max);
        }
        let steps = reply.actions.len() / limits.len().max(1);
        let period_us = (1e6 / self.robot.config.control.action_rate_hz) as u32;
        let stamp_ns = reply.request.images.iter().map(|i| i.stamp_ns).min().unwrap_or(began);
        let chunk = ActionChunk {
            id: self.chunks as u32 + self.refused as u32 + 1,
            // Step 0 belongs to the instant that the images show; the controller leaves out what is over.
            start: Start::HostNs(stamp_ns),
            period_us,
            validity_us: period_us.saturating_mul(steps as u32),
            interpolation: Interpolation::Linear,
            positions: &reply.actions,
        };
        let limited = monotonic_ns();
        if let Some(sequence) = self.sent_or_lost(|link| link.send_chunk(&chunk))? {
            let sent_ns = monotonic_ns();
            let (r, number) = (&mut self.recorder, reply.request.number);
            r.span(Track::Control, stage::MERGE, number, began, limited);
            r.span(Track::Control, stage::WRITE, number, limited, sent_ns);
            if let Some(last_ns) = self.last_chunk_ns.replace(sent_ns) {
                r.span(Track::Path, stage::PERIOD, 0, last_ns, sent_ns);
            }
            self.sent = Some(Sent { sequence, number, stamp_ns, sent_ns });
        }
        Ok(())
    }

    fn record(&mut self, reply: &Reply) {
        let request = &reply.request;
        let (r, n) = (&mut self.recorder, request.number);
        let oldest = request.images.iter().enumerate().min_by_key(|(_, i)| i.stamp_ns);
        let Some((index, oldest)) = oldest else { return };
        for (view, image) in request.images.iter().enumerate().filter(|(view, _)| *view != index) {
            r.detail(Track::Camera(view as u8), stage::CAPTURE, n, image.stamp_ns, image.dequeued_ns);
        }
        r.span(Track::Camera(index as u8), stage::CAPTURE, n, oldest.stamp_ns, oldest.dequeued_ns);
        r.span(Track::Control, stage::WAIT, n, oldest.dequeued_ns, request.asked_ns);
        r.span(Track::Inference, stage::HANDOVER, n, request.asked_ns, reply.started_ns);
        r.inference(&reply.gpu, n, reply.started_ns, reply.inferred_ns);
        r.span(Track::Inference, stage::UNNORMALISE, n, reply.inferred_ns, reply.finished_ns);
        r.span(Track::Control, stage::COLLECT, n, reply.finished_ns, monotonic_ns());
    }

    fn note_path(&mut self) {
        if self.measured_once
            && let Some((scene, _)) = &self.robot.bench
            && let Ok(point) = scene.end_effector(&self.measured)
        {
            self.path.push(point);
        }
    }

    /// The object of the bench scene that the prompt names, and how near the tool came to it, in metres.
    fn target(&self) -> Option<(String, f32)> {
        let (scene, _) = self.robot.bench.as_ref()?;
        let object = scene.find(self.robot.config.model.prompt.as_deref()?)?;
        let nearest = self.path.iter().map(|p| (*p - object.pose.position).length()).reduce(f32::min)?;
        Some((object.name.clone(), nearest))
    }

    /// One picture of what the cameras saw, the arm's path over it, and the depth map.
    fn picture(&self, path: &std::path::Path) -> Result<PathBuf, RunError> {
        let mut panels = Vec::new();
        let mut image = Image::default();
        for (i, (view, feed)) in self.robot.views.iter().zip(&self.robot.feeds).enumerate() {
            feed.newest(&mut image);
            let mut panel = Panel::of_image(&image);
            let section = self.robot.config.cameras.iter().find(|c| c.view == *view);
            let drawn = section.is_some_and(|c| matches!(c.source, CameraSource::Bench(_)));
            let camera = self.robot.bench.as_ref().filter(|_| drawn).and_then(|(scene, _)| {
                let index = scene.camera_index(view).ok()?;
                scene.view(index, &self.measured).ok()
            });
            // The path is drawn where the camera stands still.
            if let Some(camera) = camera.filter(|_| i == 0) {
                let points = self.path.iter().map(|p| camera.project(*p).map(|at| (at.x, at.y)));
                panel.draw_path(points);
            }
            panels.push(panel);
        }
        for (_, side, values) in &self.depth {
            panels.push(Panel::of_depth(values, *side, *side));
        }
        // The bench scene knows the truth.
        let truth = self.robot.feeds.first().map(super::feed::Feed::depth).unwrap_or_default();
        if !truth.is_empty() && !self.depth.is_empty() {
            let width = truth.len().isqrt();
            panels.push(Panel::of_depth(&truth, width, truth.len() / width.max(1)));
        }
        picture::write(path, &panels)?;
        Ok(path.to_owned())
    }
}
