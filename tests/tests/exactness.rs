//! What must hold to the bit for any weights. That the depth map on or off, and taps, change no action is in
//! `golden.rs`; that keys and values computed once are those of a forward pass over everything in every step, and a
//! cached state token is a recomputed one, is in how the goldens were made.

#![expect(clippy::expect_used, reason = "a set-up that fails is a test that fails")]

use std::collections::BTreeMap;
use std::path::Path;

use fathom::engine::{Inputs, Session};
use fathom_models::families;
use fathom_models::observation::Observation;
use fathom_tests::graphs::open_gpu;
use fathom_tests::tensors::{Tensors, copy_golden};
use fathom_tests::{Golden, path};

type Stages = BTreeMap<String, Vec<f32>>;

fn session(golden: &str) -> Session {
    let loaded = families::load(&path("golden").join(golden)).expect("the golden model loads");
    Session::open(open_gpu(false), loaded).expect("the weights fit")
}

fn stages(session: &mut Session, observation: &Observation) -> Stages {
    let once = session.infer_once(observation, true).expect("it runs");
    once.outputs.into_iter().map(|o| (o.name, o.values)).collect()
}

/// The stages whose names begin with one of `prefixes` are the same to the bit.
fn assert_untouched(by: &str, before: &Stages, after: &Stages, prefixes: &[&str]) {
    for prefix in prefixes {
        let mut of = before.iter().filter(|(name, _)| name.starts_with(prefix)).peekable();
        assert!(of.peek().is_some(), "there is a stage {prefix}…");
        for (name, values) in of {
            assert!(values == &after[name], "{by} reached {name}, which must not see it");
        }
    }
}

/// Who sees whom: a change reaches the blocks that the mask lets it reach, and no other.
#[test]
fn the_block_mask_keeps_changes_where_they_belong() {
    let golden = Golden::load("depthvla_openpi");
    let mut session = session("depthvla_openpi");
    let before = stages(&mut session, &golden.observation);
    let mut altered = |alter: &dyn Fn(&mut Observation)| {
        let mut observation = golden.observation.clone();
        alter(&mut observation);
        stages(&mut session, &observation)
    };
    let prefix = ["vision.", "projector.", "depth_encoder.", "depth.base", "depth.layers.", "vlm.layers."];

    let after = altered(&|o| o.noise[0] += 1.0);
    assert_untouched("the noise", &before, &after, &[&prefix[..], &["state.layers."]].concat());
    assert!(before["velocity.0"] != after["velocity.0"], "the action tokens see the noise");

    let after = altered(&|o| o.state[0] += 1.0);
    assert_untouched("the state", &before, &after, &prefix);
    assert!(before["state.layers.0.k"] != after["state.layers.0.k"], "the state token sees the state");

    let after = altered(&|o| o.tokens[0] += 1);
    assert_untouched("the prompt", &before, &after, &prefix[..5]);
    assert!(before["vlm.layers.1.k"] != after["vlm.layers.1.k"], "the VLM's tokens see the prompt");
    assert!(before["state.layers.1.k"] != after["state.layers.1.k"], "the state token sees the prompt");

    let after = altered(&|o| o.images[1].1.fill(200));
    assert_untouched("the wrist's image", &before, &after, &["vision.base", "projector.base", "depth_encoder.base"]);
    for reached in ["vision.wrist", "depth_encoder.wrist", "vlm.layers.1.k", "depth.layers.1.k", "state.layers.1.k"] {
        assert!(before[reached] != after[reached], "{reached} sees the wrist's image");
    }
}

/// What the session inferred before, with a longer prompt and larger images, leaves no trace.
#[test]
fn a_used_session_gives_what_a_fresh_one_gives() {
    let golden = Golden::load("depthvla_openpi");
    let fresh = stages(&mut session("depthvla_openpi"), &golden.observation);
    let mut used = session("depthvla_openpi");
    let mut other = golden.observation.clone();
    other.tokens = (1..=12).collect();
    other.state.fill(0.7);
    for (spec, bytes) in &mut other.images {
        *spec = fathom_models::image::ImageSpec::rgb(90, 110);
        *bytes = vec![77; spec.bytes()];
    }
    stages(&mut used, &other);
    assert!(stages(&mut used, &golden.observation) == fresh, "the same stages");
}

fn alter_file(path: &Path, alter: impl Fn(String) -> String) {
    let text = std::fs::read_to_string(path).expect("the file is there");
    let altered = alter(text.clone());
    assert!(altered != text, "{} is altered", path.display());
    std::fs::write(path, altered).expect("the file is written");
}

/// The order of the views is that of the configuration, whatever they are called; lerobot's is that of its file.
#[test]
fn views_are_in_the_order_of_the_configuration() {
    for (case, first) in [("depthvla_openpi", "base"), ("pi0_lerobot", "top")] {
        let (old, new) = ("wrist", "arm");
        let golden = Golden::load(case);
        let expected = session(case).infer_once(&golden.observation, false).expect("it runs").actions;
        let dir = copy_golden(case);
        let alter = |text: String| {
            let quoted = text.replace(&format!("\"{old}\""), &format!("\"{new}\""));
            quoted.replace(&format!("images.{old}\""), &format!("images.{new}\""))
        };
        alter_file(&dir.path().join("config.json"), alter);
        let file = dir.path().join("observation.safetensors");
        let mut tensors = Tensors::read(&file);
        tensors.rename(&format!("image.{old}"), &format!("image.{new}"));
        tensors.write(&file);

        let loaded = families::load(dir.path()).expect("it loads");
        assert_eq!(loaded.model.config.views, [first, new], "{case}: in the order of the file, not of the alphabet");
        let observation = Observation::read(&file, &loaded, 0, |_| Ok(Vec::new())).expect("it is read");
        let mut session = Session::open(open_gpu(false), loaded).expect("the weights fit");
        let actions = session.infer_once(&observation, false).expect("it runs").actions;
        assert!(actions == expected, "{case}: the name of a view changes no action");
    }
}

/// lerobot pads with cameras that are never there and masks them; leaving them out is the same, and costs nothing.
#[test]
fn masked_cameras_are_left_out() {
    let dir = copy_golden("pi0_lerobot");
    alter_file(&dir.path().join("config.json"), |text| {
        let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        config["empty_cameras"] = 1.into();
        config["input_features"]["observation.images.empty_camera_0"] =
            serde_json::json!({"type": "VISUAL", "shape": [3, 56, 56]});
        config.to_string()
    });
    let loaded = families::load(dir.path()).expect("it loads");
    assert_eq!(loaded.model.config, Golden::load("pi0_lerobot").loaded.model.config);
}

/// Views may come in any form that holds the same pixels.
#[test]
fn rows_of_any_stride_give_the_same_actions() {
    let golden = Golden::load("depthvla_openpi");
    let mut session = session("depthvla_openpi");
    let expected = session.infer_once(&golden.observation, false).expect("it runs").actions;
    let mut padded = golden.observation.clone();
    for (spec, bytes) in &mut padded.images {
        let row = spec.stride;
        spec.stride += 7;
        *bytes = bytes.chunks_exact(row).flat_map(|row| row.iter().copied().chain([0xAA; 7])).collect();
    }
    assert!(session.infer_once(&padded, false).expect("it runs").actions == expected, "the same actions");
    let images: Vec<&[u8]> = padded.images.iter().map(|(_, bytes)| bytes.as_slice()).collect();
    let inputs = Inputs { images: &images, state: &padded.state, noise: &padded.noise };
    let (outputs, _) = session.infer(&inputs, true).expect("it runs");
    let raw = outputs.iter().find(|o| o.name == "actions").expect("actions").values.clone();
    let (_, actions) =
        fathom_models::observation::finish_actions(&golden.loaded, &golden.observation.state, raw).expect("finite");
    assert!(actions == expected, "and so does a pass for each dispatch");
}
