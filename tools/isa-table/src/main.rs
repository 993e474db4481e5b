//! Cost of Fathom's kernels on Orin's instruction set, from the assembly that Mesa's NVK generates.
//!
//! `fathom-isa-table compile` makes a pipeline of every variant as the product does; NVK prints its assembly meanwhile.
//! `fathom-isa-table table` reads it and prints a line for each variant. `tools/isa` combines the two.

mod assembly;
mod table;

use std::io::{self, BufRead};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use fathom::gpu::{Gpu, GpuError, GpuOptions};
use fathom_models::io::console;
use fathom_models::{errln, outln};
use fathom_shaders::variants;

/// Begins the line that names the kernel whose assembly follows.
const NAME: &str = "== kernel ";

/// Begins the line with the number of pipelines that were made.
const PIPELINES: &str = "== pipelines ";

#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a pipeline of every variant whose name contains one of these, or of all variants.
    Compile {
        /// Parts of names.
        names: Vec<String>,
        /// Compile with all bounds checks, which the product omits.
        #[arg(long)]
        checked: bool,
        /// Use the product's cache of pipelines, in this folder.
        #[arg(long)]
        cache: Option<PathBuf>,
    },
    /// Read NVK's assembly on the standard input and print the table.
    Table {
        /// Compare the table with this one, and check the rules, instead of printing it.
        #[arg(long)]
        check: Option<PathBuf>,
    },
}

#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{}: {error}", .path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("no assembly on the standard input: expected that of NVK with NAK_DEBUG=print")]
    Nothing,
    #[error("{0}")]
    Check(String),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            errln!("fathom-isa-table: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Compile { names, checked, cache } => compile(&names, checked, cache),
        Command::Table { check } => {
            let table = table::read(io::stdin().lock().split(b'\n'))?;
            match check {
                None => console::print_result(&table.to_string())?,
                Some(path) => {
                    let baseline = std::fs::read_to_string(&path).map_err(|error| Failure::File { path, error })?;
                    outln!("{}", table.check(&baseline).map_err(Failure::Check)?);
                }
            }
            Ok(())
        }
    }
}

fn compile(names: &[String], checked: bool, cache: Option<PathBuf>) -> Result<(), Failure> {
    let mut gpu = Gpu::open(&GpuOptions { checked, cache, ..GpuOptions::default() })?;
    // Unbuffered: the driver writes its assembly between these lines.
    console::log_now(format_args!("{}{}", table::DRIVER, gpu.info().driver))?;
    for variant in variants::ALL {
        let shader = &variant.shader;
        if names.is_empty() || names.iter().any(|name| shader.name.contains(name)) {
            console::log_now(format_args!("{NAME}{}", shader.name))?;
            gpu.compile(shader)?;
        }
    }
    gpu.save_pipelines();
    let counts = gpu.counts();
    console::log_now(format_args!(
        "{PIPELINES}{}, {} of them from the cache",
        counts.pipelines, counts.cached_pipelines
    ))?;
    Ok(())
}
