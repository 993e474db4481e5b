//! Fathom's runtime: policies on a GPU, cameras, the link to the motor controller, and the control loop.
//!
//! Start at [`policy::Policy`] for inference alone, and at [`control::Robot`] for a robot. The rest of this page is the manual of the
//! program `fathom`.
//!
//! | feature | contents |
//! |---|---|
//! | none | policies, engine, GPU, pictures |
//! | `robot` | the control loop: serial line, simulated arm, recordings, telemetry, injected faults |
//! | `v4l` | cameras of Linux |
//! | `cli` (default) | the program `fathom`, with all of them |
#![doc = ""]
#![doc = include_str!("../README.md")]

#[cfg(feature = "robot")]
pub mod action;
pub mod bounds;
pub mod camera;
pub mod clock;
#[cfg(feature = "robot")]
pub mod config;
#[cfg(feature = "robot")]
pub mod control;
pub mod depth_map;
#[cfg(feature = "robot")]
pub mod doctor;
pub mod engine;
#[cfg(feature = "robot")]
pub mod events;
#[cfg(feature = "robot")]
pub mod fault;
pub mod gpu;
#[cfg(feature = "robot")]
pub mod link;
pub mod picture;
pub mod policy;
#[cfg(feature = "robot")]
pub mod record;
#[cfg(feature = "robot")]
pub mod scene;
#[cfg(feature = "robot")]
pub mod telemetry;
#[cfg(feature = "robot")]
pub mod untrained;
#[cfg(feature = "robot")]
mod waker;
#[cfg(feature = "robot")]
mod wall;

/// The snippet of the project's front page compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct FrontPage;
