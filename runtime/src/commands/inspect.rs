use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use fathom_models::families::Family;
use fathom_models::families::summary::Summary;
use fathom_models::io::console;

use super::plan::PlanArguments;

/// What a model directory holds: family, sizes, parameters of each part, names, normalisation, what is left out; or, with
/// `--plan`, what an inference does.
#[derive(Args)]
pub(crate) struct Inspect {
    /// Directory of the checkpoint.
    #[arg(required_unless_present = "full_size")]
    model: Option<PathBuf>,
    /// Checkpoint family; overrides detection.
    #[arg(long)]
    family: Option<&'static Family>,
    /// As JSON.
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
