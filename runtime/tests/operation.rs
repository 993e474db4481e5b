//! Running a robot by hand: arming, injected faults, recording and replay, as their user does it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use fathom::scene::Scene;
use firmware_bridge::frame::{Decoder, Frame};
use firmware_bridge::message::{Interpolation, Message};
use firmware_bridge::sim::{Sim, SimConfig, SimJoint};
use serialport::SerialPort;
use tempfile::TempDir;

fn fathom() -> Command {
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

/// A folder with the small random model and a `robot.toml`, made once.
fn robot() -> &'static Path {
    static ROBOT: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, folder) = ROBOT.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let made = fathom().args(["init", "--output"]).arg(folder.path().join("model")).output().unwrap();
        assert!(made.status.success());
        let path = folder.path().to_owned();
        (folder, path)
    });
    folder
}

/// A configuration with these lines in `[control]`.
fn config(name: &str, control: &str) -> PathBuf {
    let path = robot().join(name);
    let scene = r#"{ kind = "scene", rate_hz = 10.0 }"#;
    let text = format!(
        "[model]\npath = \"model\"\nprompt = \"reach for the red block\"\n[control]\nmax_image_age_ms = 5000\n\
         max_image_skew_ms = 5000\naction_rate_hz = 4.0\n{control}\n[chunks]\nvalidity_ms = 20000\n[link]\ndevice = \"simulated\"\n\
         [[camera]]\nview = \"base\"\nsource = {scene}\n[[camera]]\nview = \"wrist\"\nsource = {scene}\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// A run whose log is read while it goes.
struct Run {
    child: Child,
    lines: Receiver<String>,
    said: Vec<String>,
}

impl Run {
    fn start(config: &Path, more: &[&str]) -> Run {
        let mut command = fathom();
        command.args(["run", "--software", "--config"]).arg(config).args(more).stderr(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let log = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || log.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Run { child, lines, said: Vec::new() }
    }

    /// Reads on until a line has `words`; that line.
    fn until(&mut self, words: &str) -> String {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no {words:?} in {:#?}", self.said));
            self.said.push(line.clone());
            if line.contains(words) {
                return line;
            }
        }
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    fn end(mut self) -> (bool, String) {
        let status = self.child.wait().unwrap();
        self.said.extend(self.lines.iter());
        (status.success(), self.said.join("\n"))
    }
}

/// Nothing moves before somebody asks for it, and it rests when somebody asks for that; then it can be armed again.
#[test]
fn arming_and_disarming_are_asked_for() {
    let mut run = Run::start(&config("armed.toml", "arm_at_start = false"), &[]);
    run.until("ready; SIGUSR1 arms");
    std::thread::sleep(Duration::from_millis(300));
    assert!(run.lines.try_iter().all(|line| !line.contains("to=active")), "it armed by itself");
    run.signal("-USR1");
    run.until("from=ready to=active");
    run.signal("-USR2");
    run.until("from=active to=ready event=DisarmAsked");
    run.signal("-USR1");
    run.until("from=ready to=active");
    run.signal("-TERM");
    assert!(run.end().0, "SIGTERM is no error");
}

/// All but arm and send: the model is asked, the controller gets nothing. However often the loop wakes for what arrives, it
/// ticks at its rate, and shows the model no image twice.
#[test]
fn a_dry_run_infers_and_sends_nothing() {
    fathom_contention::timed!();
    let path = config("dry.toml", "");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("rate_hz = 10.0", "rate_hz = 2.0")).unwrap();
    let began = Instant::now();
    let run = Run::start(&path, &["--dry-run", "--seconds", "3"]);
    let output = run.child.wait_with_output().unwrap();
    let took_s = began.elapsed().as_secs_f64();
    let printed = String::from_utf8(output.stdout).unwrap();
    let count = |row: &str| {
        let line =
            printed.lines().find_map(|line| line.strip_prefix(row)).unwrap_or_else(|| panic!("no {row:?}: {printed}"));
        line.split_whitespace().next().and_then(|count| count.parse::<f64>().ok()).unwrap()
    };
    assert!(count("control tick: lateness") <= took_s * 100.0 + 1.0, "in {took_s} s: {printed}");
    assert!(count("= inference ") <= 2.0 * 2.0 * took_s, "of two cameras of 2 Hz, in {took_s} s: {printed}");
    assert!(output.status.success() && printed.contains("chunks: 0 accepted, 0 refused, 0 too late"), "{printed}");
    assert!(printed.contains("flow steps") && printed.contains("distance moved by the tool: 0 mm"), "{printed}");
}

/// The line is unplugged and comes back: the same process goes on, and was not armed while it was gone.
#[test]
fn an_unplugged_line_is_opened_again() {
    fathom_contention::timed!();
    let run = Run::start(&config("line.toml", ""), &["--seconds", "9", "--fault", "serial-unplug@1+2"]);
    let (well, said) = run.end();
    assert!(well, "{said}");
    let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("no {text:?} in {said}"));
    let (lost, again) = (at("from=active to=hold (line)"), at("from=hold (line) to=ready"));
    let active = again + said[again..].find("from=ready to=active").expect("active again");
    assert!(at("fault begins") < lost && lost < again && again < active, "{said}");
}

/// A line to `sim` on which each chunk's way from step to step is noted: the device's path, and the notes.
fn tapped(sim: &Sim) -> (String, Receiver<Interpolation>) {
    let (mut host, device) = serialport::TTYPort::pair().unwrap();
    let path = device.name().unwrap();
    let mut controller = serialport::new(sim.path().to_str().unwrap(), 1_000_000).open_native().unwrap();
    let (mut back, mut to) = (controller.try_clone_native().unwrap(), host.try_clone_native().unwrap());
    let (sender, notes) = channel();
    std::thread::spawn(move || std::io::copy(&mut Patient(&mut back), &mut to));
    std::thread::spawn(move || {
        let _open = device;
        let (mut decoder, mut bytes) = (Decoder::new(), [0; 1024]);
        while let Ok(count) = Patient(&mut host).read(&mut bytes) {
            for byte in &bytes[..count] {
                if let Some(Ok(Frame { message: Message::Chunk(chunk), .. })) = decoder.feed(*byte)
                    && sender.send(chunk.interpolation).is_err()
                {
                    return;
                }
            }
            controller.write_all(&bytes[..count]).unwrap();
        }
    });
    (path, notes)
}

/// Reads on where nothing came for a while.
struct Patient<'a>(&'a mut serialport::TTYPort);

impl Read for Patient<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        loop {
            match self.0.read(bytes) {
                Err(error) if error.kind() == ErrorKind::TimedOut => {}
                other => return other,
            }
        }
    }
}

/// The controller is told how to move from step to step, and a name that is none is refused.
#[test]
fn the_way_from_step_to_step_is_the_configurations() {
    fathom_contention::timed!();
    let joints: Vec<String> = Scene::built_in(1).unwrap().joints().iter().map(|j| j.name.clone()).collect();
    let sim_joints = joints.iter().map(|name| SimJoint::revolute(name)).collect();
    let sim = Sim::start(SimConfig { deadman_us: 10_000_000, ..SimConfig::new(sim_joints) }).unwrap();
    let (device, notes) = tapped(&sim);
    let with = |interpolation: &str| {
        let path = config("interpolation.toml", "");
        let text = std::fs::read_to_string(&path).unwrap();
        let link = format!("{interpolation}\n[link]\ndevice = {device:?}\njoints = {joints:?}");
        std::fs::write(&path, text.replace("[link]\ndevice = \"simulated\"", &link)).unwrap();
        path
    };
    for (line, expected) in [("", Interpolation::Linear), ("interpolation = \"hermite\"", Interpolation::Hermite)] {
        let (well, said) = Run::start(&with(line), &["--seconds", "1.5"]).end();
        assert!(well, "{said}");
        let sent: Vec<Interpolation> = notes.try_iter().collect();
        assert!(!sent.is_empty() && sent.iter().all(|way| *way == expected), "{line:?} gave {sent:?}");
    }
    let (well, said) = Run::start(&with("interpolation = \"spline\""), &[]).end();
    assert!(!well && said.contains("expected `linear` or `hermite`"), "{said}");
}

/// A joint outside its limits is not moved: it is named, and armed once a person has moved it within them.
#[test]
fn a_joint_outside_its_limits_is_named_and_armed_after_it_was_moved() {
    let joints: Vec<String> = Scene::built_in(1).unwrap().joints().iter().map(|j| j.name.clone()).collect();
    let mut sim_joints: Vec<SimJoint> = joints.iter().map(|name| SimJoint::revolute(name)).collect();
    sim_joints[2].initial = -2.75;
    let sim = Sim::start(SimConfig { deadman_us: 10_000_000, ..SimConfig::new(sim_joints) }).unwrap();
    let path = config("outside.toml", "");
    let text = std::fs::read_to_string(&path).unwrap();
    let link = format!("[link]\ndevice = {:?}\ncontroller = \"simulated\"\njoints = {joints:?}", sim.path());
    std::fs::write(&path, text.replace("[link]\ndevice = \"simulated\"", &link)).unwrap();
    let mut run = Run::start(&path, &[]);
    let line = run.until("not armed yet");
    assert!(line.contains(&format!("{} at -2.750, limits -2.500 to 2.500", joints[2])), "{line}");
    assert_eq!(sim.positions()[2], -2.75);
    sim.joints().place(&vec![0.0; joints.len()]);
    run.until("to=active");
    run.signal("-TERM");
    let (well, said) = run.end();
    assert!(well, "{said}");

    let other =
        std::fs::read_to_string(&path).unwrap().replace("controller = \"simulated\"", "controller = \"left-arm\"");
    std::fs::write(&path, other).unwrap();
    let (well, said) = Run::start(&path, &[]).end();
    assert!(!well && said.contains("is \"simulated\", the configuration expects \"left-arm\""), "{said}");
}

/// A fault that the controller latches is in the log, in the program's last words and in the recording, with the joint,
/// the value and the chunk that was followed.
#[test]
fn a_joints_fault_is_reported_and_recorded_with_its_cause() {
    let runs = robot().join("faulted");
    let options = ["--fault", "stuck-reading=-2.4@1", "--record", runs.to_str().unwrap()];
    let (well, said) = Run::start(&config("faulted.toml", ""), &options).end();
    let cause = "ImplausibleReading: joint shoulder_pan: implausible reading -2.400 rad, expected ";
    assert!(!well && said.contains(cause) && said.contains(" rad, while following chunk "), "{said}");
    let told: Vec<&str> = said.lines().filter(|line| line.contains(cause)).collect();
    assert!(told.iter().any(|line| line.contains("to=fault (controller)")), "{said}");
    assert!(told.iter().any(|line| line.starts_with("error: the loop ended in fault (controller)")), "{said}");
    let mut recorded = Vec::new();
    for file in std::fs::read_dir(&runs).unwrap() {
        recorded.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    let recorded = String::from_utf8_lossy(&recorded);
    let (_, state) = recorded
        .split_once(r#""fault":{"kind":"ImplausibleReading","joint":"shoulder_pan","cause":0,"value":-2.4,"#)
        .expect("the controller's report of it");
    assert!(state.contains("implausible reading -2.400 rad"));
}

/// With `rearm = false` a person has to arm again.
#[test]
fn without_rearm_a_lost_line_leaves_the_arm_disarmed() {
    let faults = ["--fault", "serial-unplug@1+1"];
    let mut run = Run::start(&config("rearm.toml", "rearm = false"), &faults);
    run.until("to=hold (line)");
    run.until("from=hold (line) to=ready");
    std::thread::sleep(Duration::from_millis(500));
    assert!(run.lines.try_iter().all(|line| !line.contains("to=active")), "it armed by itself");
    run.signal("-TERM");
    let (well, said) = run.end();
    assert!(well, "{said}");
}

#[test]
fn a_recorded_run_is_replayed_to_the_bit() {
    fathom_contention::timed!();
    let runs = robot().join("runs");
    let record = ["--seconds", "3", "--record", runs.to_str().unwrap()];
    assert!(Run::start(&config("recorded.toml", ""), &record).end().0);
    let output = fathom().args(["replay", "--software"]).arg(&runs).output().unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{printed}");
    let line = printed.lines().find(|l| l.contains("bit-identical")).expect("a line with the count");
    let counts: Vec<u32> = line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    assert!(counts.len() == 2 && counts[0] > 0 && counts[0] == counts[1], "{line}");
}

#[test]
fn a_fault_that_is_none_is_refused() {
    for (fault, problem) in [("camera-melt", "camera-stall"), ("disk-full", "a recording")] {
        let config = config("refused.toml", "");
        let mut command = fathom();
        let output = command.args(["run", "--software", "--fault", fault, "--config"]).arg(config).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(problem), "{said}");
    }
}
