//! The tool where nobody reads what it prints, where its files are no files, and with numbers that are none.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod support;

use std::fs::File;
use std::io::pipe;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;

use support::{fail, latency, measured};

/// A pipe whose reader has gone.
fn gone() -> Stdio {
    pipe().unwrap().1.into()
}

fn full_disk() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

#[test]
fn files_are_written_without_a_reader() {
    let measured = measured();
    let result = measured.path("json");
    let folder = tempfile::tempdir().unwrap();
    let cases: [fn() -> Stdio; 2] = [gone, full_disk];
    for (i, stream) in cases.into_iter().enumerate() {
        let at = |name: &str| folder.path().join(format!("{i}.{name}")).display().to_string();
        let [html, markdown, json] = [at("html"), at("md"), at("json")];
        let short = ["bench", "--software", "--warm-up", "0", "--rounds", "1", "--count", "1", "--loop-seconds", "3"];
        for (arguments, code) in [
            (vec!["report", &result, "--html", &html], 0),
            (vec!["compare", &result, &result, "--markdown", &markdown], 0),
            (vec!["report", "/nowhere.json"], 1),
            (vec!["--help"], 0),
            (vec!["warp"], 2),
            ([&short[..], &["--no-cost", "--json", &json]].concat(), 0),
        ] {
            let ended = latency(&arguments).stdout(stream()).stderr(stream()).status().unwrap();
            assert_eq!(ended.code(), Some(code), "{arguments:?}");
        }
        assert_eq!(std::fs::read_to_string(html).unwrap(), measured.read("html"));
        assert!(!std::fs::read_to_string(markdown).unwrap().is_empty());
        let mode = std::fs::metadata(&json).unwrap().permissions().mode();
        File::create(at("usual")).unwrap();
        assert_eq!(mode, std::fs::metadata(at("usual")).unwrap().permissions().mode(), "that of any new file");
    }
}

#[test]
fn files_that_cannot_be_written_are_reported_before_the_measurement() {
    for command in ["bench", "kernels", "cycle", "live"] {
        let said = fail(1, &[command, "--json", "/nowhere/x.json"]);
        assert!(said.contains("/nowhere/x.json: cannot be created in /nowhere: No such file"), "{command}: {said}");
        let said = fail(1, &[command, "--html", "/"]);
        assert!(said.contains("/: expected a file to write, found a directory"), "{command}: {said}");
    }
}

/// Every numeric option, with what it takes.
const OPTIONS: [(&str, &str, &str); 26] = [
    ("bench", "--rounds", "1 to 1000000 times"),
    ("bench", "--count", "1 to 1000000 times"),
    ("bench", "--warm-up", "0 to 10000000 s"),
    ("bench", "--loop-seconds", "0 to 10000000 s"),
    ("bench", "--loop-warm-up", "0 to 10000000 s"),
    ("bench", "--deadline-ms", "0 to 1000000000 ms"),
    ("bench", "--prompt-tokens", "0 to 100000 tokens"),
    ("bench", "--seed", "0 to 9223372036854775807"),
    ("live", "--pid", "1 to 2147483647"),
    ("live", "--seconds", "0 to 10000000 s"),
    ("live", "--deadline-ms", "0 to 1000000000 ms"),
    ("kernels", "--rounds", "1 to 1000000 times"),
    ("kernels", "--count", "1 to 1000000 times"),
    ("cycle", "--seconds", "0 to 10000000 s"),
    ("cycle", "--warm-up", "0 to 10000000 s"),
    ("cycle", "--action-rate", "0.1 to 1000 Hz"),
    ("cycle", "--deadline-ms", "0 to 1000000000 ms"),
    ("cycle", "--keep", "0 to 10000000 s"),
    ("cycle", "--progress", "0 to 10000000 s"),
    ("cycle --attach", "--pid", "1 to 2147483647"),
    ("replay /nowhere", "--rounds", "1 to 1000000 times"),
    ("replay /nowhere", "--deadline-ms", "0 to 1000000000 ms"),
    ("compare a b", "--floor", "0 to 1000000 %"),
    ("shapes", "--count", "1 to 1000000 times"),
    ("bench", "--image", "WIDTHxHEIGHT"),
    ("kernels", "--seed", "0 to 9223372036854775807"),
];

#[test]
fn numbers_that_are_none_are_refused_by_name() {
    for (command, option, range) in OPTIONS {
        for value in ["inf", "-inf", "NaN", "-1", "1e30", "18446744073709551616", "-1e-30", "x"] {
            let given = format!("{option}={value}");
            let arguments: Vec<&str> = command.split(' ').chain([given.as_str()]).collect();
            let said = fail(2, &arguments);
            assert!(said.contains(option) && said.contains(range) && said.contains(value), "{given}: {said}");
        }
    }
}
