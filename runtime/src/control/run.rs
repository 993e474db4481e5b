//! The loop's shell: one control thread with a steady tick that carries out the core's effects. Cameras, the link and
//! inference have threads of their own, which wake it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use firmware_bridge::joint::JointTable;
use firmware_bridge::sim::Sim;

use super::camera::CameraThread;
use super::core::{
    ControlCore, Counts, Effect, Freshness, ImageStatus, Input, Message, Now, Outbox, Request, SendError, Settings,
};
use super::error::RunError;
use super::inference::InferenceThread;
use super::realtime::RealTime;
use super::reconnect::{Connector, HELLO, Reconnecting};
use super::robot::Robot;
use super::scene::RunScene;
use super::signals::Signals;
use super::sinks::Sinks;
use crate::action::{Planned, Planner, Rules};
use crate::camera::Image;
use crate::clock::HostNs;
use crate::config::RobotConfig;
use crate::events::{ImageStamp, LoopMode};
use crate::fault::FaultyLog;
use crate::link::{ActionChunk, Link, LinkError, Start};
use crate::record::{RecordingWriter, RunNote};
use crate::scene::Progress;
use crate::telemetry::{EventWriter, Header, Notify, RunInfo, StageTable};
use crate::waker::Waker;

/// Options of a run.
#[derive(Clone, Debug, Default)]
pub struct RunOptions {
    /// Time limit after the loop became active; without it, the run ends at a signal.
    pub seconds: Option<f64>,
    /// File for a picture of the run.
    pub picture: Option<PathBuf>,
    /// Setting it ends the run as a signal does.
    pub stop: Arc<AtomicBool>,
}

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    /// The model and the adapter that were measured.
    pub header: Header,
    /// Statistics of the stages' durations.
    pub table: StageTable,
    /// Chunks that the controller accepted.
    pub chunks: u64,
    /// Chunks that it refused.
    pub refused: u64,
    /// Chunks that were not sent: all their steps had passed, or their images were too old.
    pub late: u64,
    /// Controller ticks without a step to execute, between the end of a chunk and the next one.
    pub starved: u64,
    /// From opening the loop to the first accepted chunk.
    pub first_action_ns: Option<u64>,
    /// The object of the scene that the prompt names, and the tool's smallest distance to it, in metres.
    pub target: Option<(String, f32)>,
    /// The task of the scene that the prompt asks for, and how far the world is from its end.
    pub task: Option<(String, Progress)>,
    /// Distance moved by the tool in the scene, in metres, from the measured joint positions.
    pub travelled: Option<f32>,
    /// The picture's file.
    pub picture: Option<PathBuf>,
}

/// The line to the controller.
enum Line {
    Open(Box<Link>),
    Opening(Reconnecting),
    Gone,
}

/// The loop while it runs.
pub(super) struct Shell {
    config: RobotConfig,
    views: Vec<String>,
    core: ControlCore,
    outbox: Outbox,
    cameras: Vec<CameraThread>,
    status: Vec<ImageStatus>,
    line: Line,
    connector: Connector,
    pub(super) sim: Option<Sim>,
    inference: InferenceThread,
    pub(super) sinks: Sinks,
    pub(super) faulty_log: FaultyLog,
    waker: Waker,
    started: HostNs,
}

impl Robot {
    /// Runs until the time limit, a signal or a fault.
    ///
    /// # Errors
    /// [`RunError::Fault`] if the loop ended in a fault; it has stopped the controller, or the controller stops by
    /// itself.
    pub fn run(mut self, options: &RunOptions) -> Result<Outcome, RunError> {
        let signals = Signals::register(&options.stop)?;
        self.connector.waker.own();
        // Discard the controller's messages from the time when the model was loaded.
        self.link.hello(&self.connector.joints, HELLO)?;
        let header =
            Header::of(&self.policy.session, self.config.model.path.display().to_string(), self.config.model.seed);
        let mut shell = Shell::new(self, options, &header)?;
        shell.ticks(&signals)?;
        shell.outcome(options, header)
    }

    /// Starts the recording, if one is configured; a full disk does not stop the robot.
    fn begin_recording(&self, joints: JointTable) -> Result<Option<Arc<RecordingWriter>>, RunError> {
        let Some(section) = &self.config.record else { return Ok(None) };
        let note = RunNote::of(&self.config, &self.policy, &self.connector.joints);
        match RecordingWriter::start(section, note, joints, self.faults.clone(), self.events.clone()) {
            Ok(recording) => Ok(Some(Arc::new(recording))),
            Err(error) if error.is_full() => {
                tracing::warn!(%error, "cannot record; the run continues without a recording");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// The planner for a controller with this number of joints, and a model with chunks of `horizon` steps.
pub(super) fn planner(config: &RobotConfig, joints: usize, horizon: usize) -> Planner {
    let RobotConfig { chunks, control, .. } = config;
    Planner::new(Rules {
        policy: chunks.policy,
        joints,
        horizon,
        execution_horizon: chunks.execution_horizon.unwrap_or(horizon).min(horizon),
        replan_steps: chunks.replan_steps.into(),
        period_us: control.period_us(),
        validity_us: chunks.validity_us(),
    })
}

/// How the loop treats images of these views.
pub(super) fn freshness(config: &RobotConfig, views: &[String]) -> Freshness {
    Freshness {
        views: views.to_vec(),
        most_age_ns: config.control.max_image_age_ns(),
        most_skew_ns: config.control.max_image_skew_ns(),
    }
}

impl Shell {
    fn new(robot: Robot, options: &RunOptions, header: &Header) -> Result<Shell, RunError> {
        let joints = robot.link.controller().map(|hello| hello.joints).unwrap_or_default();
        let horizon = robot.policy.session.loaded().model.config.horizon;
        let planner = planner(&robot.config, joints.len().into(), horizon);
        let recording = robot.begin_recording(joints)?;
        let Robot { config, cameras, views, link, connector, policy, faults, events, arm, world, sim } = robot;
        let control = &config.control;
        let freshness = freshness(&config, &views);
        let settings = Settings {
            device: link.device().to_owned(),
            baud: config.link.baud,
            dry_run: control.dry_run,
            arm_at_start: control.arm_at_start,
            rearm: control.rearm,
            // Beyond the end of the clock the run has no time limit.
            length_ns: options.seconds.map(|s| (s * 1e9) as u64),
        };
        let waker = connector.waker.clone();
        let inference = InferenceThread::start(policy, faults.clone(), recording.clone(), waker.clone())?;
        let telemetry = EventWriter::open(&RunInfo::new(header.clone(), control).to_json());
        let started = HostNs::now();
        let core = ControlCore::new(settings, joints, freshness, (planner, config.model.seed), started);
        let sinks = Sinks {
            events,
            telemetry,
            recording,
            scene: RunScene::new(arm, world, core.measured().to_vec()),
            notify: Notify::new(),
            faults,
        };
        Ok(Shell {
            config,
            views,
            core,
            outbox: Outbox::default(),
            cameras,
            status: Vec::new(),
            line: Line::Open(Box::new(link)),
            connector,
            sim,
            inference,
            sinks,
            faulty_log: FaultyLog::default(),
            waker,
            started,
        })
    }

    fn ticks(&mut self, signals: &Signals) -> Result<(), RunError> {
        let period_ns = self.config.control.tick_ns();
        let mut due = self.started;
        let _priority = RealTime::claim(self.config.control.realtime_priority);
        self.give(Input::Opened)?;
        while !self.core.is_finished() {
            self.give(Input::Tick { due })?;
            if signals.stop.load(Ordering::Relaxed) {
                self.give(Input::Operator(Request::Stop))?;
            }
            if signals.arm.swap(false, Ordering::Relaxed) {
                self.give(Input::Operator(Request::Arm))?;
            }
            if signals.disarm.swap(false, Ordering::Relaxed) {
                self.give(Input::Operator(Request::Disarm))?;
            }
            self.inject_faults();
            self.react()?;
            self.give(Input::Retry)?;
            let now = HostNs::now();
            due = due.after(period_ns).min(now.after(period_ns));
            if now.since(due) > period_ns {
                // More than a tick late: skip the missed ticks.
                due = now;
            }
            self.wait(due)?;
        }
        Ok(())
    }

    /// Handles all wake-ups at once, until `due`.
    fn wait(&mut self, due: HostNs) -> Result<(), RunError> {
        while !self.core.is_finished() {
            let until = self.core.resend_due().map_or(due, |at| due.min(at));
            match self.waker.wait_until_ns(until.0) {
                true => self.react()?,
                false if HostNs::now() >= due => break,
                false => self.give(Input::Retry)?,
            }
        }
        Ok(())
    }

    /// Passes messages of the controller, the inference thread and the cameras to the core.
    fn react(&mut self) -> Result<(), RunError> {
        self.sinks.faults.log_progress();
        self.receive()?;
        while let Some(news) = self.inference.poll() {
            self.give(Input::Inference(news))?;
        }
        let mut status = std::mem::take(&mut self.status);
        status.clear();
        status.extend(self.cameras.iter().map(CameraThread::status));
        self.give(Input::Images(&status))?;
        self.status = status;
        Ok(())
    }

    fn receive(&mut self) -> Result<(), RunError> {
        if let Line::Opening(reconnecting) = &self.line {
            match reconnecting.poll() {
                Ok(None) => return Ok(()),
                Ok(Some(link)) => {
                    self.line = Line::Open(Box::new(link));
                    self.give(Input::Reconnected)?;
                }
                Err(()) => {
                    self.line = Line::Gone;
                    self.give(Input::ReconnectFailed)?;
                }
            }
        }
        while let Line::Open(link) = &mut self.line
            && let Some(event) = link.poll()
        {
            self.give(Input::Link(event))?;
        }
        Ok(())
    }

    /// Passes an input to the core, and carries out its effects.
    fn give(&mut self, input: Input<'_>) -> Result<(), RunError> {
        self.core.on(self.now(), input, &mut self.outbox);
        while let Some(effect) = self.outbox.next() {
            match effect {
                Effect::Send(message) => {
                    let began = HostNs::now();
                    let sent = self.send(&message);
                    let now = self.now();
                    self.core.on(now, Input::Sent { message: &message, began, sent }, &mut self.outbox);
                }
                Effect::TakeImages => {
                    let images = self.take_images();
                    self.core.on(self.now(), Input::ImagesTaken(images), &mut self.outbox);
                }
                Effect::Infer(request) => self.inference.infer(request),
                Effect::Reconnect => {
                    if let Line::Open(link) = std::mem::replace(&mut self.line, Line::Gone) {
                        self.line = Line::Opening(self.connector.reconnect(*link)?);
                    }
                }
                Effect::Emit(event) => self.sinks.emit(event),
            }
        }
        Ok(())
    }

    fn now(&self) -> Now {
        let clock = if let Line::Open(link) = &self.line { link.clock() } else { None };
        Now { at: HostNs::now(), clock }
    }

    /// Copies the newest images for the next inference, and returns their times.
    fn take_images(&mut self) -> Vec<ImageStamp> {
        let images = &mut self.inference.images;
        images.resize_with(self.cameras.len(), Image::default);
        for (camera, image) in self.cameras.iter().zip(images.iter_mut()) {
            camera.newest(image);
        }
        let stamp = |image: &Image| ImageStamp {
            taken: HostNs(image.stamp_ns),
            source: image.stamp,
            dequeued: HostNs(image.dequeued_ns),
        };
        images.iter().map(stamp).collect()
    }

    fn send(&mut self, message: &Message) -> Result<u32, SendError> {
        let Line::Open(link) = &mut self.line else { return Err(SendError::NoLine) };
        let sent = match message {
            Message::Heartbeat => link.heartbeat(),
            Message::Arm => link.arm(),
            Message::ClearFault => link.clear_fault(),
            Message::Disarm => link.disarm(),
            Message::Stop => link.stop(),
            Message::Chunk(chunk) => send_chunk(link, chunk, &self.config),
        };
        sent.map_err(|error| match error {
            LinkError::Backlog { .. } | LinkError::NoClock { .. } => SendError::Later(error),
            error => SendError::Lost(error.to_string()),
        })
    }

    fn outcome(self, options: &RunOptions, header: Header) -> Result<Outcome, RunError> {
        let Shell { config, core, cameras, views, .. } = &self;
        let Counts { chunks, refused, late, starved, first_action_ns } = core.counts;
        let scene = &self.sinks.scene;
        let draw = |path| scene.picture(path, config, views, cameras);
        let picture = options.picture.as_deref().map(draw).transpose()?;
        let (target, travelled) = (scene.target(config.model.prompt.as_deref()), scene.travelled());
        let task = scene.task(config.model.prompt.as_deref());
        match (core.mode, core.fault.clone()) {
            (mode @ LoopMode::Fault(_), detail) => Err(RunError::Fault { mode, detail }),
            // The run had a time limit that was too short for a single chunk.
            _ if options.seconds.is_some() && chunks == 0 && !config.control.dry_run => {
                Err(RunError::Idle { refused: refused + late })
            }
            _ => Ok(Outcome {
                header,
                table: self.sinks.telemetry.into_table(),
                chunks,
                refused,
                late,
                starved,
                first_action_ns,
                task,
                target,
                travelled,
                picture,
            }),
        }
    }
}

fn send_chunk(link: &mut Link, chunk: &Planned, config: &RobotConfig) -> Result<u32, LinkError> {
    link.send_chunk(&ActionChunk {
        id: chunk.id,
        start: Start::ControllerUs(chunk.start.0),
        period_us: config.control.period_us(),
        validity_us: chunk.validity_us,
        interpolation: config.chunks.interpolation,
        positions: &chunk.positions,
    })
}
