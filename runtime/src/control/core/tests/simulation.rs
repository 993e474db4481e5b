//! The robot of the tests: core, controller, line, cameras and model, stepped in simulated time.

use std::collections::VecDeque;
use std::io::ErrorKind;

use firmware_bridge::controller::{Config, Controller};
use firmware_bridge::frame::{Counters, Frame, Header};
use firmware_bridge::joint::{JointSpec, Name, Unit};
use firmware_bridge::message::{self as wire, Interpolation, Positions, SCHEMA_HASH};
use firmware_bridge::output::{NoEstop, SimulatedJoints};

use super::*;
use crate::action::{ChunkPolicy, Rules};
use crate::events::{Causes, ImageStamp, InferenceRequest};
use crate::link::{ClockOffset, Exchange, LinkEvent};

pub(super) const MS: u64 = 1_000_000;
/// The simulation's step, and the controller's tick.
pub(super) const STEP_NS: u64 = 2 * MS;
pub(super) const TICK_NS: u64 = 10 * MS;
/// One way on the line.
pub(super) const LINE_NS: u64 = MS;
/// From exposure to the image in the camera's thread, and from image to image.
pub(super) const EXPOSURE_NS: u64 = 5 * MS;
pub(super) const FRAME_NS: u64 = 34 * MS;
/// What an inference takes.
pub(super) const INFERENCE_NS: u64 = 60 * MS;
/// Time without a good frame after which the controller counts as silent.
pub(super) const SILENCE_NS: u64 = 150 * MS;
pub(super) const MOST_AGE_NS: u64 = 300 * MS;
pub(super) const HORIZON: usize = 16;
pub(super) const PERIOD_US: u32 = 50_000;
pub(super) const JOINTS: [&str; 2] = ["base", "wrist"];
/// The controller's clock is this much ahead.
pub(super) const AHEAD_US: u64 = 7_000_000;

/// Parts of the robot that fail for a while.
#[derive(Default)]
pub(super) struct Broken {
    pub(super) camera: bool,
    pub(super) cable: bool,
    /// The controller neither hears nor moves.
    pub(super) frozen: bool,
}

pub(super) struct Simulation {
    pub(super) core: ControlCore,
    pub(super) outbox: Outbox,
    pub(super) now: HostNs,
    pub(super) broken: Broken,
    pub(super) controller: Controller<SimulatedJoints, NoEstop>,
    /// The link: its session's last sequence, what is on the line to the host, and the last good frame.
    pub(super) session: u32,
    pub(super) sequence: u32,
    pub(super) to_host: VecDeque<(HostNs, LinkEvent)>,
    pub(super) heard: HostNs,
    pub(super) silent: bool,
    pub(super) clock: Option<ClockOffset>,
    pub(super) reconnecting: bool,
    /// When the newest image of each camera was taken.
    pub(super) images: [HostNs; 2],
    pub(super) inference: Option<(HostNs, InferenceRequest)>,
    pub(super) sent: Vec<(HostNs, Message)>,
    pub(super) events: Vec<(HostNs, LoopEvent)>,
    pub(super) positions: Vec<(HostNs, f32)>,
}

impl Simulation {
    /// A loop whose images, line and model are all well.
    pub(super) fn new(change: impl FnOnce(&mut Settings)) -> Simulation {
        let mut joints = JointTable::new();
        for name in JOINTS {
            let name = Name::new(name).unwrap();
            joints.push(JointSpec::new(name, Unit::Radian, [-1.0, 1.0], 3.0).with_jump(0.5)).unwrap();
        }
        let now = HostNs(1_000 * MS);
        let mut settings = Settings {
            device: "simulated".to_owned(),
            baud: 1_000_000,
            dry_run: false,
            arm_at_start: true,
            rearm: true,
            length_ns: None,
        };
        change(&mut settings);
        let views = ["base", "wrist"].map(str::to_owned).to_vec();
        let freshness = Freshness { views, most_age_ns: MOST_AGE_NS, most_skew_ns: 10_000 * MS };
        let planner = Planner::new(Rules {
            policy: ChunkPolicy::Replace,
            joints: JOINTS.len(),
            horizon: HORIZON,
            execution_horizon: HORIZON,
            replan_steps: 4,
            period_us: PERIOD_US,
            validity_us: 2_000_000,
        });
        let output = SimulatedJoints::new(&joints, &[0.0; 2], 0.02);
        let mut simulation = Simulation {
            core: ControlCore::new(settings, joints, freshness, (planner, 1), now),
            outbox: Outbox::default(),
            now,
            broken: Broken::default(),
            controller: Controller::new(Config::new(joints), output, NoEstop),
            session: 0,
            sequence: 0,
            to_host: VecDeque::new(),
            heard: now,
            silent: false,
            clock: None,
            reconnecting: false,
            images: [now; 2],
            inference: None,
            sent: Vec::new(),
            events: Vec::new(),
            positions: Vec::new(),
        };
        simulation.hello();
        simulation.give(Input::Opened);
        simulation
    }

    pub(super) fn controller_us(&self) -> u64 {
        self.now.0 / 1000 + AHEAD_US
    }

    pub(super) fn hello(&mut self) {
        (self.session, self.sequence) = (self.session + 1, 0);
        self.to_host.clear();
        (self.heard, self.silent) = (self.now, false);
        self.handle(&wire::Message::Hello { schema: SCHEMA_HASH });
        self.handle(&wire::Message::Heartbeat);
    }

    /// Lets the controller handle a message; its answer is on the line then.
    pub(super) fn handle(&mut self, message: &wire::Message<'_>) -> u32 {
        self.sequence += 1;
        if self.broken.frozen {
            return self.sequence;
        }
        let header = Header::new(self.sequence, self.session, self.now.0 / 1000);
        let now_us = self.controller_us();
        let answer = self.controller.handle(&Frame { header, message: *message }, now_us);
        let received = self.now.after(2 * LINE_NS);
        match answer {
            Some(wire::Message::Ack(ack)) => {
                self.to_host
                    .push_back((received, LinkEvent::Ack { ack, controller_us: now_us, received_ns: received.0 }));
            }
            Some(wire::Message::HeartbeatReply(reply)) => {
                self.clock = ClockOffset::from_exchange(&Exchange {
                    sent_us: reply.host_time_us,
                    received_us: reply.received_us,
                    replied_us: now_us,
                    returned_us: reply.host_time_us,
                });
            }
            _ => {}
        }
        self.sequence
    }

    pub(super) fn send(&mut self, message: &Message) -> Result<u32, SendError> {
        if self.reconnecting {
            return Err(SendError::NoLine);
        }
        if self.broken.cable {
            return Err(SendError::Lost("unplugged".to_owned()));
        }
        self.sent.push((self.now, message.clone()));
        Ok(match message {
            Message::Heartbeat => self.handle(&wire::Message::Heartbeat),
            Message::Arm => self.handle(&wire::Message::Arm),
            Message::ClearFault => self.handle(&wire::Message::ClearFault),
            Message::Disarm => self.handle(&wire::Message::Disarm),
            Message::Stop => self.handle(&wire::Message::Stop),
            Message::Chunk(chunk) => self.handle(&wire::Message::Chunk(wire::Chunk {
                id: chunk.id,
                start_us: chunk.start.0,
                period_us: PERIOD_US,
                validity_us: chunk.validity_us,
                interpolation: Interpolation::Linear,
                joints: JOINTS.len() as u8,
                steps: HORIZON as u16,
                positions: Positions::Native(&chunk.positions),
            })),
        })
    }

    /// Gives the core an input, and carries its effects out as the shell does.
    pub(super) fn give(&mut self, input: Input<'_>) {
        let now = Now { at: self.now, clock: if self.reconnecting { None } else { self.clock } };
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
                    let images = self.images.map(stamp).to_vec();
                    self.core.on(now, Input::ImagesTaken(images), &mut self.outbox);
                }
                Effect::Infer(request) => self.inference = Some((self.now.after(INFERENCE_NS), request)),
                Effect::Reconnect => self.reconnecting = true,
                Effect::Emit(event) => self.events.push((self.now, event)),
            }
        }
    }

    /// Swings both joints, beyond their limits.
    pub(super) fn infer(&self, request: InferenceRequest) -> Inference {
        let taken = request.oldest().unwrap();
        let step = |k: usize| {
            let at_s = taken.after(k as u64 * u64::from(PERIOD_US) * 1000).0 as f32 * 1e-9;
            [1.2 * (1.5 * at_s).sin(), 0.5 * (1.5 * at_s).cos()]
        };
        let mut inference = Inference { request, ..Inference::default() };
        inference.output.actions = (0..HORIZON).flat_map(step).collect();
        (inference.output.inferred, inference.output.finished) = (self.now, self.now);
        inference
    }

    pub(super) fn step(&mut self) {
        self.now = self.now.after(STEP_NS);
        if !self.broken.frozen {
            self.controller.output_mut().step(STEP_NS as f32 * 1e-9);
            let now_us = self.controller_us();
            let _ = self.controller.tick(now_us);
            if self.now.0.is_multiple_of(10 * MS) && !self.broken.cable {
                let state = self.controller.state(&Counters::default(), 0);
                let received = self.now.after(LINE_NS);
                let report = LinkEvent::State { state, controller_us: now_us, received_ns: received.0 };
                self.to_host.push_back((received, report));
            }
        }
        self.positions.push((self.now, self.controller.output_mut().positions()[0]));
        if self.now.0 % FRAME_NS < STEP_NS {
            let taken = HostNs(self.now.0 - EXPOSURE_NS);
            self.images[0] = taken;
            if !self.broken.camera {
                self.images[1] = taken;
            }
        }
        let is_tick = self.now.0.is_multiple_of(TICK_NS);
        if is_tick {
            self.give(Input::Tick { due: self.now });
        }
        self.receive();
        if let Some((_, request)) = self.inference.take_if(|(done, _)| *done <= self.now) {
            let inference = self.infer(request);
            self.give(Input::Inference(InferenceNews::Done(inference.into())));
        }
        let status = self.images.map(|taken| ImageStatus { taken, gone: false });
        self.give(Input::Images(&status));
        if is_tick || self.core.resend_due().is_some_and(|due| due <= self.now) {
            self.give(Input::Retry);
        }
    }

    pub(super) fn receive(&mut self) {
        if self.reconnecting {
            if self.broken.cable || self.broken.frozen {
                return;
            }
            self.reconnecting = false;
            self.hello();
            self.give(Input::Reconnected);
        }
        while let Some((received, event)) = self.to_host.pop_front_if(|(received, _)| *received <= self.now) {
            self.heard = received;
            self.give(Input::Link(event));
            if std::mem::take(&mut self.silent) {
                self.give(Input::Link(LinkEvent::Restored));
            }
        }
        if !self.silent && self.now.since(self.heard) > SILENCE_NS {
            self.silent = true;
            self.give(Input::Link(LinkEvent::Silent { last_received_ns: self.heard.0 }));
        }
    }

    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now.after(ms * MS);
        while self.now < end && !self.core.is_finished() {
            self.step();
        }
    }

    pub(super) fn unplug(&mut self) {
        self.broken.cable = true;
        self.to_host.clear();
        self.give(Input::Link(LinkEvent::Lost { kind: ErrorKind::BrokenPipe }));
    }

    /// Every change of the loop's mode since `from`, and how long after it, in milliseconds.
    pub(super) fn modes(&self, from: HostNs) -> Vec<(LoopMode, u64)> {
        let mode = |(at, event): &(HostNs, LoopEvent)| match event {
            LoopEvent::Mode { to, .. } => Some((*to, at.since(from) / MS)),
            _ => None,
        };
        self.events.iter().filter(|(at, _)| *at >= from).filter_map(mode).collect()
    }

    /// The length of the first joint's way since `from`.
    pub(super) fn way(&self, from: HostNs) -> f32 {
        let way = self.positions.windows(2).filter(|pair| pair[0].0 >= from);
        way.map(|pair| (pair[1].1 - pair[0].1).abs()).sum()
    }

    /// The controller is at rest: over `ms` from now on its joints do not move.
    pub(super) fn rests(&mut self, ms: u64) -> bool {
        let from = self.now;
        self.run(ms);
        self.way(from) < 1e-3
    }

    pub(super) fn hold(cause: impl FnOnce(&mut Causes)) -> LoopMode {
        let mut causes = Causes::default();
        cause(&mut causes);
        LoopMode::Hold(causes)
    }

    /// What holds in every run: heartbeats come in time as long as there is a line, and chunks are sent only while the loop is
    /// active, within the joints' limits.
    pub(super) fn check(&self) {
        let mut mode = LoopMode::Boot;
        let mut lost = self.now;
        let mut events = self.events.iter().peekable();
        let mut beat: Option<HostNs> = None;
        for (at, message) in &self.sent {
            // A message that caused an event was sent before it, at the same time.
            while let Some((_, event)) = events.next_if(|(when, _)| when < at) {
                if let LoopEvent::Mode { to, .. } = event {
                    mode = *to;
                    if *to == Self::hold(|c| c.line = true) {
                        (lost, beat) = (*at, None);
                    }
                }
            }
            match message {
                Message::Heartbeat => {
                    assert!(beat.is_none_or(|beat| at.since(beat) <= 50 * MS), "at {at:?}");
                    beat = Some(*at);
                }
                Message::Chunk(chunk) => {
                    assert!(mode == LoopMode::Active, "a chunk was sent in {mode} at {at:?}, lost {lost:?}");
                    assert!(chunk.positions.iter().all(|position| position.abs() <= 1.0), "{chunk:?}");
                }
                _ => {}
            }
        }
    }
}
