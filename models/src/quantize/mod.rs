//! Checkpoints in smaller number formats: schemes, quantisation of weights, and packed directories.

pub mod calibration;
mod encode;
mod error;
pub mod pack;
pub mod scheme;

pub use encode::{encode, encode_for};
pub use error::{PackError, SchemeError};

/// The manifest of a packed directory, with its scheme.
pub type Manifest = crate::checkpoint::manifest::Manifest<scheme::Scheme>;
