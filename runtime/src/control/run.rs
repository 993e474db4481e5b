//! The loop itself: one control thread with a steady tick; cameras and inference have threads of their own.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use firmware_bridge::joint::JointTable;
use firmware_bridge::message::{Mode, State as Report};
use firmware_bridge::sim::Sim;

use super::camera::{CameraThread, ImageStatus};
use super::freshness;
use super::inference::InferenceThread;
use super::mode::{Command, Event, State, next};
use super::reconnect::{Connector, HELLO, Reconnecting};
use super::robot::{Robot, RunError};
use super::scene::RunScene;
use super::signals::Signals;
use super::transmit::Outgoing;
use crate::action::{InferenceStart, Planner, Rules};
use crate::clock::{NS_PER_S, Waker, monotonic_ns, sleep_until_ns};
use crate::config::RobotConfig;
use crate::fault::{Faults, FaultyLog};
use crate::link::{Link, LinkError};
use crate::policy::Request;
use crate::record::{RecordingWriter, RunNote};
use crate::telemetry::{EventWriter, Header, Notify, RunInfo, StageTable, Track, counter, stage};

/// Heartbeats go out this often: three times within the controller's shortest deadman time of 150 ms.
const HEARTBEAT_NS: u64 = 40_000_000;
/// A request to be armed that was not answered is sent again after this long.
const ARM_RETRY_NS: u64 = 250_000_000;
/// Requests to be armed, until the controller is given up.
const ARM_TRIES: u32 = 40;
/// A stop that the controller does not follow is sent again after this long.
const STOP_RETRY_NS: u64 = 50_000_000;
/// Time from the order to stop to closing the line, in which the controller ramps to rest.
const STOP_NS: u64 = 400_000_000;
/// The arm's path is noted this often.
const PATH_NS: u64 = 50_000_000;
/// A tick that comes this much later than the one before, or before it, means that the clock jumped or the loop hung.
const JUMP_NS: u64 = NS_PER_S;

/// What somebody who watches a run sees of it.
#[derive(Clone, Debug)]
pub enum LoopEvent {
    /// The loop is in another state.
    State(State),
    /// A chunk was sent for the first time.
    Sent {
        /// Its name.
        id: u32,
        /// `(steps, joints)`
        positions: Vec<f32>,
        /// Controller time after which no step of it may be followed.
        until_us: u64,
    },
    /// The controller reported.
    Report {
        /// What.
        report: Box<Report>,
        /// When, by its clock.
        controller_us: u64,
    },
}

/// What a run is to do besides.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// End this long after the loop became active; else at a signal.
    pub seconds: Option<f64>,
    /// Where to put a picture of the run.
    pub picture: Option<PathBuf>,
    /// Whoever sets it ends the run as a signal does.
    pub stop: Arc<AtomicBool>,
    /// Who watches.
    pub events: Option<mpsc::Sender<LoopEvent>>,
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
    /// Chunks that were not sent: all their steps were over, or their images too old.
    pub late: u64,
    /// Controller ticks without a step to follow, after a chunk was over and before the next.
    pub starved: u64,
    /// From opening the loop to the first obeyed chunk.
    pub first_action_ns: Option<u64>,
    /// The object of the bench scene that the prompt names, and how near the tool came to it, in metres.
    pub target: Option<(String, f32)>,
    /// Length of the tool's way in the bench scene, in metres, by what the controller measured.
    pub travelled: Option<f32>,
    /// The picture's file.
    pub picture: Option<PathBuf>,
}

/// The line to the controller.
pub(super) enum Line {
    Open(Box<Link>),
    Opening(Reconnecting),
    /// The loop ends without one.
    Gone,
}

/// What the loop knows of the controller.
pub(super) struct Controller {
    pub(super) limits: JointTable,
    /// The joints, by the last report; a guess before it, which only the warm-up sees.
    pub(super) measured: Vec<f32>,
    /// What the controller does, by its last report since the line was opened.
    pub(super) mode: Option<Mode>,
    /// Its count of starved ticks in the last report.
    pub(super) starved: Option<u32>,
}

/// The way to the permission to move.
#[derive(Default)]
pub(super) struct Arming {
    /// Somebody asked for it.
    pub(super) wanted: bool,
    /// It was given in this run.
    pub(super) given: bool,
    /// The controller stopped because it did not hear the host, and has to forget that first.
    pub(super) clear: bool,
    /// Why the controller cannot be armed yet.
    pub(super) refused: String,
    /// When a request went out, and its sequence where one could be sent.
    pub(super) asked: Option<(Option<u32>, u64)>,
    pub(super) tries: u32,
}

pub(super) struct Loop {
    pub(super) config: RobotConfig,
    pub(super) cameras: Vec<CameraThread>,
    pub(super) views: Vec<String>,
    pub(super) line: Line,
    connector: Connector,
    pub(super) sim: Option<Sim>,
    pub(super) faults: Faults,
    pub(super) faulty_log: FaultyLog,
    pub(super) state: State,
    pub(super) detail: String,
    pub(super) events: EventWriter,
    pub(super) recording: Option<Arc<RecordingWriter>>,
    pub(super) watcher: Option<mpsc::Sender<LoopEvent>>,
    notify: Notify,
    pub(super) inference: InferenceThread,
    pub(super) spare: Option<Request>,
    pub(super) planner: Planner,
    /// What the inference under way began from; `None` when its chunk must not be sent any more.
    pub(super) start: Option<InferenceStart>,
    pub(super) outgoing: Option<Outgoing>,
    pub(super) controller: Controller,
    pub(super) arming: Arming,
    stopped_ns: u64,
    pub(super) scene: RunScene,
    pub(super) image_status: Vec<ImageStatus>,
    /// Stamps of the images that the model was shown last.
    pub(super) shown: Vec<u64>,
    /// Since when nothing but a new image was missing to show the model something.
    pub(super) due_ns: u64,
    waker: Waker,
    pub(super) model_lost: bool,
    pub(super) last_chunk_ns: Option<u64>,
    pub(super) chunks: u64,
    pub(super) refused: u64,
    pub(super) late: u64,
    pub(super) starved: u64,
    pub(super) started_ns: u64,
    /// When the loop became active.
    active_ns: Option<u64>,
    pub(super) first_action_ns: Option<u64>,
    pub(super) next_seed: u64,
    /// Requests so far.
    pub(super) asked: u32,
}

impl Robot {
    /// Runs until the time is over, a signal comes, or a fault.
    ///
    /// # Errors
    /// [`RunError::Fault`] when the loop gave up; the controller was told to stop, or stops by itself.
    pub fn run(self, options: &RunOptions) -> Result<Outcome, RunError> {
        let signals = Signals::register(&options.stop)?;
        let Robot { config, cameras, views, mut link, connector, runner, faults, bench, sim } = self;
        let waker = connector.waker.clone();
        waker.own();
        // What the controller said while the model was loaded is over.
        link.hello(&connector.joints, HELLO)?;
        let session = &runner.session;
        let header = Header::of(session, config.model.path.display().to_string(), config.model.seed);
        let info = RunInfo::new(header.clone(), &config.control);
        let limits = link.controller().map(|hello| hello.joints).unwrap_or_default();
        let horizon = session.loaded().model.config.horizon;
        let planner = Planner::new(Rules {
            policy: config.chunks.policy,
            joints: limits.len().into(),
            horizon,
            execution_horizon: config.chunks.execution_horizon.unwrap_or(horizon).min(horizon),
            replan_steps: config.chunks.replan_steps.into(),
            period_us: config.control.period_us(),
            validity_us: config.chunks.validity_us(),
        });
        let note = || RunNote::of(&config, &runner, &connector.joints);
        let begun = config.record.as_ref().map(|section| RecordingWriter::start(section, note(), faults.clone()));
        let recording = match begun.transpose() {
            Ok(recording) => recording.map(Arc::new),
            Err(error) if error.is_full() => {
                tracing::warn!(%error, "not recorded; the robot goes on");
                None
            }
            Err(error) => return Err(error.into()),
        };
        let measured = limits.as_slice().iter().map(|j| (0.0_f32).clamp(j.min, j.max)).collect();
        let next_seed = config.model.seed;
        let mut run = Loop {
            inference: InferenceThread::start(runner, faults.clone(), recording.clone(), waker.clone())?,
            config,
            cameras,
            views,
            line: Line::Open(Box::new(link)),
            connector,
            sim,
            faults,
            faulty_log: FaultyLog::default(),
            state: State::Boot,
            detail: String::new(),
            events: EventWriter::open(&info.to_json()),
            recording,
            watcher: options.events.clone(),
            notify: Notify::new(),
            spare: Some(Request::default()),
            planner,
            start: None,
            outgoing: None,
            controller: Controller { limits, measured, mode: None, starved: None },
            arming: Arming::default(),
            stopped_ns: 0,
            scene: RunScene::new(bench),
            image_status: Vec::new(),
            shown: Vec::new(),
            due_ns: 0,
            waker,
            model_lost: false,
            last_chunk_ns: None,
            chunks: 0,
            refused: 0,
            late: 0,
            starved: 0,
            started_ns: monotonic_ns(),
            active_ns: None,
            first_action_ns: None,
            next_seed,
            asked: 0,
        };
        run.ticks(options, &signals)?;
        run.outcome(options, header)
    }
}

impl Loop {
    fn outcome(self, options: &RunOptions, header: Header) -> Result<Outcome, RunError> {
        let Loop { config, scene, state, detail, chunks, refused, late, .. } = self;
        let draw = |path| scene.picture(path, &config, &self.views, &self.cameras, &self.controller.measured);
        let picture = options.picture.as_deref().map(draw).transpose()?;
        let (target, travelled) = (scene.target(config.model.prompt.as_deref()), scene.travelled());
        drop((self.cameras, self.line, self.inference, self.sim, self.recording, self.watcher));
        match state {
            State::Fault(_) => Err(RunError::Fault { state, detail }),
            // A time was given, and it was not enough for a single chunk.
            _ if options.seconds.is_some() && chunks == 0 && !config.control.dry_run => {
                Err(RunError::Idle { refused: refused + late })
            }
            _ => Ok(Outcome {
                header,
                table: self.events.into_table(),
                chunks,
                refused,
                late,
                starved: self.starved,
                first_action_ns: self.first_action_ns,
                target,
                travelled,
                picture,
            }),
        }
    }

    fn ticks(&mut self, options: &RunOptions, signals: &Signals) -> Result<(), RunError> {
        let period_ns = self.config.control.tick_ns();
        // Beyond what the clock can show the run does not end by itself.
        let length_ns = options.seconds.map(|s| (s * 1e9) as u64);
        let (mut due_ns, mut beat_ns, mut path_ns) = (self.started_ns, 0, 0);
        let mut last_ns = self.started_ns;
        self.happened(Event::Opened)?;
        while !self.is_over() {
            let now = monotonic_ns();
            if now < last_ns || now - last_ns > JUMP_NS {
                let by_ms = (now as i64 - last_ns as i64) / 1_000_000;
                tracing::warn!(by_ms, "the clock jumped, or the loop hung");
                self.active_ns = self.active_ns.map(|at| at.saturating_add_signed(now as i64 - last_ns as i64));
                (due_ns, beat_ns, path_ns) = (now, 0, 0);
                self.arming.asked = None;
            }
            last_ns = now;
            self.events.span(Track::Control, stage::LATENESS, 0, due_ns.min(now), now);
            if signals.stop.load(Ordering::Relaxed)
                || self.active_ns.zip(length_ns).is_some_and(|(since, length)| now >= since.saturating_add(length))
            {
                self.happened(Event::StopAsked)?;
                continue;
            }
            if signals.arm.swap(false, Ordering::Relaxed) {
                self.arming.wanted = true;
            }
            if signals.disarm.swap(false, Ordering::Relaxed) {
                self.arming.wanted = false;
                self.happened(Event::DisarmAsked)?;
            }
            self.inject_faults();
            if now.saturating_sub(beat_ns) >= HEARTBEAT_NS {
                beat_ns = now;
                self.tell(Link::heartbeat)?;
            }
            self.react(now)?;
            self.arm(now)?;
            self.send_again(now)?;
            self.stop_again(now)?;
            if now.saturating_sub(path_ns) >= PATH_NS {
                path_ns = now;
                if self.controller.mode.is_some() {
                    self.scene.note(&self.controller.measured);
                }
            }
            self.notify.tick();
            due_ns += period_ns;
            let now = monotonic_ns();
            if due_ns < now.saturating_sub(period_ns) {
                // More than a tick late: do not run after what is lost.
                due_ns = now;
            }
            let due_ns = due_ns.min(now + period_ns);
            while !self.is_over() {
                let woken = self.waker.wait_until_ns(self.again_ns().map_or(due_ns, |at| due_ns.min(at)));
                let now = monotonic_ns();
                match woken {
                    true => self.react(now)?,
                    false if now >= due_ns => break,
                    false => self.send_again(now)?,
                }
            }
        }
        self.notify.stopping();
        // The controller ramps to rest before the line closes.
        let rest = monotonic_ns() + STOP_NS;
        while monotonic_ns() < rest && matches!(self.line, Line::Open(_)) {
            self.tell(Link::heartbeat)?;
            sleep_until_ns(monotonic_ns() + HEARTBEAT_NS);
            self.listen()?;
            self.stop_again(monotonic_ns())?;
        }
        // The device may be gone; the controller's deadman stops it then.
        self.tell(Link::disarm)?;
        sleep_until_ns(monotonic_ns() + HEARTBEAT_NS);
        Ok(())
    }

    /// Takes what came, and what follows from it: at once, not in the next tick.
    fn react(&mut self, now: u64) -> Result<(), RunError> {
        self.faults.log_progress();
        self.listen()?;
        self.infer()?;
        self.look(now)
    }

    fn is_over(&self) -> bool {
        matches!(self.state, State::Stop | State::Fault(_))
    }

    /// Asks for permission to move, when ready and somebody wants it, and again while there is no answer.
    fn arm(&mut self, now: u64) -> Result<(), RunError> {
        let waiting = self.arming.asked.is_some_and(|(_, sent)| now.saturating_sub(sent) <= ARM_RETRY_NS);
        if self.state != State::Ready || !self.arming.wanted || waiting {
            return Ok(());
        }
        if self.config.control.dry_run {
            return self.happened(Event::Armed);
        }
        if self.arming.tries == ARM_TRIES {
            let reported = self.controller.mode.is_some();
            let refused = std::mem::take(&mut self.arming.refused);
            let detail = format!("no permission to move after {ARM_TRIES} tries (pose reported: {reported}) {refused}");
            return self.failed(Event::ControllerFault, detail);
        }
        self.arming.tries += 1;
        self.happened(Event::ArmAsked)
    }

    fn send_arm(&mut self) -> Result<(), RunError> {
        // Without a pose from the controller there is nothing to act from.
        let sequence = match self.controller.mode {
            None => None,
            Some(_) if self.arming.clear => {
                self.tell(Link::clear_fault)?;
                None
            }
            Some(_) => self.tell(Link::arm)?,
        };
        self.arming.asked = Some((sequence, monotonic_ns()));
        Ok(())
    }

    /// Shows something to who watches.
    pub(super) fn show(&self, event: impl FnOnce() -> LoopEvent) {
        if let Some(watcher) = &self.watcher {
            // Nobody watches any more: no matter.
            let _ = watcher.send(event());
        }
    }

    /// Goes to the next state and does what belongs to it.
    pub(super) fn happened(&mut self, event: Event) -> Result<(), RunError> {
        let (state, command) = next(self.state, event);
        if state != self.state {
            let detail = std::mem::take(&mut self.detail);
            tracing::info!(from = %self.state, to = %state, ?event, detail, "state");
            if let Some(recording) = &self.recording {
                recording.event(&format!("{} -> {state}: {event:?} {detail}", self.state));
            }
            if matches!(state, State::Fault(_)) {
                self.notify.status(&format!("{state}: {detail}"));
                self.detail = detail;
            }
            if self.state == State::Active {
                // Nothing of what was planned before may follow what comes now.
                self.planner.forget();
                (self.start, self.outgoing) = (None, None);
            }
            self.state = state;
            self.show(|| LoopEvent::State(state));
            let active = state == State::Active;
            self.events.counter(Track::Control, counter::ACTIVE, monotonic_ns(), active.into());
            if active {
                self.due_ns = monotonic_ns();
                self.active_ns.get_or_insert_with(monotonic_ns);
                self.faults.begin();
            }
            if state == State::Ready {
                self.arming.tries = 0;
                self.arming.refused.clear();
                self.arming.asked = None;
            }
        }
        match command {
            Command::None => {}
            Command::WarmUp => self.ask(monotonic_ns()),
            Command::TellReady => {
                self.notify.ready("warm");
                self.arming.wanted |= self.config.control.arm_at_start || self.config.control.dry_run;
                if !self.arming.wanted {
                    tracing::info!("ready; SIGUSR1 arms");
                }
            }
            Command::Arm => self.send_arm()?,
            Command::Disarm => {
                self.tell(Link::disarm)?;
            }
            Command::SendStop => {
                self.stopped_ns = monotonic_ns();
                self.tell(Link::stop)?;
            }
            Command::Reconnect => self.reconnect()?,
        }
        Ok(())
    }

    /// A stop may be lost on the way: as long as the controller moves in a state in which it should not, it is told again.
    fn stop_again(&mut self, now: u64) -> Result<(), RunError> {
        let resting = matches!(self.state, State::Hold(_) | State::Ready | State::Stop | State::Fault(_));
        if resting && self.controller.mode == Some(Mode::Active) && now.saturating_sub(self.stopped_ns) >= STOP_RETRY_NS
        {
            self.stopped_ns = now;
            self.tell(Link::stop)?;
        }
        Ok(())
    }

    fn reconnect(&mut self) -> Result<(), RunError> {
        self.controller.mode = None;
        self.controller.starved = None;
        self.lost_permission();
        if let Line::Open(link) = std::mem::replace(&mut self.line, Line::Gone) {
            self.line = Line::Opening(self.connector.reconnect(*link)?);
        }
        Ok(())
    }

    /// The permission to move is gone, by no wish of anybody.
    pub(super) fn lost_permission(&mut self) {
        if self.arming.wanted && !self.config.control.rearm {
            self.arming.wanted = false;
            tracing::warn!("not armed again by itself (control.rearm); SIGUSR1 arms");
        }
    }

    /// Something happened that is worth a detail in the log, if the state changes; of several failures the first is told.
    pub(super) fn failed(&mut self, event: Event, detail: String) -> Result<(), RunError> {
        if !matches!(self.state, State::Stop | State::Fault(_)) {
            self.detail = detail;
        }
        if matches!(event, Event::LinkLost) && matches!(self.state, State::Boot | State::Warm) {
            self.line = Line::Gone;
        }
        self.happened(event)?;
        if !matches!(self.state, State::Fault(_)) {
            // Nothing came of it.
            self.detail.clear();
        }
        Ok(())
    }

    /// Sends something. A line that is gone is an event, not an error; one that does not keep up is asked again in a
    /// later tick, and the controller's deadman decides when that is too late.
    pub(super) fn tell(
        &mut self,
        send: impl FnOnce(&mut Link) -> Result<u32, LinkError>,
    ) -> Result<Option<u32>, RunError> {
        let Line::Open(link) = &mut self.line else { return Ok(None) };
        match send(link) {
            Ok(sequence) => Ok(Some(sequence)),
            Err(error @ (LinkError::Backlog { .. } | LinkError::NoClock { .. })) => {
                tracing::warn!(%error, "not sent");
                Ok(None)
            }
            Err(error) => {
                if matches!(self.state, State::Stop | State::Fault(_)) {
                    self.line = Line::Gone;
                }
                self.failed(Event::LinkLost, error.to_string())?;
                Ok(None)
            }
        }
    }

    /// Checks the images' ages, and asks the model when it is free and a chunk is due.
    fn look(&mut self, now: u64) -> Result<(), RunError> {
        if !matches!(self.state, State::Active | State::Hold(_)) {
            return Ok(());
        }
        self.image_status.clear();
        self.image_status.extend(self.cameras.iter().map(CameraThread::status));
        let c = &self.config.control;
        let limits = (c.max_image_age_ns(), c.max_image_skew_ns());
        let problem = freshness::problem(&self.views, &self.image_status, now, limits.0, limits.1);
        let stale = problem.is_some();
        self.failed(if stale { Event::ImagesStale } else { Event::ImagesFresh }, problem.unwrap_or_default())?;
        self.happened(if self.model_lost { Event::ModelLost } else { Event::ModelBack })?;
        if self.state == State::Active && self.planner.wants() && self.anything_new() {
            self.ask(now);
        }
        Ok(())
    }
}
