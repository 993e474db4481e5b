//! Commands, run from the root.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitStatus, Stdio};

use crate::Error;

/// A command with its arguments.
pub(crate) fn command<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Splits `line` at spaces into a command.
pub(crate) fn words(line: &str) -> Command {
    let mut words = line.split_whitespace();
    command(words.next().unwrap_or_default(), words)
}

/// Cargo, with `--locked` in CI.
pub(crate) fn cargo(subcommand: &str) -> Command {
    let mut cargo = command("cargo", [subcommand]);
    if in_ci() {
        cargo.arg("--locked");
    }
    cargo
}

/// `cargo test --release --workspace` with these arguments; tests start on the Vulkan driver that the set-up found.
pub(crate) fn cargo_test(arguments: &str) -> Result<Command, Error> {
    cargo_test_on(driver_run(), arguments)
}

/// As [`cargo_test`]; tests start by `starter`.
pub(crate) fn cargo_test_on(starter: Option<String>, arguments: &str) -> Result<Command, Error> {
    let mut cargo = Command::new("cargo");
    if let Some(starter) = starter {
        let host = host()?;
        cargo.arg("--config").arg(format!("target.{host}.runner=['{starter}']"));
    }
    cargo.arg("test");
    if in_ci() {
        cargo.arg("--locked");
    }
    cargo.args(["--release", "--workspace"]).args(arguments.split_whitespace());
    Ok(cargo)
}

/// A program of the workspace, on the Vulkan driver that the set-up found.
pub(crate) fn on_driver(program: &str) -> Command {
    match driver_run() {
        Some(driver) => command(&driver, [program]),
        None => Command::new(program),
    }
}

/// Runs it with this process' streams.
pub(crate) fn run(mut command: Command) -> Result<(), Error> {
    let status = command.status().map_err(|source| started(&command, source))?;
    succeeded(&command, status)
}

/// Runs it, and gives its standard output.
pub(crate) fn output(mut command: Command) -> Result<String, Error> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|source| started(&command, source))?;
    succeeded(&command, output.status)?;
    Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
}

/// Runs it, prints both of its streams as they come, and gives its lines and its exit status.
pub(crate) fn tee(command: &mut Command) -> Result<(Vec<String>, u8), Error> {
    let (reader, writer) = std::io::pipe().map_err(|source| started(command, source))?;
    let errors = writer.try_clone().map_err(|source| started(command, source))?;
    let mut child = command.stdout(writer).stderr(errors).spawn().map_err(|source| started(command, source))?;
    // Its ends of the pipe are the child's from here on.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut lines = Vec::new();
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.map_err(|source| started(command, source))?;
        let line = String::from_utf8_lossy(&line).into_owned();
        println!("{line}");
        lines.push(line);
    }
    let status = child.wait().map_err(|source| started(command, source))?;
    Ok((lines, code(status)))
}

/// Whether a program is on the `PATH`.
pub(crate) fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

/// Whether continuous integration runs this.
pub(crate) fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// The program that starts others on the Vulkan driver that the set-up found.
pub(crate) fn driver_run() -> Option<String> {
    std::env::var("FATHOM_RUN").ok().filter(|run| !run.is_empty())
}

fn host() -> Result<String, Error> {
    let version = output(words("rustc -vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Error::Check("rustc -vV names no host".to_owned()))
}

fn succeeded(command: &Command, status: ExitStatus) -> Result<(), Error> {
    if status.success() { Ok(()) } else { Err(Error::Failed { command: name(command), status: code(status) }) }
}

/// A signal counts as 1.
fn code(status: ExitStatus) -> u8 {
    status.code().map_or(1, |code| u8::try_from(code).unwrap_or(1))
}

fn started(command: &Command, source: std::io::Error) -> Error {
    Error::Start { command: name(command), source }
}

fn name(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

/// Builds a program of the workspace and gives its path.
pub(crate) fn build(program: &str) -> Result<String, Error> {
    let mut build = cargo("build");
    build.args(["--release", "--workspace", "--bin", program]);
    run(build)?;
    let folder = std::env::var("CARGO_TARGET_DIR").unwrap_or_else(|_| "target".to_owned());
    Ok(format!("{folder}/release/{program}"))
}
