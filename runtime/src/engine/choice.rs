//! The choice of a kernel family and of the tensors' precision between kernels.

use fathom_models::graph::precision::{Float, Precision};

use super::kernels::Kernels;
use crate::gpu::AdapterInfo;

/// Requests that override the automatic choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// The family of kernels.
    pub kernels: Option<Kernels>,
    /// Precision of keys and values.
    pub kv: Option<Float>,
    /// Precision of other tensors between kernels.
    pub activations: Option<Float>,
}

/// The chosen kernels and precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The family of kernels.
    pub kernels: Kernels,
    /// Precision of tensors between kernels.
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
    /// The choice with these kernels: f16 for kernels that round their operands to f16, otherwise f32, except for the
    /// requested precisions.
    pub fn with(self, kernels: Kernels) -> Choice {
        let own = if kernels.rounds() { Precision::F16 } else { Precision::F32 };
        let precision =
            Precision { kv: self.kv.unwrap_or(own.kv), activations: self.activations.unwrap_or(own.activations) };
        Choice { kernels, precision }
    }
}

impl Choice {
    /// The feature that the adapter lacks for it. A matrix size that the adapter does not report is not counted: the
    /// self-test decides.
    pub fn refused_by(self, info: &AdapterInfo) -> Option<String> {
        let halves = self.precision.has_f16() && !info.f16;
        self.kernels.refused_by(info).or_else(|| halves.then(|| "f16 in shaders and their storage".to_owned()))
    }
}

impl std::fmt::Display for Choice {
    /// The kernels, and the precision if it differs from theirs.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Precision { kv, activations } = self.precision;
        match *self == Choice::from(self.kernels) {
            true => write!(f, "{}", self.kernels),
            false => write!(f, "{}, keys and values in {kv}, activations in {activations}", self.kernels),
        }
    }
}
