//! The DepthVLA and pi0 models without a GPU: configuration, parameters, checkpoints, and one forward definition that writes
//! a [`graph::Graph`]. The graph runs on the CPU twins ([`mod@nets::reference`]) or, lowered by the runtime, on a GPU.
//!
//! The modules import only from those above them in this list (`tests/tests/tree/tidy.rs`):
//!
//! | module | contents |
//! |---|---|
//! | [`io`] | console, files that are written whole or not at all, JSON, file types |
//! | [`ModelError`] | the crate's error |
//! | [`graph`] | a model as data: operations, parameters, number formats of tensors |
//! | [`checkpoint`] | safetensors files: mapped, checked, stacked for linear layers, written |
//! | [`nets`] | configurations and forward definitions |
//! | [`processing`] | observations to inputs, outputs to actions |
//! | [`families`] | where a checkpoint comes from, and how its files are read |
//! | [`quantize`] | checkpoints in smaller number formats |
//!
//! **Invariant:** this crate knows nothing of wgpu, cameras or serial lines.
#![doc = ""]
#![doc = include_str!("../README.md")]

pub mod checkpoint;
mod error;
pub mod families;
pub mod graph;
pub mod io;
pub mod nets;
pub mod processing;
pub mod quantize;

pub use error::{ConfigError, FileProblem, ModelError, ShardProblem, TensorProblem, messages};
pub use io::{Content, FileError, JsonError, NotSafetensors};
