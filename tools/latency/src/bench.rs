//! The whole path without a checkpoint or a robot: inference alone in rounds, then the loop on the simulated scene.

use std::path::PathBuf;

use clap::Args;
use fathom::telemetry::{Header, stage};
use fathom::{bounds, within};

use crate::Failure;
use crate::drive::{Drive, drive, simulated_robot};
use crate::inference::{self, Amount, Synthetic};
use crate::machine::Watched;
use crate::model::{AdapterOptions, ModelOptions, hash};
use crate::output::Outputs;
use crate::result::Measured;
use crate::watch::TraceFile;

/// Period of the loop's control ticks, the default of `robot.toml`.
const TICK_NS: u64 = 10_000_000;
/// Actions per second if the model is fast enough.
const ACTION_RATE_HZ: f64 = 15.0;
/// Number of chunks in the loop's run.
const CHUNKS: u64 = 8;
/// A slower inference skips the loop.
const SLOWEST_S: f64 = 10.0;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    pub(crate) model: ModelOptions,
    #[command(flatten)]
    pub(crate) adapter: AdapterOptions,
    /// Rounds of inferences; the spread of their medians is the noise for `compare`.
    #[arg(long, default_value_t = 5, value_parser = within!(bounds::REPEATS))]
    pub(crate) rounds: u32,
    /// Inferences in each round.
    #[arg(long, default_value_t = 20, value_parser = within!(bounds::REPEATS))]
    pub(crate) count: u32,
    /// Warm-up before the measurement, in seconds; the first inference never counts.
    #[arg(long, default_value_t = 3.0, value_parser = within!(bounds::MEASURE_S))]
    pub(crate) warm_up: f64,
    /// Length of the loop's run on the simulated scene, in seconds (longer until it has eight chunks); 0 skips it.
    #[arg(long, default_value_t = 10.0, value_parser = within!(bounds::MEASURE_S))]
    pub(crate) loop_seconds: f64,
    /// Warm-up of the loop, in seconds, which does not count.
    #[arg(long, default_value_t = 1.0, value_parser = within!(bounds::MEASURE_S))]
    pub(crate) loop_warm_up: f64,
    /// Count an observation as missed if it is older than this at actuation, in milliseconds. Default: no deadline.
    #[arg(long, value_parser = within!(bounds::DEADLINE_MS))]
    pub(crate) deadline_ms: Option<f64>,
    /// Also time each kernel, in separate inferences.
    #[arg(long)]
    pub(crate) kernel_times: bool,
    /// Skip the measurement of the tool's own cost.
    #[arg(long)]
    pub(crate) no_cost: bool,
    /// Output: a trace of the loop for ui.perfetto.dev (of the inferences if the loop is skipped).
    #[arg(long)]
    pub(crate) trace: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) outputs: Outputs,
}

/// Milliseconds as nanoseconds.
pub(crate) fn ns(ms: f64) -> u64 {
    (ms * 1e6) as u64
}

pub(crate) fn run(o: &Options) -> Result<(), Failure> {
    o.outputs.check()?;
    if o.loop_seconds > 0.0 && o.loop_seconds <= o.loop_warm_up {
        return Err(format!(
            "the loop of {} s is not longer than its warm-up of {} s: there would be nothing to measure",
            o.loop_seconds, o.loop_warm_up
        )
        .into());
    }
    let machine = Watched::begin();
    let dir = o.model.directory()?;
    let model_hash = hash(&dir.path);
    let (mut session, spec) = o.model.open(&dir.path, &o.adapter)?;
    let config = session.loaded().model.config.clone();
    let inputs = Synthetic::of(&session, spec, o.model.seed);
    let header = Header::of(&session, dir.name.clone(), o.model.seed);
    let whole = o.loop_seconds > 0.0;
    let amount = Amount {
        rounds: o.rounds,
        count: o.count,
        warm_up: crate::seconds(o.warm_up),
        deadline_ns: o.deadline_ms.map(ns).filter(|_| !whole),
    };
    let title = crate::title(&header);
    let trace = o.trace.as_ref().filter(|_| !whole);
    let trace = trace.map(|path| TraceFile::create(path, std::process::id(), &title)).transpose()?;
    let (alone, note) = inference::measure(&mut session, &inputs, &amount, trace)?;
    let mut notes: Vec<String> = note.into_iter().collect();
    let cost = (!o.no_cost).then(|| inference::cost(&mut session, &inputs, &amount, TICK_NS)).transpose()?;
    let kernels =
        o.kernel_times.then(|| crate::kernels::measure(&mut session, &inputs, o.rounds, o.count)).transpose()?;
    drop(session);

    let inference_ns = inference::p50_of(&alone, stage::INFERENCE).map_or(1, |s| s.p50_ns);
    let inference_s = inference_ns as f64 / 1e9;
    let mut sections = vec![alone];
    if whole && inference_s > SLOWEST_S {
        notes.push(format!("the loop was skipped: an inference takes {inference_s:.0} s"));
    } else if whole {
        // A chunk lasts for at least four inferences.
        let rate = (config.horizon as f64 / (4.0 * inference_s)).clamp(0.1, ACTION_RATE_HZ);
        let tokens = o.model.tokens(&config);
        let robot = simulated_robot(&dir.path, &config.views, &tokens, (o.model.seed, rate), &o.adapter)?;
        let wanted = Drive {
            seconds: o.loop_seconds,
            least: CHUNKS,
            warm_up: o.loop_warm_up,
            deadline_ns: o.deadline_ms.map(ns),
            round: 10,
            trace: o.trace.as_deref(),
            progress: None,
            break_on_miss: None,
        };
        match drive(robot, &wanted) {
            Ok(driven) => {
                notes.extend(driven.notes);
                // The relevant output first.
                sections.insert(0, driven.section);
            }
            Err(error) if o.model.model.is_some() => {
                notes.push(format!("the loop was skipped: this model cannot drive the simulated scene's arm: {error}"));
            }
            Err(error) => return Err(error),
        }
    }
    let measured = crate::measured("bench", header, machine.end(), notes);
    crate::finish(&Measured { model_hash, sections, kernels, cost, ..measured }, &o.outputs)
}
