//! The control loop: capture, infer, send, while the controller consumes the chunk before.

pub mod core;
mod feed;
mod robot;
mod run;
mod worker;

pub use robot::{Robot, RunError};
pub use run::{Outcome, RunOptions};
