//! Inference alone: rounds on synthetic inputs, and the cost of measuring.

use std::time::{Duration, Instant};

use fathom::clock::monotonic_ns;
use fathom::engine::{Inputs, Session};
use fathom::gpu::GpuTimes;
use fathom::telemetry::{EventWriter, RingReader, RingWriter, Stage, StageTable, Track, counter, stage};
use fathom_models::checkpoint::random;
use fathom_models::nets::image::ImageSpec;

use crate::Failure;
use crate::collect::Watch;
use crate::result::{Cost, Section};
use crate::watch::{Pump, TraceFile};

/// Extent of a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Amount {
    pub(crate) rounds: u32,
    /// Inferences of a round.
    pub(crate) count: u32,
    /// Inferences run until the clocks have ramped up.
    pub(crate) warm_up: Duration,
    pub(crate) deadline_ns: Option<u64>,
}

/// The model's inputs: the same images, noise from a seed.
pub(crate) struct Synthetic {
    bytes: Vec<u8>,
    views: usize,
    state: Vec<f32>,
    noise: usize,
    seed: u64,
}

impl Synthetic {
    pub(crate) fn of(session: &Session, spec: ImageSpec, seed: u64) -> Synthetic {
        let config = &session.loaded().model.config;
        Synthetic {
            bytes: random::normal(seed, spec.bytes()).iter().map(|v| (v * 64.0 + 128.0) as u8).collect(),
            views: config.views.len(),
            state: vec![0.0; *session.loaded().state_dims.start()],
            noise: config.horizon * config.action_dim,
            seed,
        }
    }

    /// One inference: its start, its end, and its times.
    pub(crate) fn infer(
        &self,
        session: &mut Session,
        number: u64,
        profile: bool,
    ) -> Result<(u64, u64, GpuTimes), Failure> {
        let images = vec![self.bytes.as_slice(); self.views];
        let began_ns = monotonic_ns();
        let noise = random::normal(self.seed + number, self.noise);
        let inputs = Inputs { images: &images, state: &self.state, noise: &noise };
        let (_, times) = session.infer(&inputs, profile)?;
        Ok((began_ns, monotonic_ns(), times))
    }
}

/// Warm-up and rounds. Returns the trace, if any, and notes on it.
pub(crate) fn measure(
    session: &mut Session,
    inputs: &Synthetic,
    amount: &Amount,
    trace: Option<TraceFile>,
) -> Result<(Section, Option<String>), Failure> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ring");
    let mut writer = EventWriter::over(RingWriter::create_at(&path, "{}", 1 << 12)?);
    let path_deadline = amount.deadline_ns;
    let watch = Watch { name: "inference", path: stage::INFERENCE, deadline_ns: path_deadline, ..Watch::default() };
    let mut pump = Pump::new(RingReader::open(&path)?, watch, trace);
    let mut cold = StageTable::default();
    let mut number = 0;
    let warmed = Instant::now() + amount.warm_up;
    // The first one compiles; the others let the clocks ramp up.
    loop {
        let (began_ns, ended_ns, _) = inputs.infer(session, number, false)?;
        cold.record(if number == 0 { stage::COLD } else { "cold: while clocks ramp up" }, ended_ns - began_ns);
        number += 1;
        if Instant::now() >= warmed {
            break;
        }
    }
    for _ in 0..amount.rounds {
        for _ in 0..amount.count {
            let (began_ns, ended_ns, times) = inputs.infer(session, number, false)?;
            writer.inference(&times, number as u32, began_ns, ended_ns);
            number += 1;
            pump.pump();
        }
        pump.collector.end_round();
    }
    let section = pump.section(cold.stages());
    Ok((section, pump.end()))
}

/// Inferences with and without GPU time stamps in turn, and the cost of writing the events.
pub(crate) fn cost(session: &mut Session, inputs: &Synthetic, amount: &Amount, tick_ns: u64) -> Result<Cost, Failure> {
    let rounds = amount.rounds.max(3);
    let count = u64::from(amount.count.max(3));
    let (mut all, mut percents, mut times) = ([Vec::new(), Vec::new()], Vec::new(), GpuTimes::default());
    for _ in 0..rounds {
        let mut round = [Vec::new(), Vec::new()];
        for n in 0..count {
            for (on, into) in round.iter_mut().enumerate() {
                session.set_times(on == 1);
                let (began_ns, ended_ns, found) = inputs.infer(session, n, false)?;
                into.push(ended_ns - began_ns);
                if on == 1 {
                    times = found;
                }
            }
        }
        let [off, on] = round.each_ref().map(|r| median(r) as f64);
        percents.push((on / off.max(1.0) - 1.0) * 100.0);
        all.iter_mut().zip(round).for_each(|(all, round)| all.extend(round));
    }
    session.set_times(true);
    let mean = percents.iter().sum::<f64>() / percents.len() as f64;
    let spread = percents.iter().map(|p| (p - mean).powi(2)).sum::<f64>() / (percents.len() - 1) as f64;
    let [inference_off_ns, inference_on_ns] = all.each_ref().map(|v| median(v));
    let writing = writing(&times)?;
    Ok(Cost {
        rounds: rounds.into(),
        inference_off_ns,
        inference_on_ns,
        percent: mean,
        noise_percent: (spread / f64::from(rounds)).sqrt(),
        events_per_inference: writing.events,
        inference_events_ns: writing.inference_ns,
        tick_events_ns: writing.tick_ns,
        percent_of_tick: (writing.inference_ns + writing.tick_ns) as f64 / tick_ns.max(1) as f64 * 100.0,
    })
}

fn median(values: &[u64]) -> u64 {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or(0)
}

struct Writing {
    events: u64,
    inference_ns: u64,
    tick_ns: u64,
}

/// Cost of the control loop's own calls: of a tick, and of an inference with its chunk.
fn writing(times: &GpuTimes) -> Result<Writing, Failure> {
    const TIMES: u64 = 2000;
    const TICK_EVENTS: u64 = 3;
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("ring");
    let mut r = EventWriter::over(RingWriter::create_at(&path, "{}", 1 << 14)?);
    let tick = |r: &mut EventWriter, n: u64| {
        r.span(Track::Control, stage::LATENESS, 0, n, n + 1000);
        r.counter(Track::Controller, counter::STEPS_LEFT, n, 3);
        r.counter(Track::Controller, counter::STARVED, n, 3);
    };
    let inference = |r: &mut EventWriter, n: u64| {
        r.inference(times, n as u32, n, n + 1000);
        let around = [
            (Track::Camera(0), stage::CAPTURE),
            (Track::Control, stage::WAIT),
            (Track::Inference, stage::HANDOVER),
            (Track::Inference, stage::UNNORMALISE),
            (Track::Control, stage::COLLECT),
            (Track::Control, stage::MERGE),
            (Track::Control, stage::WRITE),
            (Track::Path, stage::PERIOD),
            (Track::Link, stage::APPLIED),
            (Track::Controller, stage::ACK),
            (Track::Path, stage::AGE),
            (Track::Path, stage::ROUND),
        ];
        around.iter().for_each(|(track, name)| r.span(*track, name, n as u32, n, n + 1000));
        r.counter(Track::Controller, counter::CLOCK_ERROR, n, 3);
    };
    let mut reader = RingReader::open(&path)?;
    inference(&mut r, 1);
    tick(&mut r, 1);
    let mut events = Vec::new();
    reader.read(&mut events);
    let timed = |r: &mut EventWriter, f: &dyn Fn(&mut EventWriter, u64)| {
        let began_ns = monotonic_ns();
        (0..TIMES).for_each(|n| f(r, n));
        (monotonic_ns() - began_ns) / TIMES
    };
    let tick_ns = timed(&mut r, &tick);
    let inference_ns = timed(&mut r, &inference);
    Ok(Writing { events: events.len() as u64 - TICK_EVENTS, inference_ns, tick_ns })
}

/// Medians of the stages that were measured.
pub(crate) fn p50_of<'a>(section: &'a Section, name: &str) -> Option<&'a Stage> {
    section.stages.iter().map(|r| &r.stage).find(|s| s.name == name)
}
