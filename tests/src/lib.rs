//! What several of the project's tests need: the oracle's cases, and comparing with them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fathom::engine::Session;
use fathom_models::checkpoint::Checkpoint;
use fathom_models::families::compose::{self, Sources};
use fathom_models::families::dinov2::Encoder;
use fathom_models::families::{self, Loaded};
use fathom_models::nets::depthvla::ForwardOptions;
use fathom_models::processing::observation::{Observation, finish_actions};

pub mod debugger;
pub mod depth;
pub mod emulated;
pub mod graphs;
pub mod tensors;

/// A case: the model, what it is given, and what the oracle got from it.
#[derive(Debug)]
pub struct Golden {
    /// Directory.
    pub dir: PathBuf,
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
    pub fn load(name: &str) -> Golden {
        Golden::open(&path("golden").join(name))
    }

    /// Loads the case in `dir`.
    #[allow(clippy::expect_used, reason = "for tests: a golden that does not load is a failed test")]
    pub fn open(dir: &Path) -> Golden {
        let loaded = families::load(dir).expect("the golden model loads");
        let observation = Observation::read(&dir.join("observation.safetensors"), &loaded, 0, |_| Ok(Vec::new()))
            .expect("the golden observation loads");
        Golden { dir: dir.to_owned(), loaded, observation, expected: golden_tensors(dir) }
    }

    /// Composes what the case in `dir` has as `paligemma` and `dinov2`, into `to`.
    #[allow(clippy::expect_used, reason = "for tests")]
    pub fn compose(dir: &Path, to: &Path) -> Golden {
        let base = families::load_base(&dir.join("paligemma"), None).expect("the PaliGemma loads");
        let encoder = Encoder::load(&dir.join("dinov2")).expect("the DINOv2 loads");
        let views = &base.model.config.views;
        let sources = Sources { base: &base, encoder: &encoder, given: None, views, seed: 1 };
        compose::compose(&sources, to).expect("they fit each other");
        for file in ["observation.safetensors", "golden.safetensors"] {
            std::fs::copy(dir.join(file), to.join(file)).expect("the file is copied");
        }
        Golden::open(to)
    }

    /// Everything on.
    pub fn options(&self) -> ForwardOptions {
        options(&self.observation)
    }

    /// Compares what the CPU twins give with the oracle's stages, as [`compare`].
    #[allow(clippy::expect_used, reason = "for tests")]
    pub fn compare_twins(&self) {
        let outputs = on_twins(&self.loaded, &self.observation, true);
        let raw = outputs["actions"].clone();
        let (normalized, actions) = finish_actions(&self.loaded, &self.observation.state, raw).expect("finite actions");
        compare("twins", &self.dir, &self.expected, |name| match name {
            "actions" => Some(actions.clone()),
            "actions.normalized" => Some(normalized.clone()),
            _ => outputs.get(name).cloned(),
        });
    }

    /// Compares what the GPU gives, with and without bounds checks, with the oracle's stages, as [`compare`].
    #[allow(clippy::expect_used, reason = "for tests")]
    pub fn compare_gpu(self) {
        let Golden { dir, mut loaded, observation, expected } = self;
        for checked in [false, true] {
            let mut session = Session::open(graphs::open_gpu(checked), loaded).expect("the weights fit");
            let once = session.infer_once(&observation, true).expect("it runs");
            compare("GPU", &dir, &expected, |name| match name {
                "actions" => Some(once.actions.clone()),
                "actions.normalized" => Some(once.normalized.clone()),
                _ => once.outputs.iter().find(|o| o.name == name).map(|o| o.values.clone()),
            });
            loaded = families::load(&dir).expect("it loaded before");
        }
    }
}

/// The oracle's tensors of the case in `dir`.
#[allow(clippy::expect_used, reason = "for tests")]
pub fn golden_tensors(dir: &Path) -> Checkpoint {
    Checkpoint::open(&dir.join("golden.safetensors")).expect("the golden tensors load")
}

/// Compares each of the oracle's stages with what `get` gives for its name: the largest error, relative to the
/// stage's largest magnitude, is at most 1e-4, and 1e-3 at the actions. Fails with a table of all stages.
#[allow(clippy::panic, reason = "for tests")]
pub fn compare(place: &str, dir: &Path, expected: &Checkpoint, get: impl Fn(&str) -> Option<Vec<f32>>) {
    let case = dir.file_name().unwrap_or_default().to_string_lossy();
    let (mut report, mut wrong, mut stages, mut worst) = (String::new(), 0, 0, (0.0, String::new()));
    for name in expected.names() {
        let values = expected.f32(name).unwrap_or_default();
        let error = get(name).map_or(f32::INFINITY, |f| relative_error(&values, &f));
        let bound = if name.starts_with("actions") { 1e-3 } else { 1e-4 };
        let holds = error <= bound;
        wrong += usize::from(!holds);
        stages += 1;
        if error >= worst.0 {
            worst = (error, name.to_owned());
        }
        report += &format!("{} {name:28} {error:9.2e} (at most {bound:.0e})\n", if holds { "  " } else { "! " });
    }
    println!("{case}, {place}: {stages} stages, the largest error {:.1e} in {}", worst.0, worst.1);
    assert!(wrong == 0 && stages > 0, "{case}, {place}: {wrong} of {stages} stages differ from the oracle\n{report}");
}

/// The robot's own actions for `observation`, by the CPU twins.
#[allow(clippy::expect_used, reason = "for tests")]
pub fn actions_on_twins(loaded: &Loaded, observation: &Observation) -> Vec<f32> {
    let outputs = on_twins(loaded, observation, false);
    finish_actions(loaded, &observation.state, outputs["actions"].clone()).expect("finite actions").1
}

/// Every output of the graph for `observation`, by the CPU twins; with `taps` every stage and the depth map.
#[allow(clippy::expect_used, reason = "for tests")]
pub fn on_twins(loaded: &Loaded, observation: &Observation, taps: bool) -> BTreeMap<String, Vec<f32>> {
    let options = ForwardOptions { depth_map: taps, taps, ..options(observation) };
    let graph = loaded.model.forward(&loaded.weights, &options).expect("the graph is built");
    graphs::on_twins(&graph, &loaded.weights, &inputs(loaded, observation))
}

/// For `observation`, with everything on.
pub fn options(observation: &Observation) -> ForwardOptions {
    ForwardOptions {
        images: observation.images.iter().map(|(spec, _)| *spec).collect(),
        prompt_tokens: observation.tokens.len(),
        depth_map: true,
        guided: false,
        taps: true,
    }
}

/// What a model's graph is given for `observation`.
#[allow(clippy::expect_used, reason = "for tests")]
pub fn inputs(loaded: &Loaded, observation: &Observation) -> graphs::Inputs {
    let model = &loaded.model;
    let text = loaded.weights.rows(model.embed_tokens, model.config.vlm.width, &observation.tokens).expect("tokens");
    let words = |name: &str, values: &[f32]| (name.to_owned(), bytemuck::cast_slice(values).to_vec());
    let images = model.config.views.iter().zip(&observation.images);
    images
        .map(|(view, (_, bytes))| (format!("image.{view}"), bytes.clone()))
        .chain([
            words("text", &text),
            words("state", &observation.model_state(loaded)),
            words("noise", &observation.noise),
        ])
        .collect()
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

/// Cosine of the angle between two lists of numbers.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    if a == b { 1.0 } else { dot(a, b) / (dot(a, a) * dot(b, b)).sqrt() }
}

/// Notes a test that cannot run here, for `tools/test` to report.
#[allow(clippy::expect_used, reason = "for tests")]
pub fn skip(name: &str, reason: &str) {
    use std::io::Write as _;
    println!("skipped: {reason}");
    if let Ok(path) = std::env::var("FATHOM_SKIPS") {
        let mut file = std::fs::OpenOptions::new().append(true).create(true).open(path).expect("the list of skips");
        // At once: tests that run side by side add to it.
        file.write_all(format!("{name}: {reason}\n").as_bytes()).expect("noted");
    }
}
