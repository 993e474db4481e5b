//! The control loop in simulated time, on one thread and without a clock: the core, and the firmware's controller on simulated joints
//! behind a line that takes its time. Cameras, model and the things that the joints move are [`Surroundings`].

use std::collections::VecDeque;

use firmware_bridge::controller::{Config, Controller};
use firmware_bridge::frame::{Counters, Frame, Header};
use firmware_bridge::message::{self as wire, Interpolation, Positions, SCHEMA_HASH};
use firmware_bridge::output::{NoEstop, SimulatedJoints};

use super::core::{
    ControlCore, Effect, Freshness, ImageStatus, InferenceNews, Input, Message, Now, Outbox, SendError, Settings,
};
use crate::action::{Planned, Planner};
use crate::clock::HostNs;
use crate::events::{ImageStamp, Inference, InferenceRequest, LoopEvent};
use crate::link::{ClockOffset, Exchange, LinkEvent};
use crate::policy::PolicyOutput;

const MS: u64 = 1_000_000;
/// The simulation's step, and the controller's tick.
const STEP_NS: u64 = 2 * MS;
/// One way on the line.
const LINE_NS: u64 = MS;
/// From exposure to the image in the camera's thread.
const EXPOSURE_NS: u64 = 5 * MS;
/// Interval of the controller's reports.
const REPORT_NS: u64 = 10 * MS;
/// Time without a good frame after which the controller counts as silent.
const SILENCE_NS: u64 = 150 * MS;
/// The controller's clock is this much ahead.
const AHEAD_US: u64 = 7_000_000;
/// The simulated clock at the beginning.
const BEGIN: HostNs = HostNs(1_000 * MS);

/// Everything around loop and controller.
pub(super) trait Surroundings {
    /// A camera's view at a moment.
    type Image: Clone;

    /// The joints moved to `positions`; an obstacle changes them.
    fn moved(&mut self, now: HostNs, positions: &mut [f32]);

    /// A camera exposes; `None` gives no image.
    fn expose(&mut self, camera: usize) -> Option<Self::Image>;

    /// Infers from the newest images, one for each camera. The second is the duration in nanoseconds.
    ///
    /// # Errors
    /// The reason, which ends the loop in a fault.
    fn infer(&mut self, request: &InferenceRequest, images: &[Self::Image]) -> Result<(PolicyOutput, u64), String>;

    /// The loop emits an event.
    fn emitted(&mut self, _now: HostNs, _event: LoopEvent) {}

    /// The loop sends a message.
    fn sent(&mut self, _now: HostNs, _message: &Message) {}
}

/// Parts of the robot that fail for a while.
#[derive(Debug, Default)]
pub(super) struct Broken {
    /// The line is unplugged.
    pub(super) cable: bool,
    /// The controller neither receives nor moves.
    pub(super) frozen: bool,
}

/// How the loop is built.
pub(super) struct Parts {
    pub(super) settings: Settings,
    pub(super) freshness: Freshness,
    pub(super) planner: Planner,
    /// Seed of the noise.
    pub(super) seed: u64,
    pub(super) controller: Config,
    /// The joints' positions at the beginning.
    pub(super) initial: Vec<f32>,
    /// Time constant of the joints' lag, in seconds.
    pub(super) lag_s: f32,
    pub(super) cameras: usize,
    /// Interval of the cameras' images.
    pub(super) frame_ns: u64,
    /// Interval of the loop's ticks.
    pub(super) tick_ns: u64,
    /// Interval of a chunk's steps in microseconds.
    pub(super) period_us: u32,
    pub(super) interpolation: Interpolation,
}

/// A camera: its newest image, and one on its way.
struct Camera<I> {
    newest: (HostNs, Option<I>),
    on_way: Option<(HostNs, I)>,
}

/// The line's state.
#[derive(Default)]
struct Line {
    session: u32,
    sequence: u32,
    to_host: VecDeque<(HostNs, LinkEvent)>,
    /// The last good frame.
    heard: HostNs,
    silent: bool,
    clock: Option<ClockOffset>,
    reconnecting: bool,
}

/// A loop in simulated time.
pub(super) struct Simulation<S: Surroundings> {
    pub(super) core: ControlCore,
    pub(super) now: HostNs,
    pub(super) broken: Broken,
    pub(super) controller: Controller<SimulatedJoints, NoEstop>,
    pub(super) surroundings: S,
    pub(super) outbox: Outbox,
    line: Line,
    cameras: Vec<Camera<S::Image>>,
    inference: Option<(HostNs, InferenceNews)>,
    frame_ns: u64,
    tick_ns: u64,
    period_us: u32,
    interpolation: Interpolation,
    joints: u8,
}

impl<S: Surroundings> Simulation<S> {
    /// A loop whose cameras and line are well, and whose cameras have an image.
    pub(super) fn new(parts: Parts, surroundings: S) -> Simulation<S> {
        let joints = parts.controller.joints;
        let output = SimulatedJoints::new(&joints, &parts.initial, parts.lag_s);
        let mut simulation = Simulation {
            core: ControlCore::new(parts.settings, joints, parts.freshness, (parts.planner, parts.seed), BEGIN),
            now: BEGIN,
            broken: Broken::default(),
            controller: Controller::new(parts.controller, output, NoEstop),
            surroundings,
            outbox: Outbox::default(),
            line: Line::default(),
            cameras: Vec::new(),
            inference: None,
            frame_ns: parts.frame_ns,
            tick_ns: parts.tick_ns,
            period_us: parts.period_us,
            interpolation: parts.interpolation,
            joints: joints.len(),
        };
        for camera in 0..parts.cameras {
            let newest = (BEGIN, simulation.surroundings.expose(camera));
            simulation.cameras.push(Camera { newest, on_way: None });
        }
        simulation.hello();
        simulation.give(Input::Opened);
        simulation
    }

    /// Runs on for `ns` nanoseconds, or until the loop has ended.
    pub(super) fn run(&mut self, ns: u64) {
        let end = self.now.after(ns);
        while self.now < end && !self.core.is_finished() {
            self.step();
        }
    }

    /// The line to the controller breaks.
    #[cfg(test)]
    pub(super) fn unplug(&mut self) {
        self.broken.cable = true;
        self.line.to_host.clear();
        self.give(Input::Link(LinkEvent::Lost { kind: std::io::ErrorKind::BrokenPipe }));
    }

    /// Whether the line is lost and not open again yet.
    #[cfg(test)]
    pub(super) fn is_reconnecting(&self) -> bool {
        self.line.reconnecting
    }

    /// The controller's clock, if it is known.
    #[cfg(test)]
    pub(super) fn clock(&self) -> Option<ClockOffset> {
        self.line.clock
    }

    /// Loses the result of a running inference.
    #[cfg(test)]
    pub(super) fn drop_inference(&mut self) {
        self.inference = None;
    }

    /// Gives the core an input, and carries its effects out as the shell does.
    pub(super) fn give(&mut self, input: Input<'_>) {
        let now = Now { at: self.now, clock: if self.line.reconnecting { None } else { self.line.clock } };
        self.core.on(now, input, &mut self.outbox);
        while let Some(effect) = self.outbox.next() {
            match effect {
                Effect::Send(message) => {
                    let sent = self.send(&message);
                    let input = Input::Sent { message: &message, began: self.now, sent };
                    self.core.on(now, input, &mut self.outbox);
                }
                Effect::TakeImages => {
                    let stamp = |taken: HostNs| ImageStamp {
                        taken,
                        source: Default::default(),
                        dequeued: taken.after(EXPOSURE_NS),
                    };
                    let images = self.cameras.iter().map(|camera| stamp(camera.newest.0)).collect();
                    self.core.on(now, Input::ImagesTaken(images), &mut self.outbox);
                }
                Effect::Infer(request) => self.infer(request),
                Effect::Reconnect => self.line.reconnecting = true,
                Effect::Emit(event) => self.surroundings.emitted(self.now, event),
            }
        }
    }

    /// Infers at once; the result arrives when the inference would end.
    fn infer(&mut self, request: InferenceRequest) {
        let images: Vec<S::Image> = self.cameras.iter().filter_map(|camera| camera.newest.1.clone()).collect();
        let (news, ns) = match self.surroundings.infer(&request, &images) {
            Ok((mut output, ns)) => {
                let done = self.now.after(ns);
                (output.started, output.inferred, output.finished) = (self.now, done, done);
                (InferenceNews::Done(Inference { request, output }.into()), ns)
            }
            Err(why) => (InferenceNews::Failed(why), 0),
        };
        self.inference = Some((self.now.after(ns), news));
    }

    fn controller_us(&self) -> u64 {
        self.now.0 / 1000 + AHEAD_US
    }

    fn hello(&mut self) {
        let Line { session, clock, .. } = self.line;
        self.line = Line { session: session + 1, clock, heard: self.now, ..Line::default() };
        self.handle(&wire::Message::Hello { schema: SCHEMA_HASH });
        self.handle(&wire::Message::Heartbeat);
    }

    /// Lets the controller handle a message; its answer is on the line then.
    fn handle(&mut self, message: &wire::Message<'_>) -> u32 {
        self.line.sequence += 1;
        if self.broken.frozen {
            return self.line.sequence;
        }
        let header = Header::new(self.line.sequence, self.line.session, self.now.0 / 1000);
        let now_us = self.controller_us();
        let answer = self.controller.handle(&Frame { header, message: *message }, now_us);
        let received = self.now.after(2 * LINE_NS);
        match answer {
            Some(wire::Message::Ack(ack)) => {
                let ack = LinkEvent::Ack { ack, controller_us: now_us, received_ns: received.0 };
                self.line.to_host.push_back((received, ack));
            }
            Some(wire::Message::HeartbeatReply(reply)) => {
                self.line.clock = ClockOffset::from_exchange(&Exchange {
                    sent_us: reply.host_time_us,
                    received_us: reply.received_us,
                    replied_us: now_us,
                    returned_us: reply.host_time_us,
                });
            }
            _ => {}
        }
        self.line.sequence
    }

    fn send(&mut self, message: &Message) -> Result<u32, SendError> {
        if self.line.reconnecting {
            return Err(SendError::NoLine);
        }
        if self.broken.cable {
            return Err(SendError::Lost("unplugged".to_owned()));
        }
        self.surroundings.sent(self.now, message);
        Ok(match message {
            Message::Heartbeat => self.handle(&wire::Message::Heartbeat),
            Message::Arm => self.handle(&wire::Message::Arm),
            Message::ClearFault => self.handle(&wire::Message::ClearFault),
            Message::Disarm => self.handle(&wire::Message::Disarm),
            Message::Stop => self.handle(&wire::Message::Stop),
            Message::Chunk(chunk) => self.handle(&wire::Message::Chunk(self.wire_chunk(chunk))),
        })
    }

    fn wire_chunk<'a>(&self, chunk: &'a Planned) -> wire::Chunk<'a> {
        wire::Chunk {
            id: chunk.id,
            start_us: chunk.start.0,
            period_us: self.period_us,
            validity_us: chunk.validity_us,
            interpolation: self.interpolation,
            joints: self.joints,
            steps: (chunk.positions.len() / usize::from(self.joints.max(1))) as u16,
            positions: Positions::Native(&chunk.positions),
        }
    }

    fn step(&mut self) {
        self.now = self.now.after(STEP_NS);
        if !self.broken.frozen {
            self.controller.output_mut().step(STEP_NS as f32 * 1e-9);
            let joints = self.controller.output_mut().positions();
            let mut positions = joints.to_vec();
            self.surroundings.moved(self.now, &mut positions);
            self.controller.output_mut().place(&positions);
            let now_us = self.controller_us();
            // The proof that the watchdog may be fed; there is none.
            let _ = self.controller.tick(now_us);
            if self.now.0.is_multiple_of(REPORT_NS) && !self.broken.cable {
                let state = self.controller.state(&Counters::default(), 0);
                let received = self.now.after(LINE_NS);
                let report = LinkEvent::State { state, controller_us: now_us, received_ns: received.0 };
                self.line.to_host.push_back((received, report));
            }
        }
        self.expose();
        let is_tick = self.now.0.is_multiple_of(self.tick_ns);
        if is_tick {
            self.give(Input::Tick { due: self.now });
        }
        self.receive();
        if let Some((_, news)) = self.inference.take_if(|(done, _)| *done <= self.now) {
            self.give(Input::Inference(news));
        }
        let status = |camera: &Camera<S::Image>| ImageStatus { taken: camera.newest.0, gone: false };
        let status: Vec<ImageStatus> = self.cameras.iter().map(status).collect();
        self.give(Input::Images(&status));
        if is_tick || self.core.resend_due().is_some_and(|due| due <= self.now) {
            self.give(Input::Retry);
        }
    }

    /// Cameras expose when an image is due, and the loop has it a little later.
    fn expose(&mut self) {
        let is_due = self.now.0 % self.frame_ns < STEP_NS;
        for (index, camera) in self.cameras.iter_mut().enumerate() {
            if let Some((taken, image)) = camera.on_way.take_if(|(taken, _)| taken.after(EXPOSURE_NS) <= self.now) {
                camera.newest = (taken, Some(image));
            }
            if is_due && let Some(image) = self.surroundings.expose(index) {
                camera.on_way = Some((self.now, image));
            }
        }
    }

    fn receive(&mut self) {
        if self.line.reconnecting {
            if self.broken.cable || self.broken.frozen {
                return;
            }
            self.hello();
            self.give(Input::Reconnected);
        }
        while let Some((received, event)) = self.line.to_host.pop_front_if(|(received, _)| *received <= self.now) {
            self.line.heard = received;
            self.give(Input::Link(event));
            if std::mem::take(&mut self.line.silent) {
                self.give(Input::Link(LinkEvent::Restored));
            }
        }
        if !self.line.silent && self.now.since(self.line.heard) > SILENCE_NS {
            self.line.silent = true;
            self.give(Input::Link(LinkEvent::Silent { last_received_ns: self.line.heard.0 }));
        }
    }
}
