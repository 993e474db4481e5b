//! A run of the loop under observation: its events, and the true positions of the joints.

use std::error::Error;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use fathom::config::RobotConfig;
use fathom::control::{Outcome, Robot, RunError, RunOptions};
use fathom::engine::EngineError;
use fathom::events::{Events, LoopEvent};
use fathom::fault::{Faults, Spec};
use fathom::gpu::GpuError;
use fathom::link::LinkError;
use fathom::policy::PolicyError;
use fathom_contention::{Failure, Verdict};
use fathom_models::{errln, outln};
use firmware_bridge::sim::Tick;
use tracing_subscriber::fmt::MakeWriter;

/// Delay after which a tick is passed on.
const LATER: Duration = Duration::from_secs(1);
/// Interval between samples of the joints.
const SAMPLE: Duration = Duration::from_millis(5);

/// The log, which is printed on request.
#[derive(Clone, Copy)]
struct Log;

static IS_LOUD: AtomicBool = AtomicBool::new(false);

struct Line(Vec<u8>);

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if IS_LOUD.load(Ordering::Relaxed) {
            errln!("{}", String::from_utf8_lossy(&self.0).trim_end());
        }
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line(Vec::new())
    }
}

fn start_log() {
    static STARTED: Once = Once::new();
    STARTED.call_once(|| tracing_subscriber::fmt().with_ansi(false).with_target(false).with_writer(Log).init());
}

/// The record of a run.
pub(crate) struct Watched {
    pub(crate) outcome: Result<Outcome, RunError>,
    /// Before the robot was opened.
    pub(crate) began: Instant,
    /// After the loop ended.
    pub(crate) ended: Instant,
    pub(crate) events: Vec<(Instant, LoopEvent)>,
    /// The true positions of the joints.
    pub(crate) joints: Vec<(Instant, Vec<f32>)>,
}

impl Watched {
    /// The error that ended the loop, as a failure of the check.
    pub(crate) fn error(&self) -> Option<Failure> {
        let error = self.outcome.as_ref().err()?;
        let what = format!("the loop ended: {error}");
        // An error from a time limit. All other errors are independent of the machine.
        let in_vain = matches!(
            error,
            RunError::NoImage { .. }
                | RunError::Idle { .. }
                | RunError::Fault { .. }
                | RunError::Policy(PolicyError::Engine(EngineError::Gpu(GpuError::Timeout { .. })))
                | RunError::Link(LinkError::NoReply { .. } | LinkError::Lost { .. } | LinkError::Latched { .. })
        );
        Some(if in_vain { Failure::within(self.began, self.ended, what) } else { Failure::always(what) })
    }

    /// The time of the first such event, from `from` on.
    pub(crate) fn first(&self, from: Option<Instant>, is: impl Fn(&LoopEvent) -> bool) -> Option<Instant> {
        let after = |at: &Instant| from.is_none_or(|from| *at >= from);
        self.events.iter().find(|(at, event)| after(at) && is(event)).map(|(at, _)| *at)
    }

    /// The largest distance of any joint from its first position, between two times.
    pub(crate) fn moved(&self, from: Instant, to: Instant) -> f32 {
        let mut within = self.joints.iter().filter(|(at, _)| (from..=to).contains(at));
        let Some((_, first)) = within.next() else { return 0.0 };
        let apart = |now: &Vec<f32>| now.iter().zip(first).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        within.map(|(_, now)| apart(now)).fold(0.0, f32::max)
    }
}

/// Options of the record.
pub(crate) struct Keep {
    /// Print the log.
    pub(crate) loud: bool,
    /// Keep all of it; otherwise only `each` receives it, and memory does not grow.
    pub(crate) all: bool,
}

/// Runs the loop for `seconds` after it became active, with these faults. `each` receives every event. `tick` receives
/// every tick of the controller a second later: when `each` has received all earlier events.
pub(crate) fn watch(
    config: &RobotConfig,
    seconds: f64,
    faults: Vec<Spec>,
    Keep { loud, all }: Keep,
    mut each: impl FnMut(Instant, &LoopEvent) + Send + 'static,
    mut tick: impl FnMut(&Tick) + Send + 'static,
) -> Result<Watched, Box<dyn Error>> {
    start_log();
    IS_LOUD.store(loud, Ordering::Relaxed);
    let began = Instant::now();
    let (sender, events) = mpsc::channel();
    let builder = Robot::builder(config.clone()).faults(Faults::new(faults)).events(Events::to(sender));
    let robot = match builder.open() {
        Ok(robot) => robot,
        Err(error) => {
            let (outcome, ended) = (Err(error), Instant::now());
            return Ok(Watched { outcome, began, ended, events: Vec::new(), joints: Vec::new() });
        }
    };
    let joints = robot.joints().ok_or("expected the simulated controller")?;
    let ticks = joints.ticks();
    let ticker = thread::spawn(move || {
        for seen in ticks {
            thread::sleep((seen.at + LATER).saturating_duration_since(Instant::now()));
            tick(&seen);
        }
    });
    let over = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&over);
    let sampler = thread::spawn(move || {
        let mut seen = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            if all {
                seen.push((Instant::now(), joints.positions()));
            }
            thread::sleep(SAMPLE);
        }
        seen
    });
    let recorder = thread::spawn(move || {
        let mut seen = Vec::new();
        for (at, event) in events {
            each(at, &event);
            if all {
                seen.push((at, event));
            }
        }
        seen
    });
    let options = RunOptions { seconds: Some(seconds), ..RunOptions::default() };
    let outcome = robot.run(&options);
    let ended = Instant::now();
    ticker.join().map_err(|_| "the thread of the controller's ticks ended")?;
    over.store(true, Ordering::Relaxed);
    let joints = sampler.join().map_err(|_| "the thread that samples the joints ended")?;
    let events = recorder.join().map_err(|_| "the thread that records events ended")?;
    Ok(Watched { outcome, began, ended, events, joints })
}

/// Prints the result of a check, unless it passed.
pub(crate) fn report(verdict: &Verdict) {
    match verdict {
        Verdict::Passed => {}
        Verdict::Failed(all) => all.iter().for_each(|what| outln!("FAILED: {what}")),
        Verdict::NotJudged(all) => all.iter().for_each(|what| outln!("NOT JUDGED, the machine was busy: {what}")),
    }
}
