use std::error::Error;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use fathom::bench::Scene;
use fathom_models::{presets, random, tokenizer};

/// Makes a model directory with seeded random weights: a model that was never trained, for trying out the path.
#[derive(Args)]
pub(crate) struct Init {
    /// Sizes of the model.
    #[arg(long, value_enum, default_value = "small")]
    preset: Preset,
    /// Seed of the weights.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Directory to write.
    #[arg(long)]
    output: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum Preset {
    /// A DepthVLA for a software driver: two views, four layers, some 2 M parameters.
    Small,
}

impl Init {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let config = match self.preset {
            Preset::Small => presets::small(),
        };
        random::write_checkpoint(&self.output, &config, self.seed)?;
        let write = |name: &str, json: serde_json::Value| {
            let path = self.output.join(name);
            std::fs::write(&path, format!("{json:#}\n")).map_err(|e| format!("{}: {e}", path.display()))
        };
        write("tokenizer.json", tokenizer::bytes_only())?;
        // Statistics for the bench scene's arm: about its initial pose, within its limits.
        let scene = Scene::built_in(0)?;
        let joints = scene.joints();
        let mean: Vec<f32> = joints.iter().map(|j| j.initial_rad).collect();
        let spread =
            |share: f32| -> Vec<f32> { joints.iter().map(|j| (j.limits_rad[1] - j.limits_rad[0]) * share).collect() };
        let stats = serde_json::json!({ "norm_stats": {
            "state": { "mean": mean, "std": spread(0.25) },
            "actions": { "mean": mean, "std": spread(0.1) },
        } });
        write("norm_stats.json", stats)?;
        tracing::info!(directory = %self.output.display(), seed = self.seed, "an untrained model was written");
        Ok(())
    }
}
