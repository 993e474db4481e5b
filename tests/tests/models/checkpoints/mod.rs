//! Checkpoints as they come: features by name, JSON as Python writes it, downloads that did not end, and names and numbers
//! that other programs changed. What is right loads with the right values; what is wrong is told with its file and key.

#![expect(clippy::expect_used, reason = "a set-up that fails is a test that fails")]

use std::path::Path;

use fathom_models::ModelError;
use fathom_models::families::{self, Loaded};
use fathom_models::processing::observation::Observation;
use fathom_tests::actions_on_twins;
use fathom_tests::tensors::copy_golden;
use serde_json::Value;

mod downloads;
mod features;
mod json;
mod names;

const LEROBOT: &str = "pi0_lerobot";
const DEPTHVLA: &str = "depthvla_openpi";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const PREPROCESSOR: &str = "policy_preprocessor.json";
const POSTPROCESSOR: &str = "policy_postprocessor.json";
const STATISTICS: &str = "policy_preprocessor_step_6_normalizer_processor.safetensors";

fn load(dir: &Path) -> Loaded {
    families::load(dir).expect("it loads")
}

fn refused(dir: &Path) -> ModelError {
    families::load(dir).expect_err("it must not load")
}

/// The error's text names all of `parts`.
fn names_all(error: &impl std::fmt::Display, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "the error does not name {part:?}: {text}");
    }
}

fn actions(dir: &Path, loaded: &Loaded) -> Vec<f32> {
    let observation = Observation::read(&dir.join("observation.safetensors"), loaded, 0, |_| Ok(Vec::new()));
    actions_on_twins(loaded, &observation.expect("the observation"))
}

/// What the committed golden gives, as it is.
fn expected(case: &str) -> Vec<f32> {
    let dir = copy_golden(case);
    actions(dir.path(), &load(dir.path()))
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).expect("the file")
}

fn write(file: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::write(file, bytes).expect("the file is written");
}

fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = serde_json::from_str(&read(file)).expect("JSON");
    change(&mut value);
    write(file, value.to_string());
}

/// Replaces a text that is there.
fn replace(file: &Path, from: &str, to: &str) {
    let text = read(file);
    assert!(text.contains(from), "{} has no {from:?}", file.display());
    write(file, text.replacen(from, to, 1));
}

/// The steps of a processor whose name is `name`.
fn step<'a>(processor: &'a mut Value, name: &str) -> &'a mut Value {
    let steps = processor["steps"].as_array_mut().expect("steps");
    &mut steps.iter_mut().find(|s| s["registry_name"] == name).expect("the step")["config"]
}
