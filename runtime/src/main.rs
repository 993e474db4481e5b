//! `fathom`: the daemon and its tools for one model and one robot.

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fathom_models::errln;
use fathom_models::io::console;

mod commands;

/// Runs a depth-aware vision-language-action model on the robot's own computer.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How much is logged to standard error: error, warn, info, debug or trace.
    #[arg(long, global = true, default_value = "info")]
    log: tracing::Level,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Infer(commands::infer::Infer),
    Run(commands::run::Run),
    ClearFault(commands::clear_fault::ClearFault),
    Replay(commands::replay::Replay),
    Init(commands::init::Init),
    Inspect(commands::inspect::Inspect),
    Compose(commands::compose::Compose),
    Depth(commands::depth::Depth),
}

fn main() -> ExitCode {
    let _console = console::start();
    let arguments = Arguments::parse();
    let log = tracing_subscriber::fmt().with_max_level(arguments.log).with_target(false);
    log.log_internal_errors(false).with_writer(|| console::LogWriter).init();
    let done: Result<(), Box<dyn Error>> = match arguments.command {
        Command::Infer(infer) => infer.run(),
        Command::Run(run) => run.run(),
        Command::ClearFault(clear) => clear.run(),
        Command::Replay(replay) => replay.run(),
        Command::Init(init) => init.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Compose(compose) => compose.run(),
        Command::Depth(depth) => depth.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            errln!("error: {error}");
            let mut cause = error.source();
            let mut said = error.to_string();
            while let Some(inner) = cause {
                // Errors that already contain their cause's text are not repeated.
                let text = inner.to_string();
                if !said.contains(&text) {
                    errln!("  because: {text}");
                }
                said = text;
                cause = inner.source();
            }
            ExitCode::FAILURE
        }
    }
}
