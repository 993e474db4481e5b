//! Numbers that no robot has: each is refused with its name, its range and its unit, before anything is opened, or the
//! program can compute with it. None makes it panic.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use fathom::config::{RobotConfig, RobotConfigError};
use fathom::scene::{Renderer, Scene};

/// Every number that `robot.toml` may have, in as many files as it takes.
const ROBOTS: [&str; 2] = [
    r#"
[model]
path = "model"
tokens = [1, 2]
seed = 7
[control]
action_rate_hz = 15.0
tick_rate_hz = 100.0
max_image_age_ms = 500
max_image_skew_ms = 300
realtime_priority = 10
[chunks]
policy = { kind = "ensemble", decay = 0.01 }
replan_steps = 2
execution_horizon = 8
validity_ms = 3000
[record]
folder = "runs"
limit_mb = 2000
[link]
device = "simulated"
baud = 1000000
[scene]
seed = 1
[[camera]]
view = "base"
source = { kind = "scene", rate_hz = 10.0 }
[[camera]]
view = "wrist"
source = { kind = "folder", folder = "pictures", rate_hz = 5.0 }
[[camera]]
view = "top"
source = { kind = "v4l", device = "/dev/video0", width = 640, height = 480, rate_hz = 30 }
"#,
    r#"
[model]
path = "model"
prompt = "reach"
[chunks]
policy = { kind = "rtc", horizon = 10, max_guidance = 10.0 }
[link]
device = "/dev/ttyACM0"
joints = ["a"]
[[camera]]
view = "base"
source = { kind = "scene", rate_hz = 10 }
"#,
];

/// Numbers at the edges of what TOML, Rust and arithmetic take.
const EXTREMES: [&str; 30] = [
    "0",
    "1",
    "-1",
    "3",
    "255",
    "65536",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740993",
    "17592186044416",
    "18446744073710",
    "9223372036854775807",
    "-9223372036854775808",
    "0.0",
    "-0.0",
    "0.001",
    "0.5",
    "-0.5",
    "99.5",
    "1e3",
    "1e9",
    "1e19",
    "1e38",
    "1e308",
    "5e-324",
    "-1e-30",
    "1e-45",
    "inf",
    "nan",
];

/// Where the numbers of a TOML text stand, each with its key.
fn numbers(text: &str) -> Vec<(String, Range<usize>)> {
    let mut found = Vec::new();
    let (mut at, mut key) = (0, String::new());
    while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
        let first = rest.chars().next().unwrap();
        let length = |accept: fn(char) -> bool| rest.find(|c| !accept(c)).unwrap_or(rest.len());
        at += match first {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '"' => 2 + rest[1..].find('"').unwrap(),
            'a'..='z' => {
                let word = length(|c| c.is_alphanumeric() || c == '_');
                if rest[word..].trim_start().starts_with('=') {
                    key = rest[..word].to_owned();
                }
                word
            }
            '0'..='9' | '-' => {
                let number = length(|c| c.is_ascii_digit() || "+-._e".contains(c));
                found.push((key.clone(), at..at + number));
                number
            }
            other => other.len_utf8(),
        };
    }
    found
}

/// The texts with one number replaced by each of the extremes, with its key.
fn replaced(text: &str) -> impl Iterator<Item = (String, &'static str, String)> {
    numbers(text).into_iter().flat_map(move |(key, at)| {
        EXTREMES.into_iter().map(move |extreme| {
            let with = [&text[..at.start], extreme, &text[at.end..]].concat();
            (key.clone(), extreme, with)
        })
    })
}

#[test]
fn every_number_of_a_robot_is_refused_by_name_or_can_be_computed_with() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("robot.toml");
    let (mut taken, mut refused) = (0, 0);
    for text in ROBOTS {
        std::fs::write(&path, text).unwrap();
        RobotConfig::load(&path).unwrap();
        for (key, extreme, with) in replaced(text) {
            std::fs::write(&path, &with).unwrap();
            match RobotConfig::load(&path) {
                Ok(config) => {
                    taken += 1;
                    let (control, chunks) = (&config.control, &config.chunks);
                    assert!(control.period_us() > 0 && control.tick_ns() > 0, "{key} = {extreme}");
                    assert_eq!(control.max_image_age_ns(), control.max_image_age_ms * 1_000_000);
                    assert_eq!(control.max_image_skew_ns(), control.max_image_skew_ms * 1_000_000);
                    assert_eq!(chunks.validity_us(), chunks.validity_ms * 1000);
                    assert!(u32::try_from(chunks.validity_us()).is_ok(), "the wire has 32 bits of it");
                    if let Some(record) = &config.record {
                        assert_eq!(record.limit_bytes() >> 20, record.limit_mb);
                    }
                    assert!(config.model.seed.checked_add(u64::from(u32::MAX)).is_some());
                }
                Err(error) => {
                    refused += 1;
                    let said = error.to_string();
                    assert!(said.contains(&key), "{key} = {extreme}: {said}");
                    assert!(said.starts_with(&*path.display().to_string()), "{said}");
                    if let RobotConfigError::Value { source, .. } = error {
                        assert!(source.expected.contains(" to ") && !source.found.is_empty(), "{source}");
                    }
                }
            }
        }
    }
    assert!(taken > 100 && refused > 300, "{taken} taken, {refused} refused");
}

/// Values that were taken as "no limit" elsewhere, with what is said of them.
#[test]
fn no_limit_is_no_number() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("robot.toml");
    for (right, wrong, said) in [
        (
            "max_image_age_ms = 500",
            "max_image_age_ms = 18446744073710",
            "control.max_image_age_ms: expected 1 to 600000 ms, found 18446744073710",
        ),
        (
            "validity_ms = 3000",
            "validity_ms = 9223372036854775807",
            "chunks.validity_ms: expected 1 to 600000 ms, found 9223372036854775807",
        ),
        (
            "limit_mb = 2000",
            "limit_mb = 17592186044416",
            "record.limit_mb: expected 8 to 100000000 MB (the oldest files are deleted), found 17592186044416",
        ),
        (
            "rate_hz = 10.0",
            "rate_hz = nan",
            "camera[0].source.rate_hz: expected 0.01 to 1000 Hz (or 0: an image on each request), found NaN",
        ),
        ("action_rate_hz = 15.0", "action_rate_hz = inf", "control.action_rate_hz: expected 0.1 to 1000 Hz, found inf"),
        ("decay = 0.01", "decay = -1e30", "chunks.policy.decay: expected -10 to 10, found -1"),
    ] {
        std::fs::write(&path, ROBOTS[0].replacen(right, wrong, 1)).unwrap();
        let error = RobotConfig::load(&path).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// A key with a number that the files above do not have would not be tried.
#[test]
fn the_robots_above_have_every_number_there_is() {
    let sources = [
        include_str!("../../src/config.rs"),
        include_str!("../../src/camera/folder.rs"),
        include_str!("../../src/camera/v4l/mod.rs"),
    ];
    let known: BTreeSet<String> = ROBOTS.iter().flat_map(|text| numbers(text)).map(|(key, _)| key).collect();
    for line in sources.iter().flat_map(|source| source.lines()) {
        let Some((name, kind)) = line.strip_prefix("    pub ").and_then(|field| field.split_once(": ")) else {
            continue;
        };
        let kind = kind.trim_end_matches(',').trim_start_matches("Option<").trim_start_matches("Vec<");
        let is_number =
            ["u8", "u16", "u32", "u64", "usize", "i32", "i64", "f32", "f64"].contains(&kind.trim_end_matches('>'));
        assert!(!is_number || known.contains(name), "{name} is in none of ROBOTS");
    }
}

/// A scene with one of each thing.
const SCENE: &str = r#"
name = "small"
[table]
center = [0.2, 0.1]
size = [0.8, 0.9]
thickness = 0.03
color = [0.7, 0.6, 0.4]
checker_color = [0.6, 0.5, 0.3]
checker_size = 0.08
floor = -0.7
floor_color = [0.4, 0.4, 0.4]
[light]
position = [-0.3, -0.8, 1.6]
ambient = 0.4
sky_color = [0.7, 0.8, 0.9]
[[base]]
shape = { cylinder = { radius = 0.05, height = 0.04 } }
position = [0.0, 0.0, 0.05]
color = [0.2, 0.2, 0.2]
[[joints]]
name = "turn"
axis = [0.1, 0.2, 1.0]
origin = [0.0, 0.0, 0.07]
limits_rad = [-1.9, 1.9]
initial_rad = 0.1
velocity_limit_rad_s = 2.0
shapes = [{ shape = { capsule = { from = [0.0, -0.1, 0.0], to = [0.1, 0.1, 0.0], radius = 0.03 } }, color = [0.1, 0.2, 0.3] }]
[[joints]]
name = "jaw"
axis = [1.0, 0.0, 0.0]
origin = [0.0, 0.03, 0.07]
limits_rad = [-1.0, 1.0]
initial_rad = 0.0
velocity_limit_rad_s = 2.0
[tool]
joint = "turn"
offset = [0.1, 0.0, 0.1]
[gripper]
joint = "jaw"
fixed_face = -0.02
moving_face = -0.005
half_width = 0.015
depth = [0.04, 0.08]
open_rad = -0.2
closed_rad = 0.5
[random_light]
position = [0.1, 0.1, 0.1]
ambient = 0.05
sky_color = 0.05
[[objects]]
name = "box"
shape = { box = { size = [0.05, 0.06, 0.07] } }
color = [1.0, 0.0, 0.0]
position = [0.3, 0.1]
yaw_rad = 0.3
random = [0.01, 0.02]
random_yaw_rad = 0.5
random_size = [0.9, 1.1]
random_color = 0.05
pedestal = { probability = 0.5, height_m = [0.01, 0.1], color = [0.6, 0.5, 0.4] }
[[objects]]
name = "ball"
shape = { sphere = { radius = 0.03 } }
color = [0.0, 0.0, 1.0]
position = [0.1, 0.3]
[[cameras]]
name = "base"
position = [0.9, 0.1, 0.8]
look_at = [0.2, 0.0, 0.1]
up = [0.0, 0.1, 1.0]
vertical_fov_rad = 0.8
random_position_mm = 5.0
random_turn_deg = 1.0
width = 24
height = 18
"#;

/// Numbers that have to fit another one, which may be the one that is named.
const FITS: [(&str, &str); 12] = [
    ("axis", "gripper.joint"),
    ("limits_rad", "open_rad"),
    ("limits_rad", "closed_rad"),
    ("closed_rad", "open_rad"),
    ("center", "position"),
    ("size", "position"),
    ("random", "position"),
    ("limits_rad", "initial_rad"),
    ("thickness", "floor"),
    ("position", "look_at"),
    ("up", "look_at"),
    ("position", "cameras"),
];

#[test]
fn every_number_of_a_scene_is_refused_by_name_or_can_be_drawn() {
    let draw = |scene: Scene, what: &str| {
        let scene = std::sync::Arc::new(scene);
        let positions: Vec<f32> = scene.initial_positions().collect();
        let tool = scene.end_effector(&positions).unwrap();
        assert!(tool.is_finite(), "{what}: the tool is at {tool:?}");
        let mut renderer = Renderer::new(std::sync::Arc::clone(&scene), 0).unwrap();
        let (width, height) = renderer.size();
        let pixels = width as usize * height as usize;
        if pixels <= 1 << 14 {
            let (mut rgb, mut depth) = (vec![0; pixels * 3], vec![0.0; pixels]);
            renderer.render(&positions, &mut rgb, &mut depth).unwrap();
            assert!(depth.iter().all(|d| !d.is_nan()), "{what}: depths are numbers");
        }
    };
    draw(Scene::from_toml(SCENE, "small.toml", 0).unwrap(), "as it is");
    let (mut taken, mut refused) = (0, 0);
    for (key, extreme, with) in replaced(SCENE) {
        match Scene::from_toml(&with, "small.toml", 0) {
            Ok(scene) => {
                taken += 1;
                draw(scene, &format!("{key} = {extreme}"));
            }
            Err(error) => {
                refused += 1;
                let said = error.to_string();
                let fits = FITS.iter().any(|(with, named)| *with == key && said.contains(named));
                assert!(said.contains(&key) || fits, "{key} = {extreme}: {said}");
                assert!(said.starts_with("small.toml: "), "{said}");
            }
        }
    }
    assert!(taken > 300 && refused > 800, "{taken} taken, {refused} refused");
}

/// Each numeric option of `fathom`, with what else its subcommand needs to be understood.
const OPTIONS: [(&str, &str); 13] = [
    ("run --config /nowhere", "--seconds"),
    ("init --output /dev/null/model", "--seed"),
    ("compose --pi0 /nowhere --depth /nowhere --output /dev/null/model", "--seed"),
    ("infer --model /nowhere --observation /nowhere --output /dev/null/a", "--seed"),
    ("infer --model /nowhere --observation /nowhere --output /dev/null/a", "--timeout"),
    ("depth --model /nowhere --image /nowhere --output /dev/null/a", "--timeout"),
    ("inspect --plan --full-size", "--views"),
    ("inspect --plan --full-size", "--steps"),
    ("inspect --plan --full-size", "--prompt-tokens"),
    ("replay /nowhere", "--number"),
    ("replay /nowhere", "--tolerance"),
    ("replay /nowhere", "--timeout"),
    ("run --config /nowhere", "--fault"),
];

#[test]
fn every_numeric_option_is_refused_by_name_or_taken() {
    let faults = [
        "slow-gpu=@",
        "serial-delay=@",
        "serial-loss=@",
        "clock-jump=@",
        "log-stall=@",
        "camera-stall@@",
        "camera-stall+@",
    ];
    let mut refused = 0;
    for (subcommand, option) in OPTIONS {
        let patterns = if option == "--fault" { &faults[..] } else { &["@"][..] };
        for (pattern, extreme) in patterns.iter().flat_map(|p| EXTREMES.iter().map(move |e| (p, e))) {
            // The last `@` of a pattern is the number's place.
            let (before, after) = pattern.rsplit_once('@').unwrap();
            let given = format!("{option}={before}{extreme}{after}");
            let output = Command::new(env!("CARGO_BIN_EXE_fathom"))
                .args(subcommand.split(' '))
                .arg(&given)
                .env("VK_DRIVER_FILES", Path::new("/nowhere/driver.json"))
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            match output.status.code() {
                Some(0 | 1) => {}
                Some(2) => {
                    refused += 1;
                    assert!(said.contains(option) && said.contains(extreme), "{given}: {said}");
                }
                code => panic!("{subcommand} {given} ends with {code:?}: {said}"),
            }
        }
    }
    assert!(refused > 200, "{refused} refused");
    let output =
        Command::new(env!("CARGO_BIN_EXE_fathom")).args(["run", "--config", "/nowhere", "--seconds", "inf"]).output();
    let said = String::from_utf8(output.unwrap().stderr).unwrap();
    assert!(said.contains("expected 0 to 1000000000 s (without the option the run has no time limit)"), "{said}");
}
