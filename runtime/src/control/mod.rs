//! The control loop: capture, infer, send, while the controller consumes the chunk before.

pub mod core;
mod feed;
mod freshness;
mod hear;
mod inject;
mod relink;
mod robot;
mod run;
mod scenery;
mod send;
mod signals;
pub(crate) mod thinker;
mod worker;

pub use robot::{OpenOptions, Robot, RunError};
pub use run::{Outcome, RunOptions, Sight};
