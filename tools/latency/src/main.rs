//! `fathom-latency`: measures latency.
#![doc = ""]
#![doc = include_str!("../README.md")]

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use fathom::telemetry::Header;
use fathom::{bounds, within};
use fathom_models::errln;
use fathom_models::io::console;

mod bench;
mod collect;
mod compare;
mod cycle;
mod drive;
mod inference;
mod kernels;
mod live;
mod machine;
mod model;
mod output;
mod replay;
mod result;
mod roof;
mod shapes;
mod watch;

use output::Outputs;
use result::{Measured, SCHEMA};

/// Measure latency from the camera's exposure to the controller's first step, stage by stage.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure the whole path without checkpoint or robot: synthetic images, random weights, a simulated controller.
    Bench(bench::Options),
    /// Show the running daemon without disturbing it: a view that refreshes, or one table if the output is no terminal.
    Live {
        /// Process id of the daemon, if several run.
        #[arg(long, value_parser = within!(bounds::PID))]
        pid: Option<u32>,
        /// End after this many seconds. Default: until Ctrl-C; one table if the output is no terminal.
        #[arg(long, value_parser = within!(bounds::MEASURE_S))]
        seconds: Option<f64>,
        /// Print the last minute once, and end.
        #[arg(long)]
        once: bool,
        /// Count an observation as missed if it is older than this at actuation, in milliseconds. Default: no deadline.
        #[arg(long, value_parser = within!(bounds::DEADLINE_MS))]
        deadline_ms: Option<f64>,
        /// Output: a trace for ui.perfetto.dev.
        #[arg(long)]
        trace: Option<PathBuf>,
        #[command(flatten)]
        outputs: Outputs,
    },
    /// List every kernel: calls, time, rates, and its share of the peak rates measured on this adapter.
    Kernels(kernels::Options),
    /// Measure for hours, in fixed memory; `--break-on-miss` ends at the first late control tick.
    Cycle(cycle::Options),
    /// Infer a recorded run (`fathom run --record`) again, and time it.
    Replay(replay::Options),
    /// List changes from the first to the last result that exceed the noise. Exit status 1 if something is slower, 2 at an error.
    Compare {
        /// Result files, the oldest first.
        #[arg(required = true, num_args = 2..)]
        files: Vec<PathBuf>,
        /// Ignore changes up to this many percent.
        #[arg(long, default_value_t = 5.0, value_parser = within!(bounds::FLOOR_PERCENT))]
        floor: f64,
        /// Compare results even of different machines, drivers, models or sizes.
        #[arg(long)]
        force: bool,
        /// Output: the comparison as Markdown.
        #[arg(long)]
        markdown: Option<PathBuf>,
    },
    /// Print a result file as text, or convert it.
    Report {
        /// Result file.
        file: PathBuf,
        #[command(flatten)]
        outputs: Outputs,
    },
    /// Time single kernels at the full-size model's shapes.
    Shapes(shapes::Options),
}

/// Whether the result is good.
fn run(command: Command) -> Result<bool, Failure> {
    match command {
        Command::Bench(o) => bench::run(&o).map(|()| true),
        Command::Live { pid, seconds, once, deadline_ms, trace, outputs } => {
            let deadline_ns = deadline_ms.map(bench::ns);
            let (break_on_miss, progress, mode) = (None, None, "live");
            let o = live::Options { pid, seconds, once, deadline_ns, trace, break_on_miss, progress, mode };
            live::run(&o, &outputs).map(|_| true)
        }
        Command::Kernels(o) => kernels::run(&o).map(|()| true),
        Command::Cycle(o) => cycle::run(&o),
        Command::Replay(o) => replay::run(&o).map(|()| true),
        Command::Compare { files, floor, force, markdown } => {
            compare::run(&compare::Options { files, floor_percent: floor, force, markdown })
        }
        Command::Report { file, outputs } => finish(&Measured::read(&file)?, &outputs).map(|()| true),
        Command::Shapes(o) => shapes::run(&o).map(|()| true),
    }
}

fn main() -> ExitCode {
    let _console = console::start();
    let command = Arguments::parse().command;
    let failed = ExitCode::from(if matches!(command, Command::Compare { .. }) { 2 } else { 1 });
    match run(command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            errln!("error: {error}");
            failed
        }
    }
}

type Failure = Box<dyn Error + Send + Sync>;

/// A result without figures yet.
fn measured(mode: &str, header: Header, machine: machine::Machine, notes: Vec<String>) -> Measured {
    Measured {
        schema: SCHEMA,
        mode: mode.to_owned(),
        taken_at: utc(std::time::SystemTime::now()),
        commit: env!("FATHOM_COMMIT").to_owned(),
        header,
        machine,
        notes,
        ..Measured::default()
    }
}

/// Title of a trace's process; it marks a software driver's figures.
fn title(header: &Header) -> String {
    let mark = if header.is_software() { ", a software driver: not a GPU's times" } else { "" };
    format!("fathom: {}{mark}", header.adapter)
}

/// Prints a result and writes its files.
fn finish(measured: &Measured, outputs: &Outputs) -> Result<(), Failure> {
    // Files first: the reader of the table may never read it.
    outputs.write(measured)?;
    output::print(&output::text(measured));
    Ok(())
}

/// A duration from a command line; negative values and NaN are zero.
fn seconds(s: f64) -> Duration {
    Duration::try_from_secs_f64(s).unwrap_or(Duration::ZERO)
}

/// A time as `2026-01-31 23:59:59 UTC`.
fn utc(time: std::time::SystemTime) -> String {
    let s = time.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (days, s) = (s / 86400, s % 86400);
    // Days since 1 March of year 0, in eras of 400 years.
    let z = days + 719_468;
    let (era, day) = (z / 146_097, z % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{date:02} {:02}:{:02}:{:02} UTC", s / 3600, s / 60 % 60, s % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |s| utc(std::time::UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(at(951_827_696), "2000-02-29 12:34:56 UTC");
        assert_eq!(at(1_798_761_599), "2026-12-31 23:59:59 UTC");
    }
}
