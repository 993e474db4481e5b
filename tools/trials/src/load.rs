//! The loop on a bad line, with stalls and replugs, for long.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fathom::config::RobotConfig;
use fathom::control::Sight;
use fathom::fault::Spec;
use fathom::telemetry::Memory;
use fathom_models::random;
use firmware_bridge::message::Mode;
use firmware_bridge::sim::SimConfig;

use crate::rig::{Keep, watch};

/// Share of bytes with a bit turned, both ways.
const DAMAGED: &str = "serial-flip=0.01";
/// A command is this far from the chunk's own range at most, in radians: rounding.
const SLACK: f32 = 2e-3;
/// And this much for each radian per second that the joint had: it brakes with eight times its top speed per second, which
/// takes up to a sixteenth, and half of the reports do not come through.
const BRAKING: f32 = 0.125;
/// After a fault the loop may take this long until a chunk is followed again.
const AFTER: f64 = 3.0;
/// How much of the memory after the warm-up may be added, in percent.
const GROWTH: f64 = 2.0;

/// Stalls and replugs, some every ten seconds, none in the first ten and the last five.
fn misfortunes(seconds: f64, seed: u64) -> Vec<Spec> {
    let kinds = ["camera-stall", "camera-unplug", "serial-unplug"];
    let count = (seconds / 10.0) as usize;
    let rolls = random::normal(seed, 3 * count.max(1));
    let share = |n: usize| f64::from(rolls.get(n).copied().unwrap_or(0.0)).abs().fract();
    let made = (1..count).map(|n| {
        let kind = kinds[(share(3 * n) * 3.0) as usize % kinds.len()];
        let (at, lasts) = (n as f64 * 10.0 + share(3 * n + 1) * 2.0, 0.5 + share(3 * n + 2) * 1.5);
        format!("{kind}@{at:.2}+{lasts:.2}").parse()
    });
    made.filter_map(Result::ok).filter(|spec: &Spec| spec.at_s + 5.0 + spec.for_s.unwrap_or(0.0) < seconds).collect()
}

/// What is counted while it runs.
#[derive(Default)]
struct Counts {
    /// Time between two reports.
    telemetry_us: u32,
    active: Option<Instant>,
    /// Ranges of each joint of the chunks that were sent.
    chunks: BTreeMap<u32, Vec<(f32, f32)>>,
    /// The chunk that is followed, with the range in which each joint's command was at its take-over.
    followed: Option<(u32, Vec<(f32, f32)>)>,
    commanded: Vec<f32>,
    /// Highest speed of each joint lately, in radians per second, and when the last report was made.
    speeds: Vec<f32>,
    reported_us: u64,
    reports: u64,
    taken_over: u64,
    /// Take-overs of which the report before was lost.
    unseen: u64,
    wrong: Vec<String>,
    wrong_moves: u64,
    starved: Option<u32>,
    starved_outside: u64,
    damaged: u32,
}

impl Counts {
    fn see(&mut self, now: Instant, sight: &Sight, windows: &[(f64, f64)]) {
        match sight {
            Sight::State(state) if *state == fathom::control::core::State::Active => {
                self.active.get_or_insert(now);
            }
            Sight::State(_) => {}
            Sight::Sent { id, positions, .. } => {
                let joints = self.commanded.len().max(1);
                let mut ranges = vec![(f32::INFINITY, f32::NEG_INFINITY); joints];
                for row in positions.chunks(joints) {
                    for ((low, high), value) in ranges.iter_mut().zip(row) {
                        (*low, *high) = (low.min(*value), high.max(*value));
                    }
                }
                self.chunks.insert(*id, ranges);
                while self.chunks.len() > 64 {
                    self.chunks.pop_first();
                }
            }
            Sight::Report { report, controller_us } => {
                self.reports += 1;
                self.damaged = report.crc_errors + report.frame_errors;
                let commanded = report.commanded.as_slice().to_vec();
                let dt_us = controller_us.saturating_sub(self.reported_us).max(1);
                let dt_s = dt_us as f32 * 1e-6;
                self.reported_us = *controller_us;
                let lost = 2 * dt_us > 3 * u64::from(self.telemetry_us);
                self.speeds.resize(commanded.len(), 0.0);
                for ((speed, now), before) in self.speeds.iter_mut().zip(&commanded).zip(&self.commanded) {
                    *speed = ((now - before).abs() / dt_s).max(*speed * 0.9);
                }
                if let (Mode::Active, Some(progress)) = (report.mode, report.progress) {
                    if self.followed.as_ref().is_none_or(|(id, _)| *id != progress.chunk) {
                        self.taken_over += 1;
                        self.unseen += u64::from(lost);
                        self.followed = Some((progress.chunk, self.before(progress.chunk, lost)));
                    }
                    self.check(progress.chunk, &commanded);
                } else {
                    self.followed = None;
                }
                self.commanded = commanded;
                let since = self.active.map(|at| now.saturating_duration_since(at).as_secs_f64());
                let excused = since.is_none_or(|s| windows.iter().any(|(from, to)| (*from..=*to).contains(&s)));
                if let Some(before) = self.starved.replace(report.starved)
                    && !excused
                {
                    // A controller that restarted counts anew.
                    self.starved_outside += u64::from(report.starved.saturating_sub(before));
                }
            }
        }
    }

    /// Where each joint's command can have been when chunk `id` took over: as last reported; where a report in between was
    /// lost, anywhere along the chunks before, too. There a move that one of these has is not told from a right one.
    fn before(&self, id: u32, lost: bool) -> Vec<(f32, f32)> {
        let mut ranges: Vec<_> = self.commanded.iter().map(|at| (*at, *at)).collect();
        if let Some((before, _)) = self.followed.as_ref().filter(|_| lost) {
            for (_, chunk) in self.chunks.range(*before..id) {
                for ((low, high), (l, h)) in ranges.iter_mut().zip(chunk) {
                    (*low, *high) = (low.min(*l), high.max(*h));
                }
            }
        }
        ranges
    }

    /// Every command is between where the joint was when the chunk took over and what the chunk has.
    fn check(&mut self, id: u32, commanded: &[f32]) {
        let Some((_, from)) = &self.followed else { return };
        let Some(ranges) = self.chunks.get(&id) else {
            self.wrong_moves += 1;
            self.wrong.push(format!("chunk {id} was followed, and never sent"));
            return;
        };
        for (joint, ((low, high), (from, at))) in ranges.iter().zip(from.iter().zip(commanded)).enumerate() {
            let slack = SLACK + self.speeds.get(joint).copied().unwrap_or(0.0) * BRAKING;
            let (low, high) = (low.min(from.0) - slack, high.max(from.1) + slack);
            if *at < low || *at > high {
                self.wrong_moves += 1;
                self.wrong.push(format!("joint {joint} at {at}, chunk {id} has {low} to {high}"));
            }
        }
    }
}

/// Runs it, and prints what was found. Whether all was well.
pub(crate) fn run(config: &RobotConfig, seconds: f64, seed: u64) -> Result<bool, Box<dyn Error>> {
    let mut config = config.clone();
    // A frame of 6 steps is whole once in seven times on such a line: it is sent until it is, and lasts 1.5 s.
    config.control.action_rate_hz = 4.0;
    config.chunks.execution_horizon = Some(6);
    // And a thought for each step, so that an hour of it leaves a machine to others.
    config.chunks.replan_steps = 1;
    let faults = misfortunes(seconds, seed);
    println!("{seconds} s, {DAMAGED}, {} stalls and replugs (seed {seed})", faults.len());
    let windows: Vec<(f64, f64)> =
        faults.iter().map(|spec| (spec.at_s - 0.1, spec.at_s + spec.for_s.unwrap_or(0.0) + AFTER)).collect();
    let mut all = vec![DAMAGED.parse::<Spec>()?];
    all.extend(faults);
    let telemetry_us = SimConfig::new(Vec::new()).telemetry_us;
    let counts = Arc::new(Mutex::new(Counts { telemetry_us, ..Counts::default() }));
    let theirs = Arc::clone(&counts);
    let memory = thread::spawn(move || {
        let rss = || {
            let memory = Memory::now();
            memory.anonymous + memory.shared
        };
        // Warm after a quarter of the time, and after a minute at most, with the opening before.
        thread::sleep(Duration::from_secs_f64((seconds / 4.0).min(60.0) + 5.0));
        let warm = rss();
        thread::sleep(Duration::from_secs_f64((seconds - (seconds / 4.0).min(60.0) - 5.0).max(0.0)));
        (warm, rss())
    });
    let seen = watch(&config, seconds, all, Keep { loud: false, all: false }, move |now, sight| {
        theirs.lock().unwrap_or_else(PoisonError::into_inner).see(now, sight, &windows);
    })?;
    let (warm, last) = memory.join().map_err(|_| "the thread that looks at the memory ended")?;
    let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    let outcome = seen.outcome?;
    let growth = (last as f64 / warm as f64 - 1.0) * 100.0;
    println!("chunks: {} obeyed, {} refused, {} too late", outcome.chunks, outcome.refused, outcome.late);
    println!(
        "damaged frames seen by the controller: {}, reports that came through: {}",
        counts.damaged, counts.reports
    );
    println!("take-overs: {}, the report before lost of {}", counts.taken_over, counts.unseen);
    println!("wrong moves: {}", counts.wrong_moves);
    counts.wrong.iter().take(5).for_each(|wrong| println!("  {wrong}"));
    println!("starved ticks outside of fault windows: {}", counts.starved_outside);
    println!("memory: {:.1} MiB after the warm-up, {:.1} at the end, {growth:+.2} %", mib(warm), mib(last));
    let well = [
        (outcome.chunks > 0, "no chunk was obeyed"),
        (counts.damaged > 0, "nothing was damaged"),
        (counts.wrong_moves == 0, "wrong moves"),
        (counts.starved_outside == 0, "starved ticks outside of fault windows"),
        (growth <= GROWTH, "the memory grew"),
    ];
    for (_, problem) in well.iter().filter(|(well, _)| !well) {
        println!("FAILED: {problem}");
    }
    Ok(well.iter().all(|(well, _)| *well))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
