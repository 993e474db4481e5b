//! Which of the kernels that compute the same an adapter gets.

use fathom_models::checkpoint::WeightFormat;
use fathom_models::graph::builder::SKINNY_ROWS;
use fathom_shaders::{Shader, params, variants};
use serde::Deserialize;

use crate::gpu::{AdapterInfo, AdapterKind};

/// The family of kernels that an adapter gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Kernels {
    /// Tiles in workgroup memory, all in f32, for any GPU: `linear` and, for few rows, `linear_skinny`; `attention`.
    Tiled,
    /// As [`Tiled`](Self::Tiled), with cooperative matrices of 16 × 16 for attention, and for weights that are not
    /// f32, and norms that sum up by subgroups.
    Coop16,
    /// As [`Coop16`](Self::Coop16), with cooperative matrices of 8 × 8.
    Coop8,
    /// As [`Tiled`](Self::Tiled), with integer dot products for W8 weights and many rows, whose activations become bytes:
    /// faster without matrix units, less exact. Only where it is asked for.
    Dot8,
    /// For drivers whose threads are the lanes of a processor's vectors: `linear_lanes`, `attention_lanes`.
    Lanes,
}

impl Kernels {
    /// Every family.
    pub const ALL: [Kernels; 5] = [Kernels::Tiled, Kernels::Coop16, Kernels::Coop8, Kernels::Dot8, Kernels::Lanes];

    /// Its name, as `Display` gives and `FromStr` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Kernels::Tiled => "tiled",
            Kernels::Coop16 => "coop16",
            Kernels::Coop8 => "coop8",
            Kernels::Dot8 => "dot8",
            Kernels::Lanes => "lanes",
        }
    }

    /// What should serve the adapter best, by what it says of itself.
    pub fn of(info: &AdapterInfo) -> Kernels {
        let coop = [Kernels::Coop16, Kernels::Coop8].into_iter().find(|k| info.matrices.contains(&k.side()));
        match coop {
            _ if info.kind == AdapterKind::Software => Kernels::Lanes,
            Some(coop) if coop.refused_by(info).is_none() => coop,
            _ => Kernels::Tiled,
        }
    }

    /// What the adapter lacks for these kernels. That it does not report a matrix' size is no lack: the self-test tells.
    pub fn refused_by(self, info: &AdapterInfo) -> Option<String> {
        let coop = matches!(self, Kernels::Coop16 | Kernels::Coop8);
        match () {
            () if coop && info.matrices.is_empty() => Some("cooperative matrices".to_owned()),
            () if coop && !(info.f16 && info.i16 && info.subgroups) => {
                Some("f16, i16 and subgroups in shaders".to_owned())
            }
            () if coop && info.subgroup_size[1] > 32 => {
                Some(format!("subgroups of at most 32, found {}", info.subgroup_size[1]))
            }
            () => None,
        }
    }

    /// Side of a cooperative matrix.
    fn side(self) -> u32 {
        match self {
            Kernels::Coop16 => 16,
            Kernels::Coop8 => 8,
            Kernels::Tiled | Kernels::Dot8 | Kernels::Lanes => 0,
        }
    }

    /// Whether they round operands to f16 in any case.
    pub(super) fn rounds(self) -> bool {
        self.side() > 0
    }

    /// How many of a weight's rows lie together, word by word.
    pub(super) fn rows_together(self) -> usize {
        if self == Kernels::Lanes { 64 } else { 1 }
    }

    /// A norm's kernel, of the two that sum up a row through workgroup memory and by subgroups.
    pub(super) fn norm(self, any: &'static Shader, by_subgroups: &'static Shader) -> &'static Shader {
        // All that has matrices has subgroups.
        if self.side() > 0 { by_subgroups } else { any }
    }

    /// The kernel for a linear layer, and the columns and rows of one of its workgroups.
    pub(super) fn linear(self, format: WeightFormat, p: &params::Linear) -> (&'static Shader, [u32; 2]) {
        use params::epilogue::{SIDE_F16, X_F16, Y_F16};
        let few = p.m as usize <= SKINNY_ROWS;
        // Cooperative matrices take x in whole vectors of four.
        let wide = [p.x_offset, p.x_stride, p.k].iter().all(|n| n.is_multiple_of(4));
        let t = self.side();
        let matrices = t > 0 && wide && format != WeightFormat::F32;
        let (shader, tile) = match self {
            Kernels::Coop16 if matrices && few => (SKINNY_COOP16.of(format), [4 * t, 2 * t]),
            Kernels::Coop8 if matrices && few => (SKINNY_COOP8.of(format), [4 * t, 2 * t]),
            Kernels::Coop16 if matrices => (COOP16.of(format), [16 * t, 4 * t]),
            Kernels::Coop8 if matrices => (COOP8.of(format), [16 * t, 4 * t]),
            Kernels::Lanes if format.is_float() => (LANES.of(format), [16, 9]),
            Kernels::Lanes => (LANES.of(format), [32, 9]),
            Kernels::Dot8 if format == WeightFormat::W8 && !few => (&variants::LINEAR_DOT8, [64, 64]),
            _ if few => (SKINNY.of(format), [16, 16]),
            _ => (TILED.of(format), [64, 64]),
        };
        let variant = if matrices { X_F16 } else { X_F16 | Y_F16 | SIDE_F16 };
        (half_of(shader, p.flags & variant != 0), tile)
    }

    /// The kernel for attention, and the rows of one of its workgroups.
    pub(super) fn attention(self, p: &params::Attention) -> (&'static Shader, u32) {
        let places = [p.q_offset, p.q_stride, p.k_offset, p.v_offset, p.kv_stride, p.head_dim];
        let wide = places.iter().all(|n| n.is_multiple_of(4));
        let t = self.side();
        let matrices = t > 0 && wide;
        let (shader, rows) = match (self, p.head_dim) {
            (Kernels::Lanes, _) => (&variants::ATTENTION_LANES, 24),
            (Kernels::Coop16, 0..=64) if wide => (&variants::ATTENTION_COOP16_64, 2 * t),
            (Kernels::Coop16, 65..=128) if wide => (&variants::ATTENTION_COOP16_128, 2 * t),
            (Kernels::Coop16, _) if wide => (&variants::ATTENTION_COOP16_256, 2 * t),
            (Kernels::Coop8, 0..=64) if wide => (&variants::ATTENTION_COOP8_64, 2 * t),
            (Kernels::Coop8, 65..=128) if wide => (&variants::ATTENTION_COOP8_128, 2 * t),
            (Kernels::Coop8, _) if wide => (&variants::ATTENTION_COOP8_256, 2 * t),
            (_, 0..=64) => (&variants::ATTENTION_64, 64),
            (_, 65..=128) => (&variants::ATTENTION_128, 64),
            (_, _) => (&variants::ATTENTION_256, 64),
        };
        let variant = if matrices { params::halves::KV_F16 } else { u32::MAX };
        (half_of(shader, p.flags & variant != 0), rows)
    }
}

/// A kernel's variant for tensors in f16, where it is `wanted`.
pub(super) fn half_of(shader: &'static Shader, wanted: bool) -> &'static Shader {
    shader.half.filter(|_| wanted).unwrap_or(shader)
}

impl std::fmt::Display for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl TryFrom<String> for Kernels {
    type Error = String;

    fn try_from(name: String) -> Result<Kernels, String> {
        name.parse()
    }
}

impl std::str::FromStr for Kernels {
    type Err = String;

    fn from_str(name: &str) -> Result<Kernels, String> {
        let found = Kernels::ALL.into_iter().find(|k| k.name() == name);
        found.ok_or_else(|| format!("expected one of {}, found {name:?}", Kernels::ALL.map(Kernels::name).join(", ")))
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

const COOP16: ByFormat = ByFormat {
    f32: &variants::LINEAR_F32,
    f16: &variants::LINEAR_COOP16_F16,
    bf16: &variants::LINEAR_COOP16_BF16,
    w8: &variants::LINEAR_COOP16_W8,
    w4: &variants::LINEAR_COOP16_W4,
    w4_minima: &variants::LINEAR_COOP16_W4_MINIMA,
};

const SKINNY_COOP16: ByFormat = ByFormat {
    f32: &variants::LINEAR_SKINNY_F32,
    f16: &variants::LINEAR_SKINNY_COOP16_F16,
    bf16: &variants::LINEAR_SKINNY_COOP16_BF16,
    w8: &variants::LINEAR_SKINNY_COOP16_W8,
    w4: &variants::LINEAR_SKINNY_COOP16_W4,
    w4_minima: &variants::LINEAR_SKINNY_COOP16_W4_MINIMA,
};

const COOP8: ByFormat = ByFormat {
    f32: &variants::LINEAR_F32,
    f16: &variants::LINEAR_COOP8_F16,
    bf16: &variants::LINEAR_COOP8_BF16,
    w8: &variants::LINEAR_COOP8_W8,
    w4: &variants::LINEAR_COOP8_W4,
    w4_minima: &variants::LINEAR_COOP8_W4_MINIMA,
};

const SKINNY_COOP8: ByFormat = ByFormat {
    f32: &variants::LINEAR_SKINNY_F32,
    f16: &variants::LINEAR_SKINNY_COOP8_F16,
    bf16: &variants::LINEAR_SKINNY_COOP8_BF16,
    w8: &variants::LINEAR_SKINNY_COOP8_W8,
    w4: &variants::LINEAR_SKINNY_COOP8_W4,
    w4_minima: &variants::LINEAR_SKINNY_COOP8_W4_MINIMA,
};
