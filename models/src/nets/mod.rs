//! The networks: configurations, forward definitions, and the CPU reference that runs them.

pub mod config;
pub mod depth_anything;
pub mod depthvla;
mod expert;
pub mod flow;
pub mod image;
pub mod maps;
pub mod presets;
pub mod reference;
pub mod vit;
