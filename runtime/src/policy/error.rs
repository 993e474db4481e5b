//! Errors of a policy.

use fathom_models::ModelError;

use crate::engine::EngineError;
use crate::gpu::GpuError;

/// Why a policy does not open or infer.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The checkpoint or the observation is wrong.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The GPU does not serve, or the inputs do not fit it.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The observation's images are of other views than the policy's.
    #[error("the policy's views are {expected:?}; the observation has {found:?}")]
    Views {
        /// The policy's.
        expected: Vec<String>,
        /// The observation's.
        found: Vec<String>,
    },
}

impl From<GpuError> for PolicyError {
    fn from(error: GpuError) -> PolicyError {
        PolicyError::Engine(error.into())
    }
}

impl PolicyError {
    /// Whether the observation or the model is wrong, not the GPU.
    pub fn is_of_input(&self) -> bool {
        match self {
            PolicyError::Model(_) | PolicyError::Views { .. } => true,
            PolicyError::Engine(error) => matches!(error, EngineError::Model(_) | EngineError::Input { .. }),
        }
    }

    /// Whether the GPU was lost, and opening it again may help.
    pub fn is_gpu_lost(&self) -> bool {
        matches!(self, PolicyError::Engine(EngineError::Gpu(GpuError::DeviceLost { .. } | GpuError::Timeout { .. })))
    }
}
