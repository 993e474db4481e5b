//! `fathom-pack`: quantises a checkpoint into a packed directory, and measures the cost in accuracy.
#![doc = ""]
#![doc = include_str!("../README.md")]

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fathom_models::checkpoint::Weights;
use fathom_models::errln;
use fathom_models::graph::params::{ParamId, Role};
use fathom_models::io::console;

mod calibrate;
mod eval;
mod gpu;
mod pack;

/// Pack a checkpoint: quantise its weights by a scheme, copy its other files, write a manifest.
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Arguments {
    #[command(flatten)]
    pack: Option<pack::Pack>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    Eval(eval::Eval),
}

fn main() -> ExitCode {
    let _console = console::start();
    let arguments = Arguments::parse();
    let done: Result<ExitCode, Box<dyn Error>> = match (arguments.command, arguments.pack) {
        (Some(Command::Eval(eval)), _) => eval.run(),
        (None, Some(pack)) => pack.run().map(|()| ExitCode::SUCCESS),
        (None, None) => Err("expected --model, --scheme and --output, or eval (see --help)".into()),
    };
    done.unwrap_or_else(|error| {
        errln!("error: {error}");
        ExitCode::FAILURE
    })
}

/// Bytes of the weights that inference reads.
fn weight_bytes(weights: &Weights) -> Result<u64, Box<dyn Error>> {
    let mut total = 0;
    for (i, param) in weights.table().params.iter().enumerate() {
        if param.role != Role::Unused {
            let (_, bytes, scales) = weights.encoded(ParamId(i as u32))?;
            total += (bytes.len() + scales.len()) as u64;
        }
    }
    Ok(total)
}

/// A size in readable units.
fn size(bytes: u64) -> String {
    match bytes {
        0..10_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        10_000_000..10_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.2} GB", bytes as f64 / 1e9),
    }
}
