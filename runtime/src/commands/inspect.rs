use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use fathom_models::families::Family;
use fathom_models::families::summary::Summary;
use fathom_models::io::console;

use super::plan::PlanArguments;

/// Describe a checkpoint: family, sizes, parameters of each part, names, normalisation, dropped tensors; with `--plan`, count
/// the work of an inference.
#[derive(Args)]
pub(crate) struct Inspect {
    /// Checkpoint directory.
    #[arg(required_unless_present = "full_size")]
    model: Option<PathBuf>,
    /// Checkpoint family; overrides detection.
    #[arg(long)]
    family: Option<&'static Family>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    plan: PlanArguments,
}

impl Inspect {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let text = match &self.model {
            Some(dir) if !self.plan.plan => {
                let summary = Summary::read(dir, self.family)?;
                if self.json { serde_json::to_string_pretty(&summary)? } else { summary.to_string() }
            }
            model => self.plan.run(model.as_ref(), self.family, self.json)?,
        };
        Ok(console::print_result(&format!("{text}\n")).map_err(|e| format!("standard output: {e}"))?)
    }
}
