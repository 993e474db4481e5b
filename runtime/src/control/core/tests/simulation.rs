//! The robot of the tests: two joints that swing, two cameras, and a model that takes 60 ms.

use firmware_bridge::controller::Config;
use firmware_bridge::joint::{JointSpec, Name, Unit};
use firmware_bridge::message::Interpolation;

use super::*;
use crate::action::{ChunkPolicy, Rules};
use crate::control::simulation::{Parts, Simulation, Surroundings};
use crate::events::{Causes, InferenceRequest};
use crate::policy::PolicyOutput;

pub(super) const MS: u64 = 1_000_000;
const INFERENCE_NS: u64 = 60 * MS;
const HORIZON: usize = 16;
const PERIOD_US: u32 = 50_000;

/// The tests' cameras and model, and a record of the run.
#[derive(Default)]
pub(super) struct Bench {
    /// The second camera gives no images.
    pub(super) camera_broken: bool,
    pub(super) sent: Vec<(HostNs, Message)>,
    pub(super) events: Vec<(HostNs, LoopEvent)>,
    positions: Vec<(HostNs, f32)>,
}

impl Surroundings for Bench {
    type Image = ();

    fn moved(&mut self, now: HostNs, positions: &mut [f32]) {
        self.positions.push((now, positions[0]));
    }

    fn expose(&mut self, camera: usize) -> Option<()> {
        (camera == 0 || !self.camera_broken).then_some(())
    }

    /// Swings both joints, beyond their limits.
    fn infer(&mut self, request: &InferenceRequest, _images: &[()]) -> Result<(PolicyOutput, u64), String> {
        let taken = request.oldest().unwrap();
        let step = |k: usize| {
            let at_s = taken.after(k as u64 * u64::from(PERIOD_US) * 1000).0 as f32 * 1e-9;
            [1.2 * (1.5 * at_s).sin(), 0.5 * (1.5 * at_s).cos()]
        };
        let actions = (0..HORIZON).flat_map(step).collect();
        Ok((PolicyOutput { actions, action_dim: 2, ..PolicyOutput::default() }, INFERENCE_NS))
    }

    fn emitted(&mut self, now: HostNs, event: LoopEvent) {
        self.events.push((now, event));
    }

    fn sent(&mut self, now: HostNs, message: &Message) {
        self.sent.push((now, message.clone()));
    }
}

/// A loop whose images, line and model are all well.
pub(super) fn simulation(change: impl FnOnce(&mut Settings)) -> Simulation<Bench> {
    let mut joints = JointTable::new();
    for name in ["base", "wrist"] {
        let name = Name::new(name).unwrap();
        joints.push(JointSpec::new(name, Unit::Radian, [-1.0, 1.0], 3.0).with_jump(0.5)).unwrap();
    }
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
    let parts = Parts {
        settings,
        freshness: Freshness { views, most_age_ns: 300 * MS, most_skew_ns: 10_000 * MS },
        planner: Planner::new(Rules {
            policy: ChunkPolicy::Replace,
            joints: 2,
            horizon: HORIZON,
            execution_horizon: HORIZON,
            replan_steps: 4,
            period_us: PERIOD_US,
            validity_us: 2_000_000,
        }),
        seed: 1,
        controller: Config::new(joints),
        initial: vec![0.0; 2],
        lag_s: 0.02,
        cameras: 2,
        frame_ns: 34 * MS,
        tick_ns: 10 * MS,
        period_us: PERIOD_US,
        interpolation: Interpolation::Linear,
    };
    Simulation::new(parts, Bench::default())
}

/// Questions that the tests ask.
pub(super) trait Record {
    /// Runs on for `ms` milliseconds.
    fn run_ms(&mut self, ms: u64);
    /// Every change of the loop's mode since `from`, and how long after it, in milliseconds.
    fn modes(&self, from: HostNs) -> Vec<(LoopMode, u64)>;
    /// The length of the first joint's way since `from`.
    fn way(&self, from: HostNs) -> f32;
    /// Whether the controller is at rest: over `ms` from now on its joints do not move.
    fn rests(&mut self, ms: u64) -> bool;
    /// Checks rules of every run: heartbeats come in time as long as there is a line, and chunks are sent only while the loop is
    /// active, within the joints' limits.
    fn check(&self);
}

impl Record for Simulation<Bench> {
    fn run_ms(&mut self, ms: u64) {
        self.run(ms * MS);
    }

    fn modes(&self, from: HostNs) -> Vec<(LoopMode, u64)> {
        let mode = |(at, event): &(HostNs, LoopEvent)| match event {
            LoopEvent::Mode { to, .. } => Some((*to, at.since(from) / MS)),
            _ => None,
        };
        self.surroundings.events.iter().filter(|(at, _)| *at >= from).filter_map(mode).collect()
    }

    fn way(&self, from: HostNs) -> f32 {
        let way = self.surroundings.positions.windows(2).filter(|pair| pair[0].0 >= from);
        way.map(|pair| (pair[1].1 - pair[0].1).abs()).sum()
    }

    fn rests(&mut self, ms: u64) -> bool {
        let from = self.now;
        self.run_ms(ms);
        self.way(from) < 1e-3
    }

    fn check(&self) {
        let mut mode = LoopMode::Boot;
        let mut lost = self.now;
        let mut events = self.surroundings.events.iter().peekable();
        let mut beat: Option<HostNs> = None;
        for (at, message) in &self.surroundings.sent {
            // A message that caused an event was sent before it, at the same time.
            while let Some((_, event)) = events.next_if(|(when, _)| when < at) {
                if let LoopEvent::Mode { to, .. } = event {
                    mode = *to;
                    if *to == hold(|c| c.line = true) {
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

/// A hold for these causes.
pub(super) fn hold(cause: impl FnOnce(&mut Causes)) -> LoopMode {
    let mut causes = Causes::default();
    cause(&mut causes);
    LoopMode::Hold(causes)
}
