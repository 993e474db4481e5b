//! `fathom-eval`: how often a policy does its task, in simulated time, through the whole loop.
#![doc = ""]
#![doc = include_str!("../README.md")]

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fathom_models::errln;
use fathom_models::io::console;

mod animate;
mod compare;
mod page;
mod result;
mod run;
mod statistics;
mod workers;

/// Measure how often a policy does its task, in simulated time, through the whole loop.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How much is logged to standard error: error, warn, info, debug or trace.
    #[arg(long, global = true, default_value = "warn")]
    log: tracing::Level,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<run::Run>),
    Compare(compare::Compare),
    Animate(animate::Animate),
}

fn main() -> ExitCode {
    let _console = console::start();
    let arguments = Arguments::parse();
    let log = tracing_subscriber::fmt().with_max_level(arguments.log).with_target(false).log_internal_errors(false);
    log.with_writer(|| console::LogWriter).init();
    let done: Result<ExitCode, Box<dyn Error>> = match arguments.command {
        Command::Run(run) => run.run(),
        Command::Compare(compare) => compare.run(),
        Command::Animate(animate) => animate.run(),
    };
    done.unwrap_or_else(|error| {
        errln!("error: {error}");
        ExitCode::FAILURE
    })
}
