use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use fathom::{bounds, within};
use fathom_models::checkpoint::Checkpoint;
use fathom_models::families::compose::{self, Sources};
use fathom_models::families::dinov2::Encoder;
use fathom_models::families::{self, paligemma};
use fathom_models::io::output_file;
use fathom_models::outln;

/// Make a DepthVLA directory from a pi0 (or a PaliGemma) and a depth model's encoder. The result is not trained.
#[derive(Args)]
pub(crate) struct Compose {
    /// Directory of the pi0 checkpoint.
    #[arg(long, required_unless_present = "paligemma", conflicts_with = "paligemma")]
    pi0: Option<PathBuf>,
    /// Directory of a PaliGemma (Hugging Face) instead of a pi0; the action expert then comes from the seed.
    #[arg(long)]
    paligemma: Option<PathBuf>,
    /// Directory of a Dinov2Model or a DepthAnythingForDepthEstimation (Hugging Face).
    #[arg(long)]
    depth: PathBuf,
    /// View of the depth branch (default: the pi0's first); with --paligemma a view of the model (default: base). Repeatable.
    #[arg(long)]
    view: Vec<String>,
    /// Safetensors file with tensors that neither source has (depth expert, depth head, with --paligemma the action expert),
    /// under the names of the composed model.
    #[arg(long)]
    tensors: Option<PathBuf>,
    /// Seed of tensors that no source has.
    #[arg(long, default_value_t = 0, value_parser = within!(bounds::SEED))]
    seed: u64,
    /// Directory to write.
    #[arg(long)]
    output: PathBuf,
}

impl Compose {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let (base, mut pi0) = match (self.pi0, self.paligemma) {
            (Some(dir), _) => (dir.clone(), families::load(&dir)?),
            (None, dir) => {
                let dir = dir.unwrap_or_default();
                (dir.clone(), families::load_base(&dir, Some(&paligemma::FAMILY))?)
            }
        };
        if pi0.family == paligemma::FAMILY.name && !self.view.is_empty() {
            pi0.model.config.views.clone_from(&self.view);
        }
        let encoder = Encoder::load(&self.depth)?;
        let given = self.tensors.map(|file| Checkpoint::open(&file)).transpose()?;
        let first = pi0.model.config.views.first().cloned();
        let views = if self.view.is_empty() { first.into_iter().collect() } else { self.view };
        let sources = Sources { base: &pi0, encoder: &encoder, given: given.as_ref(), views: &views, seed: self.seed };
        let origins = compose::compose(&sources, &self.output)?;
        let tokenizer = base.join("tokenizer.json");
        if tokenizer.exists() {
            let bytes = std::fs::read(&tokenizer).map_err(|e| format!("{}: {e}", tokenizer.display()))?;
            output_file::write(&self.output.join("tokenizer.json"), bytes)?;
        }
        outln!(
            "{}: {} tensors of the base, {} of the encoder, {} given, {} from seed {}",
            self.output.display(),
            origins.pi0,
            origins.encoder,
            origins.given,
            origins.random,
            self.seed
        );
        let random = if origins.random > 0 {
            "parameters from the seed are random"
        } else {
            "its parts were never trained together"
        };
        outln!("THIS MODEL IS NOT TRAINED: {random}. Train it before it moves an arm.");
        Ok(())
    }
}
