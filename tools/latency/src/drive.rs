//! The whole loop in this process (cameras, model, controller), measured through its ring like a daemon.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fathom::config::{CameraSection, CameraSource, RobotConfig, SceneCameraConfig};
use fathom::control::{Robot, RunOptions};
use fathom::scene::Scene;
use fathom::telemetry::{RingReader, RunInfo, stage};
use fathom_models::errln;

use crate::Failure;
use crate::collect::Watch;
use crate::model::AdapterOptions;
use crate::result::{Section, ms};
use crate::watch::{Pump, TraceFile};

/// Interval between reads of the ring.
pub(crate) const POLL: Duration = Duration::from_millis(20);

/// Settings of a run of the loop.
pub(crate) struct Drive<'a> {
    pub(crate) seconds: f64,
    /// Least number of paths: on a busy machine the run is extended until it has them, by at most [`PATIENCE_S`].
    pub(crate) least: u64,
    /// Time at the start that does not count.
    pub(crate) warm_up: f64,
    pub(crate) deadline_ns: Option<u64>,
    /// Paths of a round.
    pub(crate) round: u64,
    pub(crate) trace: Option<&'a Path>,
    /// Interval of progress lines on stderr.
    pub(crate) progress: Option<Duration>,
    /// Ends at the first late tick, with the last seconds as a trace at this path.
    pub(crate) break_on_miss: Option<(Duration, &'a Path)>,
}

/// Longest extension of a run that has too few paths.
const PATIENCE_S: f64 = 300.0;

/// The result of a run of the loop.
pub(crate) struct Driven {
    pub(crate) section: Section,
    pub(crate) info: RunInfo,
    pub(crate) notes: Vec<String>,
    /// Whether it ended at a late tick.
    pub(crate) missed: bool,
}

/// The collector for a daemon with the description `info`.
pub(crate) fn watch(info: &RunInfo, deadline_ns: Option<u64>, round: u64) -> Watch {
    Watch { name: "control loop", path: stage::AGE, tick_ns: info.tick_ns, deadline_ns, round }
}

/// The simulated scene's arm behind a simulated controller, for the model in `dir` with these views.
pub(crate) fn simulated_robot(
    dir: &Path,
    views: &[String],
    tokens: &[i32],
    (seed, action_rate_hz): (u64, f64),
    adapter: &AdapterOptions,
) -> Result<RobotConfig, Failure> {
    let scene = Scene::built_in(0)?;
    let mut config = RobotConfig::new(dir);
    config.model.tokens = Some(tokens.to_vec());
    config.model.seed = seed;
    config.gpu.software = adapter.software;
    config.gpu.adapter.clone_from(&adapter.adapter);
    config.gpu.kernels = adapter.kernels;
    config.control.action_rate_hz = action_rate_hz;
    config.control.max_image_age_ms = 60_000;
    config.control.max_image_skew_ms = 60_000;
    config.chunks.validity_ms = 60_000;
    let camera = |view: &String| {
        let camera = Some(if scene.camera_index(view).is_ok() { view.clone() } else { "base".to_owned() });
        CameraSection { view: view.clone(), source: CameraSource::Scene(SceneCameraConfig { camera, rate_hz: 30.0 }) }
    };
    config.cameras = views.iter().map(camera).collect();
    Ok(config)
}

/// Runs the loop of `config` and measures it.
pub(crate) fn drive(config: RobotConfig, d: &Drive<'_>) -> Result<Driven, Failure> {
    if d.seconds <= d.warm_up {
        return Err(format!(
            "the run of {} s is not longer than its warm-up of {} s: there would be nothing to measure",
            d.seconds, d.warm_up
        )
        .into());
    }
    let robot = Robot::open(config)?;
    let done = AtomicBool::new(false);
    let options = RunOptions { seconds: Some(d.seconds + PATIENCE_S), ..RunOptions::default() };
    let stop = Arc::clone(&options.stop);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| follow(d, &done, &stop));
        let ran = robot.run(&options);
        done.store(true, Ordering::Release);
        let watched = watcher.join().map_err(|_| "the thread that watches the loop ended")?.map_err(Failure::from);
        // The loop's error is the cause; the watcher's only follows from it.
        ran?;
        watched
    })
}

fn follow(d: &Drive<'_>, done: &AtomicBool, stop: &AtomicBool) -> Result<Driven, String> {
    let pid = std::process::id();
    let reader = loop {
        match RingReader::attach(Some(pid)) {
            Ok(reader) => break reader,
            Err(error) if done.load(Ordering::Acquire) => return Err(error.to_string()),
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    };
    let info: RunInfo = serde_json::from_str(&reader.meta()).map_err(|e| e.to_string())?;
    let title = crate::title(&info.header);
    let trace = d.trace.map(|path| TraceFile::create(path, pid, &title)).transpose().map_err(|e| e.to_string())?;
    let mut pump = Pump::new(reader, watch(&info, d.deadline_ns, d.round), trace);
    if let Some((keep, _)) = d.break_on_miss {
        pump = pump.break_on_miss(keep);
    }
    let mut warm = false;
    let mut missed = false;
    let (mut warm_at, mut active_at) = (None, None);
    let mut cold = Vec::new();
    let mut told = Progress::new(d.progress);
    loop {
        let last = done.load(Ordering::Acquire);
        missed |= pump.pump() && warm;
        if missed && !last {
            stop.store(true, Ordering::Release);
            break;
        }
        if pump.collector.is_active() {
            active_at.get_or_insert_with(Instant::now);
        }
        // The warm-up's time starts with the first chunk.
        if pump.collector.paths() > 0 {
            let warm_at = *warm_at.get_or_insert_with(|| Instant::now() + Duration::from_secs_f64(d.warm_up));
            if !warm && Instant::now() >= warm_at {
                warm = true;
                cold = pump.section(Vec::new()).cold;
                pump.forget();
            }
        }
        if last {
            break;
        }
        let over = active_at.is_some_and(|at: Instant| at.elapsed().as_secs_f64() >= d.seconds);
        if over && warm && pump.collector.paths() >= d.least {
            stop.store(true, Ordering::Release);
        }
        told.tick(&pump);
        std::thread::sleep(POLL);
    }
    let section = pump.section(cold);
    let mut notes = Vec::new();
    if let Some((_, path)) = d.break_on_miss.filter(|_| missed) {
        notes.push(pump.write_recent(path, &title).map_err(|e| e.to_string())?);
    }
    // A late tick is a result, too.
    if !missed && (!warm || section.chunks == 0) {
        return Err(format!("no chunk came after the warm-up of {} s: run for longer", d.warm_up));
    }
    notes.extend(pump.end());
    Ok(Driven { section, info, notes, missed })
}

/// Prints the progress of a long run from time to time.
pub(crate) struct Progress {
    every: Option<Duration>,
    began: Instant,
    last: Instant,
}

impl Progress {
    pub(crate) fn new(every: Option<Duration>) -> Progress {
        Progress { every, began: Instant::now(), last: Instant::now() }
    }

    /// Prints a line if it is time.
    pub(crate) fn tick(&mut self, pump: &Pump) {
        if self.every.is_none_or(|every| self.last.elapsed() < every) {
            return;
        }
        self.last = Instant::now();
        let section = pump.section(Vec::new());
        let age = section.stages.iter().map(|r| &r.stage).find(|s| s.name == section.headline);
        let [p50, p99, max] = age.map_or([0; 3], |s| [s.p50_ns, s.p99_ns, s.max_ns]).map(ms);
        let misses = section.deadlines.iter().map(|d| d.misses).sum::<u64>();
        let seconds = self.began.elapsed().as_secs();
        errln!("{seconds:>6} s: {} chunks, age p50 {p50}, p99 {p99}, max {max} ms; {misses} misses", section.chunks);
    }
}
