//! What each fuzz target does with its input. A target ends with a panic where something is wrong; the tests of
//! `tests/tests/tree/fuzz.rs` run the same functions over the corpus and over changed copies of it.

#[cfg(feature = "host")]
pub mod host;
#[cfg(feature = "host")]
pub mod recording;
#[cfg(feature = "models")]
pub mod models;
pub mod wire;
