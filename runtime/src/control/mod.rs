//! The control loop: it captures, infers and sends while the controller executes the previous chunk.

mod camera;
mod core;
mod episode;
mod error;
mod inference;
mod inject;
mod realtime;
mod reconnect;
mod robot;
mod run;
mod scene;
mod signals;
mod simulation;
mod sinks;

pub use episode::{Conditions, DepthErrors, Episode, Moment, Simulator};
pub use error::RunError;
pub use robot::{Robot, RobotBuilder};
pub(crate) use robot::{check_fit, connector, gpu_options, open_camera, open_policy, read_policy, sim_config};
pub use run::{Outcome, RunOptions};
