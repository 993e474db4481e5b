//! What the DepthVLA and pi0 models are: configuration, parameters, checkpoints, and one forward definition that
//! writes a [`graph::Graph`]. The graph runs on the CPU twins ([`mod@reference`]) or, lowered by the runtime, on a GPU.
//!
//! **Invariant:** this crate knows nothing of wgpu, cameras or serial lines.

pub mod builder;
pub mod calibration;
pub mod checkpoint;
pub mod compose;
pub mod config;
mod content;
pub mod depth_anything;
pub mod depthvla;
mod error;
mod expert;
pub mod families;
pub mod flow;
pub mod fold;
mod foreign;
pub mod graph;
pub mod guidance;
pub mod image;
mod json;
pub mod manifest;
pub mod maps;
pub mod normalize;
pub mod observation;
pub mod pack;
pub mod params;
pub mod precision;
pub mod presets;
pub mod prompt;
pub mod quantize;
pub mod random;
pub mod reference;
pub mod save;
pub mod scheme;
pub mod sha256;
pub mod stack;
pub mod summary;
pub mod tokenizer;
pub mod vit;
pub mod weights;

pub use content::{Content, NotSafetensors};
pub use error::{ConfigError, FileProblem, ModelError, ShardProblem, TensorProblem};
pub use json::JsonError;
