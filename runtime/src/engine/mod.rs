//! From a model to actions: the graph planned into one arena, lowered to dispatches, recorded once and replayed.

mod arena;
mod depth;
mod kernels;
mod lower;
mod program;
mod resident;
mod session;

pub use depth::DepthSession;
pub use kernels::Kernels;
pub use program::{Arena, Output, Program};
pub use resident::Resident;
pub use session::{Inputs, Once, Session, log_model};

use fathom_models::ModelError;

use crate::gpu::GpuError;

/// What can fail between a model and its actions.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model, its checkpoint or what it was given.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The GPU.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// An inference before [`Session::prepare`].
    #[error("nothing was prepared: expected prepare() before infer()")]
    Unprepared,
    /// An input of another size than was prepared.
    #[error("input {name}: expected {expected} bytes as prepared, found {found}")]
    Input {
        /// Which input.
        name: String,
        /// As prepared.
        expected: usize,
        /// As given.
        found: usize,
    },
}
