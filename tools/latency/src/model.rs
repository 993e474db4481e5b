//! The measured model: a checkpoint, or random weights of any configured size; and its identity.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use fathom::engine::{Kernels, Session};
use fathom::gpu::{Gpu, GpuOptions};
use fathom::scene::Scene;
use fathom::untrained;
use fathom::{bounds, within};
use fathom_models::families::{self, Family};
use fathom_models::nets::config::ModelConfig;
use fathom_models::nets::depthvla::ForwardOptions;
use fathom_models::nets::image::ImageSpec;
use fathom_models::nets::presets;
use tempfile::TempDir;
use xxhash_rust::xxh3::Xxh3;

use crate::Failure;

/// Model.
#[derive(Args, Clone, Debug)]
pub(crate) struct ModelOptions {
    /// Checkpoint directory. Default: random weights.
    #[arg(long, conflicts_with_all = ["preset", "config"])]
    pub(crate) model: Option<PathBuf>,
    /// Checkpoint family; overrides detection.
    #[arg(long)]
    pub(crate) family: Option<&'static Family>,
    /// Size of the model with random weights.
    #[arg(long, value_enum, default_value = "small")]
    pub(crate) preset: Preset,
    /// config.json of a DepthVLA: other sizes for the model with random weights.
    #[arg(long, conflicts_with = "preset")]
    pub(crate) config: Option<PathBuf>,
    /// Width and height of the synthetic images, in pixels.
    #[arg(long, value_parser = size, default_value = "640x480")]
    pub(crate) image: [usize; 2],
    /// Number of tokens of the synthetic prompt.
    #[arg(long, default_value_t = 20, value_parser = within!(bounds::PROMPT_TOKENS))]
    pub(crate) prompt_tokens: usize,
    /// Seed of weights, images and noise.
    #[arg(long, default_value_t = 0, value_parser = within!(bounds::SEED))]
    pub(crate) seed: u64,
}

/// Adapter and kernels.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct AdapterOptions {
    /// Allow a software driver.
    #[arg(long)]
    pub(crate) software: bool,
    /// Part of the adapter's name. Default: any hardware adapter.
    #[arg(long)]
    pub(crate) adapter: Option<String>,
    /// Kernel family; overrides the automatic choice.
    #[arg(long)]
    pub(crate) kernels: Option<Kernels>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// Two views, four layers, about 2 M parameters.
    Small,
    /// DepthVLA at the paper's sizes: one view, 3.85 B parameters, 7.7 GB in the folder for temporary files.
    Full,
}

fn size(text: &str) -> Result<[usize; 2], String> {
    let sides = text.split_once(['x', '×']).and_then(|(w, h)| Some([w.parse().ok()?, h.parse().ok()?]));
    let [width, height]: [usize; 2] = sides.ok_or_else(|| format!("expected WIDTHxHEIGHT, found {text:?}"))?;
    let side = |name: &str, pixels| bounds::IMAGE_PIXELS.check(pixels).map_err(|e| format!("{name}: {e}"));
    Ok([side("width", width)?, side("height", height)?])
}

/// A model's directory; a temporary one is removed.
pub(crate) struct ModelDir {
    pub(crate) path: PathBuf,
    pub(crate) name: String,
    _temporary: Option<TempDir>,
}

impl ModelOptions {
    /// The directory of the model; random weights are written to a temporary one.
    pub(crate) fn directory(&self) -> Result<ModelDir, Failure> {
        if let Some(path) = &self.model {
            return Ok(ModelDir { path: path.clone(), name: path.display().to_string(), _temporary: None });
        }
        let (config, name) = match (&self.config, self.preset) {
            (Some(path), _) => {
                let config = ModelConfig::read(path).map_err(|error| error.to_string())?;
                (config, path.display().to_string())
            }
            (None, Preset::Small) => (presets::small(), "small".to_owned()),
            (None, Preset::Full) => (presets::depthvla(), "full".to_owned()),
        };
        let folder = tempfile::tempdir()?;
        untrained::write(folder.path(), &config, &Scene::built_in(0)?, self.seed)?;
        let path = folder.path().to_owned();
        Ok(ModelDir { path, name: format!("{name}, random weights"), _temporary: Some(folder) })
    }

    /// The model on a GPU with times, prepared for synthetic images and a synthetic prompt.
    pub(crate) fn open(&self, dir: &Path, adapter: &AdapterOptions) -> Result<(Session, ImageSpec), Failure> {
        let loaded = families::load_as(dir, self.family)?;
        let options = GpuOptions {
            adapter: adapter.adapter.clone(),
            allow_software: adapter.software,
            timestamps: true,
            ..GpuOptions::default()
        };
        let mut session = Session::open_with(Gpu::open(&options)?, loaded, adapter.kernels)?;
        let config = session.loaded().model.config.clone();
        let tokens = self.tokens(&config);
        let spec = ImageSpec::rgb(self.image[0], self.image[1]);
        let images = vec![spec; config.views.len()];
        let options =
            ForwardOptions { images, prompt_tokens: tokens.len(), depth_map: false, guided: false, taps: false };
        session.prepare(&options, &tokens)?;
        Ok((session, spec))
    }

    /// The synthetic prompt.
    pub(crate) fn tokens(&self, config: &ModelConfig) -> Vec<i32> {
        let count = self.prompt_tokens.min(config.max_tokens);
        (0..count).map(|i| (i % config.vocab) as i32).collect()
    }
}

/// A hash of the weights' files in `dir`, in order of their names.
pub(crate) fn hash(dir: &Path) -> String {
    let files = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        files.filter(|p| p.extension().is_some_and(|e| e == "safetensors")).filter(|p| !is_observation(p)).collect();
    files.sort();
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; 1 << 20];
    for path in &files {
        let Ok(mut file) = File::open(path) else { return String::new() };
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => hash.update(buffer.get(..count).unwrap_or_default()),
                Err(_) => return String::new(),
            }
        }
    }
    if files.is_empty() { String::new() } else { format!("xxh3:{:032x}", hash.digest128()) }
}

/// Safetensors files that are not weights.
fn is_observation(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| stem == "observation")
}
