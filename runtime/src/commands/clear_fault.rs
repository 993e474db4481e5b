use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fathom::config::RobotConfig;
use fathom::link::Link;
use fathom_models::outln;

/// How long the controller may take to answer, and to ramp to rest.
const WAIT: Duration = Duration::from_secs(5);

/// Clears a fault that the controller latched, after you removed its cause. Needs neither model nor GPU.
#[derive(Args)]
pub(crate) struct ClearFault {
    /// The robot's configuration (robot.toml); only `[link]` is used.
    #[arg(long)]
    config: PathBuf,
}

impl ClearFault {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let config = RobotConfig::load(&self.config)?;
        if config.link.is_simulated() {
            return Err(
                "link.device: expected a serial device, found the simulated controller, which is made anew with \
                        each run"
                    .into(),
            );
        }
        let mut link = Link::open(&config.link.device, config.link.baud)?;
        link.set_identity(config.link.controller.clone());
        link.hello(&config.link.joints, WAIT)?;
        link.clear_latched(WAIT)?;
        outln!("{}: no fault is latched", config.link.device);
        Ok(())
    }
}
