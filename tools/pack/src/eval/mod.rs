//! The accuracy cost of packing: compares the source in f32 and the packed model on the same observations and seeds.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use fathom::camera::read_picture;
use fathom::engine::{DepthSession, Inputs, Kernels, Output, Session};
use fathom::gpu::{AdapterKind, Gpu};
use fathom::{bounds, within};
use fathom_models::ModelError;
use fathom_models::checkpoint::{Checkpoint, random};
use fathom_models::families::{Family, Loaded, Origin};
use fathom_models::io::{console, output_file};
use fathom_models::nets::image::ImageSpec;
use fathom_models::processing::observation::{Observation, finish_actions};
use fathom_models::processing::tokenizer::Tokenizer;
use fathom_models::quantize::Manifest;
use fathom_models::quantize::pack::Source;
use indicatif::ProgressBar;

use self::report::{Collector, Given, Model};
use crate::gpu::GpuArguments;
use crate::weight_bytes;

mod html;
mod report;
mod text;

/// Compare a packed directory with its source: every stage, and the actions. Exit status 1 if the packed model misses the
/// threshold.
#[derive(Args)]
pub(crate) struct Eval {
    /// Source directory, which runs in f32.
    #[arg(long)]
    reference: PathBuf,
    /// Packed directory.
    #[arg(long)]
    packed: PathBuf,
    /// Checkpoint family; overrides detection.
    #[arg(long)]
    family: Option<&'static Family>,
    /// Observations as for `fathom infer`; photos for a Depth Anything.
    #[arg(long, required = true, num_args = 1..)]
    observations: Vec<PathBuf>,
    /// Number of noise seeds for each observation; the first is the observation's own noise, if it has any.
    #[arg(long, default_value_t = 3, value_parser = within!(bounds::SEEDS))]
    seeds: u64,
    /// Least cosine of the actions (of a Depth Anything, the depth map) in any run. Default: 0.9999 for f16, 0.999 for w8,
    /// otherwise 0.99.
    #[arg(long, value_parser = within!(bounds::COSINE))]
    threshold: Option<f64>,
    /// Largest accepted error of any joint in any step, in the joint's own unit. Default: no limit.
    #[arg(long, value_parser = within!(bounds::JOINT_ERROR))]
    max_error: Option<f64>,
    /// Output: the report as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Output: the report as an HTML page with plots.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Kernel family of the packed model; overrides the automatic choice.
    #[arg(long)]
    kernels: Option<Kernels>,
    #[command(flatten)]
    gpu: GpuArguments,
}

/// The result of one run.
struct Run {
    /// Normalised, and in the robot's units; for a Depth Anything both are the depth map.
    normalized: Vec<f32>,
    actions: Vec<f32>,
    /// Every stage, from the first seed's run of an observation.
    stages: Vec<Output>,
}

/// A model's runs, by observation and seed.
struct Runs {
    model: Model,
    runs: Vec<Run>,
}

impl Eval {
    pub(crate) fn run(self) -> Result<ExitCode, Box<dyn Error>> {
        [&self.json, &self.html].into_iter().flatten().try_for_each(|path| output_file::check(path))?;
        let gpu = self.gpu.open()?;
        let (adapter, software) = (gpu.info().to_string(), gpu.info().kind == AdapterKind::Software);
        // All in f32, whatever the format of the weights.
        let exact = if software { Kernels::Lanes } else { Kernels::Tiled };
        let source = Source::open(&self.reference, self.family)?;
        let packed = Source::open(&self.packed, self.family)?;
        if let Some(what) = packed.difference(&source) {
            let (a, b) = (self.packed.display(), self.reference.display());
            return Err(format!("{a}: expected the model that was packed from {b}: {what} differ").into());
        }
        let given = self.given(&source)?;
        let bar = ProgressBar::new(2 * self.observations.len() as u64 * given.seeds);
        let reference = self.runs(gpu, &self.reference, source, Some(exact), &given, &bar)?;
        let packed = self.runs(self.gpu.open()?, &self.packed, packed, self.kernels, &given, &bar)?;
        bar.finish_and_clear();

        let mut collector = Collector::new(given, reference.model, packed.model, adapter, software);
        for (i, (expected, found)) in reference.runs.iter().zip(&packed.runs).enumerate() {
            collector.run(i, [&expected.normalized, &found.normalized], [&expected.actions, &found.actions]);
            for (expected, found) in expected.stages.iter().zip(&found.stages) {
                collector.stage(&expected.name, &expected.values, &found.values);
            }
        }
        let report = collector.finish();
        if let Some(path) = &self.json {
            output_file::write(path, format!("{:#}\n", serde_json::to_value(&report)?))?;
        }
        if let Some(path) = &self.html {
            output_file::write(path, html::page(&report))?;
        }
        console::print(format_args!("{report}"));
        Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// The compared models, and the measure.
    fn given(&self, source: &Source) -> Result<Given, Box<dyn Error>> {
        let manifest = Manifest::read(&self.packed)?;
        let scheme = manifest.map(|m| m.scheme);
        let promised = match scheme.as_ref().map(|s| (s.base.name(), s.rules.is_empty())) {
            Some(("f16", true)) => 0.9999,
            Some(("w8", true)) => 0.999,
            _ => 0.99,
        };
        let names = |paths: &[PathBuf]| paths.iter().map(|path| path.display().to_string()).collect();
        let (joints, horizon) = match source {
            Source::Policy(loaded) => {
                let named = Origin::read(&self.reference, loaded)?.action_names.unwrap_or_default();
                let name = |i: usize| named.get(i).cloned().unwrap_or_else(|| format!("action {i}"));
                ((0..loaded.action_dim).map(name).collect(), loaded.model.config.horizon)
            }
            Source::Depth(..) => (Vec::new(), 0),
        };
        Ok(Given {
            observations: names(&self.observations),
            seeds: if joints.is_empty() { 1 } else { self.seeds },
            joints,
            horizon,
            scheme: scheme.map_or("not packed".to_owned(), |s| s.to_string()),
            threshold: self.threshold.unwrap_or(promised),
            max_error: self.max_error,
        })
    }

    fn runs(
        &self,
        gpu: Gpu,
        dir: &Path,
        source: Source,
        kernels: Option<Kernels>,
        given: &Given,
        bar: &ProgressBar,
    ) -> Result<Runs, Box<dyn Error>> {
        let family = source.family().to_string();
        let weight_bytes = weight_bytes(source.weights())?;
        let (kernels, runs) = match source {
            Source::Policy(loaded) => policy(gpu, dir, *loaded, kernels, &self.observations, given.seeds, bar)?,
            Source::Depth(model, weights) => {
                let mut session = DepthSession::open(gpu, *model, *weights, kernels)?;
                let mut runs = Vec::new();
                for file in &self.observations {
                    let (spec, bytes) = photo(file)?;
                    let stages = session.estimate(spec, &bytes, true)?;
                    let depth = stages.iter().find(|o| o.name == "depth").map(|o| o.values.clone());
                    let depth = depth.unwrap_or_default();
                    runs.push(Run { normalized: depth.clone(), actions: depth, stages });
                    bar.inc(1);
                }
                (session.kernels(), runs)
            }
        };
        let model = Model { directory: dir.display().to_string(), family, weight_bytes, kernels: kernels.to_string() };
        Ok(Runs { model, runs })
    }
}

fn policy(
    gpu: Gpu,
    dir: &Path,
    loaded: Loaded,
    kernels: Option<Kernels>,
    files: &[PathBuf],
    seeds: u64,
    bar: &ProgressBar,
) -> Result<(Kernels, Vec<Run>), Box<dyn Error>> {
    let config = loaded.model.config.clone();
    let observations = files.iter().map(|file| observation(dir, &loaded, file)).collect::<Result<Vec<_>, _>>()?;
    let mut session = Session::open_with(gpu, loaded, kernels)?;
    let mut runs = Vec::new();
    for observation in &observations {
        // All stages depend on the observation, only the last ones on the noise.
        let once = session.infer_once(observation, true)?;
        runs.push(Run { normalized: once.normalized, actions: once.actions, stages: once.outputs });
        bar.inc(1);
        let images: Vec<&[u8]> = observation.images.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        for seed in 1..seeds {
            let noise = random::normal(seed, config.horizon * config.action_dim);
            let inputs = Inputs { images: &images, state: &observation.state, noise: &noise };
            let (outputs, _) = session.infer(&inputs, false)?;
            let raw = outputs.iter().find(|o| o.name == "actions").map(|o| o.values.clone()).unwrap_or_default();
            let (normalized, actions) = finish_actions(session.loaded(), &observation.state, raw)?;
            runs.push(Run { normalized, actions, stages: Vec::new() });
            bar.inc(1);
        }
    }
    Ok((session.kernels(), runs))
}

/// The observation in `file` for the model in `dir`.
pub(crate) fn observation(dir: &Path, loaded: &Loaded, file: &Path) -> Result<Observation, ModelError> {
    let config = &loaded.model.config;
    let tokenize = |text: &str| Tokenizer::open_for(dir, config.vocab)?.text(config.prompt, text);
    Observation::read(file, loaded, 0, tokenize)
}

/// A picture, or the `image` of a safetensors file.
pub(crate) fn photo(file: &Path) -> Result<(ImageSpec, Vec<u8>), Box<dyn Error>> {
    if file.extension().is_none_or(|e| e != "safetensors") {
        let picture = read_picture(file)?;
        return Ok((picture.spec(), picture.data));
    }
    let tensors = Checkpoint::open(file)?;
    match (tensors.shape("image"), tensors.tensor("image")) {
        (Some([height, width, 3]), Some((_, bytes))) => Ok((ImageSpec::rgb(*width, *height), bytes.to_vec())),
        (shape, _) => Err(format!("{}: image: expected [height, width, 3], found {shape:?}", file.display()).into()),
    }
}
