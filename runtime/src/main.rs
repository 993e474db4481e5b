//! `fathom`: the daemon and its tools for one model and one robot.

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use fathom::control::RunError;
use fathom_models::io::console;
use fathom_models::{errln, messages};

mod commands;

/// Runs a depth-aware vision-language-action model on the robot's own computer.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// How much is logged to standard error: error, warn, info, debug or trace.
    #[arg(long, global = true, default_value = "info")]
    log: tracing::Level,
    /// Form of the log's lines.
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line; its `target` names the event.
    Json,
}

/// Exit status when the controller latched a fault, which a person must clear; other errors have 1, wrong options 2.
const LATCHED: u8 = 3;

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
    Doctor(commands::doctor::Doctor),
}

fn main() -> ExitCode {
    let _console = console::start();
    let arguments = Arguments::parse();
    let log = tracing_subscriber::fmt().with_max_level(arguments.log).log_internal_errors(false);
    let log = log.with_writer(|| console::LogWriter);
    match arguments.log_format {
        LogFormat::Text => log.with_target(false).init(),
        LogFormat::Json => log.json().init(),
    }
    let done: Result<(), Box<dyn Error>> = match arguments.command {
        Command::Infer(infer) => infer.run(),
        Command::Run(run) => run.run(),
        Command::ClearFault(clear) => clear.run(),
        Command::Replay(replay) => replay.run(),
        Command::Init(init) => init.run(),
        Command::Inspect(inspect) => inspect.run(),
        Command::Compose(compose) => compose.run(),
        Command::Depth(depth) => depth.run(),
        Command::Doctor(doctor) => doctor.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let latched = error.downcast_ref::<RunError>().is_some_and(RunError::needs_clear_fault);
            let messages = messages(&*error);
            match arguments.log_format {
                LogFormat::Text => {
                    let prefixes = std::iter::once("error: ").chain(std::iter::repeat("  because: "));
                    prefixes.zip(&messages).for_each(|(prefix, message)| errln!("{prefix}{message}"));
                }
                LogFormat::Json if latched => tracing::error!(target: "controller_latched", "{}", messages.join(": ")),
                LogFormat::Json => tracing::error!(target: "failed", "{}", messages.join(": ")),
            }
            if latched { ExitCode::from(LATCHED) } else { ExitCode::FAILURE }
        }
    }
}
