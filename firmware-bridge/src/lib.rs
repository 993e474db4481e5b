#![no_std]
//! The wire between Fathom's host and the motor controller, and the controller itself.
//!
//! Both sides compile this crate, so that both decode the same bytes in the same way:
//!
//! * [`message`]: the messages, and the byte layout of each;
//! * [`frame`]: `COBS(header, body, CRC-32) 0x00`, an encoder without a scratch buffer and an
//!   incremental decoder that counts corrupt frames and resynchronises at the next `0x00`;
//! * [`joint`]: joints, their units and limits, and their behaviour at a fault;
//! * [`fault`]: the faults for which a controller stops its joints;
//! * [`controller`]: the controller's state machine, pure in time;
//! * [`bridge`]: the controller behind a serial line of `embedded-io` traits;
//! * [`ring`]: bytes between a serial interrupt and the main loop;
//! * [`output`]: drivers of the joints: PWM servos, servos on a serial bus, a simulation;
//! * `sim` (feature `sim`, needs `std`): the same controller behind a pseudo-terminal.
//!
//! Times are microseconds (`_us`); each side's clock is its own monotonic clock.
//! Positions are in the joint's [`joint::Unit`].
//!
//! Invariants: the code on the controller has no allocation, no `unsafe`, and no path that panics.
#![doc = ""]
#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

#[cfg(feature = "sim")]
extern crate std;

pub mod bridge;
pub mod controller;
pub mod fault;
pub mod frame;
pub mod joint;
mod layout;
pub mod message;
mod motion;
pub mod output;
pub mod ring;
mod schema;
#[cfg(feature = "sim")]
pub mod sim;
mod wire;

/// Version of the protocol: the first byte of each frame.
///
/// The header and the place of the CRC are the same in every version, so that a frame of another version is recognised.
pub const PROTOCOL_VERSION: u8 = 3;

/// Largest number of joints of a controller.
pub const MAX_JOINTS: usize = 16;

/// Largest number of steps in an action chunk.
pub const MAX_CHUNK_STEPS: usize = 64;

/// Longest joint name in bytes of UTF-8.
pub const MAX_NAME: usize = 24;
