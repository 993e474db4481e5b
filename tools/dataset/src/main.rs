//! `fathom-dataset`: demonstrations of the simulated scene's tasks as LeRobot data sets.
#![doc = ""]
#![doc = include_str!("../README.md")]

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fathom_models::errln;
use fathom_models::io::console;

mod demonstrate;
mod expert;
mod lerobot;
mod rollout;

/// Write demonstrations of the simulated scene's tasks, and measure the expert that gives them.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demonstrate(demonstrate::Demonstrate),
    Expert(expert::ExpertTrial),
}

fn main() -> ExitCode {
    let _console = console::start();
    let done: Result<ExitCode, Box<dyn Error>> = match Arguments::parse().command {
        Command::Demonstrate(demonstrate) => demonstrate.run().map(|()| ExitCode::SUCCESS),
        Command::Expert(trial) => trial.run(),
    };
    done.unwrap_or_else(|error| {
        errln!("error: {error}");
        ExitCode::FAILURE
    })
}
