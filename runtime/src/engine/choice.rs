//! What an inference is computed with: a family of kernels, and the formats that tensors lie in between them.

use fathom_models::graph::precision::{Float, Precision};

use super::kernels::Kernels;
use crate::gpu::AdapterInfo;

/// What is asked for instead of what suits the adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The family of kernels.
    pub kernels: Option<Kernels>,
    /// What keys and values are stored in.
    pub kv: Option<Float>,
    /// What other tensors between kernels are stored in.
    pub activations: Option<Float>,
}

/// What serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The family of kernels.
    pub kernels: Kernels,
    /// What tensors between them are stored in.
    pub precision: Precision,
}

impl From<Option<Kernels>> for Wanted {
    fn from(kernels: Option<Kernels>) -> Wanted {
        Wanted { kernels, ..Wanted::default() }
    }
}

impl From<Kernels> for Choice {
    /// With the precision that suits them.
    fn from(kernels: Kernels) -> Choice {
        Wanted::default().with(kernels)
    }
}

impl Wanted {
    /// What it makes of these kernels: kernels that round their operands to f16 have them in f16, others in f32, but for
    /// what is asked for.
    pub fn with(self, kernels: Kernels) -> Choice {
        let own = if kernels.rounds() { Precision::F16 } else { Precision::F32 };
        let precision =
            Precision { kv: self.kv.unwrap_or(own.kv), activations: self.activations.unwrap_or(own.activations) };
        Choice { kernels, precision }
    }
}

impl Choice {
    /// What the adapter lacks for it. That it does not report a matrix' size is no lack: the self-test tells.
    pub fn refused_by(self, info: &AdapterInfo) -> Option<String> {
        let halves = self.precision.has_f16() && !info.f16;
        self.kernels.refused_by(info).or_else(|| halves.then(|| "f16 in shaders and their storage".to_owned()))
    }
}

impl std::fmt::Display for Choice {
    /// The kernels, and the precision where it is not their own.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Precision { kv, activations } = self.precision;
        match *self == Choice::from(self.kernels) {
            true => write!(f, "{}", self.kernels),
            false => write!(f, "{}, keys and values in {kv}, activations in {activations}", self.kernels),
        }
    }
}
