//! The choice between equivalent kernels for an adapter.

use fathom_models::checkpoint::WeightFormat;
use fathom_models::graph::builder::SKINNY_ROWS;
use fathom_shaders::{Kernel, Key, Variant, params};
use serde::Deserialize;

use super::EngineError;
use crate::gpu::{AdapterInfo, AdapterKind};

/// A family of kernels.
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
    /// As [`Tiled`](Self::Tiled), with integer dot products for W8 weights and many rows, whose activations become
    /// bytes: faster without matrix units, but less exact. Only on request.
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

    /// The kernels that probably suit the adapter best, from its reported properties.
    pub fn of(info: &AdapterInfo) -> Kernels {
        let coop = [Kernels::Coop16, Kernels::Coop8].into_iter().find(|k| info.matrices.contains(&k.side()));
        match coop {
            _ if info.kind == AdapterKind::Software => Kernels::Lanes,
            Some(coop) if coop.refused_by(info).is_none() => coop,
            _ => Kernels::Tiled,
        }
    }

    /// The feature that the adapter lacks for these kernels. A matrix size that the adapter does not report is not
    /// counted: the self-test decides.
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

    /// Whether they always round operands to f16.
    pub(super) fn rounds(self) -> bool {
        self.side() > 0
    }

    /// Number of a weight's rows that are interleaved word by word.
    pub(super) fn rows_together(self) -> usize {
        if self == Kernels::Lanes { 64 } else { 1 }
    }

    /// A norm's variant, whose output is in f16 or f32.
    pub(super) fn norm(self, kernel: Kernel, f16: bool) -> Result<&'static Variant, EngineError> {
        // Every adapter with matrices has subgroups.
        variant(Key { subgroups: self.side() > 0, f16, ..kernel.key() })
    }

    /// The variant for a linear layer.
    pub(super) fn linear(self, format: WeightFormat, p: &params::Linear) -> Result<&'static Variant, EngineError> {
        use params::epilogue::{SIDE_F16, X_F16, Y_F16};
        let few = p.m as usize <= SKINNY_ROWS;
        // Cooperative matrices need x in whole vectors of four.
        let wide = [p.x_offset, p.x_stride, p.k].iter().all(|n| n.is_multiple_of(4));
        let matrix_side = if wide && format != WeightFormat::F32 { self.side() } else { 0 };
        let kernel = match self {
            _ if matrix_side > 0 && few => Kernel::LinearSkinnyCoop,
            _ if matrix_side > 0 => Kernel::LinearCoop,
            Kernels::Lanes => Kernel::LinearLanes,
            Kernels::Dot8 if format == WeightFormat::W8 && !few => Kernel::LinearDot8,
            _ if few => Kernel::LinearSkinny,
            _ => Kernel::Linear,
        };
        let flags = if matrix_side > 0 { X_F16 } else { X_F16 | Y_F16 | SIDE_F16 };
        variant(Key { weights: Some(format.into()), matrix_side, f16: p.flags & flags != 0, ..kernel.key() })
    }

    /// The variant for attention.
    pub(super) fn attention(self, p: &params::Attention) -> Result<&'static Variant, EngineError> {
        let places = [p.q_offset, p.q_stride, p.k_offset, p.v_offset, p.kv_stride, p.head_dim];
        let wide = places.iter().all(|n| n.is_multiple_of(4));
        let matrix_side = if wide { self.side() } else { 0 };
        let kernel = match self {
            Kernels::Lanes => Kernel::AttentionLanes,
            _ if matrix_side > 0 => Kernel::AttentionCoop,
            _ => Kernel::Attention,
        };
        let head_width = match p.head_dim {
            _ if self == Kernels::Lanes => 0,
            0..=64 => 64,
            65..=128 => 128,
            _ => 256,
        };
        let f16 = if matrix_side > 0 { p.flags & params::halves::KV_F16 != 0 } else { p.flags != 0 };
        variant(Key { matrix_side, head_width, f16, ..kernel.key() })
    }
}

/// The variant of this key.
pub(super) fn variant(key: Key) -> Result<&'static Variant, EngineError> {
    Variant::of(key).ok_or(EngineError::NoVariant(key))
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
