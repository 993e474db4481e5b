//! Starting the tool as its user does. `FATHOM_RUN`, where set, is the wrapper that gives it its Vulkan driver.

#![allow(dead_code, reason = "each test has its part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::path::Path;
use std::process::{Command, Output};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

/// The tool with these arguments.
pub(crate) fn latency(arguments: &[&str]) -> Command {
    let program = env!("CARGO_BIN_EXE_fathom-latency");
    let mut command = match std::env::var("FATHOM_RUN") {
        Ok(wrapper) if !wrapper.is_empty() => {
            let mut command = Command::new(wrapper);
            command.arg(program);
            command
        }
        _ => Command::new(program),
    };
    command.args(arguments);
    command
}

/// Runs it; its end's code, what it printed, and what it said went wrong.
pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    let output: Output = latency(arguments).output().expect("it starts");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (printed, said) = (text(&output.stdout), text(&output.stderr));
    println!("{printed}{said}");
    (output.status.code().unwrap_or(-1), printed, said)
}

/// Runs it; it ends well.
pub(crate) fn succeed(arguments: &[&str]) -> String {
    let (code, printed, said) = run(arguments);
    assert_eq!(code, 0, "{said}");
    printed
}

/// Runs it; it fails with this code. What it said.
pub(crate) fn fail(code: i32, arguments: &[&str]) -> String {
    let (found, _, said) = run(arguments);
    assert_eq!(found, code, "{said}");
    said
}

/// One short measurement of everything, which several tests look at.
pub(crate) struct Measured {
    folder: TempDir,
    pub(crate) printed: String,
    pub(crate) json: Value,
}

impl Measured {
    /// A file of it, by its ending.
    pub(crate) fn path(&self, ending: &str) -> String {
        self.folder.path().join(format!("bench.{ending}")).to_str().unwrap().to_owned()
    }

    pub(crate) fn read(&self, ending: &str) -> String {
        std::fs::read_to_string(self.path(ending)).unwrap()
    }
}

/// Makes it, once.
pub(crate) fn measured() -> &'static Measured {
    static MEASURED: OnceLock<Measured> = OnceLock::new();
    MEASURED.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let file = |ending: &str| folder.path().join(format!("bench.{ending}")).to_str().unwrap().to_owned();
        let printed = succeed(&[
            "bench",
            "--software",
            "--warm-up",
            "0.2",
            "--rounds",
            "3",
            "--count",
            "3",
            "--loop-seconds",
            "5",
            "--loop-warm-up",
            "0.5",
            "--kernel-times",
            "--json",
            &file("json"),
            "--html",
            &file("html"),
            "--markdown",
            &file("md"),
            "--trace",
            &file("pftrace"),
        ]);
        let json = serde_json::from_str(&std::fs::read_to_string(file("json")).unwrap()).unwrap();
        Measured { folder, printed, json }
    })
}

/// A row of a section.
pub(crate) fn row<'a>(json: &'a Value, section: &str, name: &str) -> &'a Value {
    let sections = json["sections"].as_array().unwrap();
    let section = sections.iter().find(|s| s["name"] == section).unwrap_or_else(|| panic!("no section {section}"));
    let found = section["stages"].as_array().unwrap().iter().find(|r| r["name"] == name);
    found.unwrap_or_else(|| panic!("no stage {name}"))
}

/// Notes a test that cannot run here, for `tools/test` to report.
pub(crate) fn skip(name: &str, reason: &str) {
    use std::io::Write as _;
    println!("skipped: {reason}");
    if let Ok(path) = std::env::var("FATHOM_SKIPS") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).expect("the list of skips");
        // At once: tests that run side by side add to it.
        file.write_all(format!("{name}: {reason}\n").as_bytes()).expect("noted");
    }
}

/// Writes JSON.
pub(crate) fn write(path: &Path, json: &Value) -> String {
    std::fs::write(path, json.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}
