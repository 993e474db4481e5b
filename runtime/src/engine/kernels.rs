//! Which of the kernels that compute the same an adapter gets.

use fathom_models::builder::SKINNY_ROWS;
use fathom_models::weights::WeightFormat;
use fathom_shaders::{Shader, variants};

use crate::gpu::{AdapterInfo, AdapterKind};

/// The family of kernels that an adapter gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Tiles in workgroup memory, for any GPU: `linear` and, for few rows, `linear_skinny`; `attention`.
    Tiled,
    /// For drivers whose threads are the lanes of a processor's vectors: `linear_lanes`, `attention_lanes`.
    Lanes,
}

impl std::str::FromStr for Kernels {
    type Err = String;

    fn from_str(name: &str) -> Result<Kernels, String> {
        match name {
            "tiled" => Ok(Kernels::Tiled),
            "lanes" => Ok(Kernels::Lanes),
            _ => Err(format!("expected tiled or lanes, found {name:?}")),
        }
    }
}

impl Kernels {
    /// What serves the adapter best.
    pub fn of(info: &AdapterInfo) -> Kernels {
        if info.kind == AdapterKind::Software { Kernels::Lanes } else { Kernels::Tiled }
    }

    /// How many of a weight's rows lie together, word by word.
    pub(super) fn rows_together(self) -> usize {
        match self {
            Kernels::Lanes => 64,
            Kernels::Tiled => 1,
        }
    }

    /// The kernel for a linear layer of `m` rows, and the columns and rows of one of its workgroups.
    pub(super) fn linear(self, format: WeightFormat, m: u32) -> (&'static Shader, [u32; 2]) {
        match self {
            Kernels::Lanes => (LANES.of(format), [64, 8]),
            Kernels::Tiled if m as usize <= SKINNY_ROWS => (SKINNY.of(format), [16, 16]),
            Kernels::Tiled => (TILED.of(format), [64, 64]),
        }
    }

    /// The kernel for heads of this width, and the rows of one of its workgroups.
    pub(super) fn attention(self, head_dim: u32) -> (&'static Shader, u32) {
        match (self, head_dim) {
            (Kernels::Lanes, _) => (&variants::ATTENTION_LANES, 32),
            (Kernels::Tiled, 0..=64) => (&variants::ATTENTION_64, 64),
            (Kernels::Tiled, 65..=128) => (&variants::ATTENTION_128, 64),
            (Kernels::Tiled, _) => (&variants::ATTENTION_256, 64),
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
