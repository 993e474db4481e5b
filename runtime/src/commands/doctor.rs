use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use fathom::doctor::{Level, Options, examine};
use fathom_models::io::console;

/// Examine computer, GPU, model, cameras and controller, and say what to do where something is amiss. Moves nothing.
#[derive(Args)]
pub(crate) struct Doctor {
    /// The robot's configuration (robot.toml). Without one, only the computer and its GPU are examined.
    #[arg(long)]
    config: Option<PathBuf>,
    /// Checkpoint directory; overrides the configuration.
    #[arg(long, requires = "config")]
    model: Option<PathBuf>,
    /// Allow a software driver; also `gpu.software = true` in the configuration.
    #[arg(long)]
    software: bool,
    /// Print JSON: a list of parts, each with its level (ok, warning or failure), what was found, and the remedy.
    #[arg(long)]
    json: bool,
}

impl Doctor {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let findings = examine(&Options { config: self.config, model: self.model, software: self.software });
        let text = match self.json {
            true => serde_json::to_string_pretty(&findings)? + "\n",
            false => findings.iter().map(|finding| format!("{finding}\n")).collect(),
        };
        console::print_result(&text).map_err(|error| format!("standard output: {error}"))?;
        match findings.iter().filter(|finding| finding.level == Level::Failure).count() {
            0 => Ok(()),
            1 => Err("one part is not as the robot needs it".into()),
            count => Err(format!("{count} parts are not as the robot needs them").into()),
        }
    }
}
