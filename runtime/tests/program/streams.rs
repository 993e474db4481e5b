//! Whoever reads the program's log or output goes away, hangs, or was never there: the robot goes on, and the files that
//! were asked for are written.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Read as _, Write as _, pipe};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use firmware_bridge::sim::{Sim, SimConfig, SimJoint};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use tempfile::TempDir;

use super::events::LogEvent;
use super::support::{self, SCENE, SIMULATED, fathom, model, tests};

/// What a program takes at most, on a computer that has much else to do.
const PATIENCE: Duration = Duration::from_secs(300);

/// Waits for the end; a program that hangs fails the test.
fn end(mut child: Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            panic!("it hangs");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A folder with a `robot.toml`, made once.
fn robot() -> &'static Path {
    static ROBOT: OnceLock<TempDir> = OnceLock::new();
    ROBOT.get_or_init(|| support::robot([SCENE, SCENE], SIMULATED).0).path()
}

/// A run of some seconds that writes this file.
fn run(json: &Path, seconds: &str, more: &[&str]) -> Command {
    let config = robot().join("robot.toml");
    let mut command = fathom();
    command
        .args(["run", "--software", "--seconds", seconds, "--config"])
        .arg(config)
        .arg("--json")
        .arg(json)
        .args(more);
    command
}

/// The result of a run, whole: stages of chunks that were accepted.
fn assert_ran(json: &Path) {
    let text = std::fs::read_to_string(json).expect("the file that was asked for");
    let json: serde_json::Value = serde_json::from_str(&text).expect("whole");
    let stages = json["stages"].as_array().unwrap();
    assert!(stages.iter().any(|s| s["name"] == "acknowledgement returns"), "chunks were accepted: {text}");
}

/// A pipe that takes nothing more, with its reader, which does not read.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    while writer.write(&[b' '; 4096]).is_ok() {}
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// A pipe whose reader has gone.
fn gone() -> Stdio {
    pipe().unwrap().1.into()
}

fn full_disk() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// Makes a stream.
type Make = fn() -> Stdio;

/// What becomes of standard output and standard error.
fn cases() -> [(&'static str, [Make; 2]); 4] {
    [
        ("nobody reads the output", [gone, Stdio::null]),
        ("nobody reads the log", [Stdio::null, gone]),
        ("nobody reads either", [gone, gone]),
        ("the disk is full", [full_disk, full_disk]),
    ]
}

/// Each subcommand, with a file that it has to write where it writes any.
fn subcommands(folder: &Path, sim: &Path) -> Vec<(Vec<String>, Option<PathBuf>)> {
    let model = model();
    let [model, observation] =
        [model.to_owned(), model.join("observation.safetensors")].map(|p| p.display().to_string());
    let at = |name: &str| folder.join(name).display().to_string();
    let link = folder.join("link.toml");
    let text = std::fs::read_to_string(robot().join("robot.toml")).unwrap();
    std::fs::write(&link, text.replace("\"simulated\"", &format!("{:?}\njoints = [\"base\"]", sim))).unwrap();
    let lines = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let depth_model = tests("golden/depth_anything_metric").display().to_string();
    let photo = tests("shim/picture.jpg").display().to_string();
    vec![
        (lines("--version"), None),
        (lines("run --help"), None),
        (lines(&format!("init --output {}", at("new"))), Some(folder.join("new/model.safetensors"))),
        (lines(&format!("clear-fault --config {}", link.display())), None),
        (
            lines(&format!(
                "infer --software --times --model {model} --observation {observation} --output {}",
                at("a")
            )),
            Some(folder.join("a")),
        ),
        (
            lines(&format!("depth --software --model {depth_model} --image {photo} --output {}", at("d.png"))),
            Some(folder.join("d.png")),
        ),
        (
            lines(&format!(
                "compose --pi0 {} --depth {depth_model} --output {}",
                tests("golden/pi0_lerobot").display(),
                at("composed")
            )),
            None,
        ),
    ]
}

#[test]
fn no_subcommand_needs_a_reader() {
    let sim = Sim::start(SimConfig::new(vec![SimJoint::revolute("base")])).unwrap();
    let usual = tempfile::tempdir().unwrap();
    let status = |arguments: &[String], [out, err]: [Stdio; 2]| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        end(fathom().args(&arguments).stdout(out).stderr(err).spawn().unwrap()).code()
    };
    let expected: Vec<_> = subcommands(usual.path(), sim.path())
        .iter()
        .map(|(arguments, _)| status(arguments, [Stdio::null(), Stdio::null()]))
        .collect();
    assert!(expected.iter().filter(|code| **code == Some(0)).count() >= 6, "{expected:?}");
    for (case, streams) in cases() {
        let folder = tempfile::tempdir().unwrap();
        for ((arguments, file), expected) in subcommands(folder.path(), sim.path()).iter().zip(&expected) {
            assert_eq!(status(arguments, streams.map(|make| make())), *expected, "{case}: {arguments:?}");
            if let Some(file) = file {
                let usual = usual.path().join(file.strip_prefix(folder.path()).unwrap());
                assert!(std::fs::read(file).unwrap() == std::fs::read(usual).unwrap(), "{case}: {}", file.display());
            }
        }
    }
}

/// What is asked for on standard output is not left out silently, unless its reader has gone.
#[test]
fn a_summary_that_cannot_be_printed_is_an_error() {
    let inspect = |out: Stdio| {
        let mut child = fathom();
        child.arg("inspect").arg(tests("golden/pi0_lerobot"));
        child.stdout(out).stderr(Stdio::piped()).output().unwrap()
    };
    assert!(inspect(gone()).status.success());
    let full = inspect(full_disk());
    let said = String::from_utf8_lossy(&full.stderr).into_owned();
    assert_eq!(full.status.code(), Some(1), "{said}");
    assert!(said.contains("standard output: No space left on device"), "{said}");
}

#[test]
fn mistakes_have_their_exit_code_without_a_reader() {
    for (case, streams) in cases() {
        for (arguments, code) in [
            (vec!["run", "--config", "/nowhere/robot.toml"], 1),
            (vec!["inspect", "/nowhere"], 1),
            (vec!["run"], 2),
            (vec!["warp"], 2),
        ] {
            let [out, err] = streams.map(|make| make());
            let ended = end(fathom().args(&arguments).stdout(out).stderr(err).spawn().unwrap());
            assert_eq!(ended.code(), Some(code), "{case}: {arguments:?}");
        }
    }
}

/// Programs that are started without standard input, output or error: what they open does not take those places.
#[test]
fn closed_streams_write_into_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let observation = model().join("observation.safetensors");
    let mut outputs = Vec::new();
    for closed in ["", "0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"] {
        let output = folder.path().join(format!("{}.safetensors", outputs.len()));
        let mut infer = fathom();
        infer.args(["infer", "--software", "--times", "--log", "debug", "--model"]);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("exec \"$@\" {closed}"), "sh"]).arg(infer.get_program()).args(infer.get_args());
        command.arg(model()).arg("--observation").arg(&observation).arg("--output").arg(&output);
        assert!(end(command.spawn().unwrap()).success(), "{closed}");
        outputs.push(std::fs::read(&output).unwrap());
    }
    assert!(outputs.windows(2).all(|pair| pair[0] == pair[1]), "the same bytes, whatever is closed");
}

/// The log's reader goes when the robot moves; then a camera is unplugged and comes back, which is logged.
#[test]
fn the_run_continues_when_the_reader_of_its_log_exits() {
    let json = robot().join("gone.json");
    let mut child = run(&json, "6", &["--log-format", "json", "--fault", "camera-unplug:wrist@1+1"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !LogEvent::of(&line).is_some_and(|event| event.is_change_to("active")) {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "it becomes active");
    }
    drop(log);
    assert!(end(child).success());
    assert_ran(&json);
}

/// The log's reader hangs from the beginning, so that the first line does not get through.
#[test]
fn the_run_continues_when_the_reader_of_its_log_hangs() {
    let json = robot().join("hangs.json");
    let (_reader, writer) = full_pipe();
    let child = run(&json, "3", &["--log", "debug"]).stdout(Stdio::null()).stderr(writer).spawn().unwrap();
    assert!(end(child).success());
    assert_ran(&json);
}

/// `--fault log-stall` fills the log from the control thread itself; afterwards the log says what is missing.
#[test]
fn lines_without_a_reader_are_dropped_and_counted() {
    // A loop that waited for its log would wait for ever: nobody else ends the fault.
    for fault in ["log-stall=100@1+2", "log-gone=100@1+2"] {
        let json = robot().join("fault.json");
        let output = run(&json, "6", &["--fault", fault]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        assert_ran(&json);
        let counts =
            said.lines().filter_map(|l| l.split_once(" line(s) of the log are left out")?.0.parse::<u64>().ok());
        assert!(counts.sum::<u64>() > 100, "{fault}: {said}");
    }
}

/// The output's reader hangs: the file is there all the same, and SIGTERM ends the program that waits.
#[test]
fn the_file_is_written_before_the_table_finds_no_reader() {
    let json = robot().join("table.json");
    let (mut reader, writer) = full_pipe();
    let mut child = run(&json, "3", &[]).stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !json.exists() {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "no file");
        thread::sleep(Duration::from_millis(20));
    }
    assert_ran(&json);
    // By now, or soon, it waits.
    let stat = format!("/proc/{}/syscall", child.id());
    let writes = || std::fs::read_to_string(&stat).unwrap_or_default().starts_with("1 0x1 ");
    while cfg!(target_arch = "x86_64") && !writes() {
        assert!(Instant::now() < deadline && child.try_wait().unwrap().is_none(), "it waits for its reader");
        thread::sleep(Duration::from_millis(20));
    }
    assert!(
        Command::new("kill")
            .args([OsStr::new("-TERM"), OsStr::new(&child.id().to_string())])
            .status()
            .unwrap()
            .success()
    );
    assert!(!end(child).success(), "ended by the signal");
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).unwrap();
}
