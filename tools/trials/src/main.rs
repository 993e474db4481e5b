//! `fathom-trials`: the demo's loop under faults and load, and the smoothness of the joins between chunks. Exit status
//! 0: passed; 1: the product failed; 98: not judged, because other work held the processors.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use fathom::bounds;
use fathom::config::RobotConfig;
use fathom::fault::Spec;
use fathom::within;
use fathom_contention::Verdict;
use fathom_models::errln;
use fathom_models::io::console;

mod faults;
mod load;
mod recording;
mod rig;
mod smoothness;

/// Test Fathom's control loop under faults and load, and measure the joins between chunks.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// The robot under test.
#[derive(Args)]
struct Subject {
    /// Robot configuration (robot.toml) with the simulated controller.
    #[arg(long)]
    config: PathBuf,
    /// Checkpoint directory; overrides the configuration.
    #[arg(long)]
    model: Option<PathBuf>,
    /// Allow a software driver.
    #[arg(long)]
    software: bool,
}

impl Subject {
    fn load(&self) -> Result<RobotConfig, Box<dyn Error>> {
        let mut config = RobotConfig::load(&self.config)?;
        if let Some(model) = &self.model {
            config.model.path.clone_from(model);
        }
        config.gpu.software |= self.software;
        if !config.link.is_simulated() {
            return Err(format!("{}: link.device: expected \"simulated\"", self.config.display()).into());
        }
        Ok(config)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Inject every fault: check that the arm stops or holds in time, that the event is reported, that the loop
    /// recovers, and that no step is executed after its validity.
    Faults {
        #[command(flatten)]
        subject: Subject,
        /// Use shorter faults.
        #[arg(long)]
        quick: bool,
        /// Only faults whose name contains this text.
        #[arg(long)]
        only: Option<String>,
        /// Also print the loop's log.
        #[arg(long)]
        verbose: bool,
    },
    /// Run the loop on a line with 1 % damaged bytes in both directions, with random stalls and replugs.
    Load {
        #[command(flatten)]
        subject: Subject,
        /// Duration, in seconds.
        #[arg(long, default_value_t = 60.0, value_parser = within!(bounds::TRIAL_S))]
        seconds: f64,
        /// Seed of the stalls and replugs.
        #[arg(long, default_value_t = 1, value_parser = within!(bounds::SEED))]
        seed: u64,
        /// Additional fault, as for `fathom run --fault`, which is not excused: shows that the check fails. Repeatable.
        #[arg(long, value_name = "SPEC")]
        fault: Vec<Spec>,
    },
    /// Measure the largest jump and jerk at the joins between chunks, for each policy and injected delay. Runs in
    /// simulated time, so that the result is the same on every computer.
    Smoothness {
        #[command(flatten)]
        subject: Subject,
        /// Simulated seconds for each policy and delay.
        #[arg(long, default_value_t = 20.0, value_parser = within!(bounds::TRIAL_S))]
        seconds: f64,
        /// Injected delays of the inference, in milliseconds.
        #[arg(long, value_delimiter = ',', default_values_t = [0, 100, 300, 800],
              value_parser = within!(bounds::DELAY_MS))]
        delays: Vec<u64>,
        /// Steps of a chunk that are consumed before the next inference begins.
        #[arg(long, default_value_t = 2, value_parser = within!(bounds::REPLAN_STEPS))]
        replan_steps: u32,
    },
}

fn main() -> ExitCode {
    let _console = console::start();
    let done = match Arguments::parse().command {
        Command::Faults { subject, quick, only, verbose } => {
            subject.load().and_then(|config| faults::run(&config, quick, only.as_deref(), verbose))
        }
        Command::Load { subject, seconds, seed, fault } => {
            subject.load().and_then(|config| load::run(&config, seconds, seed, &fault))
        }
        Command::Smoothness { subject, seconds, delays, replan_steps } => subject
            .load()
            .and_then(|config| smoothness::run(config, seconds, &delays, replan_steps))
            .map(|well| if well { Verdict::Passed } else { Verdict::Failed(Vec::new()) }),
    };
    match done {
        Ok(verdict) => ExitCode::from(verdict.status()),
        Err(error) => {
            errln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
