//! `fathom inspect`.

use std::process::Command;

use super::support::{fail, fathom, succeed, tests};

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
