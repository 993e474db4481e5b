use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueEnum};
use fathom::scene::{Renderer, Scene};
use fathom::telemetry::Memory;
use fathom::untrained;
use fathom::{bounds, within};
use fathom_models::checkpoint::save::write_safetensors;
use fathom_models::nets::presets;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

/// Make a model directory with seeded random weights (not trained), to try the data path. Includes an
/// `observation.safetensors` for `infer`.
#[derive(Args)]
pub(crate) struct Init {
    /// Size of the model.
    #[arg(long, value_enum, default_value = "small")]
    preset: Preset,
    /// Seed of the weights.
    #[arg(long, default_value_t = 0, value_parser = within!(bounds::SEED))]
    seed: u64,
    /// Directory to write.
    #[arg(long)]
    output: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Preset {
    /// DepthVLA for a software driver: two views, four layers, about 2 M parameters.
    Small,
    /// DepthVLA at the paper's sizes: one view, 3.85 B parameters, 7.7 GB.
    Full,
}

impl Init {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let config = match self.preset {
            Preset::Small => presets::small(),
            Preset::Full => presets::depthvla(),
        };
        let scene = Arc::new(Scene::built_in(0)?);
        untrained::write(&self.output, &config, &scene, self.seed)?;
        write_observation(&self.output.join("observation.safetensors"), &scene, &config.views)?;
        let (directory, seed, memory) = (self.output.display(), self.seed, Memory::now());
        tracing::info!(%directory, seed, %memory, "an untrained model was written");
        Ok(())
    }
}

/// Writes the images of the named scene cameras with the arm at its start.
fn write_observation(path: &Path, scene: &Arc<Scene>, views: &[String]) -> Result<(), Box<dyn Error>> {
    let state: Vec<f32> = scene.initial_positions().collect();
    let mut images = Vec::new();
    for view in views {
        let mut renderer = Renderer::new(Arc::clone(scene), scene.camera_index(view)?)?;
        let (width, height) = renderer.size();
        let (width, height) = (width as usize, height as usize);
        let (mut rgb, mut depth) = (vec![0; width * height * 3], vec![0.0; width * height]);
        renderer.render(&state, &mut rgb, &mut depth)?;
        images.push((format!("image.{view}"), [height, width, 3], rgb));
    }
    let mut tensors = images
        .iter()
        .map(|(name, shape, rgb)| Ok((name.as_str(), TensorView::new(Dtype::U8, shape.to_vec(), rgb)?)))
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
    tensors.push(("state", TensorView::new(Dtype::F32, vec![state.len()], bytemuck::cast_slice(&state))?));
    let metadata = [("prompt".to_owned(), "reach for the red block".to_owned())].into();
    Ok(write_safetensors(path, tensors, Some(metadata))?)
}
