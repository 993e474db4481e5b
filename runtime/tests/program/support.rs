//! Shared by the tests: the program, its model and its configuration.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use safetensors::SafeTensors;
use tempfile::TempDir;

pub(crate) fn fathom() -> Command {
    let program = env!("CARGO_BIN_EXE_fathom");
    match std::env::var("FATHOM_RUN") {
        Ok(wrapper) if !wrapper.is_empty() => {
            let mut command = Command::new(wrapper);
            command.arg(program);
            command
        }
        _ => Command::new(program),
    }
}

pub(crate) fn run(command: &mut Command) -> Output {
    let output = command.output().expect("fathom starts");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output
}

pub(crate) fn succeed(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "it failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Fails, as it should; returns what it says.
pub(crate) fn fail(command: &mut Command) -> String {
    fail_with(1, command)
}

/// Fails with this exit status, as it should; returns its log.
pub(crate) fn fail_with(status: i32, command: &mut Command) -> String {
    let output = run(command);
    assert_eq!(output.status.code(), Some(status), "exit status");
    String::from_utf8(output.stderr).unwrap()
}

pub(crate) fn tests(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(below)
}

/// A folder with the small random model, made once.
pub(crate) fn model() -> &'static Path {
    static MODEL: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, dir) = MODEL.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("model");
        succeed(fathom().args(["init", "--preset", "small", "--output"]).arg(&dir));
        (folder, dir)
    });
    dir
}

/// A folder with `robot.toml`: the small model, both cameras from `sources`, then `rest`.
pub(crate) fn robot(sources: [&str; 2], rest: &str) -> (TempDir, PathBuf) {
    robot_with(model(), sources, rest)
}

pub(crate) fn robot_with(model: &Path, sources: [&str; 2], rest: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("robot.toml");
    let text = format!(
        "[model]\npath = {:?}\nprompt = \"reach for the red block\"\n[control]\nmax_image_age_ms = 5000\n\
         max_image_skew_ms = 5000\naction_rate_hz = 4.0\n[chunks]\nvalidity_ms = 20000\n{rest}\n\
         [[camera]]\nview = \"base\"\nsource = {}\n[[camera]]\nview = \"wrist\"\nsource = {}\n",
        model, sources[0], sources[1]
    );
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

pub(crate) const SIMULATED: &str = "[link]\ndevice = \"simulated\"";

pub(crate) const SCENE: &str = r#"{ kind = "scene", rate_hz = 10.0 }"#;

pub(crate) fn chunks(printed: &str) -> u32 {
    let line = printed.lines().find_map(|l| l.strip_prefix("chunks: ")).expect("a line with chunks");
    line.split(' ').next().unwrap().parse().unwrap()
}

pub(crate) fn infer(model: &Path, output: &Path) -> Command {
    let mut command = fathom();
    command.args(["infer", "--software", "--model"]).arg(model);
    command.arg("--observation").arg(model.join("observation.safetensors")).arg("--output").arg(output);
    command
}

pub(crate) fn tensor(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap_or_else(|_| panic!("no tensor {name}"));
    (view.shape().to_vec(), bytemuck::pod_collect_to_vec(view.data()))
}
