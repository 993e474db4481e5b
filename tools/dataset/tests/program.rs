//! The program `fathom-dataset` as its user runs it. `FATHOM_LEROBOT` names a Python with lerobot; the stage `lerobot` sets it.

#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

fn demonstrate(output: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fathom-dataset"));
    command.args(["demonstrate", "--image-size", "16", "--output"]).arg(output).args(options);
    command.output().expect("it starts")
}

fn succeeded(output: &Output) {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn refused(output: &Output, expected: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains(expected), "{said}");
}

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("the file")).expect("JSON")
}

/// Names and bytes of all files under a folder.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).expect("the folder").flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    let name = path.strip_prefix(folder).expect("inside").display().to_string();
                    found.push((name, std::fs::read(&path).expect("the file")));
                }
            }
        }
    }
    found.sort();
    found
}

/// Notes for `tools/test` that a test has not run.
fn skip(name: &str, reason: &str) {
    use std::io::Write as _;
    println!("skipped: {reason}");
    if let Ok(path) = std::env::var("FATHOM_SKIPS") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).expect("the list of skips");
        // At once: tests that run side by side add to it.
        file.write_all(format!("{name}: {reason}\n").as_bytes()).expect("noted");
    }
}

#[test]
fn the_data_set_depends_on_seed_and_options_alone() {
    let scratch = tempfile::tempdir().expect("a folder");
    let at = |name: &str| scratch.path().join(name);
    succeeded(&demonstrate(&at("one"), &["--episodes", "5", "--seed", "3", "--threads", "1"]));
    succeeded(&demonstrate(&at("four"), &["--episodes", "5", "--seed", "3", "--threads", "4"]));
    let (one, four) = (files(&at("one")), files(&at("four")));
    let names: Vec<&str> = one.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "data/chunk-000/file-000.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "meta/fathom.json",
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
    ];
    assert_eq!(names, expected);
    assert!(one == four, "the number of threads changes the data set");
    succeeded(&demonstrate(&at("other"), &["--episodes", "5", "--seed", "4"]));
    assert!(one != files(&at("other")), "another seed gives the same data set");
    let mut left: Vec<_> = std::fs::read_dir(scratch.path()).expect("the folder").flatten().collect();
    left.retain(|entry| entry.file_name().to_string_lossy().starts_with('.'));
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn fewer_frames_are_those_of_the_same_episodes() {
    let scratch = tempfile::tempdir().expect("a folder");
    let [whole, sparse] = ["whole", "sparse"].map(|name| scratch.path().join(name));
    succeeded(&demonstrate(&whole, &["--episodes", "9"]));
    succeeded(&demonstrate(&sparse, &["--episodes", "9", "--rate", "3"]));
    let [all, some] = [&whole, &sparse].map(|set| json(&set.join("meta/info.json")));
    assert_eq!((all["fps"].as_u64(), some["fps"].as_u64()), (Some(15), Some(3)));
    let frames = [&all, &some].map(|info| info["total_frames"].as_u64().expect("a number"));
    // Each episode has its first frame, and every fifth.
    assert!(frames[1] >= frames[0] / 5 && frames[1] <= frames[0] / 5 + 9, "{frames:?}");
    assert_eq!((all["total_tasks"].as_u64(), all["total_episodes"].as_u64()), (Some(9), Some(9)));
    assert_eq!(all["features"]["action.plan"]["shape"], serde_json::json!([16, 6]));
    assert_eq!(all["features"]["observation.state"]["names"][0], "shoulder_pan");
    assert_eq!(all["features"]["observation.depth.base"]["info"]["depth_unit"], "mm");
    let [all, some] = [&whole, &sparse].map(|set| json(&set.join("meta/stats.json")));
    assert_eq!(all["observation.state"]["count"][0].as_u64(), Some(frames[0]));
    let range = |stats: &Value, name: &str| stats["observation.state"][name][1].as_f64().expect("a number");
    assert!(range(&some, "min") >= range(&all, "min") && range(&some, "max") <= range(&all, "max"));
    assert!(
        all["observation.depth.base"]["max"][0][0][0].as_f64().is_some_and(|depth| (500.0..=3000.0).contains(&depth))
    );
}

#[test]
fn what_it_cannot_write_is_refused() {
    let scratch = tempfile::tempdir().expect("a folder");
    let there = scratch.path().join("there");
    std::fs::create_dir(&there).expect("made");
    refused(&demonstrate(&there, &["--episodes", "1"]), "exists already");
    assert_eq!(std::fs::read_dir(&there).expect("the folder").count(), 0);
    let new = scratch.path().join("new");
    refused(&demonstrate(&new, &["--episodes", "1", "--rate", "4"]), "expected 15, 5, 3 or 1 Hz");
    refused(&demonstrate(&new, &["--episodes", "0"]), "expected 1 to");
    refused(&demonstrate(&new, &["--episodes", "1", "--scene", "/nowhere/scene.toml"]), "/nowhere/scene.toml: ");
    let scene = scratch.path().join("scene.toml");
    let text = fathom::scene::Scene::built_in_text().replace("kind = \"pick\"", "kind = \"juggle\"");
    std::fs::write(&scene, text).expect("written");
    refused(&demonstrate(&new, &["--episodes", "1", "--scene", scene.to_str().expect("UTF-8")]), "juggle");
    assert!(!new.exists());
}

#[test]
fn the_expert_counts_its_successes() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fathom-dataset"));
    let output = command.args(["expert", "--episodes", "3", "--least", "1"]).output().expect("it starts");
    succeeded(&output);
    let said = String::from_utf8_lossy(&output.stdout);
    assert_eq!(said.lines().count(), 9, "{said}");
    assert!(said.contains("pick up the red block") && said.contains("3 of 3"), "{said}");
}

#[test]
fn lerobots_own_loader_reads_the_set() {
    let Some(python) = std::env::var("FATHOM_LEROBOT").ok().filter(|python| !python.is_empty()) else {
        let (test, why) = ("lerobots_own_loader_reads_the_set", "FATHOM_LEROBOT names no Python with lerobot");
        return skip(test, why);
    };
    let scratch = tempfile::tempdir().expect("a folder");
    let set = scratch.path().join("set");
    succeeded(&demonstrate(&set, &["--episodes", "10", "--rate", "5"]));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/read_set.py");
    let output = Command::new(python).arg(script).arg(&set).output().expect("it starts");
    succeeded(&output);
    let found: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let info = json(&set.join("meta/info.json"));
    assert_eq!(found["frames"], info["total_frames"]);
    assert_eq!((found["episodes"].as_u64(), found["fps"].as_u64()), (Some(10), Some(5)));
    assert_eq!(found["tasks"].as_array().map(Vec::len), Some(9));
    assert_eq!(found["task"], "reach for the red block");
    let shapes = &found["shapes"];
    for (name, shape) in [
        ("observation.images.base", vec![3, 16, 16]),
        ("observation.images.wrist", vec![3, 16, 16]),
        ("observation.depth.base", vec![1, 16, 16]),
        ("observation.state", vec![6]),
        ("action", vec![6]),
        ("action.plan", vec![16, 6]),
        ("annotation.pixel", vec![2, 2, 2]),
    ] {
        assert_eq!(shapes[name], serde_json::json!(shape), "{name}");
        assert_eq!(found["batch"][name][0], 4, "{name}");
        for statistic in ["min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"] {
            assert!(found["stats"][name][statistic].is_array(), "{name} has no {statistic}");
        }
    }
    assert_eq!(found["ahead"], serde_json::json!([2, 6]));
    assert_eq!(found["second_episode"], serde_json::json!([1]));
    let max = found["image_max"].as_f64().expect("a number");
    assert!(max > 0.3 && max <= 1.0, "{max}");
}
