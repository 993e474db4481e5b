//! Fathom's runtime: GPU layer, engine, cameras, link to the motor controller, and the control loop.

pub mod bench;
pub mod camera;
pub mod clock;
pub mod engine;
pub mod gpu;
pub mod link;
