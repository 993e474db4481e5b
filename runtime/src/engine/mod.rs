//! From a model to actions: plans the graph into one arena, lowers it to dispatches, records them once and replays
//! them.

mod arena;
mod choice;
mod depth;
mod kernels;
mod lower;
mod memory;
mod plan;
mod program;
mod resident;
mod roofline;
mod self_test;
mod session;
mod work;

pub use choice::{Choice, Wanted};
pub use depth::DepthSession;
pub use kernels::Kernels;
pub use plan::{FLOW, Plan, StageWork, stage_of};
pub use program::{Arena, Output, Program};
pub use resident::Resident;
pub use roofline::{Bound, DEVICES, Device};
pub use session::{Inputs, Once, Session, log_model};

use fathom_models::ModelError;
use fathom_models::graph::TensorId;
use fathom_shaders::Key;

use crate::gpu::GpuError;

/// Errors between a model and its actions.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// An error of the model, its checkpoint or its inputs.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The GPU.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// The adapter lacks a requested feature.
    #[error("kernels {kernels}: expected {lacks}, which {adapter} does not have")]
    Lacking {
        /// The kernels, and the precision if it differs from theirs.
        kernels: String,
        /// The missing feature.
        lacks: String,
        /// The adapter.
        adapter: String,
    },
    /// A kernel disagrees with its CPU twin on this adapter.
    #[error("kernel {kernel}: differs from its CPU twin by {error:e}, at most {tolerance:e} allowed")]
    SelfTest {
        /// The kernel.
        kernel: &'static str,
        /// Largest error, relative to the largest output.
        error: f32,
        /// Largest that is allowed.
        tolerance: f32,
    },
    /// An operation that no kernel is compiled for.
    #[error("no kernel is compiled for {0:?}")]
    NoVariant(Key),
    /// An operation on a tensor that its graph does not have.
    #[error("the graph has no tensor {}", .0.0)]
    NoTensor(TensorId),
    /// The model does not fit into the GPU's memory.
    #[error(
        "out of GPU memory: {what} asked for {}, and {adapter} holds {} in all; {}",
        mib(*.asked), mib(*.capacity), memory::advice(.schemes, *.capacity)
    )]
    OutOfMemory {
        /// The purpose of the allocation.
        what: String,
        /// How much, in bytes.
        asked: u64,
        /// The adapter.
        adapter: String,
        /// How much it can hold in all, as far as is known.
        capacity: u64,
        /// Memory that each scheme needs in total, in bytes.
        schemes: Vec<(&'static str, u64)>,
    },
    /// An inference before [`Session::prepare`].
    #[error("no inference is prepared: call prepare() before infer()")]
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

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
