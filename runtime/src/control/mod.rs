//! The control loop: it captures, infers and sends while the controller executes the previous chunk.

mod camera;
mod core;
mod error;
mod inference;
mod inject;
mod reconnect;
mod robot;
mod run;
mod scene;
mod signals;
#[cfg(test)]
mod simulation;
mod sinks;

pub use error::RunError;
pub use robot::{Robot, RobotBuilder};
pub use run::{Outcome, RunOptions};
