//! Running a robot by hand: arming, injected faults, recording and replay, as their user does it.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use fathom::scene::Scene;
use firmware_bridge::frame::{Decoder, Frame};
use firmware_bridge::message::{Interpolation, Message};
use firmware_bridge::sim::{Sim, SimConfig, SimJoint};
use serialport::SerialPort;
use tempfile::TempDir;

use super::events::{LogEvent, assert_order};
use super::support::{SCENE, SIMULATED, fathom, robot};

/// A configuration with these lines in `[control]`.
fn config(control: &str) -> (TempDir, PathBuf) {
    let (folder, path) = robot([SCENE, SCENE], SIMULATED);
    replace(&path, "[control]", &format!("[control]\n{control}"));
    (folder, path)
}

/// Replaces a part of a file's text.
fn replace(path: &Path, old: &str, new: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(old), "no {old:?} in {text}");
    std::fs::write(path, text.replace(old, new)).unwrap();
}

/// A run whose events are read while it goes.
struct Run {
    child: Child,
    arriving: Receiver<LogEvent>,
    events: Vec<LogEvent>,
}

impl Run {
    fn start(config: &Path, more: &[&str]) -> Run {
        let mut command = fathom();
        command.args(["run", "--log-format", "json", "--software", "--config"]).arg(config).args(more);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, arriving) = channel();
        let log = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            let events = log.lines().map_while(Result::ok).filter_map(|line| LogEvent::of(&line));
            events.map(|event| sender.send(event)).find(Result::is_err)
        });
        Run { child, arriving, events: Vec::new() }
    }

    /// Reads on until an event is `wanted`; that event.
    fn until(&mut self, name: &str, wanted: impl Fn(&LogEvent) -> bool) -> LogEvent {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let event = self.arriving.recv_timeout(left).unwrap_or_else(|_| panic!("no {name}: {:#?}", self.events));
            self.events.push(event.clone());
            if wanted(&event) {
                return event;
            }
        }
    }

    fn until_change(&mut self, from: &str, to: &str) -> LogEvent {
        self.until(to, |event| event.is_change(from, to))
    }

    /// Checks that the arm has not been armed in the events that have arrived since.
    fn assert_not_armed(&self) {
        assert!(!self.arriving.try_iter().any(|event| event.is_change_to("active")), "it armed by itself");
    }

    fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap().success());
    }

    /// The exit status, and all events.
    fn end(mut self) -> (i32, Vec<LogEvent>) {
        let status = self.child.wait().unwrap();
        self.events.extend(self.arriving.iter());
        (status.code().unwrap(), self.events)
    }
}

/// The last words of a run that does not begin.
fn refused(config: &Path) -> String {
    let (status, events) = Run::start(config, &[]).end();
    let last = events.last().filter(|event| event.is("failed"));
    assert_eq!(status, 1, "{events:#?}");
    last.unwrap_or_else(|| panic!("no last words: {events:#?}")).field("message").to_owned()
}

/// Nothing moves before somebody asks for it, and it rests when somebody asks for that; then it can be armed again.
#[test]
fn arming_and_disarming_are_asked_for() {
    let config = config("arm_at_start = false");
    let mut run = Run::start(&config.1, &[]);
    run.until("request to arm", |event| event.is("awaits_arming"));
    std::thread::sleep(Duration::from_millis(300));
    run.assert_not_armed();
    run.signal("-USR1");
    run.until_change("ready", "active");
    run.signal("-USR2");
    assert_eq!(run.until_change("active", "ready").field("event"), "DisarmAsked");
    run.signal("-USR1");
    run.until_change("ready", "active");
    run.signal("-TERM");
    assert_eq!(run.end().0, 0, "SIGTERM is no error");
}

/// All but arm and send: the model is asked, the controller gets nothing. However often the loop wakes for what arrives, it
/// ticks at its rate, and shows the model no image twice.
#[test]
fn a_dry_run_infers_and_sends_nothing() {
    fathom_contention::timed!();
    let (_folder, path) = config("");
    replace(&path, "rate_hz = 10.0", "rate_hz = 2.0");
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
    let (_folder, path) = config("");
    let run = Run::start(&path, &["--seconds", "9", "--fault", "serial-unplug@1+2"]);
    let (status, events) = run.end();
    assert_eq!(status, 0, "{events:#?}");
    assert_order(
        &events,
        &[
            ("fault", &|event| event.is("injected")),
            ("loss of the line", &|event| event.is_change("active", "hold (line)")),
            ("new line", &|event| event.is_change("hold (line)", "ready")),
            ("arming", &|event| event.is_change("ready", "active")),
        ],
    );
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
        let (folder, path) = config("");
        let link = format!("[link]\ndevice = {device:?}\njoints = {joints:?}");
        replace(&path, SIMULATED, &link);
        replace(&path, "[chunks]", &format!("[chunks]\n{interpolation}"));
        (folder, path)
    };
    for (line, expected) in [("", Interpolation::Linear), ("interpolation = \"hermite\"", Interpolation::Hermite)] {
        let (status, events) = Run::start(&with(line).1, &["--seconds", "1.5"]).end();
        assert_eq!(status, 0, "{events:#?}");
        let sent: Vec<Interpolation> = notes.try_iter().collect();
        assert!(!sent.is_empty() && sent.iter().all(|way| *way == expected), "{line:?} gave {sent:?}");
    }
    let said = refused(&with("interpolation = \"spline\"").1);
    assert!(said.contains("expected `linear` or `hermite`"), "{said}");
}

/// A joint outside its limits is not moved: it is named, and armed once a person has moved it within them.
#[test]
fn a_joint_outside_its_limits_is_named_and_armed_after_it_was_moved() {
    let joints: Vec<String> = Scene::built_in(1).unwrap().joints().iter().map(|j| j.name.clone()).collect();
    let mut sim_joints: Vec<SimJoint> = joints.iter().map(|name| SimJoint::revolute(name)).collect();
    sim_joints[2].initial = -2.75;
    let sim = Sim::start(SimConfig { deadman_us: 10_000_000, ..SimConfig::new(sim_joints) }).unwrap();
    let (_folder, path) = config("");
    let link = format!("[link]\ndevice = {:?}\ncontroller = \"simulated\"\njoints = {joints:?}", sim.path());
    replace(&path, SIMULATED, &link);
    let mut run = Run::start(&path, &[]);
    let why = run.until("reason", |event| event.is("not_armed"));
    let outside = format!("{} at -2.750, limits -2.500 to 2.500", joints[2]);
    assert!(why.field("detail").contains(&outside), "{why:?}");
    assert_eq!(sim.positions()[2], -2.75);
    sim.joints().place(&vec![0.0; joints.len()]);
    run.until_change("ready", "active");
    run.signal("-TERM");
    assert_eq!(run.end().0, 0);

    replace(&path, "controller = \"simulated\"", "controller = \"left-arm\"");
    let said = refused(&path);
    assert!(said.contains("is \"simulated\", the configuration expects \"left-arm\""), "{said}");
}

/// A fault that the controller latches is in the log, in the program's last words and in the recording, with the joint,
/// the value and the chunk that was followed.
#[test]
fn a_joints_fault_is_reported_and_recorded_with_its_cause() {
    let (folder, path) = config("");
    let runs = folder.path().join("runs");
    let options = ["--fault", "stuck-reading=-2.4@1", "--record", runs.to_str().unwrap()];
    let (status, events) = Run::start(&path, &options).end();
    assert_eq!(status, 3, "a person must clear it: {events:#?}");
    let cause = "ImplausibleReading: joint shoulder_pan: implausible reading -2.400 rad, expected ";
    let told = |text: &str| text.contains(cause) && text.contains(" rad, while following chunk ");
    assert_order(
        &events,
        &[
            ("change", &|event| event.is_change_to("fault (controller)") && told(event.field("detail"))),
            ("last words", &|event| event.is("controller_latched") && told(event.field("message"))),
        ],
    );
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
    let (_folder, path) = config("rearm = false");
    let mut run = Run::start(&path, &faults);
    run.until_change("active", "hold (line)");
    run.until_change("hold (line)", "ready");
    std::thread::sleep(Duration::from_millis(500));
    run.assert_not_armed();
    run.signal("-TERM");
    assert_eq!(run.end().0, 0);
}

#[test]
fn a_recorded_run_is_replayed_to_the_bit() {
    fathom_contention::timed!();
    let (folder, path) = config("");
    let runs = folder.path().join("runs");
    let record = ["--seconds", "3", "--record", runs.to_str().unwrap()];
    assert_eq!(Run::start(&path, &record).end().0, 0);
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
        let (_folder, config) = config("");
        let mut command = fathom();
        let output = command.args(["run", "--software", "--fault", fault, "--config"]).arg(config).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(problem), "{said}");
    }
}
