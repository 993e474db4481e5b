use std::error::Error;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use clap::Args;
use fathom_models::families::Family;
use fathom_models::summary::Summary;

/// What a model directory holds: family, sizes, parameters of each part, names, normalisation, what is left out.
#[derive(Args)]
pub(crate) struct Inspect {
    /// Directory of the checkpoint.
    model: PathBuf,
    /// What the checkpoint is, where its files do not tell or tell otherwise.
    #[arg(long)]
    family: Option<Family>,
    /// As JSON.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let summary = Summary::read(&self.model, self.family)?;
        let text = if self.json { serde_json::to_string_pretty(&summary)? } else { summary.to_string() };
        match writeln!(std::io::stdout(), "{text}") {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            done => Ok(done?),
        }
    }
}
