//! `fathom-eval` as its user runs it, with the scene's expert in the policy's place: no GPU.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn eval(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fathom-eval")).args(arguments).output().unwrap()
}

fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo.toml")
}

fn expert(more: &[&str]) -> Output {
    let config = demo();
    let mut arguments = vec!["run", "--expert", "--config", config.to_str().unwrap()];
    arguments.extend(more);
    eval(&arguments)
}

#[test]
fn a_result_is_written_shown_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (well, slow, page) = (file("well.json"), file("slow.json"), file("well.html"));
    let output = expert(&["--episodes", "20", "--least", "pick=0.8", "--json", &well, "--html", &page]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}");
    for row in ["reach", "pick", "place", "put the green cylinder on the white plate"] {
        assert!(printed.lines().any(|line| line.starts_with(row)), "no row {row:?}: {printed}");
    }
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("the scene's expert") && !html.contains("http"), "one page without outside resources");
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&well).unwrap()).unwrap();
    assert_eq!(json["episodes"].as_array().unwrap().len(), 60);

    let (one, three) = (file("one.json"), file("three.json"));
    for (threads, path) in [("1", &one), ("3", &three)] {
        assert!(expert(&["--episodes", "5", "--threads", threads, "--json", path]).status.success());
    }
    assert_eq!(std::fs::read(&one).unwrap(), std::fs::read(&three).unwrap(), "threads change nothing");

    // An inference that takes longer than its chunk is valid does nothing.
    let output = expert(&["--episodes", "20", "--inference-ms", "5000", "--json", &slow, "--least", "reach=0.9"]);
    assert_eq!(output.status.code(), Some(1), "fewer than the least");
    let compared = String::from_utf8(eval(&["compare", &well, &slow]).stdout).unwrap();
    let row = compared.lines().find(|line| line.starts_with("place")).unwrap();
    assert!(row.contains("McNemar, paired") && row.contains("-"), "{compared}");
    let compared = String::from_utf8(eval(&["compare", &well, &well]).stdout).unwrap();
    assert!(compared.contains("1.0000"), "equal results do not differ: {compared}");
}

#[test]
fn mistakes_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = folder.path().join("wrong.json");
    std::fs::write(&wrong, "{\"format\": 7}").unwrap();
    let said = |output: Output| String::from_utf8(output.stderr).unwrap();
    let error = said(eval(&["compare", wrong.to_str().unwrap(), wrong.to_str().unwrap()]));
    assert!(error.contains("expected format 1, found 7"), "{error}");
    let error = said(expert(&["--task", "pick", "--prompt", "juggle"]));
    assert!(
        error.contains("no task of pick with the prompt \"juggle\"") && error.contains("pick up the red block"),
        "{error}"
    );
    assert!(said(expert(&["--task", "juggle"])).contains("expected reach, pick or place"));
    assert!(said(expert(&["--least", "reach=2"])).contains("expected KIND=SHARE"));
}
