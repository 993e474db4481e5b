//! Operations and bytes of a dispatch, from its operation and parameters.

use fathom_models::checkpoint::WeightFormat;
use fathom_models::graph::Op;
use fathom_shaders::{BindingKind, Variant, params};

use crate::gpu::{Slot, Work};

/// Work of an operation with one dispatch; linear layers and attention are counted from their own parameters.
pub(super) fn of(op: &Op, variant: &Variant, slots: &[Slot]) -> Work {
    let bound = bound(variant, slots);
    // Work of a norm, which reads f32 and writes f32 or f16.
    let norm = |rows: u32, cols: u32| (if variant.key.f16 { 6 } else { 8 }) * product([rows, cols]);
    match op {
        Op::Conv3x3 { params: p, .. } => {
            let outputs = product([p.out_channels, p.rows, p.out_width]);
            Work { flops: 18 * u64::from(p.channels) * outputs, ..bound }
        }
        Op::ConvTranspose { params: p, .. } => {
            let outputs = product([p.out_channels, p.factor, p.factor, p.width, p.height]);
            Work { flops: 2 * u64::from(p.channels) * outputs, ..bound }
        }
        Op::RmsNorm { params: p, .. } => Work { activation_bytes: norm(p.rows, p.cols), ..bound },
        Op::LayerNorm { params: p, .. } => Work { activation_bytes: norm(p.rows, p.cols), ..bound },
        Op::AdaRmsNorm { params: p, .. } => Work { activation_bytes: norm(p.rows, p.cols), ..bound },
        Op::GatedAdd { params: p, .. } => Work { activation_bytes: 12 * product([p.rows, p.cols]), ..bound },
        Op::Scale { params: p, .. } => Work { activation_bytes: 8 * product([p.rows, p.cols]), ..bound },
        _ => bound,
    }
}

fn product<const N: usize>(factors: [u32; N]) -> u64 {
    factors.into_iter().map(u64::from).product()
}

/// All bound bytes, for kernels that read and write everything.
fn bound(variant: &Variant, slots: &[Slot]) -> Work {
    let kinds = variant.shader.bindings.iter().skip(1);
    let sum = |weights: bool| {
        let of = |(slot, kind): (&Slot, &BindingKind)| ((*kind == BindingKind::Read) == weights).then_some(slot.bytes);
        slots.iter().zip(kinds.clone()).filter_map(of).sum()
    };
    Work { flops: 0, weight_bytes: sum(true), activation_bytes: sum(false) }
}

/// Bytes of `count` numbers, in f16 or f32.
fn numbers(count: u64, f16: bool) -> u64 {
    count * if f16 { 2 } else { 4 }
}

/// Work of a linear layer whose weights have this format.
pub(super) fn linear(format: WeightFormat, p: &params::Linear) -> Work {
    use params::epilogue::{ADD, BIAS, GATE, LAYER_SCALE, NORM, SIDE_F16, X_F16, Y_F16};
    let f16 = |flag: u32| p.flags & flag != 0;
    let set = |flag: u32, count: u64| if p.flags & flag == 0 { 0 } else { count };
    let (m, n, k) = (u64::from(p.m), u64::from(p.n), u64::from(p.k));
    let row = format.row_bytes(p.w_stride as usize) + format.scale_bytes(p.k as usize);
    let vectors = set(BIAS, n) + set(LAYER_SCALE, n) + set(NORM, k);
    let columns = if p.flags & GATE == 0 { n } else { n / 2 };
    let aside = u64::from((p.first + p.n).saturating_sub(p.split.max(p.first))).min(columns);
    let addends = if p.other_stride == 0 { n } else { m * n };
    // A cosine and a sine for each pair of a head.
    let turns = if p.rope_columns == 0 { 0 } else { 2 * m * u64::from(p.pair_distance) };
    Work {
        flops: 2 * m * n * k,
        weight_bytes: n * row as u64 + 4 * vectors,
        activation_bytes: numbers(m * k, f16(X_F16))
            + numbers(m * (columns - aside), f16(Y_F16))
            + numbers(m * aside, f16(SIDE_F16))
            + 4 * (set(ADD, addends) + turns),
    }
}

/// Work of attention.
pub(super) fn attention(p: &params::Attention) -> Work {
    use params::halves::{KV_F16, OUT_F16, Q_F16};
    let f16 = |flag: u32| p.flags & flag != 0;
    let queries = product([p.rows, p.heads, p.head_dim]);
    let ranges = if p.k_block == 0 { 1 } else { p.rows.div_ceil(p.q_block.max(1)) };
    let keys = product([ranges, p.key_count, p.kv_heads, p.head_dim]);
    Work {
        flops: 4 * queries * u64::from(p.key_count),
        weight_bytes: 0,
        activation_bytes: numbers(queries, f16(Q_F16))
            + numbers(queries, f16(OUT_F16))
            + numbers(2 * keys, f16(KV_F16)),
    }
}
