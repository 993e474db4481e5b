use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use fathom::camera::read_picture;
use fathom::depth_map::{DepthMap, ValuesFormat};
use fathom::engine::DepthSession;
use fathom_models::families::depth_anything;
use fathom_models::io::output_file;
use fathom_models::nets::depth_anything::DepthKind;
use fathom_models::outln;

use super::gpu::GpuArguments;

/// Compute a depth map of a photo with a Depth Anything checkpoint.
#[derive(Args)]
pub(crate) struct Depth {
    /// Checkpoint directory (Hugging Face): `config.json`, `model.safetensors`, `preprocessor_config.json`.
    #[arg(long)]
    model: PathBuf,
    /// Photo: a PNG or JPEG file.
    #[arg(long)]
    image: PathBuf,
    /// Output: 16-bit grey PNG. Metric model: millimetres; relative model: 0 is farthest, 65535 nearest.
    #[arg(long)]
    output: PathBuf,
    /// Output: colour PNG; near is yellow, far is blue.
    #[arg(long, alias = "color")]
    colour: Option<PathBuf>,
    /// Output: the f32 values, as a .npy or .safetensors file.
    #[arg(long)]
    values: Option<PathBuf>,
    /// Resize the map to the photo's size (bicubic). Default: the model's size.
    #[arg(long)]
    original_size: bool,
    #[command(flatten)]
    gpu: GpuArguments,
}

impl Depth {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let values = match &self.values {
            None => None,
            Some(path) => match ValuesFormat::of(path) {
                Some(format) => Some((path, format)),
                None => return Err(format!("{}: expected a .npy or a .safetensors file", path.display()).into()),
            },
        };
        let outputs = [Some(&self.output), self.colour.as_ref(), self.values.as_ref()];
        outputs.into_iter().flatten().try_for_each(|path| output_file::check(path))?;
        let (model, weights) = depth_anything::load(&self.model)?;
        let parameters: usize = model.params.params.iter().map(|p| p.shape.iter().product::<usize>()).sum();
        let kind = model.config.kind;
        tracing::info!(parameters, ?kind, max_depth = model.config.max_depth, "Depth Anything");
        let photo = read_picture(&self.image)?;
        let spec = photo.spec();
        let (width, height) = model.map_size(spec.width, spec.height)?;
        let wanted = self.gpu.wanted();
        let gpu = self.gpu.open(false)?;
        let mut session = DepthSession::open(gpu, model, weights, wanted)?;
        let start = std::time::Instant::now();
        let outputs = session.estimate(spec, &photo.data, false)?;
        let depth = outputs.into_iter().find(|o| o.name == "depth").map(|o| o.values).unwrap_or_default();
        let milliseconds = start.elapsed().as_millis();
        tracing::info!(width, height, milliseconds, "depth map, with the preparation of its kernels");
        let mut map = DepthMap { width, height, values: depth, kind };
        if self.original_size {
            map = map.resized(spec.width, spec.height);
        }
        let (low, high) = map.range();
        map.write_png(&self.output)?;
        if let Some(path) = &self.colour {
            map.write_colours(path)?;
        }
        if let Some((path, format)) = values {
            map.write_values(path, format)?;
        }
        let meaning = match kind {
            DepthKind::Metric => "metres",
            DepthKind::Relative => "relative, larger is nearer",
        };
        outln!("{}: {} × {} pixels, {low} to {high} ({meaning})", self.output.display(), map.width, map.height);
        Ok(())
    }
}
