//! `fathom infer`.

use super::support::{SCENE, SIMULATED, fail, fathom, infer, model, robot, run, succeed, tensor, tests};

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
