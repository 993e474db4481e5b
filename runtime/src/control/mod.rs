//! The control loop: capture, infer, send, while the controller consumes the chunk before.

mod camera;
mod freshness;
mod inference;
mod inject;
pub mod mode;
mod receive;
mod reconnect;
mod robot;
mod run;
mod scene;
mod signals;
mod transmit;

pub use robot::{OpenOptions, Robot, RunError};
pub use run::{LoopEvent, Outcome, RunOptions};
