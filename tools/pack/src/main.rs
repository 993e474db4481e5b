//! `fathom-pack`: a checkpoint in, a packed directory out; and what packing costs in accuracy.

use std::error::Error;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod pack;

/// Packs a checkpoint: its weights quantised by a scheme, its other files as they are, and a manifest.
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
    Eval(Eval),
}

/// Compares a packed directory with its source, stage by stage and in what the robot would do.
#[derive(Args)]
struct Eval {}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done: Result<ExitCode, Box<dyn Error>> = match (arguments.command, arguments.pack) {
        (Some(Command::Eval(_)), _) => Ok(ExitCode::SUCCESS),
        (None, Some(pack)) => pack.run().map(|()| ExitCode::SUCCESS),
        (None, None) => Err("expected --model, --scheme and --output, or eval (see --help)".into()),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}
