//! The program `fathom` as its user runs it. `FATHOM_RUN`, where set, is the wrapper that gives it its Vulkan driver.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use fathom::link::Link;
use fathom_models::families;
use fathom_models::nets::config::{ModelConfig, PromptFormat, TimeConditioning};
use fathom_models::nets::presets;
use firmware_bridge::sim::{Sim, SimConfig, SimJoint};
use safetensors::SafeTensors;
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

fn run(command: &mut Command) -> Output {
    let output = command.output().expect("fathom starts");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    output
}

fn succeed(command: &mut Command) -> String {
    let output = run(command);
    assert!(output.status.success(), "it failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Fails, as it should; returns what it says.
fn fail(command: &mut Command) -> String {
    let output = run(command);
    assert_eq!(output.status.code(), Some(1), "it should end with 1");
    String::from_utf8(output.stderr).unwrap()
}

fn tests(below: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests").join(below)
}

/// A folder with the small random model, made once.
fn model() -> &'static Path {
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
fn robot(sources: [&str; 2], rest: &str) -> (TempDir, PathBuf) {
    robot_with(model(), sources, rest)
}

fn robot_with(model: &Path, sources: [&str; 2], rest: &str) -> (TempDir, PathBuf) {
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

const SIMULATED: &str = "[link]\ndevice = \"simulated\"";
const SCENE: &str = r#"{ kind = "scene", rate_hz = 10.0 }"#;

/// Runs the loop on a software driver for some seconds and returns what it printed.
fn run_loop(config: &Path, more: &[&str]) -> String {
    succeed(fathom().args(["run", "--software", "--seconds", "8", "--config"]).arg(config).args(more))
}

fn chunks(printed: &str) -> u32 {
    let line = printed.lines().find_map(|l| l.strip_prefix("chunks: ")).expect("a line with chunks");
    line.split(' ').next().unwrap().parse().unwrap()
}

fn infer(model: &Path, output: &Path) -> Command {
    let mut command = fathom();
    command.args(["infer", "--software", "--model"]).arg(model);
    command.arg("--observation").arg(model.join("observation.safetensors")).arg("--output").arg(output);
    command
}

fn tensor(path: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(name).unwrap_or_else(|_| panic!("no tensor {name}"));
    (view.shape().to_vec(), bytemuck::pod_collect_to_vec(view.data()))
}

/// A directory that lerobot's `save_pretrained` wrote, with its processors: the actions are lerobot's own.
#[test]
fn infer_gives_lerobots_actions_and_the_same_bytes_again() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (folder.path().join("1.safetensors"), folder.path().join("2.safetensors"));
    let golden = tests("golden/pi0_lerobot");
    succeed(infer(&golden, &first).arg("--taps"));
    succeed(infer(&golden, &second).arg("--taps"));
    assert!(std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap(), "bit-identical outputs");
    let (shape, actions) = tensor(&first, "actions");
    let (expected_shape, expected) = tensor(&golden.join("golden.safetensors"), "actions");
    assert_eq!(shape, expected_shape);
    let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let error = actions.iter().zip(&expected).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(error <= 1e-3 * largest, "largest error {error}, largest action {largest}");
    assert_eq!(tensor(&first, "vlm.layers.2.k").0, [38, 16], "taps are there");
}

#[test]
fn kernels_are_chosen_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let outputs = ["lanes", "tiled"].map(|kernels| {
        let output = folder.path().join(kernels);
        succeed(infer(model(), &output).args(["--kernels", kernels]));
        tensor(&output, "actions.normalized").1
    });
    let error = outputs[0].iter().zip(&outputs[1]).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(error > 0.0 && error < 1e-3, "others that compute the same: {error}");
    let expected = "expected one of tiled, coop16, coop8, dot8, lanes, found \"warp\"";
    let output = run(infer(model(), &folder.path().join("none")).args(["--kernels", "warp"]));
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains(expected));
    let (_folder, config) = robot([SCENE, SCENE], &format!("{SIMULATED}\n[gpu]\nkernels = \"warp\""));
    assert!(fail(fathom().args(["run", "--config"]).arg(&config)).contains(expected));
}

/// The whole process, with the software driver's compiler in it.
#[test]
fn infer_on_the_small_model_takes_less_than_400_megabytes() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("actions.safetensors");
    let mut command = fathom();
    command.args(["infer", "--software", "--seed", "3", "--model"]).arg(model());
    command.arg("--observation").arg(model().join("observation.safetensors"));
    let mut child = command.arg("--output").arg(&output).spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak_kib = 0;
    let ended = loop {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or_default();
        peak_kib = peak_kib.max(line.trim().trim_end_matches(" kB").parse().unwrap_or(0));
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        std::thread::sleep(std::time::Duration::from_millis(2));
    };
    assert!(ended.success(), "infer failed");
    assert_eq!(tensor(&output, "actions").0, [16, 6], "horizon × the robot's joints");
    assert_eq!(tensor(&output, "depth.base").0, [112, 112]);
    println!("peak: {} MiB", peak_kib / 1024);
    assert!(peak_kib > 0 && peak_kib < 400_000, "peak of {peak_kib} KiB");
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
    let output = run(command.args(["run", "--software", "--log", "debug", "--seconds", "8", "--config"]).arg(&config));
    assert!(output.status.success(), "it failed");
    let said = String::from_utf8(output.stderr).unwrap();
    let states: Vec<&str> = said
        .lines()
        .filter_map(|l| l.split_once("Task: reach for the red block, State: ")?.1.split_once(';'))
        .map(|(state, _)| state)
        .collect();
    assert!(states.iter().all(|s| s.split(' ').count() == 6), "six joints: {states:?}");
    // The scene's arm starts where the statistics' mean is: in the middle of the 256 bins.
    let measured = states.iter().position(|s| *s == "128 128 128 128 128 128").expect("the measured pose");
    assert!(measured > 0 && states[0] != states[measured], "a guess comes first: {states:?}");
    assert!(said.contains("prepared anew"), "the numbers have other lengths");
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
    run(command.args(["run", "--software", "--seconds", "8", "--config"]).arg(&config))
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
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "a camera that comes back is no reason to end");
    let at = |text: &str| said.find(text).unwrap_or_else(|| panic!("nothing of {text:?}"));
    let gone = at("no image");
    let hold = at("to=hold (images)");
    let again = at("from=hold (images) to=active");
    assert!(gone < hold && hold < again, "first gone, then hold, then active again");
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
    let said = fail(fathom().args(["run", "--config"]).arg(run));
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

#[test]
fn inspect_describes_a_directory() {
    let text = succeed(fathom().arg("inspect").arg(tests("golden/depthvla_openpi")));
    for part in ["depth expert", "VLM expert", "base, wrist", "none: identity", "345132"] {
        assert!(text.contains(part), "no {part:?}");
    }
    assert!(text.contains("the checkpoint has no names") && text.contains("family       depthvla"), "{text}");
}

/// What lerobot's files say, and what is left out; the text has the same facts as the JSON.
#[test]
fn inspect_lists_names_normalisation_and_dropped_tensors() {
    let folder = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(tests("golden/pi0_lerobot")).unwrap() {
        let file = file.unwrap().path();
        std::fs::copy(&file, folder.path().join(file.file_name().unwrap())).unwrap();
    }
    let inspect = || {
        let text = succeed(fathom().arg("inspect").arg(folder.path()));
        let json = succeed(fathom().args(["inspect", "--json"]).arg(folder.path()));
        (text, serde_json::from_str::<serde_json::Value>(&json).unwrap())
    };
    let (text, json) = inspect();
    assert_eq!((&json["family"], &json["action_dim"]), (&"lerobot-pi0".into(), &7.into()));
    assert_eq!(json["config"]["views"], serde_json::json!(["top", "wrist"]));
    assert_eq!(json["state_names"], serde_json::Value::Null);
    assert_eq!((&json["state_normalization"], &json["action_normalization"]), (&"mean_std".into(), &"mean_std".into()));
    assert_eq!(json["skipped_views"], serde_json::json!([]));
    assert!(text.contains("normalised   state mean_std, actions mean_std"), "{text}");

    let file = folder.path().join("config.json");
    let mut config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    config["empty_cameras"] = 1.into();
    config["input_features"]["observation.images.empty_camera_0"] =
        config["input_features"]["observation.images.top"].clone();
    std::fs::write(&file, config.to_string()).unwrap();
    std::fs::create_dir(folder.path().join("meta")).unwrap();
    let info = serde_json::json!({ "features": {
        "observation.state": { "names": { "motors": ["pan", "lift"] } },
        "action": { "names": ["pan.pos", "grip.pos"] },
    } });
    std::fs::write(folder.path().join("meta/info.json"), info.to_string()).unwrap();
    let (text, json) = inspect();
    assert_eq!(json["state_names"], serde_json::json!(["pan", "lift"]));
    assert_eq!(json["action_names"], serde_json::json!(["pan.pos", "grip.pos"]));
    assert_eq!(json["skipped_views"], serde_json::json!(["empty_camera_0"]));
    for part in ["pan, lift", "pan.pos, grip.pos", "left out     empty_camera_0", "not read: ", "f32: "] {
        assert!(text.contains(part), "no {part:?}");
    }
}

#[test]
fn inspect_describes_a_depth_model() {
    let text = succeed(fathom().arg("inspect").arg(tests("golden/depth_anything_metric")));
    for part in ["depth-anything", "metric, up to 20 m", "[2, 3, 5, 6]", "DINOv2", "neck", "head", "bf16: "] {
        assert!(text.contains(part), "no {part:?}");
    }
    let json = succeed(fathom().args(["inspect", "--json"]).arg(tests("golden/depth_anything_relative")));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["family"], &json["kind"]), (&"depth-anything".into(), &"relative".into()));
}

fn depth(model: &Path, image: &Path, output: &Path) -> Command {
    let mut command = fathom();
    command.args(["depth", "--software", "--model"]).arg(model);
    command.arg("--image").arg(image).arg("--output").arg(output);
    command
}

/// Size, colours, bits and bytes of a PNG.
fn png(path: &Path) -> (u32, u32, png::ColorType, png::BitDepth, Vec<u8>) {
    let mut reader =
        png::Decoder::new(std::io::BufReader::new(std::fs::File::open(path).unwrap())).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut bytes).unwrap();
    (info.width, info.height, info.color_type, info.bit_depth, bytes)
}

/// A directory that transformers' `save_pretrained` wrote: the depths are those of transformers, in every file.
#[test]
fn depth_gives_transformers_map_of_a_photo() {
    let folder = tempfile::tempdir().unwrap();
    let [photo, map, colours, npy, values] =
        ["photo.png", "map.png", "colours.png", "map.npy", "map.safetensors"].map(|name| folder.path().join(name));
    for (case, metric) in [("depth_anything_metric", true), ("depth_anything_relative", false)] {
        let golden = tests("golden").join(case);
        let bytes = std::fs::read(golden.join("observation.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let image = file.tensor("image").unwrap();
        let [height, width] = [image.shape()[0], image.shape()[1]];
        let mut encoder = png::Encoder::new(std::fs::File::create(&photo).unwrap(), width as u32, height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.write_header().unwrap().write_image_data(image.data()).unwrap();

        succeed(depth(&golden, &photo, &map).arg("--colour").arg(&colours).arg("--values").arg(&npy));
        let (shape, expected) = tensor(&golden.join("golden.safetensors"), "depth");
        let largest = expected.iter().fold(0.0_f32, |m, v| m.max(*v));
        let smallest = expected.iter().fold(f32::INFINITY, |m, v| m.min(*v));
        let close = |found: &[f32], expected: &[f32]| {
            assert_eq!(found.len(), expected.len(), "{case}");
            let error = found.iter().zip(expected).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(error <= 1e-3 * largest, "{case}: largest error {error} of {largest}");
        };
        let npy_bytes = std::fs::read(&npy).unwrap();
        let header = 10 + usize::from(u16::from_le_bytes([npy_bytes[8], npy_bytes[9]]));
        assert_eq!(header % 64, 0);
        let text = String::from_utf8_lossy(&npy_bytes[10..header]);
        assert!(text.contains(&format!("'shape': ({}, {})", shape[0], shape[1])) && text.ends_with('\n'), "{text}");
        close(&bytemuck::pod_collect_to_vec(&npy_bytes[header..]), &expected);

        let (w, h, colour, bits, grey) = png(&map);
        assert_eq!((w as usize, h as usize), (shape[1], shape[0]));
        assert_eq!((colour, bits), (png::ColorType::Grayscale, png::BitDepth::Sixteen));
        let unit = if metric { 0.001 } else { (largest - smallest) / 65535.0 };
        let grey = grey.as_chunks().0.iter().map(|b| f32::from(u16::from_be_bytes(*b)) * unit);
        close(&grey.map(|v| if metric { v } else { v + smallest }).collect::<Vec<_>>(), &expected);
        let (w, h, colour, ..) = png(&colours);
        assert_eq!((w as usize, h as usize, colour), (shape[1], shape[0], png::ColorType::Rgb));

        succeed(depth(&golden, &photo, &map).arg("--original-size").arg("--values").arg(&values));
        let (shape, found) = tensor(&values, "depth");
        assert_eq!(shape, [height, width]);
        close(&found, &tensor(&golden.join("golden.safetensors"), "original_size").1);
    }
}

#[test]
fn depth_reports_mistakes_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let (golden, output) = (tests("golden/depth_anything_metric"), folder.path().join("map.png"));
    let photo = tests("shim/picture.jpg");
    let said = fail(&mut depth(Path::new("/nowhere"), &photo, &output));
    assert!(said.contains("/nowhere/config.json"), "the model's file is named");
    let said = fail(&mut depth(&tests("golden/pi0_lerobot"), &photo, &output));
    assert!(said.contains("model_type") && said.contains("depth_anything"), "what the directory should be");
    let said = fail(&mut depth(&golden, &golden.join("config.json"), &output));
    assert!(said.contains("config.json") && said.contains("PNG or JPEG"), "what the image should be");
    let said = fail(&mut depth(&golden, Path::new("/nowhere.png"), &output));
    assert!(said.contains("/nowhere.png"), "the image is named");
    let said = fail(depth(&golden, &photo, &output).args(["--values", "values.txt"]));
    assert!(said.contains("values.txt") && said.contains(".npy"), "what values can be written to");
    assert!(!output.exists(), "nothing was written");
    let said = fail(&mut depth(&golden, &photo, Path::new("/nowhere/map.png")));
    assert!(said.contains("/nowhere/map.png"), "the output is named");
}

/// Each message names the thing, what was expected, and what was found.
#[test]
fn mistakes_are_reported_plainly() {
    let (_folder, good) = robot([SCENE, SCENE], SIMULATED);
    let said = fail(fathom().args(["run", "--config"]).arg(&good));
    assert!(said.contains("--software") && said.contains("gpu.software"), "how to allow a software driver");

    let (_folder, config) = robot([SCENE, SCENE], "[link]\ndevice = \"/dev/ttyNONE\"\njoints = [\"a\"]");
    let said = fail(fathom().args(["run", "--software", "--config"]).arg(&config));
    assert!(said.contains("/dev/ttyNONE"), "the serial device is named");

    let absent = r#"{ kind = "v4l", device = "/dev/video77", width = 640, height = 480 }"#;
    let (_folder, config) = robot([absent, SCENE], SIMULATED);
    let said = fail(fathom().args(["run", "--software", "--config"]).arg(&config));
    assert!(said.contains("/dev/video77") && said.contains("base"), "the camera and its view are named");

    let (_folder, config) = robot([SCENE, SCENE], "colour = 3\n[link]\ndevice = \"simulated\"");
    let said = fail(fathom().args(["run", "--software", "--config"]).arg(&config));
    assert!(said.contains("colour") && said.contains("line"), "the unknown key and its line are named");

    let said = fail(fathom().args(["infer", "--model", "/nowhere", "--observation", "o", "--output", "p"]));
    assert!(said.contains("/nowhere"), "the model's directory is named");
}

/// Numbers of an inference without an adapter, a checkpoint, or memory for one.
#[test]
fn a_plan_needs_no_gpu() {
    let plan = |arguments: &str| {
        let mut command = Command::new("sh");
        let program = env!("CARGO_BIN_EXE_fathom");
        command.args(["-c", &format!("ulimit -v 400000; exec {program} inspect --plan {arguments}")]);
        succeed(command.env("VK_DRIVER_FILES", "/nowhere/driver.json"))
    };
    let json: serde_json::Value = serde_json::from_str(&plan("--full-size --json")).unwrap();
    assert_eq!(json["dispatches"]["action"], 930);
    assert!(json["dispatches"]["other"].as_u64().unwrap() <= 700, "{}", json["dispatches"]);
    for stage in json["stages"].as_array().unwrap() {
        for number in ["dispatches", "flops", "weight_bytes", "activation_bytes"] {
            assert!(stage["name"].is_string() && stage[number].is_u64(), "{stage}");
        }
    }
    let text = plan("--full-size --scheme w4 --views 2 --steps 5 --prompt-tokens 32 --depth-map --kernels tiled");
    for part in
        ["2 view(s)", "32 tokens", "5 flow steps", "depth map on", "tiled kernels", "Orin Nano", "465 in the flow"]
    {
        assert!(text.contains(part), "no {part:?}");
    }
    let dir = tests("golden/depthvla_openpi");
    assert!(plan(&dir.display().to_string()).contains("weights in "), "of a checkpoint");
    assert!(plan(&format!("{} --scheme w8", dir.display())).contains("w8"), "of a checkpoint as if it were packed");
    assert!(fail(fathom().args(["inspect", "--plan", "--full-size", "--scheme", "w5"])).contains("w4-all"));
}
