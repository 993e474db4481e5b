//! Measurements of hours: the loop on the simulated scene, a robot, or the running daemon, in fixed memory.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fathom::bounds;
use fathom::config::RobotConfig;
use fathom::within;
use fathom_models::errln;

use crate::Failure;
use crate::bench::ns;
use crate::drive::{Drive, drive, simulated_robot};
use crate::live;
use crate::machine::Watched;
use crate::model::{AdapterOptions, ModelOptions, hash};
use crate::output::Outputs;
use crate::result::Measured;

#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Watch the running daemon. Default: run a loop in this process.
    #[arg(long, conflicts_with_all = ["robot", "model", "preset", "config"])]
    attach: bool,
    /// Process id of the daemon, if several run.
    #[arg(long, requires = "attach", value_parser = within!(bounds::PID))]
    pid: Option<u32>,
    /// Run the robot of this robot.toml. Default: the simulated scene with a simulated controller.
    #[arg(long, conflicts_with_all = ["model", "preset", "config"])]
    robot: Option<PathBuf>,
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    adapter: AdapterOptions,
    /// Length of the measurement, in seconds.
    #[arg(long, default_value_t = 3600.0, value_parser = within!(bounds::MEASURE_S))]
    seconds: f64,
    /// Warm-up, in seconds, which does not count.
    #[arg(long, default_value_t = 3.0, value_parser = within!(bounds::MEASURE_S))]
    warm_up: f64,
    /// Actions per second of the simulated arm.
    #[arg(long, default_value_t = 15.0, value_parser = within!(bounds::ACTION_RATE_HZ))]
    action_rate: f64,
    /// Count an observation as missed if it is older than this at actuation, in milliseconds. Default: no deadline.
    #[arg(long, value_parser = within!(bounds::DEADLINE_MS))]
    deadline_ms: Option<f64>,
    /// End with exit status 1 at the first control tick that is late by more than its period, and keep a trace.
    #[arg(long)]
    break_on_miss: bool,
    /// Length of the trace before a late tick, in seconds.
    #[arg(long, default_value_t = 5.0, value_parser = within!(bounds::MEASURE_S))]
    keep: f64,
    /// Output: the trace of a late tick.
    #[arg(long, default_value = "late-tick.pftrace")]
    trace: PathBuf,
    /// Interval of progress lines, in seconds; 0 prints none.
    #[arg(long, default_value_t = 60.0, value_parser = within!(bounds::MEASURE_S))]
    progress: f64,
    #[command(flatten)]
    outputs: Outputs,
}

/// Runs; returns whether no tick was missed at which it had to stop.
pub(crate) fn run(o: &Options) -> Result<bool, Failure> {
    o.outputs.check()?;
    let keep = crate::seconds(o.keep);
    let progress = Some(crate::seconds(o.progress)).filter(|p| *p > Duration::ZERO);
    if o.attach {
        let options = live::Options {
            pid: o.pid,
            seconds: Some(o.seconds),
            once: false,
            deadline_ns: o.deadline_ms.map(ns),
            trace: None,
            break_on_miss: o.break_on_miss.then(|| (keep, o.trace.clone())),
            progress,
            mode: "cycle",
        };
        return live::run(&options, &o.outputs).map(|missed| !missed);
    }
    let machine = Watched::begin();
    let dir = if o.robot.is_none() { Some(o.model.directory()?) } else { None };
    let robot = match (&o.robot, &dir) {
        (Some(path), _) => {
            let mut config = RobotConfig::load(path)?;
            config.gpu.software |= o.adapter.software;
            config
        }
        (None, Some(dir)) => {
            let loaded = fathom_models::families::load_as(&dir.path, o.model.family)?;
            let config = &loaded.model.config;
            simulated_robot(
                &dir.path,
                &config.views,
                &o.model.tokens(config),
                (o.model.seed, o.action_rate),
                &o.adapter,
            )?
        }
        (None, None) => return Err("no robot".into()),
    };
    let model_hash = hash(&robot.model.path);
    let wanted = Drive {
        seconds: o.seconds,
        least: 1,
        warm_up: o.warm_up,
        deadline_ns: o.deadline_ms.map(ns),
        round: 20,
        trace: None,
        progress,
        break_on_miss: o.break_on_miss.then_some((keep, o.trace.as_path())),
    };
    let driven = drive(robot, &wanted)?;
    let mut header = driven.info.header;
    if let Some(dir) = &dir {
        header.model.clone_from(&dir.name);
    }
    let measured = crate::measured("cycle", header, machine.end(), driven.notes);
    crate::finish(&Measured { model_hash, sections: vec![driven.section], ..measured }, &o.outputs)?;
    if driven.missed {
        errln!("a control tick was late by more than its period");
    }
    Ok(!driven.missed)
}
