use std::collections::BTreeMap;
use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use fathom::engine::{Session, log_model};
use fathom_models::families::{self, Family};
use fathom_models::observation::Observation;
use fathom_models::tokenizer::Tokenizer;
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use super::gpu::GpuArguments;

/// One inference: an observation in, actions out.
#[derive(Args)]
pub(crate) struct Infer {
    /// Directory of the checkpoint.
    #[arg(long)]
    model: PathBuf,
    /// What the checkpoint is, where its files do not tell or tell otherwise.
    #[arg(long)]
    family: Option<Family>,
    /// View of the checkpoint that the robot has no camera for: it is left out, not faked. May be given again.
    #[arg(long)]
    skip_view: Vec<String>,
    /// safetensors file with `image.<view>` (u8), `state` (f32), `tokens` (i32, or `prompt` in the metadata), and
    /// optionally `noise` (f32).
    #[arg(long)]
    observation: PathBuf,
    /// safetensors file to write: `actions`, `actions.normalized`, `depth.<view>`.
    #[arg(long)]
    output: PathBuf,
    /// Write every stage's tensors, too.
    #[arg(long)]
    taps: bool,
    /// Seed of the noise, where the observation has none.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    gpu: GpuArguments,
}

impl Infer {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let mut loaded = families::load_as(&self.model, self.family)?;
        loaded.skip_views(&self.skip_view)?;
        log_model(&loaded);
        let format = loaded.model.config.prompt;
        let tokenize = |text: &str| Tokenizer::open(&self.model)?.text(format, text);
        let observation = Observation::read(&self.observation, &loaded, self.seed, tokenize)?;
        let gpu = self.gpu.open()?;
        let config = loaded.model.config.clone();
        let action_dim = loaded.action_dim;
        let mut session = Session::open(gpu, loaded)?;
        let once = session.infer_once(&observation, self.taps)?;

        let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = BTreeMap::new();
        for output in once.outputs {
            if output.name != "actions" {
                tensors.insert(output.name, (output.shape.to_vec(), output.values));
            }
        }
        tensors.insert("actions".to_owned(), (vec![config.horizon, action_dim], once.actions));
        tensors.insert("actions.normalized".to_owned(), (vec![config.horizon, config.action_dim], once.normalized));
        let views = tensors
            .iter()
            .map(|(name, (shape, values))| {
                Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytemuck::cast_slice(values))?))
            })
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        // Whole or not at all: a reader never sees half a file.
        let part = self.output.with_extension("part");
        safetensors::serialize_to_file(views, None, &part).map_err(|e| format!("{}: {e}", self.output.display()))?;
        std::fs::rename(&part, &self.output).map_err(|e| format!("{}: {e}", self.output.display()))?;
        tracing::info!(file = %self.output.display(), tensors = tensors.len(), "written");
        Ok(())
    }
}
