//! Which of the kernels that compute the same an adapter gets.

use fathom_models::builder::SKINNY_ROWS;
use fathom_models::weights::WeightFormat;
use fathom_shaders::{Shader, variants};

use crate::gpu::{AdapterInfo, AdapterKind};

/// How linear layers share their work among threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearKernels {
    /// `linear` and, for few rows, `linear_skinny`: tiles in workgroup memory, for any GPU.
    Tiled,
    /// `linear_lanes`: for drivers whose threads are lanes of a processor's vectors.
    Lanes,
}

/// The kernels chosen for an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernels {
    /// Of linear layers.
    pub linear: LinearKernels,
}

impl Kernels {
    /// What serves the adapter best.
    pub fn of(info: &AdapterInfo) -> Kernels {
        let linear = if info.kind == AdapterKind::Software { LinearKernels::Lanes } else { LinearKernels::Tiled };
        Kernels { linear }
    }

    /// The kernel for a linear layer of `m` rows, and the columns and rows of one of its workgroups.
    pub(super) fn linear(&self, format: WeightFormat, m: u32) -> (&'static Shader, [u32; 2]) {
        match self.linear {
            LinearKernels::Lanes => (LANES.of(format), [64, 8]),
            LinearKernels::Tiled if m as usize <= SKINNY_ROWS => (SKINNY.of(format), [16, 16]),
            LinearKernels::Tiled => (TILED.of(format), [64, 64]),
        }
    }
}

/// A kernel's variants by the weights' format.
struct ByFormat {
    f32: &'static Shader,
    f16: &'static Shader,
    bf16: &'static Shader,
    w8: &'static Shader,
    w4: &'static Shader,
    w4_minima: &'static Shader,
}

impl ByFormat {
    fn of(&self, format: WeightFormat) -> &'static Shader {
        match format {
            WeightFormat::F32 => self.f32,
            WeightFormat::F16 => self.f16,
            WeightFormat::Bf16 => self.bf16,
            WeightFormat::W8 => self.w8,
            WeightFormat::W4 { minima: false, .. } => self.w4,
            WeightFormat::W4 { minima: true, .. } => self.w4_minima,
        }
    }
}

const TILED: ByFormat = ByFormat {
    f32: &variants::LINEAR_F32,
    f16: &variants::LINEAR_F16,
    bf16: &variants::LINEAR_BF16,
    w8: &variants::LINEAR_W8,
    w4: &variants::LINEAR_W4,
    w4_minima: &variants::LINEAR_W4_MINIMA,
};

const SKINNY: ByFormat = ByFormat {
    f32: &variants::LINEAR_SKINNY_F32,
    f16: &variants::LINEAR_SKINNY_F16,
    bf16: &variants::LINEAR_SKINNY_BF16,
    w8: &variants::LINEAR_SKINNY_W8,
    w4: &variants::LINEAR_SKINNY_W4,
    w4_minima: &variants::LINEAR_SKINNY_W4_MINIMA,
};

const LANES: ByFormat = ByFormat {
    f32: &variants::LINEAR_LANES_F32,
    f16: &variants::LINEAR_LANES_F16,
    bf16: &variants::LINEAR_LANES_BF16,
    w8: &variants::LINEAR_LANES_W8,
    w4: &variants::LINEAR_LANES_W4,
    w4_minima: &variants::LINEAR_LANES_W4_MINIMA,
};
