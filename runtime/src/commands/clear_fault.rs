use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use fathom::config::RobotConfig;
use fathom::link::Link;
use firmware_bridge::message::Reason;

/// How long the controller may take to answer, and to ramp to rest.
const WAIT: Duration = Duration::from_secs(5);

/// Ends a fault that the controller latched, for a person who has seen to its cause. Needs neither model nor GPU.
#[derive(Args)]
pub(crate) struct ClearFault {
    /// The robot's configuration: device and joints of its link.
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
        link.hello(&config.link.joints, WAIT)?;
        let deadline = Instant::now() + WAIT;
        loop {
            let sequence = link.clear_fault()?;
            match link.wait_ack(sequence, WAIT)?.reason {
                Reason::Ok => break,
                Reason::Stopping if Instant::now() < deadline => {}
                Reason::Faulted => return Err("the fault is not cleared: its cause lasts".into()),
                reason => return Err(format!("the fault is not cleared: {reason:?}").into()),
            }
        }
        println!("{}: no fault is latched", config.link.device);
        Ok(())
    }
}
