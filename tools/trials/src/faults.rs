//! Trials of every fault.

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use fathom::camera::CameraError;
use fathom::clock::ControllerUs;
use fathom::config::{RecordSection, RobotConfig};
use fathom::control::RunError;
use fathom::events::{Detail, FaultPhase, ImageProblem, LoopEvent, ModeEvent};
use fathom::fault::Spec;
use fathom_contention::{Failure, Meter, Processes, Verdict};
use fathom_models::io::console;
use fathom_models::outln;
use firmware_bridge::fault::Fault;
use firmware_bridge::message::Mode;
use rustix::io::dup;
use rustix::stdio::{dup2_stderr, stderr};

use crate::recording;
use crate::rig::{Keep, Watched, report, watch};

/// Joints that move less than this, in radians, within [`REST`] are at rest.
const AT_REST: f32 = 1e-3;
/// After a restart of the controller the loop moves again within a tenth of a second.
const REST: Duration = Duration::from_millis(50);
/// A moving arm covers at least this distance within [`RECOVERED`], in radians.
const MOVES: f32 = 2e-2;
/// Time limit for the loop to move the arm again after a fault.
const RECOVERED: Duration = Duration::from_secs(3);
/// A controller's tick, and its largest lateness on a busy computer.
const TICK_US: u64 = 50_000;
/// Largest interval between messages from the controller during faults on other parts: the loop must not wait.
const RECEIVED: Duration = Duration::from_millis(500);
/// Number of attempts while other work holds the processors.
const TRIES: u32 = 3;

/// A fault, and the loop's expected reaction.
struct Trial {
    kind: &'static str,
    value: &'static str,
    /// Its duration, in seconds; 0 for a fault without one.
    lasts: f64,
    /// The time from the fault's start until the arm rests; `None` if it keeps moving.
    rests: Option<Duration>,
    /// Expected events, with their names.
    shows: &'static [Shown],
    /// The fault that the controller latches, and with which the loop ends.
    ends: Option<fn(&Detail) -> bool>,
}

/// An expected event.
type Shown = (&'static str, fn(&LoopEvent) -> bool);

const GONE: Shown = ("no camera", |e| matches!(detail(e), Some(Detail::Images(ImageProblem::Gone { .. }))));
const OLD: Shown = ("old images", |e| matches!(detail(e), Some(Detail::Images(ImageProblem::Old { .. }))));
const NO_BYTES: Shown = ("an empty image", |e| matches!(camera(e), Some(CameraError::NoBytes { .. })));
const CUT: Shown = ("a picture that cannot be decoded", |e| matches!(camera(e), Some(CameraError::Decode { .. })));
const LINE_LOST: Shown = ("a lost line", |e| matches!(e, LoopEvent::Mode { event: ModeEvent::LinkLost, .. }));
const SILENT: Shown = ("a silent controller", |e| matches!(detail(e), Some(Detail::ControllerSilent { .. })));
const RESTARTED: Shown = ("a restarted controller", |e| matches!(detail(e), Some(Detail::ControllerRestarted)));
const LATCHED: Shown = ("a latched fault", |e| matches!(detail(e), Some(Detail::Latched { .. })));
const NOT_PLANNED: Shown = ("a chunk that is too late", |e| matches!(e, LoopEvent::NotPlanned { .. }));
const GPU_LOST: Shown = ("a lost GPU", |e| matches!(e, LoopEvent::GpuLost { .. }));
const JUMPED: Shown = ("a clock that jumped", |e| matches!(e, LoopEvent::ClockJumped { .. }));
const WALL_CLOCK: Shown = ("a wall clock that was set", |e| matches!(e, LoopEvent::WallClockSet { .. }));
const STOPPED: Shown = ("the recording's end", |e| matches!(e, LoopEvent::RecordingStopped { .. }));

/// The reason for a change of the loop's mode.
fn detail(event: &LoopEvent) -> Option<&Detail> {
    if let LoopEvent::Mode { detail, .. } = event { Some(detail) } else { None }
}

/// A camera's error.
fn camera(event: &LoopEvent) -> Option<&CameraError> {
    if let LoopEvent::NoImage { error, .. } = event { Some(error) } else { None }
}

/// The value and the highest allowed one of a fault that the controller latched.
fn latched(detail: &Detail, faults: &[Fault]) -> Option<(f32, f32)> {
    match detail {
        Detail::Latched { fault, report: Some(report), .. } if faults.contains(fault) => {
            Some((report.value, report.high))
        }
        _ => None,
    }
}

impl Trial {
    fn is_of_log(&self) -> bool {
        self.kind.starts_with("log-")
    }
}

/// The bounds follow from the demo's configuration: the images' greatest age, the simulated controller's deadman time
/// of 1 s, the length of a chunk.
/// controller's deadman time of 1 s, the length of a chunk.
fn trials(config: &RobotConfig, quick: bool) -> Vec<Trial> {
    let lasts = if quick { 1.5 } else { 3.0 };
    let settle = Duration::from_millis(300); // ramp to rest, lag of the joints, ticks
    let age = Duration::from_millis(config.control.max_image_age_ms) + settle;
    let deadman = Duration::from_secs(1) + settle;
    let trial = |kind, value, lasts, rests, shows| Trial { kind, value, lasts, rests, shows, ends: None };
    // The time until a joint's fault is latched, from the joint table.
    let ends = |kind, value, detected_ms, fault| {
        let rests = Some(Duration::from_millis(detected_ms) + settle);
        Trial { kind, value, lasts: 30.0, rests, shows: &[LATCHED], ends: Some(fault) }
    };
    vec![
        trial("camera-unplug", "", lasts, Some(Duration::from_millis(200) + settle), &[GONE]),
        trial("camera-stall", "", lasts + 1.0, Some(age), &[OLD]),
        trial("camera-corrupt", "=1", lasts + 1.0, Some(age), &[OLD]),
        trial("camera-empty", "=1", lasts + 1.0, Some(age), &[NO_BYTES, OLD]),
        trial("camera-cut", "=1", lasts + 1.0, Some(age), &[CUT, OLD]),
        trial("camera-drop", "=0.5", lasts, None, &[]),
        trial("serial-unplug", "", lasts, Some(deadman), &[LINE_LOST]),
        trial("serial-delay", "=1.5", lasts + 1.0, Some(deadman), &[SILENT]),
        trial("serial-flip", "=0.003", lasts, None, &[]),
        trial("serial-loss", "=0.003", lasts, None, &[]),
        trial("controller-reset", "", 0.0, Some(settle), &[RESTARTED]),
        trial("wrong-reading", "=-3", 0.0, None, &[]),
        ends("stuck-reading", "=-3", 50, |d| {
            latched(d, &[Fault::ImplausibleReading]).is_some_and(|(at, _)| at == -3.0)
        }),
        ends("stalled-joint", "", 2000, |d| latched(d, &[Fault::Stalled, Fault::FollowingError]).is_some()),
        ends("hot-motor", "=75", 20, |d| latched(d, &[Fault::Overheated]) == Some((75.0, 70.0))),
        trial("slow-gpu", "=2.2", lasts + 1.5, Some(chunk(config) + Duration::from_secs(1)), &[NOT_PLANNED]),
        trial("device-lost", "", 0.0, None, &[GPU_LOST]),
        trial("clock-jump", "=2", 0.0, None, &[JUMPED]),
        trial("wall-clock", "=-1000000000", 0.0, None, &[WALL_CLOCK]),
        trial("disk-full", "", lasts, None, &[STOPPED]),
        trial("log-gone", "=50", lasts, None, &[]),
        trial("log-stall", "=50", lasts, None, &[]),
    ]
}

/// Time for which the controller executes its last chunk.
fn chunk(config: &RobotConfig) -> Duration {
    let steps = config.chunks.execution_horizon.unwrap_or(16) as f64;
    Duration::from_secs_f64(steps / config.control.action_rate_hz)
}

/// Runs all trials, and prints a table. A fault that cannot be judged is tried again.
pub(crate) fn run(
    config: &RobotConfig,
    quick: bool,
    only: Option<&str>,
    loud: bool,
) -> Result<Verdict, Box<dyn Error>> {
    let mut config = config.clone();
    // So that a chunk which is too late for its images is not sent.
    config.chunks.validity_ms = 2000;
    outln!("{:<24} {:>9} {:>9} {:>9}  result", "fault", "rests in", "bound", "again in");
    let meter = Meter::start(Processes::this());
    let (mut passed, mut failed, mut not_judged) = (0, 0, 0);
    let mut all = Verdict::Passed;
    for trial in trials(&config, quick) {
        if only.is_some_and(|only| !trial.kind.contains(only)) {
            continue;
        }
        let (mut found, mut verdict) = tried(&config, &trial, quick, loud, &meter)?;
        for _ in 1..TRIES {
            if matches!(verdict, Verdict::NotJudged(_)) {
                (found, verdict) = tried(&config, &trial, quick, loud, &meter)?;
            }
        }
        let ms = |d: Option<Duration>| d.map_or("-".to_owned(), |d| format!("{} ms", d.as_millis()));
        let word = match &verdict {
            Verdict::Passed => "ok".to_owned(),
            Verdict::Failed(wrong) => format!("FAILED: {}", wrong.join("; ")),
            Verdict::NotJudged(wrong) => format!("NOT JUDGED, the machine was busy: {}", wrong.join("; ")),
        };
        let (rested, bound, again) = (ms(found.rested), ms(trial.rests), ms(found.again));
        outln!("{:<24} {rested:>9} {bound:>9} {again:>9}  {word}", format!("{}{}", trial.kind, trial.value));
        passed += usize::from(verdict == Verdict::Passed);
        failed += usize::from(matches!(verdict, Verdict::Failed(_)));
        not_judged += usize::from(matches!(verdict, Verdict::NotJudged(_)));
        all = all.and(verdict);
    }
    outln!("{passed} passed, {failed} failed, {not_judged} not judged");
    if passed + failed + not_judged == 0 {
        all = Verdict::Failed(vec!["no fault matches this name".to_owned()]);
        report(&all);
    }
    Ok(all)
}

/// Runs one trial, and judges its failures.
fn tried(
    config: &RobotConfig,
    trial: &Trial,
    quick: bool,
    loud: bool,
    meter: &Meter,
) -> Result<(Found, Verdict), Box<dyn Error>> {
    let found = one(config, trial, quick, loud)?;
    let verdict = meter.judge(&found.wrong);
    Ok((found, verdict))
}

struct Found {
    rested: Option<Duration>,
    again: Option<Duration>,
    wrong: Vec<Failure>,
}

fn one(config: &RobotConfig, trial: &Trial, quick: bool, loud: bool) -> Result<Found, Box<dyn Error>> {
    let at = if quick { 1.5 } else { 3.0 };
    let text = match trial.lasts {
        0.0 => format!("{}{}@{at}", trial.kind, trial.value),
        lasts => format!("{}{}@{at}+{lasts}", trial.kind, trial.value),
    };
    let spec: Spec = text.parse()?;
    let mut config = config.clone();
    let folder = tempfile::tempdir()?;
    if matches!(trial.kind, "disk-full" | "wall-clock") {
        config.record = Some(RecordSection { folder: folder.path().to_owned(), limit_mb: 64 });
    }
    let lasts = if trial.ends.is_some() { 5.0 } else { trial.lasts };
    let seconds = at + lasts + RECOVERED.as_secs_f64() + 0.5;
    // Blocked output must be pending.
    let quiet = if trial.is_of_log() && !loud { Some(Quiet::begin()?) } else { None };
    let loud = loud || trial.is_of_log();
    let seen = watch(&config, seconds, vec![spec], Keep { loud, all: true }, |_, _| {}, |_| {})?;
    drop(quiet);
    let mut found = judge(trial, &seen);
    if trial.kind == "wall-clock" {
        let wrong = recording::check(&config, folder.path(), &seen, loud)?;
        found.wrong.extend(wrong.into_iter().map(|what| Failure::within(seen.began, seen.ended, what)));
    }
    Ok(found)
}

/// The failures, each with the time in which the product had to react.
fn judge(trial: &Trial, seen: &Watched) -> Found {
    let mut wrong = Vec::new();
    match (&seen.outcome, trial.ends) {
        (Err(RunError::Fault { detail, .. }), Some(ends)) if ends(detail) => {}
        (Err(_), _) => wrong.extend(seen.error()),
        (Ok(_), Some(_)) => wrong.push(Failure::within(seen.began, seen.ended, "the loop did not end")),
        (Ok(_), None) => {}
    }
    let phase = |is: fn(FaultPhase) -> bool| {
        seen.first(None, |event| matches!(event, LoopEvent::Injected { phase, .. } if is(*phase)))
    };
    let begin = phase(|phase| phase != FaultPhase::Ends);
    let Some(begin) = begin else {
        wrong.push(Failure::within(seen.began, seen.ended, "the fault did not happen"));
        return Found { rested: None, again: None, wrong };
    };
    for (name, is) in trial.shows {
        if seen.first(Some(begin), is).is_none() {
            wrong.push(Failure::within(begin, seen.ended, format!("no event of {name}")));
        }
    }
    let lasted = trial.lasts != 0.0 && trial.ends.is_none();
    let over = phase(|phase| phase == FaultPhase::Ends).filter(|_| lasted);
    let rested = rest(seen, begin, over).filter(|_| trial.rests.is_some());
    let end = if trial.lasts == 0.0 { Some(begin + rested.unwrap_or_default()) } else { over };
    if let Some(bound) = trial.rests {
        match rested {
            None => wrong.push(Failure::within(begin, over.unwrap_or(seen.ended), "the arm did not come to rest")),
            Some(after) if after > bound => {
                wrong.push(Failure::within(begin, begin + after, "the arm came to rest too late"));
            }
            Some(_) => {}
        }
    }
    let again = end.and_then(|end| moves(seen, end)).map(|at| at.saturating_duration_since(end.unwrap_or(at)));
    match (end, again) {
        _ if trial.ends.is_some() => {}
        (None, _) => wrong.push(Failure::within(begin, seen.ended, "the fault did not end")),
        (Some(end), None) => wrong.push(Failure::within(end, seen.ended, "the arm did not move again")),
        (Some(end), Some(after)) if after > RECOVERED => {
            wrong.push(Failure::within(end, end + after, "the arm moved again too late"));
        }
        _ => {}
    }
    if trial.is_of_log() {
        wrong.extend(over.and_then(|over| waited(seen, begin, over)));
    }
    wrong.extend(outlived(seen));
    Found { rested, again, wrong }
}

/// Time from `begin` until the arm rested: until the end of a lasting fault, or for [`REST`] after an instant one.
fn rest(seen: &Watched, begin: Instant, end: Option<Instant>) -> Option<Duration> {
    // The event of the end is a loop tick late.
    let last = end.map_or(seen.joints.last()?.0, |end| end - REST);
    let mut starts = seen.joints.iter().map(|(at, _)| *at).filter(|at| *at >= begin && *at + REST <= last);
    let still = |at: &Instant| seen.moved(*at, *at + REST) < AT_REST;
    let start = match end {
        Some(_) => starts.rev().take_while(still).last()?,
        None => starts.find(still)?,
    };
    Some(start.saturating_duration_since(begin))
}

/// The time, from `from` on, at which the arm starts to move.
fn moves(seen: &Watched, from: Instant) -> Option<Instant> {
    let window = Duration::from_millis(200);
    let mut starts = seen.joints.iter().map(|(at, _)| *at).filter(|at| *at >= from);
    starts.find(|at| seen.moved(*at, *at + window) > MOVES)
}

/// Silences the standard error of this process while it lives.
struct Quiet {
    before: OwnedFd,
}

impl Quiet {
    fn begin() -> io::Result<Quiet> {
        console::flush();
        let before = dup(stderr())?;
        dup2_stderr(File::options().write(true).open("/dev/null")?)?;
        Ok(Quiet { before })
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        console::flush();
        // If this fails, nothing more is logged.
        let _ = dup2_stderr(&self.before);
    }
}

/// Checks that the loop did not block between two times: whether it received nothing from the controller, or sent
/// nothing.
fn waited(seen: &Watched, from: Instant, to: Instant) -> Option<Failure> {
    let within = |at: &Instant| (from..=to).contains(at);
    let reports = seen.events.iter().filter(|(at, event)| within(at) && matches!(event, LoopEvent::Report { .. }));
    let times: Vec<Instant> = [from].into_iter().chain(reports.map(|(at, _)| *at)).chain([to]).collect();
    let longest = times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).max().unwrap_or_default();
    if longest > RECEIVED {
        let what = format!(
            "the loop received nothing for {} ms, at most {} allowed",
            longest.as_millis(),
            RECEIVED.as_millis()
        );
        return Some(Failure::within(from, to, what));
    }
    let sent = seen.events.iter().any(|(at, event)| within(at) && matches!(event, LoopEvent::Sent { .. }));
    (!sent).then(|| Failure::within(from, to, "no chunk was sent while the log had no reader"))
}

/// A step that was executed after its validity.
fn outlived(seen: &Watched) -> Option<Failure> {
    let mut valid: BTreeMap<u32, ControllerUs> = BTreeMap::new();
    for (at, event) in &seen.events {
        match event {
            LoopEvent::Sent { chunk, .. } => {
                valid.insert(chunk.id, chunk.start.after(chunk.validity_us.into()));
            }
            LoopEvent::Report { report, made, .. } => {
                if let (Mode::Active, Some(progress)) = (report.mode, report.progress) {
                    let until = *valid.get(&progress.chunk)?;
                    if *made > until.after(TICK_US) {
                        let late_ms = made.since(until) / 1000;
                        let what = format!("chunk {} was executed {late_ms} ms beyond its validity", progress.chunk);
                        let valid = Duration::from_millis(late_ms);
                        return Some(Failure::within(at.checked_sub(valid).unwrap_or(*at), *at, what));
                    }
                }
            }
            _ => {}
        }
    }
    None
}
