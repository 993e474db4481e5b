//! Fathom's runtime: GPU layer, engine, cameras, link to the motor controller, and the control loop.

pub mod action;
pub mod bounds;
pub mod camera;
pub mod clock;
pub mod config;
pub mod control;
pub mod depth_map;
pub mod engine;
pub mod events;
pub mod fault;
pub mod gpu;
pub mod link;
pub mod picture;
pub mod policy;
pub mod record;
pub mod scene;
pub mod telemetry;
pub mod untrained;
