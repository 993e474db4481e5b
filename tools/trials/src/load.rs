//! A long run of the loop on a bad line, with stalls and replugs.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use fathom::config::RobotConfig;
use fathom::events::{LoopEvent, LoopMode};
use fathom::fault::Spec;
use fathom::telemetry::Memory;
use fathom_contention::{Failure, Meter, Processes, Verdict};
use fathom_models::checkpoint::random;
use fathom_models::outln;
use firmware_bridge::message::Mode;
use firmware_bridge::sim::Tick;

use crate::rig::{Keep, report, watch};

/// Share of damaged bytes, in both directions.
const DAMAGED: &str = "serial-flip=0.01";
/// Largest distance of a command from the chunk's range, in radians: rounding.
const SLACK: f32 = 2e-3;
/// Additional distance for each radian per second of the joint's speed: with a top speed of v it brakes by 8 v per
/// second, so from a speed of u it needs u² / 16 v, and u is at most v.
const BRAKING_S: f32 = 1.0 / 16.0;
/// Additional motion of one tick of the simulated controller before it brakes.
const TICK_S: f32 = 2e-3;
/// Time for which chunks may be missing after a fault.
const AFTER: f64 = 3.0;
/// A tick without a step to execute is judged by the time denied since the last chunk was sent, and at least for this
/// long: a chunk lasts 1.5 s, and the inference for the next starts at a step's end.
const REACH: Duration = Duration::from_secs(2);
/// Largest accepted growth of memory after the warm-up, in percent.
const GROWTH: f64 = 2.0;

/// Stalls and replugs, some every ten seconds, none in the first ten and the last five.
fn stalls_and_replugs(seconds: f64, seed: u64) -> Vec<Spec> {
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

/// Counts of a run.
#[derive(Default)]
struct Counts {
    active: Option<Instant>,
    /// The sent chunks: their times, and the range of each joint.
    chunks: BTreeMap<u32, (Instant, Vec<(f32, f32)>)>,
    reports: u64,
    damaged: u32,
    /// The chunk in progress, and for each joint its command at the take-over and the distance that it may still move
    /// from there.
    followed: Option<(u32, Vec<(f32, f32)>)>,
    /// Each joint's command and its recent highest speed, in radians per second.
    commanded: Vec<(f32, f32)>,
    last: Option<Instant>,
    taken_over: u64,
    wrong: Vec<Failure>,
    starved: Option<u32>,
    starved_runs: Vec<Starved>,
    /// Intervals between ticks, for a second.
    gaps: VecDeque<(Instant, f32)>,
}

/// Consecutive ticks without a step to execute.
struct Starved {
    since_s: f64,
    first: Instant,
    last: Instant,
    /// Ticks outside of fault windows.
    outside: u64,
    /// Age of the newest sent chunk, if any, and the longest interval between two ticks of the second before.
    chunk: Option<Duration>,
    gap_s: f32,
}

impl Counts {
    fn see(&mut self, now: Instant, event: &LoopEvent) {
        match event {
            LoopEvent::Mode { to: LoopMode::Active, .. } => {
                self.active.get_or_insert(now);
            }
            LoopEvent::Sent { chunk, .. } => {
                let joints = self.commanded.len().max(1);
                let mut ranges = vec![(f32::INFINITY, f32::NEG_INFINITY); joints];
                for row in chunk.positions.chunks(joints) {
                    for ((low, high), value) in ranges.iter_mut().zip(row) {
                        (*low, *high) = (low.min(*value), high.max(*value));
                    }
                }
                self.chunks.insert(chunk.id, (now, ranges));
                while self.chunks.len() > 64 {
                    self.chunks.pop_first();
                }
            }
            LoopEvent::Report { report, .. } => {
                self.reports += 1;
                self.damaged = report.crc_errors + report.frame_errors;
            }
            _ => {}
        }
    }

    fn tick(&mut self, tick: &Tick, windows: &[(f64, f64)]) {
        let state = &tick.state;
        let dt = self.last.replace(tick.at).map_or(f32::INFINITY, |last| (tick.at - last).as_secs_f32());
        while self.gaps.front().is_some_and(|(at, _)| tick.at - *at > Duration::from_secs(1)) {
            self.gaps.pop_front();
        }
        self.gaps.push_back((tick.at, dt));
        let mut before = std::mem::take(&mut self.commanded);
        before.resize(state.commanded.as_slice().len(), (0.0, 0.0));
        let step = |(now, (before, speed)): (&f32, &(f32, f32))| (*now, ((now - before).abs() / dt).max(speed * 0.9));
        self.commanded = state.commanded.as_slice().iter().zip(&before).map(step).collect();
        if let (Mode::Active, Some(progress)) = (state.mode, state.progress) {
            if self.followed.as_ref().is_none_or(|(id, _)| *id != progress.chunk) {
                self.taken_over += 1;
                let way = |speed: f32| SLACK + speed * (BRAKING_S + TICK_S + dt);
                let both = before.iter().zip(&self.commanded);
                let from = both.map(|((at, speed), (_, now))| (*at, way(speed.max(*now)))).collect();
                self.followed = Some((progress.chunk, from));
            }
            self.check(progress.chunk, tick.at);
        } else {
            self.followed = None;
        }
        let since = self.active.and_then(|at| tick.at.checked_duration_since(at)).map(|s| s.as_secs_f64());
        // A controller that restarted counts from zero.
        let more = self.starved.replace(state.starved).map_or(0, |before| state.starved.saturating_sub(before));
        if let Some(since) = since.filter(|_| more > 0) {
            let outside = !windows.iter().any(|(from, to)| (*from..=*to).contains(&since));
            self.starve(since, tick.at, if outside { u64::from(more) } else { 0 });
        }
    }

    fn starve(&mut self, since_s: f64, at: Instant, outside: u64) {
        let gap_s = self.gaps.iter().map(|(_, dt)| *dt).fold(0.0, f32::max);
        match self.starved_runs.last_mut().filter(|run| at - run.last < Duration::from_millis(100)) {
            Some(run) => {
                run.last = at;
                run.outside += outside;
            }
            None => {
                let sent = self.chunks.values().rev().find_map(|(sent, _)| at.checked_duration_since(*sent));
                self.starved_runs.push(Starved { since_s, first: at, last: at, outside, chunk: sent, gap_s });
            }
        }
    }

    /// Failures from moves and starved ticks.
    fn failures(&self) -> Vec<Failure> {
        let starved = self.starved_runs.iter().filter_map(Starved::failure);
        self.wrong.iter().take(5).cloned().chain(starved).collect()
    }

    /// Checks that every command is between the joint's position at the take-over, with its braking distance, and the
    /// chunk's range.
    fn check(&mut self, id: u32, at: Instant) {
        let Some((_, from)) = &self.followed else { return };
        let Some((_, ranges)) = self.chunks.get(&id) else {
            // Or the thread that records sent chunks has not run since.
            let what = format!("wrong move: chunk {id} was executed, but never sent");
            self.wrong.push(Failure::within(at, Instant::now(), what));
            return;
        };
        for (joint, ((low, high), ((from, way), (at, _)))) in
            ranges.iter().zip(from.iter().zip(&self.commanded)).enumerate()
        {
            let (low, high) = (low.min(*from) - way, high.max(*from) + way);
            if *at < low || *at > high {
                let what = format!("wrong move: joint {joint} at {at}, chunk {id} has {low} to {high}");
                self.wrong.push(Failure::always(what));
            }
        }
    }
}

impl Starved {
    /// A failure of the check, if some of it is outside of fault windows.
    fn failure(&self) -> Option<Failure> {
        let reach = self.chunk.unwrap_or(REACH).max(REACH);
        let from = self.first.checked_sub(reach).unwrap_or(self.first);
        let what = format!("{} starved ticks outside of fault windows, from {:.2} s on", self.outside, self.since_s);
        (self.outside > 0).then(|| Failure::within(from, self.last, what))
    }
}

/// Runs it, and prints the results. `more` faults are not excused.
pub(crate) fn run(config: &RobotConfig, seconds: f64, seed: u64, more: &[Spec]) -> Result<Verdict, Box<dyn Error>> {
    let mut config = config.clone();
    // On such a line a frame of 6 steps is undamaged one time in seven: it is sent until it arrives, and lasts 1.5 s.
    config.control.action_rate_hz = 4.0;
    config.chunks.execution_horizon = Some(6);
    // One inference per step, so that an hour's run leaves the machine usable.
    config.chunks.replan_steps = 1;
    let faults = stalls_and_replugs(seconds, seed);
    outln!("{seconds} s, {DAMAGED}, {} stalls and replugs (seed {seed})", faults.len());
    let windows: Vec<(f64, f64)> =
        faults.iter().map(|spec| (spec.at_s - 0.1, spec.at_s + spec.for_s.unwrap_or(0.0) + AFTER)).collect();
    let mut all = vec![DAMAGED.parse::<Spec>()?];
    all.extend(faults);
    all.extend_from_slice(more);
    let meter = Meter::start(Processes::this());
    let counts = Arc::new(Mutex::new(Counts::default()));
    let (events, ticks) = (Arc::clone(&counts), Arc::clone(&counts));
    let (over, ends) = (Arc::new(AtomicBool::new(false)), Arc::clone(&counts));
    let stop = Arc::clone(&over);
    let memory = thread::spawn(move || memory(seconds, &ends, &stop));
    let seen = watch(
        &config,
        seconds,
        all,
        Keep { loud: false, all: false },
        move |now, event| {
            events.lock().unwrap_or_else(PoisonError::into_inner).see(now, event);
        },
        move |tick| {
            ticks.lock().unwrap_or_else(PoisonError::into_inner).tick(tick, &windows);
        },
    )?;
    over.store(true, Ordering::Relaxed);
    let outcome = match (&seen.outcome, seen.error()) {
        (Ok(outcome), _) => outcome,
        (Err(_), error) => {
            let verdict = meter.judge(&error.into_iter().collect::<Vec<_>>());
            report(&verdict);
            return Ok(verdict);
        }
    };
    let memory = memory.join().map_err(|_| "the thread that samples the memory ended")?;
    let counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    outln!("chunks: {} accepted, {} refused, {} too late", outcome.chunks, outcome.refused, outcome.late);
    outln!("damaged frames seen by the controller: {}, received reports: {}", counts.damaged, counts.reports);
    outln!("take-overs: {}", counts.taken_over);
    outln!("wrong moves: {}", counts.wrong.len());
    counts.wrong.iter().take(5).for_each(|wrong| outln!("  {}", wrong.what));
    let starved: u64 = counts.starved_runs.iter().map(|run| run.outside).sum();
    outln!("starved ticks outside of fault windows: {starved}");
    for Starved { since_s, outside, chunk, gap_s, .. } in counts.starved_runs.iter().filter(|r| r.outside > 0).take(20)
    {
        let chunk = chunk.map_or("none".to_owned(), |age| format!("{} ms before", age.as_millis()));
        outln!("  {outside}, from {since_s:.2} s on: chunk sent {chunk}, {:.0} ms without a tick", gap_s * 1e3);
    }
    let growth = memory.growth();
    let (warm, last) = (mib(memory.warm), mib(memory.last));
    outln!("memory: {warm:.1} MiB after the warm-up, {last:.1} at the end, {growth:+.2} %");
    outln!("whole run: {}", meter.between(seen.began, seen.ended));
    let mut failures = counts.failures();
    let whole = |what| Failure::within(seen.began, seen.ended, what);
    failures.extend((outcome.chunks == 0).then(|| whole("no chunk was accepted")));
    failures.extend((counts.damaged == 0).then(|| whole("nothing was damaged")));
    // If the loop hardly ran during the warm-up, it is warm later.
    let grew = || Failure::within(seen.began, memory.warmed, "the memory grew");
    failures.extend((growth > GROWTH).then(grew));
    let verdict = meter.judge(&failures);
    report(&verdict);
    Ok(verdict)
}

/// Memory of the process.
struct Held {
    warmed: Instant,
    warm: u64,
    last: u64,
}

impl Held {
    /// Growth in percent.
    fn growth(&self) -> f64 {
        (self.last as f64 / self.warm as f64 - 1.0) * 100.0
    }
}

/// Samples the memory when the loop is warm (after a quarter of the run, at most a minute) and just before the end.
fn memory(seconds: f64, counts: &Mutex<Counts>, over: &AtomicBool) -> Held {
    let held = || {
        let memory = Memory::now();
        memory.anonymous + memory.shared
    };
    let active = || counts.lock().unwrap_or_else(PoisonError::into_inner).active;
    let until = |after_s: f64| {
        let due = |active: Instant| active.elapsed().as_secs_f64() >= after_s;
        while !over.load(Ordering::Relaxed) && !active().is_some_and(due) {
            thread::sleep(Duration::from_millis(20));
        }
    };
    until((seconds / 4.0).min(60.0));
    let (warmed, warm) = (Instant::now(), held());
    until(seconds - 0.5);
    Held { warmed, warm, last: held() }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use fathom_contention::{History, Totals, judge};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A run in which ticks starved at these times, in milliseconds since its start, and others held a processor in the seconds
    /// of `busy`.
    fn verdict(starving: &[u32], outside: u64, busy: &[u32]) -> Verdict {
        let start = Instant::now() + Duration::from_secs(10);
        let mut counts = Counts::default();
        for ms in starving {
            counts.starve(f64::from(*ms) * 1e-3, start + MS * *ms, outside);
        }
        let (mut history, mut totals) = (History::default(), Totals::default());
        for tenth in 0..300_u32 {
            history.push(start + MS * 100 * tenth, totals);
            let denied = if busy.contains(&(tenth / 10)) { MS * 60 } else { Duration::ZERO };
            totals.waited += denied + MS;
            totals.own += MS * 80;
            totals.busy += MS * 82 + denied;
        }
        judge(&counts.failures(), &history)
    }

    #[test]
    fn starved_ticks_are_judged_by_the_second_in_which_they_were() {
        let not_judged = |verdict: Verdict| matches!(verdict, Verdict::NotJudged(_));
        let failed = |verdict: Verdict| matches!(verdict, Verdict::Failed(_));
        let all: Vec<u32> = (0..30).collect();
        assert!(failed(verdict(&[12_000, 12_002, 12_004], 1, &[])), "denied nothing");
        assert!(not_judged(verdict(&[12_000, 12_002, 12_004], 1, &[11])), "denied much");
        assert_eq!(verdict(&[], 1, &all), Verdict::Passed, "denied much, and all was well");
        assert_eq!(verdict(&[12_000], 0, &[]), Verdict::Passed, "in a fault window");
        assert!(failed(verdict(&[12_000], 1, &[4, 14])), "denied at another time");
        assert!(failed(verdict(&[12_000, 20_000], 1, &[11])), "one busy second leaves the rest to be judged");
        assert!(not_judged(verdict(&[12_000, 20_000], 1, &[11, 19])));
    }

    #[test]
    fn a_wrong_move_is_wrong_on_a_busy_machine_too() {
        let mut counts = Counts { commanded: vec![(1.5, 0.0)], ..Counts::default() };
        counts.followed = Some((7, vec![(0.0, 0.1)]));
        counts.chunks.insert(7, (Instant::now(), vec![(0.0, 1.0)]));
        counts.check(7, Instant::now());
        let failures = counts.failures();
        assert!(
            matches!(&failures[..], [Failure { window: None, what }] if what.contains("joint 0 at 1.5")),
            "{failures:?}"
        );
    }
}
