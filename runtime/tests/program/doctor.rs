//! `fathom doctor` as its user runs it.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::support::{SCENE, SIMULATED, fail, fathom, robot, robot_with, run, succeed, tests};

fn doctor(config: &Path, more: &[&str]) -> Command {
    let mut command = fathom();
    command.args(["doctor", "--software", "--log", "error", "--config"]).arg(config).args(more);
    command
}

/// The findings as JSON, by part.
fn findings(command: &mut Command) -> Vec<Value> {
    let output = run(command.arg("--json"));
    serde_json::from_slice::<Vec<Value>>(&output.stdout).expect("a list in JSON")
}

fn of<'a>(findings: &'a [Value], part: &str) -> &'a Value {
    findings.iter().find(|finding| finding["part"] == part).unwrap_or_else(|| panic!("no {part}: {findings:#?}"))
}

#[test]
fn a_robot_that_is_ready_is_found_so_in_every_part() {
    let (_folder, config) = robot([SCENE, SCENE], SIMULATED);
    let text = succeed(&mut doctor(&config, &[]));
    assert!(text.contains("ok       controller") && text.contains("round trip"), "{text}");
    let found = findings(&mut doctor(&config, &[]));
    for part in [
        "computer",
        "clock",
        "configuration",
        "model",
        "camera base",
        "camera wrist",
        "controller",
        "memory",
        "inference",
    ] {
        assert_eq!(of(&found, part)["level"], "ok", "{part}: {found:#?}");
    }
    assert_ne!(of(&found, "GPU")["level"], "failure", "a software driver was allowed");
    let model = of(&found, "model")["found"].as_str().unwrap();
    assert!(model.contains("model.safetensors") && model.contains("SHA-256"), "{model}");
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let camera = r#"{ kind = "v4l", device = "/nowhere/camera", width = 640, height = 480, rate_hz = 30 }"#;
    let link = "[link]\ndevice = \"/nowhere/controller\"\njoints = [\"a\"]\n[record]\nfolder = \"/proc/recordings\"";
    let (_folder, config) = robot_with(Path::new("/nowhere/model"), [camera, SCENE], link);
    let found = findings(&mut doctor(&config, &[]));
    for (part, word) in [
        ("model", "/nowhere/model"),
        ("camera base", "/nowhere/camera"),
        ("controller", "/nowhere/controller"),
        ("recordings", "/proc/recordings"),
    ] {
        let finding = of(&found, part);
        assert_eq!(finding["level"], "failure", "{part}: {finding}");
        assert!(finding["found"].as_str().is_some_and(|text| text.contains(word)), "{part}: {finding}");
    }
    assert_eq!(of(&found, "camera wrist")["level"], "ok", "the other parts are examined all the same");
    let error = fail(&mut doctor(&config, &[]));
    assert!(error.contains("4 parts are not as the robot needs them"), "{error}");
}

#[test]
fn a_wrong_configuration_and_a_computer_alone() {
    let (_folder, config) = robot([SCENE, SCENE], "[link]\ndevice = \"simulated\"\nbauds = 1");
    let found = findings(&mut doctor(&config, &[]));
    let finding = of(&found, "configuration");
    assert!(
        finding["level"] == "failure" && finding["found"].as_str().is_some_and(|t| t.contains("bauds")),
        "{finding}"
    );
    let text = succeed(fathom().args(["doctor", "--software", "--log", "error"]));
    assert!(text.contains("computer") && text.contains("GPU") && !text.contains("camera"), "{text}");
    // A software driver that nobody allowed is a failure.
    let output = run(fathom().args(["doctor", "--log", "error"]));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.contains("computes on the processor"), output.status.code() == Some(1), "{text}");
}

#[test]
fn a_folder_of_few_pictures_is_a_camera() {
    let pictures = tempfile::tempdir().unwrap();
    for name in ["a.png", "b.png"] {
        std::fs::copy(tests("../tools/demo.png"), pictures.path().join(name)).unwrap();
    }
    let source = format!("{{ kind = \"folder\", folder = {:?}, rate_hz = 5.0 }}", pictures.path());
    let (_folder, config) = robot([&source, SCENE], SIMULATED);
    let found = findings(&mut doctor(&config, &[]));
    assert_eq!(of(&found, "camera base")["level"], "ok", "{found:#?}");
}
