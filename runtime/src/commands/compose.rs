use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use fathom_models::weights::Checkpoint;
use fathom_models::{compose, families};

/// Makes a DepthVLA directory from a pi0 and a depth model's encoder. The result is not trained.
#[derive(Args)]
pub(crate) struct Compose {
    /// Directory of the pi0.
    #[arg(long)]
    pi0: PathBuf,
    /// Directory of a Dinov2Model or a DepthAnythingForDepthEstimation (Hugging Face).
    #[arg(long)]
    depth: PathBuf,
    /// Views that the depth branch looks at; the pi0's first if not given.
    #[arg(long)]
    view: Vec<String>,
    /// Seed of the depth expert and its head.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory to write.
    #[arg(long)]
    output: PathBuf,
}

impl Compose {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let pi0 = families::load(&self.pi0)?;
        let encoder = Checkpoint::open_model(&self.depth)?;
        let first = pi0.model.config.views.first().cloned();
        let views = if self.view.is_empty() { first.into_iter().collect() } else { self.view };
        let origins = compose::compose(&pi0, &encoder, &views, self.seed, &self.output)?;
        let tokenizer = self.pi0.join("tokenizer.json");
        if tokenizer.exists() {
            std::fs::copy(&tokenizer, self.output.join("tokenizer.json"))
                .map_err(|e| format!("{}: {e}", tokenizer.display()))?;
        }
        println!(
            "{}: {} tensors of the pi0, {} of the encoder, {} from seed {}",
            self.output.display(),
            origins.pi0,
            origins.encoder,
            origins.random,
            self.seed
        );
        println!(
            "THIS MODEL IS NOT TRAINED: its depth expert and depth head are random. Train it before it moves an arm."
        );
        Ok(())
    }
}
