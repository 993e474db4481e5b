//! A session gives the same whatever it did before, and whatever its views are called and stored as.

use fathom::engine::{Inputs, Session};
use fathom_models::families::{self};
use fathom_models::processing::observation::Observation;
use fathom_tests::Golden;
use fathom_tests::graphs::open_gpu;
use fathom_tests::tensors::{Tensors, copy_golden};

use super::exactness::{alter_file, session, stages};

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
        *spec = fathom_models::nets::image::ImageSpec::rgb(90, 110);
        *bytes = vec![77; spec.bytes()];
    }
    stages(&mut used, &other);
    assert!(stages(&mut used, &golden.observation) == fresh, "the same stages");
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
        fathom_models::processing::observation::finish_actions(&golden.loaded, &golden.observation.state, raw)
            .expect("finite");
    assert!(actions == expected, "and so does a pass for each dispatch");
}
