//! Every fault against the loop.

use std::collections::BTreeMap;
use std::error::Error;
use std::time::{Duration, Instant};

use fathom::config::{RecordSection, RobotConfig};
use fathom::control::Sight;
use fathom::fault::Spec;
use firmware_bridge::message::Mode;

use crate::rig::{Keep, Watched, watch};

/// Joints that move less than this, in radians, in [`REST`] are at rest.
const AT_REST: f32 = 1e-3;
/// After a restart of the controller the loop moves again within a tenth of a second.
const REST: Duration = Duration::from_millis(50);
/// An arm that moves comes at least this far in [`RECOVERED`], in radians.
const MOVES: f32 = 2e-2;
/// How long the loop may take to move again after a fault is over.
const RECOVERED: Duration = Duration::from_secs(3);
/// A controller's tick, and how late it may be on a computer that has more to do.
const TICK_US: u64 = 50_000;

/// One fault and what is expected of the loop.
struct Trial {
    kind: &'static str,
    value: &'static str,
    /// How long it lasts, in seconds; 0 for what is over at once.
    lasts: f64,
    /// The arm is at rest this long after the fault began; `None`: it goes on.
    rests: Option<Duration>,
    /// What the log has to say.
    names: &'static [&'static str],
    /// The controller latches a fault, and the loop ends with its cause.
    ends: bool,
}

/// The bounds are what the demo's configuration makes of the parts' own: the images' greatest age, the simulated
/// controller's deadman time of 1 s, the length of a chunk.
fn trials(config: &RobotConfig, quick: bool) -> Vec<Trial> {
    let lasts = if quick { 1.5 } else { 3.0 };
    let settle = Duration::from_millis(300); // ramp to rest, lag of the joints, ticks
    let age = Duration::from_millis(config.control.max_image_age_ms) + settle;
    let deadman = Duration::from_secs(1) + settle;
    let trial = |kind, value, lasts, rests, names| Trial { kind, value, lasts, rests, names, ends: false };
    // The time that a fault of a joint takes, as the joint table has it.
    let latched = |kind, value, detected_ms, names| {
        let rests = Some(Duration::from_millis(detected_ms) + settle);
        Trial { kind, value, lasts: 30.0, rests, names, ends: true }
    };
    vec![
        trial("camera-unplug", "", lasts, Some(Duration::from_millis(200) + settle), &["gives no image"]),
        trial("camera-stall", "", lasts + 1.0, Some(age), &["the newest image is"]),
        trial("camera-corrupt", "=1", lasts + 1.0, Some(age), &["the newest image is"]),
        trial("camera-empty", "=1", lasts + 1.0, Some(age), &["without bytes", "the newest image is"]),
        trial("camera-cut", "=1", lasts + 1.0, Some(age), &["cannot decode the JPEG picture", "the newest image is"]),
        trial("camera-drop", "=0.5", lasts, None, &["fault begins"]),
        trial("serial-unplug", "", lasts, Some(deadman), &["LinkLost"]),
        trial("serial-delay", "=1.5", lasts + 1.0, Some(deadman), &["nothing from the controller for"]),
        trial("serial-flip", "=0.003", lasts, None, &["fault begins"]),
        trial("serial-loss", "=0.003", lasts, None, &["fault begins"]),
        trial("controller-reset", "", 0.0, Some(settle), &["the controller restarted"]),
        trial("wrong-reading", "=-3", 0.0, None, &["fault happens"]),
        latched("stuck-reading", "=-3", 50, &["ImplausibleReading", "implausible reading -3.000 rad"]),
        latched("stalled-joint", "", 2000, &["the controller latched", "away from its goal"]),
        latched("hot-motor", "=75", 20, &["Overheated", "motor at 75 °C, allowed 70 °C"]),
        trial("slow-gpu", "=2.2", lasts + 1.5, Some(chunk(config) + Duration::from_secs(1)), &["a chunk is not sent"]),
        trial("device-lost", "", 0.0, None, &["the GPU is lost"]),
        trial("clock-jump", "=2", 0.0, None, &["the clock jumped"]),
        trial("disk-full", "", lasts, None, &["recording stopped"]),
    ]
}

/// How long the controller follows a chunk after which nothing comes.
fn chunk(config: &RobotConfig) -> Duration {
    let steps = config.chunks.execution_horizon.unwrap_or(16) as f64;
    Duration::from_secs_f64(steps / config.control.action_rate_hz)
}

/// Runs them all, and prints a table. Whether all passed.
pub(crate) fn run(config: &RobotConfig, quick: bool, only: Option<&str>, loud: bool) -> Result<bool, Box<dyn Error>> {
    let mut config = config.clone();
    // So that a chunk which is late for its images is one that is not sent.
    config.chunks.validity_ms = 2000;
    println!("{:<24} {:>9} {:>9} {:>9}  result", "fault", "rests in", "bound", "again in");
    let (mut passed, mut failed) = (0, 0);
    for trial in trials(&config, quick) {
        if only.is_some_and(|only| !trial.kind.contains(only)) {
            continue;
        }
        let found = one(&config, &trial, quick, loud)?;
        let ms = |d: Option<Duration>| d.map_or("-".to_owned(), |d| format!("{} ms", d.as_millis()));
        let verdict =
            if found.wrong.is_empty() { "ok".to_owned() } else { format!("FAILED: {}", found.wrong.join("; ")) };
        let (rested, bound, again) = (ms(found.rested), ms(trial.rests), ms(found.again));
        println!("{:<24} {rested:>9} {bound:>9} {again:>9}  {verdict}", format!("{}{}", trial.kind, trial.value));
        passed += usize::from(found.wrong.is_empty());
        failed += usize::from(!found.wrong.is_empty());
    }
    println!("{passed} passed, {failed} failed");
    Ok(failed == 0 && passed > 0)
}

struct Found {
    rested: Option<Duration>,
    again: Option<Duration>,
    wrong: Vec<String>,
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
    if trial.kind == "disk-full" {
        config.record = Some(RecordSection { folder: folder.path().to_owned(), limit_mb: 64 });
    }
    let lasts = if trial.ends { 5.0 } else { trial.lasts };
    let seconds = at + lasts + RECOVERED.as_secs_f64() + 0.5;
    let seen = watch(&config, seconds, vec![spec], Keep { loud, all: true }, |_, _| {}, |_| {})?;
    Ok(judge(trial, &seen))
}

fn judge(trial: &Trial, seen: &Watched) -> Found {
    let mut wrong = Vec::new();
    match &seen.outcome {
        Err(error) if !trial.ends => wrong.push(format!("the loop ended: {error}")),
        Err(error) if !trial.names.iter().all(|name| error.to_string().contains(name)) => {
            wrong.push(format!("the loop ended with {error}"));
        }
        Ok(_) if trial.ends => wrong.push("the loop did not end".to_owned()),
        _ => {}
    }
    let begin = seen.said(None, &["fault begins"]).or_else(|| seen.said(None, &["fault happens"]));
    let Some(begin) = begin else {
        wrong.push("the fault did not happen".to_owned());
        return Found { rested: None, again: None, wrong };
    };
    for name in trial.names {
        if seen.said(Some(begin), &[name]).is_none() {
            wrong.push(format!("the log does not say {name:?}"));
        }
    }
    let over = if trial.lasts == 0.0 || trial.ends { None } else { seen.said(None, &["fault ends"]) };
    let rested = rest(seen, begin, over).filter(|_| trial.rests.is_some());
    let end = if trial.lasts == 0.0 { Some(begin + rested.unwrap_or_default()) } else { over };
    if let Some(bound) = trial.rests {
        match rested {
            None => wrong.push("the arm did not rest".to_owned()),
            Some(after) if after > bound => wrong.push("the arm rested too late".to_owned()),
            Some(_) => {}
        }
    }
    let again = end.and_then(|end| moves(seen, end)).map(|at| at.saturating_duration_since(end.unwrap_or(at)));
    match (end, again) {
        _ if trial.ends => {}
        (None, _) => wrong.push("the fault did not end".to_owned()),
        (Some(_), None) => wrong.push("the arm did not move again".to_owned()),
        (Some(_), Some(after)) if after > RECOVERED => wrong.push("the arm moved again too late".to_owned()),
        _ => {}
    }
    if let Some(problem) = outlived(seen) {
        wrong.push(problem);
    }
    Found { rested, again, wrong }
}

/// Time from `begin` until the arm rested: to the end of a fault that lasts, or for [`REST`] after one that does not.
fn rest(seen: &Watched, begin: Instant, end: Option<Instant>) -> Option<Duration> {
    // The log tells the end a tick of the loop late.
    let last = end.map_or(seen.joints.last()?.0, |end| end - REST);
    let mut starts = seen.joints.iter().map(|(at, _)| *at).filter(|at| *at >= begin && *at + REST <= last);
    let still = |at: &Instant| seen.moved(*at, *at + REST) < AT_REST;
    let start = match end {
        Some(_) => starts.rev().take_while(still).last()?,
        None => starts.find(still)?,
    };
    Some(start.saturating_duration_since(begin))
}

/// When the arm, not before `from`, begins to move.
fn moves(seen: &Watched, from: Instant) -> Option<Instant> {
    let window = Duration::from_millis(200);
    let mut starts = seen.joints.iter().map(|(at, _)| *at).filter(|at| *at >= from);
    starts.find(|at| seen.moved(*at, *at + window) > MOVES)
}

/// A step that was followed after its validity.
fn outlived(seen: &Watched) -> Option<String> {
    let mut valid: BTreeMap<u32, u64> = BTreeMap::new();
    for (_, sight) in &seen.sights {
        match sight {
            Sight::Sent { id, until_us, .. } => {
                valid.insert(*id, *until_us);
            }
            Sight::Report { report, controller_us } => {
                if let (Mode::Active, Some(progress)) = (report.mode, report.progress) {
                    let until_us = *valid.get(&progress.chunk)?;
                    if *controller_us > until_us + TICK_US {
                        let late_ms = (controller_us - until_us) / 1000;
                        return Some(format!("chunk {} was followed {late_ms} ms beyond its validity", progress.chunk));
                    }
                }
            }
            Sight::State(_) => {}
        }
    }
    None
}
