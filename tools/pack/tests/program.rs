//! The program `fathom-pack` as its user runs it. `FATHOM_RUN`, where set, is the wrapper that gives it its Vulkan driver.

#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use fathom_models::checkpoint::random;
use fathom_models::checkpoint::save::TensorFile;
use fathom_models::families;
use fathom_models::graph::params::{Param, Role};
use fathom_models::nets::config::{Expert, ModelConfig};
use fathom_models::nets::depthvla::Model;
use fathom_models::nets::presets;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;

fn pack(model: &Path, scheme: &str, output: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fathom-pack"));
    command.arg("--model").arg(model).args(["--scheme", scheme, "--output"]).arg(output);
    command
}

/// A model of 340 MB that takes no room on the disk: every weight is 0, and nobody wrote it.
fn large_model(dir: &Path) {
    let config = ModelConfig { vlm: Expert { width: 1024, mlp: 16384 }, layers: 4, depth: None, ..presets::small() };
    let model = Model::new(config.clone()).expect("valid");
    std::fs::create_dir(dir).expect("made");
    let used = model.params.params.iter().filter(|p| p.role != Role::Unused);
    let space = |p: &Param| {
        let count: usize = p.shape.iter().product();
        (p.name.clone(), Dtype::BF16, p.shape.clone(), 2 * count as u64)
    };
    let spaces: Vec<_> = used.map(space).collect();
    let blank = TensorFile::create(&dir.join("model.safetensors"), &spaces, &BTreeMap::new()).expect("made");
    blank.finish().expect("written");
    let mut config = serde_json::to_value(&config).expect("JSON");
    config["model_type"] = "depthvla".into();
    std::fs::write(dir.join("config.json"), config.to_string()).expect("written");
}

/// What lies in a folder, hidden things as well.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder").flatten();
    let mut names: Vec<String> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Starts packing and waits until a file of weights is being written.
fn start(model: &Path, output: &Path) -> (Child, PathBuf) {
    let child = pack(model, "w4", output).stderr(Stdio::piped()).spawn().expect("it starts");
    let part = output.with_file_name(format!(".packed.part-{}", child.id()));
    let deadline = Instant::now() + Duration::from_secs(60);
    while !part.join("model.safetensors").exists() {
        assert!(Instant::now() < deadline, "it writes nothing");
        std::thread::sleep(Duration::from_millis(1));
    }
    (child, part)
}

fn kill(child: &Child, signal: &str) {
    let done = Command::new("kill").args([signal, &child.id().to_string()]).status().expect("kill runs");
    assert!(done.success(), "kill {signal}");
}

/// Asked to stop it leaves nothing; killed outright it leaves nothing under the output's name, and what it leaves beside
/// goes when packing is started again.
#[test]
fn interrupted_packing_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, output) = (folder.path().join("model"), folder.path().join("packed"));
    large_model(&model);
    for signal in ["-INT", "-TERM"] {
        let (child, _) = start(&model, &output);
        kill(&child, signal);
        let done = child.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success() && said.contains("interrupted"), "{signal}: {said}");
        assert_eq!(names(folder.path()), ["model"], "after {signal}");
    }
    let (mut child, part) = start(&model, &output);
    kill(&child, "-KILL");
    child.wait().expect("it ends");
    assert!(part.exists() && !output.exists(), "{:?}", names(folder.path()));

    let small = folder.path().join("small");
    small_model(&small);
    let done = pack(&small, "w4", &output).output().expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(names(folder.path()), ["model", "packed", "small"]);
    families::load(&output).expect("it loads");
    // Nothing else may be in the place of what is written.
    let done = pack(&small, "w4", &output).output().expect("it runs");
    assert!(!done.status.success());
    assert!(String::from_utf8_lossy(&done.stderr).contains("expected nothing there"));
}

/// The small random model, with an observation in it.
fn small_model(dir: &Path) -> PathBuf {
    families::depthvla::write_random(dir, &presets::small(), 0).expect("written");
    observation(dir, "observation.safetensors", 0)
}

/// An observation of noise for it, in a file of that name.
fn observation(dir: &Path, name: &str, seed: u64) -> PathBuf {
    let config = presets::small();
    let observation = dir.join(name);
    let bytes = |seed| random::normal(seed, 90 * 120 * 3).iter().map(|v| (128.0 + 40.0 * v) as u8).collect::<Vec<_>>();
    let images: Vec<(String, Vec<u8>)> = config
        .views
        .iter()
        .enumerate()
        .map(|(i, view)| (format!("image.{view}"), bytes(10 * seed + i as u64)))
        .collect();
    let words = |values: &[u32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
    let tokens = words(&[1, 31, 62, 93]);
    let state: Vec<u32> = random::normal(10 * seed + 5, 7).iter().map(|v| v.to_bits()).collect();
    let state = words(&state);
    let mut views = vec![
        ("tokens", TensorView::new(Dtype::I32, vec![4], &tokens).expect("a tensor")),
        ("state", TensorView::new(Dtype::F32, vec![7], &state).expect("a tensor")),
    ];
    for (name, bytes) in &images {
        views.push((name.as_str(), TensorView::new(Dtype::U8, vec![90, 120, 3], bytes).expect("a tensor")));
    }
    safetensors::serialize_to_file(views, None, &observation).expect("written");
    observation
}

/// The program on its Vulkan driver.
fn on_driver() -> Command {
    let program = env!("CARGO_BIN_EXE_fathom-pack");
    match std::env::var("FATHOM_RUN") {
        Ok(wrapper) if !wrapper.is_empty() => {
            let mut command = Command::new(wrapper);
            command.arg(program);
            command
        }
        _ => Command::new(program),
    }
}

fn eval(reference: &Path, packed: &Path, observation: &Path, more: &[&str]) -> Output {
    let mut command = on_driver();
    command.args(["eval", "--software", "--reference"]).arg(reference).arg("--packed").arg(packed);
    let output = command.arg("--observations").arg(observation).args(more).output().expect("it starts");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output
}

/// The report tells what packing costs, as text, JSON and a page, and ends as the threshold says.
#[test]
fn eval_reports_and_judges() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, packed) = (folder.path().join("model"), folder.path().join("packed"));
    let observation = small_model(&model);
    assert!(pack(&model, "w4", &packed).status().expect("it runs").success());
    let (json, html) = (folder.path().join("report.json"), folder.path().join("report.html"));
    let files = ["--json", json.to_str().expect("UTF-8"), "--html", html.to_str().expect("UTF-8"), "--seeds", "2"];
    let done = eval(&model, &packed, &observation, &files);
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    assert_eq!(done.status.code(), Some(0));
    assert!(text.contains("PASS: the worst cosine of actions is 0.99"), "what w4 promises holds");
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("the report")).expect("JSON");
    assert_eq!((&report["schema"], &report["passed"]), (&1.into(), &true.into()));
    let list = |key: &str| report[key].as_array().expect("a list").clone();
    let config = presets::small();
    assert_eq!((list("runs").len(), list("steps").len()), (2, config.horizon));
    assert_eq!(list("joints").len(), config.action_dim);
    let stages: Vec<Value> = list("stages").iter().map(|s| s["name"].clone()).collect();
    for stage in ["vision.wrist", "projector.base", "depth_encoder.base", "vlm.layers.3.k", "velocity.9", "actions"] {
        assert!(stages.contains(&stage.into()), "{stage} is missing: {stages:?}");
    }
    let worst = report["worst"].as_f64().expect("a number");
    assert!((0.99..0.99999).contains(&worst), "{worst}");
    let page = std::fs::read_to_string(&html).expect("the page");
    assert!(page.contains("PASS") && page.matches("<polyline").count() == 2 * (1 + config.action_dim));
    assert!(!page.contains("http"), "it needs nothing from elsewhere");

    let done = eval(&model, &packed, &observation, &["--seeds", "1", "--threshold", "0.99999"]);
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&done.stdout).contains("FAIL: the worst cosine"));
    let done = eval(&model, &packed, &observation, &["--seeds", "1", "--max-error", "1e-6"]);
    assert!(
        done.status.code() == Some(1) && String::from_utf8_lossy(&done.stdout).contains("at most 0.000001 allowed")
    );
    // The source beside itself is the f32 run once more; another model is no packed one.
    let done = eval(&model, &model, &observation, &["--seeds", "1", "--threshold", "1"]);
    assert_eq!(done.status.code(), Some(0), "the reference is exact");
    let other = folder.path().join("other");
    families::depthvla::write_random(&other, &ModelConfig { horizon: 8, ..presets::small() }, 0).expect("written");
    let done = eval(&model, &other, &observation, &[]);
    assert!(String::from_utf8_lossy(&done.stderr).contains("their configurations differ"));
}

/// What is learnt from some observations makes the error of others smaller, and the manifest tells of it.
#[test]
fn calibration_makes_the_error_smaller() {
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("model");
    let seen: Vec<PathBuf> = std::iter::once(small_model(&model)).chain([observation(&model, "b", 1)]).collect();
    let unseen = observation(folder.path(), "c", 2);
    let error = |name: &str, calibrate: bool| {
        let (packed, json) = (folder.path().join(name), folder.path().join(format!("{name}.json")));
        let mut arguments = vec!["--model", model.to_str().expect("UTF-8"), "--scheme", "w8", "--output"];
        arguments.push(packed.to_str().expect("UTF-8"));
        if calibrate {
            arguments.extend(["--software", "--calibrate"]);
            arguments.extend(seen.iter().map(|path| path.to_str().expect("UTF-8")));
        }
        let done = on_driver().args(arguments).output().expect("it starts");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let manifest = std::fs::read_to_string(packed.join("manifest.json")).expect("the manifest");
        assert!(manifest.contains(&format!("\"calibrated\": {calibrate}")), "{manifest}");
        let done = eval(&model, &packed, &unseen, &["--seeds", "2", "--json", json.to_str().expect("UTF-8")]);
        assert!(done.status.success());
        let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("the report")).expect("JSON");
        1.0 - report["worst"].as_f64().expect("a number")
    };
    let (without, with) = (error("without", false), error("with", true));
    assert!(with < 0.6 * without, "1 - cosine: {with:.2e} with, {without:.2e} without");
}

/// Files and exit codes are as ever where nobody reads what it prints; a file that cannot be written is said first.
#[test]
fn its_output_needs_no_reader() {
    let gone = || Stdio::from(std::io::pipe().expect("a pipe").1);
    let full = || Stdio::from(std::fs::File::options().write(true).open("/dev/full").expect("it is there"));
    let folder = tempfile::tempdir().expect("a folder");
    let model = folder.path().join("model");
    let observation = small_model(&model);
    for (i, streams) in [[gone(), gone()], [full(), full()]].into_iter().enumerate() {
        let [out, err] = streams;
        let packed = folder.path().join(format!("packed {i}"));
        let ended = pack(&model, "w8", &packed).stdout(out).stderr(err).status().expect("it starts");
        assert!(ended.success() && packed.join("manifest.json").is_file(), "{ended}");
        let json = folder.path().join(format!("{i}.json"));
        let mut eval = on_driver();
        eval.args(["eval", "--software", "--seeds", "1", "--threshold=-1", "--reference"]).arg(&model);
        eval.arg("--packed").arg(&packed).arg("--observations").arg(&observation).arg("--json").arg(&json);
        let ended = eval.stdout(gone()).stderr(full()).status().expect("it starts");
        assert!(ended.success(), "{ended}");
        serde_json::from_str::<Value>(&std::fs::read_to_string(&json).expect("the report")).expect("JSON");
    }
    let output = eval(&model, &folder.path().join("packed 0"), &observation, &["--json", "/nowhere/report.json"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/nowhere/report.json: cannot be created in /nowhere"), "{said}");
}

#[test]
fn numbers_that_are_none_are_refused_by_name() {
    let packing = ["--model", "a", "--scheme", "w8", "--output", "b"];
    let eval = ["eval", "--reference", "a", "--packed", "b", "--observations", "c"];
    for (arguments, option, range) in [
        (&packing[..], "--timeout", "1 to 86400 s"),
        (&eval[..], "--timeout", "1 to 86400 s"),
        (&eval[..], "--seeds", "1 to 100000 seeds"),
        (&eval[..], "--threshold", "-1 to 1 (a cosine)"),
        (&eval[..], "--max-error", "0 to 1000000000"),
    ] {
        for value in ["inf", "NaN", "-2", "18446744073709551616", "1e30", "x"] {
            let output = Command::new(env!("CARGO_BIN_EXE_fathom-pack"))
                .args(arguments)
                .arg(format!("{option}={value}"))
                .output()
                .expect("it starts");
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{option}={value}: {said}");
            assert!(said.contains(option) && said.contains(range) && said.contains(value), "{said}");
        }
    }
}
