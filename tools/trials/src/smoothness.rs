//! Joins between chunks in simulated time: the simulated scene's images, the model on the GPU, and the controller's own
//! code. A busy machine takes longer, but gives the same numbers.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::sync::Arc;

use fathom::action::smoothness::{Joins, Smoothness};
use fathom::action::{ChunkPolicy, InferenceStart, Planner, Rules};
use fathom::clock::ControllerUs;
use fathom::config::RobotConfig;
use fathom::engine::{Inputs, Session};
use fathom::gpu::{Gpu, GpuOptions};
use fathom::scene::{Renderer, Scene};
use fathom_models::checkpoint::random;
use fathom_models::nets::depthvla::ForwardOptions;
use fathom_models::nets::image::ImageSpec;
use fathom_models::processing::guidance::Schedule;
use fathom_models::processing::observation::finish_actions;
use fathom_models::processing::tokenizer::Tokenizer;
use fathom_models::{families, outln};
use firmware_bridge::controller::{Config, Controller};
use firmware_bridge::frame::{Frame, Header};
use firmware_bridge::joint::{JointSpec, JointTable, Name, Unit};
use firmware_bridge::message::{Chunk, Interpolation, Message, Mode, Positions, Reason, SCHEMA_HASH};
use firmware_bridge::output::{JointOutput, NoEstop, OutputError, Reading};

const TICK_US: u64 = 2_000;
const REPORT_US: u64 = 10_000;
const HEARTBEAT_US: u64 = 40_000;

/// Joints that lag 30 ms behind their command.
struct Joints {
    positions: Vec<f32>,
    command: Vec<f32>,
}

impl Joints {
    fn step(&mut self) {
        for (at, command) in self.positions.iter_mut().zip(&self.command) {
            *at += (command - *at) * (TICK_US as f32 / 30_000.0);
        }
    }
}

impl JointOutput for Joints {
    fn measure(&mut self, readings: &mut [Reading]) -> Result<(), OutputError> {
        for (reading, position) in readings.iter_mut().zip(&self.positions) {
            reading.position = Some(*position);
        }
        Ok(())
    }

    fn command(&mut self, positions: &[f32]) -> Result<(), OutputError> {
        self.command.copy_from_slice(positions);
        Ok(())
    }

    fn release(&mut self) -> Result<(), OutputError> {
        self.command.clone_from(&self.positions);
        Ok(())
    }
}

/// Model and scene, shared by all policies and delays.
struct Rollout {
    session: Session,
    renderers: Vec<Renderer>,
    scene: Arc<Scene>,
    seed: u64,
}

fn open(config: &RobotConfig) -> Result<Rollout, Box<dyn Error>> {
    let loaded = families::load_as(&config.model.path, config.model.family)?;
    let scene = Arc::new(Scene::built_in(config.scene.seed)?);
    let views = loaded.model.config.views.clone();
    let renderers = views
        .iter()
        .map(|view| Renderer::new(Arc::clone(&scene), scene.camera_index(view)?))
        .collect::<Result<Vec<_>, _>>()?;
    let images = renderers.iter().map(Renderer::size).map(|(w, h)| ImageSpec::rgb(w as usize, h as usize)).collect();
    let format = loaded.model.config.prompt;
    let tokens = match (&config.model.tokens, &config.model.prompt) {
        (Some(tokens), _) => tokens.clone(),
        (None, Some(prompt)) => {
            Tokenizer::open_for(&config.model.path, loaded.model.config.vocab)?.text(format, prompt)?
        }
        (None, None) => Vec::new(),
    };
    let options = GpuOptions { allow_software: config.gpu.software, ..GpuOptions::default() };
    let mut session = Session::open(Gpu::open(&options)?, loaded)?;
    let forward = ForwardOptions { images, prompt_tokens: tokens.len(), depth_map: false, guided: true, taps: false };
    session.prepare(&forward, &tokens)?;
    Ok(Rollout { session, renderers, scene, seed: config.model.seed })
}

impl Rollout {
    fn infer(&mut self, positions: &[f32], start: &InferenceStart, seed: u64) -> Result<Vec<f32>, Box<dyn Error>> {
        let mut images = Vec::new();
        for renderer in &mut self.renderers {
            let (width, height) = renderer.size();
            let pixels = width as usize * height as usize;
            let (mut rgb, mut depth) = (vec![0; pixels * 3], vec![0.0; pixels]);
            renderer.render(positions, &mut rgb, &mut depth)?;
            images.push(rgb);
        }
        let images: Vec<&[u8]> = images.iter().map(Vec::as_slice).collect();
        let c = &self.session.loaded().model.config;
        let noise = random::normal(seed, c.horizon * c.action_dim);
        let inputs = Inputs { images: &images, state: positions, noise: &noise };
        let raw = self.session.infer_guided(&inputs, start.guide.as_ref(), false)?.0;
        let raw = raw.first().map(|output| output.values.clone()).unwrap_or_default();
        Ok(finish_actions(self.session.loaded(), positions, raw)?.1)
    }

    fn joints(&self) -> Result<JointTable, Box<dyn Error>> {
        let mut table = JointTable::new();
        for joint in self.scene.joints() {
            let name = Name::new(&joint.name).ok_or("a joint's name is too long")?;
            let spec = JointSpec::new(name, Unit::Radian, joint.limits_rad, joint.velocity_limit_rad_s).with_jump(0.5);
            table.push(spec).map_err(|e| e.to_string())?;
        }
        Ok(table)
    }
}

/// Runs every policy with every delay, and prints a table.
pub(crate) fn run(
    config: RobotConfig,
    seconds: f64,
    delays: &[u64],
    replan_steps: u32,
) -> Result<bool, Box<dyn Error>> {
    let mut rollout = open(&config)?;
    let horizon = rollout.session.loaded().model.config.horizon;
    let rtc = ChunkPolicy::Rtc { horizon: horizon.saturating_sub(2), schedule: Schedule::Exp, max_guidance: 10.0 };
    let policies =
        [("replace", ChunkPolicy::Replace), ("ensemble", ChunkPolicy::Ensemble { decay: 0.01 }), ("rtc", rtc)];
    outln!("adapter: {}", rollout.session.gpu().info());
    outln!(
        "{seconds} simulated seconds each, {} steps a second, chunks of {horizon}, replanned after {replan_steps}\n",
        config.control.action_rate_hz
    );
    outln!(
        "{:<9} {:>8} {:>6} {:>12} {:>14} {:>16} {:>8}",
        "policy",
        "delay ms",
        "joins",
        "jump rad",
        "jerk rad/s^3",
        "in chunks rad/s^3",
        "late"
    );
    let mut jumps = BTreeMap::new();
    for delay_ms in delays {
        for (name, policy) in policies {
            let rules = Rules {
                policy,
                joints: rollout.scene.joints().len(),
                horizon,
                execution_horizon: config.chunks.execution_horizon.unwrap_or(horizon).min(horizon),
                replan_steps: replan_steps.into(),
                period_us: config.control.period_us(),
                validity_us: config.chunks.validity_us(),
            };
            let (found, late) = simulate(&mut rollout, rules, delay_ms * 1000, (seconds * 1e6) as u64)?;
            outln!(
                "{name:<9} {delay_ms:>8} {:>6} {:>12.4} {:>14.1} {:>16.1} {late:>8}",
                found.joins,
                found.jump,
                found.jerk,
                found.inner_jerk
            );
            jumps.insert((*delay_ms, name), (found.joins, found.jump));
        }
    }
    // The purpose of real-time chunking.
    let mut well = true;
    for delay_ms in delays {
        let of = |name| jumps.get(&(*delay_ms, name)).copied().unwrap_or((0, 0.0));
        if of("replace").0 == 0 {
            outln!("FAILED: at {delay_ms} ms no chunk joined another: more --seconds, or fewer --replan-steps");
            well = false;
        } else if of("rtc").1 >= of("replace").1 {
            outln!("FAILED: at {delay_ms} ms real-time chunking jumps as far as plain replacement");
            well = false;
        }
    }
    Ok(well)
}

fn simulate(
    rollout: &mut Rollout,
    rules: Rules,
    delay_us: u64,
    length_us: u64,
) -> Result<(Smoothness, u64), Box<dyn Error>> {
    let initial: Vec<f32> = rollout.scene.initial_positions().collect();
    let output = Joints { positions: initial.clone(), command: initial };
    let table = rollout.joints()?;
    let mut controller = Controller::new(Config::new(table), output, NoEstop);
    let mut planner = Planner::new(rules);
    let mut sequence = 0;
    let mut send = |controller: &mut Controller<Joints, NoEstop>, message: Message<'_>, now_us: u64| {
        sequence += 1;
        let frame = Frame { header: Header::new(sequence, 1, now_us), message };
        match controller.handle(&frame, now_us) {
            Some(Message::Ack(ack)) => Some(ack),
            _ => None,
        }
    };
    let mut joins = Joins::new(rules.period_us as f32 * 1e-6);
    let mut sent: BTreeMap<u32, (u64, Vec<f32>)> = BTreeMap::new();
    let mut at: Option<(u32, u64)> = None;
    // The inference in progress: the time when its chunk is ready, and the chunk.
    let mut inferring: VecDeque<(u64, InferenceStart, Vec<f32>)> = VecDeque::new();
    let (mut seed, mut late) = (rollout.seed, 0);
    let start_us = 1_000_000;
    send(&mut controller, Message::Hello { schema: SCHEMA_HASH }, start_us);
    // The joints are measured before they are armed.
    for ticks in (0..10).rev() {
        let _ = controller.tick(start_us - ticks * TICK_US);
    }
    send(&mut controller, Message::Arm, start_us);
    for now_us in (start_us..start_us + length_us).step_by(TICK_US as usize) {
        controller.output_mut().step();
        if (now_us - start_us) % HEARTBEAT_US == 0 {
            send(&mut controller, Message::Heartbeat, now_us);
        }
        let _ = controller.tick(now_us);
        let active = controller.mode() == Mode::Active;
        let progress = controller.state(&firmware_bridge::frame::Counters::default(), 0).progress;
        // The step in progress, and its join.
        match progress.filter(|_| active) {
            Some(p) => {
                let Some((base, rows)) = sent.get(&p.chunk) else { continue };
                let count = base + u64::from(p.consumed);
                if at != Some((p.chunk, count)) {
                    let row = |base: u64, rows: &[f32]| {
                        let first = count.checked_sub(base)? as usize * rules.joints;
                        rows.get(first..first + rules.joints).map(<[f32]>::to_vec)
                    };
                    let before = at.filter(|(chunk, _)| *chunk != p.chunk).and_then(|(chunk, _)| sent.get(&chunk));
                    let instead = before.and_then(|(base, rows)| row(*base, rows));
                    // A take-over within a step in progress is its join, not a further step.
                    let again = at.is_some_and(|(_, last)| last == count);
                    if let Some(positions) = row(*base, rows) {
                        match (again, instead) {
                            (true, Some(instead)) => joins.replace(p.chunk, &positions, &instead),
                            (_, instead) => joins.step(p.chunk, &positions, instead.as_deref()),
                        }
                    }
                    at = Some((p.chunk, count));
                }
            }
            None => {
                if at.take().is_some() {
                    joins.rest();
                }
            }
        }
        if (now_us - start_us) % REPORT_US == 0 {
            planner.reported(ControllerUs(now_us), active, progress);
            if inferring.is_empty() && planner.wants() {
                let start = planner.start_at(ControllerUs(now_us));
                let positions = controller.output_mut().positions.clone();
                let actions = rollout.infer(&positions, &start, seed)?;
                seed += 1;
                inferring.push_back((now_us + delay_us, start, actions));
            }
        }
        let Some((_, start, mut actions)) = inferring.pop_front_if(|(due_us, ..)| *due_us <= now_us) else { continue };
        for (value, joint) in actions.iter_mut().zip(table.as_slice().iter().cycle()) {
            *value = value.clamp(joint.min, joint.max);
        }
        let Ok(planned) = planner.plan(&start, &actions, ControllerUs(now_us), |_| {}) else {
            late += 1;
            continue;
        };
        let chunk = Message::Chunk(Chunk {
            id: planned.id,
            start_us: planned.start.0,
            period_us: rules.period_us,
            validity_us: planned.validity_us,
            interpolation: Interpolation::Linear,
            joints: rules.joints as u8,
            steps: rules.execution_horizon as u16,
            positions: Positions::Native(&planned.positions),
        });
        match send(&mut controller, chunk, now_us) {
            Some(ack) if ack.reason == Reason::Ok => planner.accepted(planned.id, ack.first_step),
            ack => return Err(format!("a chunk was refused: {ack:?}").into()),
        }
        sent.insert(planned.id, (planned.base, planned.positions.clone()));
        while sent.len() > 4 {
            sent.pop_first();
        }
    }
    Ok((joins.found(), late))
}
