//! `cargo xtask`: everything about the tree that is not set-up. The scripts in `tools/` find or install what a task needs, export
//! the Vulkan driver's starter as `FATHOM_RUN`, and call it.

mod firmware;
mod process;
mod size;
mod stages;
mod test;
mod validate;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The workshop of Fathom's tree.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run the test stages, all of them if none is named, and print a summary.
    Test {
        /// Run format, lints, firmware and tests only.
        #[arg(long)]
        quick: bool,
        /// List the stages.
        #[arg(long)]
        list: bool,
        /// Stages to run.
        stages: Vec<String>,
    },
    /// Run one stage without retries and summary. Ends with 98 when the machine was too busy to judge, with 99 when it was skipped.
    Stage {
        /// Its name.
        name: String,
    },
    /// The boards' firmware, built already: check that it has no panic path and print its sizes.
    Firmware,
    /// Run GPU tests and inferences under Khronos' validation layer, which `FATHOM_VALIDATION_LAYER` names.
    Validate {
        /// Instrument the shaders instead, and report a read or write past a binding.
        #[arg(long)]
        gpu_assisted: bool,
    },
    /// Measure the stripped daemon, and compare with the recorded size.
    Size {
        /// Record the size instead.
        #[arg(long)]
        update: bool,
    },
}

/// Why a task did not succeed.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// A command could not be started.
    #[error("{command} did not start: {source}")]
    Start {
        /// Its program.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// A command failed.
    #[error("{command} ended with {status}")]
    Failed {
        /// Its program and arguments.
        command: String,
        /// Its exit status.
        status: u8,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A check found something.
    #[error("{0}")]
    Check(String),
    /// A stage cannot run on this machine.
    #[error("{0}")]
    Skipped(String),
}

impl Error {
    fn file(path: &Path, source: std::io::Error) -> Error {
        Error::File { path: path.to_owned(), source }
    }
}

/// Status of a check that the machine was too busy to judge.
const NOT_JUDGED: u8 = 98;
/// Status of a check that cannot run on this machine; its last line of output says why.
const SKIPPED: u8 = 99;

/// The repository's root.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}

fn main() -> ExitCode {
    let done = std::env::set_current_dir(root()).map_err(|source| Error::file(&root(), source)).and_then(|()| {
        match Arguments::parse().task {
            Task::Test { list: true, .. } => {
                test::list();
                Ok(ExitCode::SUCCESS)
            }
            Task::Test { quick, stages, .. } => test::run(quick, &stages),
            Task::Stage { name } => stages::run(&name).map(|()| ExitCode::SUCCESS),
            Task::Firmware => firmware::check().map(|()| ExitCode::SUCCESS),
            Task::Validate { gpu_assisted } => validate::run(gpu_assisted).map(|()| ExitCode::SUCCESS),
            Task::Size { update } => size::run(update).map(|()| ExitCode::SUCCESS),
        }
    });
    done.unwrap_or_else(|error| match error {
        Error::Skipped(why) => {
            eprintln!("{why}");
            ExitCode::from(SKIPPED)
        }
        // A command has said why itself.
        Error::Failed { command, status } => {
            eprintln!("{command} ended with {status}");
            ExitCode::from(status)
        }
        error => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    })
}
