//! What several of the project's tests need: the golden cases, and comparing with them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fathom_models::depthvla::ForwardOptions;
use fathom_models::families::{self, Loaded};
use fathom_models::observation::{Observation, finish_actions};
use fathom_models::reference::Reference;
use fathom_models::weights::Checkpoint;

pub mod graphs;
pub mod tensors;

/// The golden models.
pub const CASES: [&str; 4] = ["depthvla_openpi", "depthvla_opz", "pi0_lerobot", "pi05_lerobot"];

/// A golden case: the model, what it is given, and what the oracle got from it.
#[derive(Debug)]
pub struct Golden {
    /// Directory's name.
    pub name: &'static str,
    /// The model.
    pub loaded: Loaded,
    /// What it is given.
    pub observation: Observation,
    /// The oracle's tensors.
    pub expected: Checkpoint,
}

/// A path below `tests/`.
pub fn path(below: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(below)
}

impl Golden {
    /// Loads `tests/golden/{name}`.
    #[allow(clippy::expect_used, reason = "for tests: a golden that does not load is a failed test")]
    pub fn load(name: &'static str) -> Golden {
        let dir = path("golden").join(name);
        let loaded = families::load(&dir).expect("the golden model loads");
        let observation = Observation::read(&dir.join("observation.safetensors"), &loaded, 0, |_| Ok(Vec::new()))
            .expect("the golden observation loads");
        let expected = Checkpoint::open(&dir.join("golden.safetensors")).expect("the golden tensors load");
        Golden { name, loaded, observation, expected }
    }

    /// Everything on.
    pub fn options(&self) -> ForwardOptions {
        ForwardOptions {
            images: self.observation.images.iter().map(|(spec, _)| *spec).collect(),
            prompt_tokens: self.observation.tokens.len(),
            depth_map: true,
            taps: true,
        }
    }

    /// Compares each of the oracle's stages with what `get` gives for its name: the largest error, relative to the
    /// stage's largest magnitude, is at most 1e-4, and 1e-3 at the actions. Fails with a table of all stages.
    #[allow(clippy::panic, reason = "for tests")]
    pub fn compare(&self, get: impl Fn(&str) -> Option<Vec<f32>>) {
        let mut report = String::new();
        let mut wrong = 0;
        for name in self.expected.names() {
            let expected = self.expected.f32(name).unwrap_or_default();
            let found = get(name);
            let error = found.as_deref().map_or(f32::INFINITY, |f| relative_error(&expected, f));
            let bound = if name.starts_with("actions") { 1e-3 } else { 1e-4 };
            let holds = error <= bound;
            wrong += usize::from(!holds);
            report += &format!("{} {name:28} {error:9.2e} (at most {bound:.0e})\n", if holds { "  " } else { "! " });
        }
        println!("{}:\n{report}", self.name);
        assert!(wrong == 0, "{}: {wrong} stages differ from the oracle\n{report}", self.name);
    }
}

/// The robot's own actions for `observation`, by the CPU twins.
#[allow(clippy::expect_used, reason = "for tests")]
pub fn actions_on_twins(loaded: &Loaded, observation: &Observation) -> Vec<f32> {
    let outputs = on_twins(loaded, observation, false);
    finish_actions(loaded, &observation.state, outputs["actions"].clone()).expect("finite actions").1
}

/// Every output of the graph for `observation`, by the CPU twins; with `taps` every stage.
#[allow(clippy::expect_used, reason = "for tests")]
pub fn on_twins(loaded: &Loaded, observation: &Observation, taps: bool) -> BTreeMap<String, Vec<f32>> {
    let model = &loaded.model;
    let options = ForwardOptions {
        images: observation.images.iter().map(|(spec, _)| *spec).collect(),
        prompt_tokens: observation.tokens.len(),
        depth_map: taps,
        taps,
    };
    let graph = model.forward(&loaded.weights, &options).expect("the graph is built");
    let mut reference = Reference::new(&graph, &loaded.weights);
    let mut write = |name: &str, bytes: &[u8]| {
        if let Some(tensor) = graph.input(name) {
            reference.write(tensor.id, bytes);
        }
    };
    for (view, (_, bytes)) in model.config.views.iter().zip(&observation.images) {
        write(&format!("image.{view}"), bytes);
    }
    let text = loaded.weights.rows(model.embed_tokens, model.config.vlm.width, &observation.tokens).expect("tokens");
    write("text", bytemuck::cast_slice(&text));
    write("state", bytemuck::cast_slice(&observation.model_state(loaded)));
    write("noise", bytemuck::cast_slice(&observation.noise));
    reference.run().expect("it runs");
    reference.outputs()
}

/// Largest difference over largest magnitude; infinite for unequal lengths or NaN.
pub fn relative_error(expected: &[f32], found: &[f32]) -> f32 {
    if expected.len() != found.len() || found.iter().any(|v| !v.is_finite()) {
        return f32::INFINITY;
    }
    let magnitude = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    let difference = expected.iter().zip(found).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
    if difference == 0.0 { 0.0 } else { difference / magnitude }
}

/// Notes a test that cannot run here, for `tools/test` to report.
#[allow(clippy::expect_used, reason = "for tests")]
pub fn skip(name: &str, reason: &str) {
    use std::io::Write as _;
    println!("skipped: {reason}");
    if let Ok(path) = std::env::var("FATHOM_SKIPS") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).expect("the list of skips");
        writeln!(file, "{name}: {reason}").expect("noted");
    }
}
