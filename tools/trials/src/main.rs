//! `fathom-trials`: the demo's loop under faults and load, and how smoothly chunks join. Ends with 0 when all was well, with 1
//! when the product failed, and with 98 when it was not judged because other work held the processors.

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

/// Tries Fathom's loop out.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

/// The robot that is tried.
#[derive(Args)]
struct Subject {
    /// Its configuration; the controller has to be the simulated one.
    #[arg(long)]
    config: PathBuf,
    /// Directory of the checkpoint, instead of the configuration's.
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
    /// Every fault against the loop: the arm stops or holds in time, the log names the fault, the loop recovers, and no step
    /// is followed after its validity.
    Faults {
        #[command(flatten)]
        subject: Subject,
        /// Shorter faults.
        #[arg(long)]
        quick: bool,
        /// Only those whose name has this in it.
        #[arg(long)]
        only: Option<String>,
        /// Print the loop's log, too.
        #[arg(long)]
        verbose: bool,
    },
    /// The loop on a line with 1 % of its bytes damaged both ways, with random stalls and replugs.
    Load {
        #[command(flatten)]
        subject: Subject,
        /// How long.
        #[arg(long, default_value_t = 60.0, value_parser = within!(bounds::TRIAL_S))]
        seconds: f64,
        /// Of the stalls and replugs.
        #[arg(long, default_value_t = 1, value_parser = within!(bounds::SEED))]
        seed: u64,
        /// A fault besides, as `fathom run --fault` takes it, for which nothing is excused: shows that the check fails.
        #[arg(long, value_name = "SPEC")]
        fault: Vec<Spec>,
    },
    /// The largest jump and jerk where chunks join, for each policy under injected delay: in the clock of a simulation, so
    /// that it is the same on every computer.
    Smoothness {
        #[command(flatten)]
        subject: Subject,
        /// Simulated seconds for each policy and delay.
        #[arg(long, default_value_t = 20.0, value_parser = within!(bounds::TRIAL_S))]
        seconds: f64,
        /// Delays of the inference, in milliseconds.
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
