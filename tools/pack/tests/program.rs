//! The program `fathom-pack` as its user runs it. `FATHOM_RUN`, where set, is the wrapper that gives it its Vulkan driver.

#![allow(clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use fathom_models::config::{Expert, ModelConfig};
use fathom_models::depthvla::Model;
use fathom_models::params::{Param, Role};
use fathom_models::save::Blank;
use fathom_models::weights::Checkpoint;
use fathom_models::{families, presets};
use safetensors::Dtype;

fn pack(model: &Path, scheme: &str, output: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fathom-pack"));
    command.arg("--model").arg(model).args(["--scheme", scheme, "--output"]).arg(output);
    command
}

/// A model of 650 MB that takes no room on the disk: every weight is 0, and nobody wrote it.
fn large_model(dir: &Path) {
    let config = ModelConfig { vlm: Expert { width: 1024, mlp: 16384 }, layers: 7, depth: None, ..presets::small() };
    let model = Model::new(config.clone()).expect("valid");
    std::fs::create_dir(dir).expect("made");
    let used = model.params.params.iter().filter(|p| p.role != Role::Unused);
    let space = |p: &Param| {
        let count: usize = p.shape.iter().product();
        (p.name.clone(), Dtype::BF16, p.shape.clone(), 2 * count as u64)
    };
    let spaces: Vec<_> = used.map(space).collect();
    let blank = Blank::create(&dir.join("model.safetensors"), &spaces, &BTreeMap::new()).expect("made");
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

    let done = pack(&model, "w4", &output).output().expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    assert_eq!(names(folder.path()), ["model", "packed"]);
    families::load(&output).expect("it loads");
    // Nothing else may be in the place of what is written.
    let done = pack(&model, "w4", &output).output().expect("it runs");
    assert!(!done.status.success());
    assert!(String::from_utf8_lossy(&done.stderr).contains("expected nothing there"));
}

/// More weights than a file takes become several files and an index.
#[test]
fn many_weights_become_several_files() {
    let folder = tempfile::tempdir().expect("a folder");
    let (model, output) = (folder.path().join("model"), folder.path().join("packed"));
    large_model(&model);
    let done = pack(&model, "f16", &output).output().expect("it runs");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let files = names(&output);
    assert!(files.contains(&"model.safetensors.index.json".to_owned()), "{files:?}");
    assert_eq!(files.iter().filter(|f| f.starts_with("model-0")).count(), 2, "{files:?}");
    families::load(&output).expect("it loads");
    let shape = |dir: &Path, name: &str| Checkpoint::open_model(dir).expect("opens").shape(name).map(<[usize]>::to_vec);
    let name = "joint_model.mixtures.vlm.layers.3.mlp.up_proj.weight";
    assert_eq!(shape(&output, name), shape(&model, name));
}
