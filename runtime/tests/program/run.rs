//! `fathom run`: scene, photographs, a played camera, service manager; `fathom clear-fault`.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use fathom::link::Link;
use fathom_models::families;
use fathom_models::nets::config::{ModelConfig, PromptFormat, TimeConditioning};
use fathom_models::nets::presets;
use firmware_bridge::sim::{Sim, SimConfig, SimJoint};

use super::events::{LogEvent, assert_order};
use super::support::{SCENE, SIMULATED, chunks, fail_with, fathom, model, robot, robot_with, run, succeed, tests};

/// Runs the loop on a software driver for some seconds and returns what it printed.
fn run_loop(config: &Path, more: &[&str]) -> String {
    succeed(fathom().args(["run", "--software", "--seconds", "8", "--config"]).arg(config).args(more))
}

/// The path is closed: images, model, chunks, controller, and an arm that moves by what the controller measured.
#[test]
fn the_loop_moves_the_scenes_arm() {
    fathom_contention::timed!();
    let (folder, config) = robot([SCENE, SCENE], SIMULATED);
    let (picture, json) = (folder.path().join("run.png"), folder.path().join("run.json"));
    let printed = run_loop(&config, &["--picture", picture.to_str().unwrap(), "--json", json.to_str().unwrap()]);
    assert!(chunks(&printed) >= 1, "no chunk was accepted");
    let way = printed
        .lines()
        .find_map(|l| l.strip_prefix("distance moved by the tool: "))
        .expect("a line with the tool's distance");
    let millimetres: f32 = way.trim_end_matches(" mm").parse().expect("a number");
    assert!(millimetres > 20.0, "the arm moved its tool by {millimetres} mm only");
    for stage in
        ["vision tower", "VLM prefix", "flow steps", "acknowledgement returns", "= observation age at actuation"]
    {
        assert!(printed.contains(stage), "no stage {stage:?}");
    }
    assert!(printed.contains("SOFTWARE DRIVER"), "a software adapter is labelled");
    assert!(std::fs::metadata(&picture).unwrap().len() > 10_000, "a picture");
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    assert_eq!(json["header"]["adapter_type"], "software");
}

/// pi0.5 reads the state in its prompt. The warm-up has a guess there; then it is what the controller measures, and a prompt
/// of another length is prepared for.
#[test]
fn the_prompt_of_pi05_has_the_measured_state() {
    fathom_contention::timed!();
    let pi05 = tempfile::tempdir().unwrap();
    let config = ModelConfig {
        depth: None,
        max_tokens: 100,
        state_token: false,
        time_conditioning: TimeConditioning::AdaRms,
        prompt: PromptFormat::TaskAndState,
        ..presets::small()
    };
    families::depthvla::write_random(pi05.path(), &config, 0).unwrap();
    for file in ["tokenizer.json", "norm_stats.json"] {
        std::fs::copy(model().join(file), pi05.path().join(file)).unwrap();
    }
    let (_folder, config) = robot_with(pi05.path(), [SCENE, SCENE], SIMULATED);
    let mut command = fathom();
    let output = run(command
        .args(["run", "--log-format", "json", "--log", "debug", "--software", "--seconds", "8", "--config"])
        .arg(&config));
    assert!(output.status.success(), "it failed");
    let events = LogEvent::all(&output.stderr);
    let prompts = events.iter().filter(|event| event.is("fathom::policy")).map(|event| event.field("text"));
    let states: Vec<&str> = prompts
        .filter_map(|text| text.split_once("Task: reach for the red block, State: ")?.1.split_once(';'))
        .map(|(state, _)| state)
        .collect();
    assert!(states.iter().all(|s| s.split(' ').count() == 6), "six joints: {states:?}");
    // The scene's arm starts where the statistics' mean is: in the middle of the 256 bins.
    let measured = states.iter().position(|s| *s == "128 128 128 128 128 128").expect("the measured pose");
    assert!(measured > 0 && states[0] != states[measured], "a guess comes first: {states:?}");
    assert!(events.iter().any(|event| event.has("tokens")), "the numbers have other lengths: prepared anew");
}

#[test]
fn the_loop_runs_on_a_folder_of_photographs() {
    fathom_contention::timed!();
    let photographs = tempfile::tempdir().unwrap();
    std::fs::copy(tests("shim/picture.jpg"), photographs.path().join("1.jpg")).unwrap();
    let source = format!(r#"{{ kind = "folder", folder = {:?}, rate_hz = 5.0, repeat = true }}"#, photographs.path());
    let (_folder, config) = robot([&source, SCENE], SIMULATED);
    assert!(chunks(&run_loop(&config, &[])) >= 1, "no chunk was accepted");
}

/// A `run` on a V4L2 device that the preloaded library plays; `device` says how.
fn run_on_a_played_camera(device: &[(&str, &str)]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let shim = folder.path().join("libv4lshim.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&shim).arg(tests("shim/v4l.c")).arg("-ldl");
    assert!(cc.status().expect("a C compiler named cc").success(), "the shim compiles");
    let source = r#"{ kind = "v4l", device = "/dev/video0", width = 320, height = 240 }"#;
    let (_folder, config) = robot([source, SCENE], SIMULATED);
    let mut command = fathom();
    command.env("LD_PRELOAD", &shim).env("FATHOM_SHIM_STAMP", "soe").env("FATHOM_SHIM_RATE", "30");
    command.envs(device.iter().map(|(name, value)| (format!("FATHOM_SHIM_{name}"), *value)));
    run(command.args(["run", "--log-format", "json", "--software", "--seconds", "8", "--config"]).arg(&config))
}

#[test]
fn the_loop_runs_on_a_v4l_device() {
    fathom_contention::timed!();
    let output = run_on_a_played_camera(&[]);
    assert!(output.status.success(), "it failed");
    assert!(chunks(&String::from_utf8(output.stdout).unwrap()) >= 1, "no chunk was accepted");
}

/// A camera that is unplugged makes the loop hold; when it is back the loop goes on by itself.
#[test]
fn the_loop_holds_without_a_camera() {
    fathom_contention::timed!();
    let output = run_on_a_played_camera(&[("UNPLUG_AFTER", "60"), ("REPLUG_MS", "2500")]);
    assert!(output.status.success(), "a camera that comes back is no reason to end");
    assert_order(
        &LogEvent::all(&output.stderr),
        &[
            ("loss of the camera", &|event| event.is("no_image")),
            ("hold", &|event| event.is_change_to("hold (images)")),
            ("motion again", &|event| event.is_change("hold (images)", "active")),
        ],
    );
}

/// Without model and GPU; a fault whose cause lasts stays.
#[test]
fn a_latched_fault_is_cleared_by_a_person() {
    let sim = Sim::start(SimConfig::new(vec![SimJoint::revolute("base")])).unwrap();
    let link = format!("[link]\ndevice = {:?}\njoints = [\"base\"]", sim.path());
    let (_folder, config) = robot_with(Path::new("no-model"), [SCENE, SCENE], &link);
    let mut arm = Link::open(sim.path().to_str().unwrap(), 1_000_000).unwrap();
    arm.hello(&["base"], Duration::from_secs(5)).unwrap();
    arm.arm().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while !sim.is_faulted() {
        assert!(Instant::now() < deadline, "the silent host is noticed");
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(arm);
    // Said before anything is loaded: this GPU is no GPU.
    let (_folder, run) = robot([SCENE, SCENE], &format!("{link}\n[gpu]\nadapter = \"none of this name\""));
    let said = fail_with(3, fathom().args(["run", "--config"]).arg(run));
    let latched = "latched HostSilent: the host was silent for 0.1";
    assert!(said.contains(latched) && said.contains("; remove the cause; --clear-fault clears the fault"), "{said}");
    sim.set_estop(true);
    let clear = || fathom().args(["clear-fault", "--config"]).arg(&config).output().unwrap();
    let refused = clear();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("its cause lasts") && sim.is_faulted(), "{said}");
    sim.set_estop(false);
    let done = clear();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    while sim.is_faulted() {
        assert!(Instant::now() < deadline + Duration::from_secs(30), "the fault is gone");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What systemd hears: ready after the first inference, alive with the ticks, stopping at SIGTERM; and the end is no error.
#[test]
fn the_service_manager_is_notified() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("notify");
    let heard = std::os::unix::net::UnixDatagram::bind(&socket).unwrap();
    heard.set_read_timeout(Some(std::time::Duration::from_secs(60))).unwrap();
    let (_folder, config) = robot([SCENE, SCENE], SIMULATED);
    let mut command = fathom();
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "400000");
    let mut child = command.args(["run", "--software", "--config"]).arg(&config).spawn().unwrap();
    let next = || {
        let mut buffer = [0; 512];
        let length = heard.recv(&mut buffer).expect("a message within a minute");
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut before_ready = Vec::new();
    loop {
        let message = next();
        if message.contains("READY=1") {
            break;
        }
        before_ready.push(message);
    }
    assert!(before_ready.iter().all(|m| m.contains("WATCHDOG=1")), "{before_ready:?}");
    assert!(next().contains("WATCHDOG=1") && next().contains("WATCHDOG=1"), "the watchdog is fed");
    let kill = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success(), "the signal was sent");
    while !next().contains("STOPPING=1") {}
    assert!(child.wait().unwrap().success(), "SIGTERM is no error");
}
