//! `fathom-latency`: where the milliseconds go.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fathom::engine::Kernels;
use fathom_models::families::Family;

mod bench;
mod shapes;

/// Measures Fathom's path stage by stage.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Inference on synthetic images with seeded random weights: needs no checkpoint and no robot.
    Bench {
        /// A Fathom model directory to take instead of the small random one.
        #[arg(long)]
        model: Option<PathBuf>,
        /// What the checkpoint is, where its files do not tell or tell otherwise.
        #[arg(long)]
        family: Option<Family>,
        /// Inferences that are measured.
        #[arg(long, default_value_t = 20)]
        count: u32,
        /// Inferences before, which are not.
        #[arg(long, default_value_t = 3)]
        warm_up: u32,
        /// Seed of weights, images and noise.
        #[arg(long, default_value_t = 0)]
        seed: u64,
        /// Write the table as JSON, too.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Time each kernel, too, in inferences of their own (timing each dispatch slows them).
        #[arg(long)]
        kernels: bool,
        /// Kernels to take instead of those that suit the adapter.
        #[arg(long)]
        with: Option<Kernels>,
        /// Allow a software driver.
        #[arg(long)]
        software: bool,
        /// Part of the adapter's name.
        #[arg(long)]
        adapter: Option<String>,
    },
    /// The kernels at the full-size model's shapes, each by itself.
    Shapes {
        /// Runs of each that are measured.
        #[arg(long, default_value_t = 5)]
        count: u32,
        /// A JSON line for each instead of a table.
        #[arg(long)]
        json: bool,
        /// Only shapes whose name has this part.
        #[arg(long)]
        only: Option<String>,
        /// The tiled kernels, which GPUs get, or those for vector lanes; else what the adapter gets.
        #[arg(long)]
        kernels: Option<Kernels>,
        /// Allow a software driver.
        #[arg(long)]
        software: bool,
        /// Part of the adapter's name.
        #[arg(long)]
        adapter: Option<String>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Bench { model, family, count, warm_up, seed, json, kernels, with, software, adapter } => {
            bench::run(&bench::Options { model, family, count, warm_up, seed, json, kernels, with, software, adapter })
        }
        Command::Shapes { count, json, only, kernels, software, adapter } => {
            shapes::run(&shapes::Options { count, only, json, kernels, software, adapter })
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

type Failure = Box<dyn Error>;
