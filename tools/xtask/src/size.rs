//! The size of the daemon without symbols: what a robot's disk holds of it.

use std::fs;
use std::path::Path;

use crate::process::{self, cargo, command};
use crate::{Error, root};

/// A line for each architecture: its name and the bytes, recorded with `cargo xtask size --update`.
const RECORD: &str = "tools/size.tsv";
/// Growth in percent that another version of the compiler explains.
const TOLERANCE: f64 = 3.0;

/// Builds and strips the daemon, and compares with the record.
///
/// # Errors
/// [`Error::Check`] when it is larger than the record by more than [`TOLERANCE`].
pub(crate) fn run(update: bool) -> Result<(), Error> {
    let mut build = cargo("build");
    build.args(["--release", "--workspace", "--bin", "fathom"]);
    process::run(build)?;
    let program = root().join("target/release/fathom");
    let stripped = root().join("target/release/fathom.stripped");
    process::run(command("strip", [Path::new("-o"), &stripped, &program]))?;
    let bytes = fs::metadata(&stripped).map_err(|source| Error::file(&stripped, source))?.len();
    let architecture = std::env::consts::ARCH;
    let record = root().join(RECORD);
    let text = fs::read_to_string(&record).map_err(|source| Error::file(&record, source))?;
    if update {
        let mut lines: Vec<&str> =
            text.lines().filter(|line| !line.starts_with(&format!("{architecture}\t"))).collect();
        let line = format!("{architecture}\t{bytes}");
        lines.push(&line);
        return fs::write(&record, lines.join("\n") + "\n").map_err(|source| Error::file(&record, source));
    }
    let recorded = text.lines().find_map(|line| line.strip_prefix(architecture)?.trim().parse::<u64>().ok());
    let Some(recorded) = recorded else {
        println!("the stripped daemon has {bytes} bytes; {RECORD} has none for {architecture}");
        return Ok(());
    };
    let growth = (bytes as f64 / recorded as f64 - 1.0) * 100.0;
    println!("the stripped daemon has {bytes} bytes, {growth:+.2} % of the recorded {recorded}");
    if growth > TOLERANCE {
        return Err(Error::Check("the daemon grew; if that is intended: cargo xtask size --update".to_owned()));
    }
    Ok(())
}
