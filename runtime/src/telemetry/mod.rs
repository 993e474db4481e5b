//! Where the milliseconds go: stages, their statistics, and what the service manager is told.

mod memory;
mod notify;
mod stages;

pub use memory::Memory;
pub use notify::Notify;
pub use stages::{Header, Stage, StageTable};
