//! What a dispatch does, in operations and bytes, as its kernel and its parameters say.

use std::ops::AddAssign;

use bytemuck::{Pod, Zeroable, bytes_of_mut};
use fathom_models::checkpoint::WeightFormat;
use fathom_shaders::{BindingKind, params};

use crate::gpu::{Dispatch, Slot};

/// What a dispatch, or several, do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Operations of matrix products, attention and convolutions: two for each multiplication with its addition.
    pub flops: u64,
    /// Bytes of weights that are read, each once a dispatch.
    pub weight_bytes: u64,
    /// Bytes of everything else that is read or written, each once a dispatch.
    pub activation_bytes: u64,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.flops += other.flops;
        self.weight_bytes += other.weight_bytes;
        self.activation_bytes += other.activation_bytes;
    }
}

impl Work {
    /// Of one dispatch.
    pub fn of(dispatch: &Dispatch) -> Work {
        let name = dispatch.shader.name;
        let is = |kernel: &str| name.strip_prefix(kernel).is_some_and(|rest| rest.is_empty() || rest.starts_with('_'));
        match () {
            () if name.starts_with("linear") => linear(name, &read(dispatch)),
            () if is("attention") => attention(&read(dispatch)),
            () if is("conv3x3") => {
                let p: params::Conv3x3 = read(dispatch);
                let outputs = product([p.out_channels, p.rows, p.out_width]);
                Work { flops: 18 * u64::from(p.channels) * outputs, ..bound(dispatch) }
            }
            () if is("conv_transpose") => {
                let p: params::ConvTranspose = read(dispatch);
                let outputs = product([p.out_channels, p.factor, p.factor, p.width, p.height]);
                Work { flops: 2 * u64::from(p.channels) * outputs, ..bound(dispatch) }
            }
            () if is("rms_norm") => {
                let p: params::RmsNorm = read(dispatch);
                normed(dispatch, [p.rows, p.cols])
            }
            () if is("layer_norm") => {
                let p: params::LayerNorm = read(dispatch);
                normed(dispatch, [p.rows, p.cols])
            }
            () if is("ada_rms_norm") => {
                let p: params::AdaRmsNorm = read(dispatch);
                normed(dispatch, [p.rows, p.cols])
            }
            () if is("gated_add") => {
                let p: params::GatedAdd = read(dispatch);
                rows(dispatch, [p.rows, p.cols], 3)
            }
            () if is("scale") => {
                let p: params::Scale = read(dispatch);
                rows(dispatch, [p.rows, p.cols], 2)
            }
            () => bound(dispatch),
        }
    }
}

/// The dispatch's parameters; a uniform that is longer or shorter than they are is none of theirs.
fn read<T: Pod + Zeroable>(dispatch: &Dispatch) -> T {
    let mut params = T::zeroed();
    let bytes = bytes_of_mut(&mut params);
    if bytes.len() == dispatch.params.len() {
        bytes.copy_from_slice(&dispatch.params);
    }
    params
}

fn product<const N: usize>(factors: [u32; N]) -> u64 {
    factors.into_iter().map(u64::from).product()
}

/// All that is bound, for kernels that read and write the whole of it.
fn bound(dispatch: &Dispatch) -> Work {
    let kinds = dispatch.shader.bindings.iter().skip(1);
    let sum = |weights: bool| {
        let of = |(slot, kind): (&Slot, &BindingKind)| ((*kind == BindingKind::Read) == weights).then_some(slot.bytes);
        dispatch.slots.iter().zip(kinds.clone()).filter_map(of).sum()
    };
    Work { flops: 0, weight_bytes: sum(true), activation_bytes: sum(false) }
}

/// A kernel that goes `times` over `(rows, cols)` numbers.
fn rows(dispatch: &Dispatch, size: [u32; 2], times: u64) -> Work {
    Work { activation_bytes: 4 * times * product(size), ..bound(dispatch) }
}

/// A norm, which reads f32 and writes what its variant does.
fn normed(dispatch: &Dispatch, size: [u32; 2]) -> Work {
    let bytes = if dispatch.shader.name.ends_with("_h") { 6 } else { 8 };
    Work { activation_bytes: bytes * product(size), ..bound(dispatch) }
}

/// Bytes of `count` numbers, in f16 where `half`.
fn numbers(count: u64, half: bool) -> u64 {
    count * if half { 2 } else { 4 }
}

fn linear(name: &str, p: &params::Linear) -> Work {
    use params::epilogue::{ADD, BIAS, GATE, LAYER_SCALE, NORM, SIDE_F16, X_F16, Y_F16};
    let half = |flag: u32| p.flags & flag != 0;
    let set = |flag: u32, count: u64| if p.flags & flag == 0 { 0 } else { count };
    let (m, n, k) = (u64::from(p.m), u64::from(p.n), u64::from(p.k));
    let format = format(name, 1 << p.group_shift);
    let row = format.row_bytes(p.w_stride as usize) + format.scale_bytes(p.k as usize);
    let vectors = set(BIAS, n) + set(LAYER_SCALE, n) + set(NORM, k);
    let columns = if p.flags & GATE == 0 { n } else { n / 2 };
    let aside = u64::from((p.first + p.n).saturating_sub(p.split.max(p.first))).min(columns);
    let addends = if p.other_stride == 0 { n } else { m * n };
    // A cosine and a sine for each pair of a head.
    let turns = if p.rope_columns == 0 { 0 } else { 2 * m * u64::from(p.half) };
    Work {
        flops: 2 * m * n * k,
        weight_bytes: n * row as u64 + 4 * vectors,
        activation_bytes: numbers(m * k, half(X_F16))
            + numbers(m * (columns - aside), half(Y_F16))
            + numbers(m * aside, half(SIDE_F16))
            + 4 * (set(ADD, addends) + turns),
    }
}

/// The format of a variant's weights.
fn format(name: &str, group: u32) -> WeightFormat {
    let name = name.strip_suffix("_h").unwrap_or(name);
    match name {
        "linear_dot8" => WeightFormat::W8,
        _ if name.ends_with("_f32") => WeightFormat::F32,
        _ if name.ends_with("_f16") => WeightFormat::F16,
        _ if name.ends_with("_bf16") => WeightFormat::Bf16,
        _ if name.ends_with("_w8") => WeightFormat::W8,
        _ => WeightFormat::W4 { group, minima: name.ends_with("_minima") },
    }
}

fn attention(p: &params::Attention) -> Work {
    use params::halves::{KV_F16, OUT_F16, Q_F16};
    let half = |flag: u32| p.flags & flag != 0;
    let queries = product([p.rows, p.heads, p.head_dim]);
    let ranges = if p.k_block == 0 { 1 } else { p.rows.div_ceil(p.q_block.max(1)) };
    let keys = product([ranges, p.key_count, p.kv_heads, p.head_dim]);
    Work {
        flops: 4 * queries * u64::from(p.key_count),
        weight_bytes: 0,
        activation_bytes: numbers(queries, half(Q_F16))
            + numbers(queries, half(OUT_F16))
            + numbers(2 * keys, half(KV_F16)),
    }
}
