//! Where the milliseconds go: stages, their statistics, and what the service manager is told.

mod notify;
mod stages;

pub use notify::Notify;
pub use stages::{Header, Stage, StageTable};
