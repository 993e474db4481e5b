//! From graph operations to dispatches: which kernel variant, which slots, how many workgroups.

use bytemuck::{Pod, bytes_of};
use fathom_models::ModelError;
use fathom_models::checkpoint::WeightFormat;
use fathom_models::graph::params::{ParamId, StackId};
use fathom_models::graph::{Graph, Op, TensorId};
use fathom_shaders::cpu::{Arithmetic, Layout};
use fathom_shaders::params::{epilogue, halves};
use fathom_shaders::{Shader, params, variants};

use super::EngineError;
use super::arena::{self, Placement};
use super::kernels::half_of;
use super::resident::Resident;
use crate::gpu::{BufferId, Commands, Dispatch, Slot};

/// Rows of a weight that passes the binding limit are split at multiples of this: then each part begins aligned.
const SPLIT_ROWS: u64 = 128;

/// Where everything lies that dispatches bind.
pub(super) struct Places<'a> {
    pub(super) graph: &'a Graph,
    pub(super) placement: &'a Placement,
    /// Which tensors are in f16.
    pub(super) halves: &'a [bool],
    pub(super) buffer: BufferId,
    pub(super) resident: &'a Resident,
    pub(super) max_binding_bytes: u64,
}

impl Places<'_> {
    /// The whole of a tensor.
    pub(super) fn slot(&self, id: TensorId) -> Slot {
        let index = id.0 as usize;
        let offset = self.placement.offsets.get(index).copied().unwrap_or_default();
        let elements = self.graph.tensors.get(index).map_or(0, |t| t.words);
        Slot { buffer: self.buffer, offset, bytes: arena::bytes(elements, self.half(id)) }
    }

    /// Whether a tensor is in f16.
    pub(super) fn half(&self, id: TensorId) -> bool {
        self.halves.get(id.0 as usize).copied().unwrap_or_default()
    }

    /// Lowers the whole graph.
    pub(super) fn commands(&self, label: &str) -> Result<Commands, EngineError> {
        let mut commands =
            Commands { label: label.to_owned(), stages: self.graph.stages.clone(), dispatches: Vec::new() };
        for (stage, op) in &self.graph.ops {
            self.lower(*stage, op, &mut commands.dispatches)?;
        }
        Ok(commands)
    }

    fn lower(&self, stage: u16, op: &Op, out: &mut Vec<Dispatch>) -> Result<(), EngineError> {
        let vector = |id: ParamId| self.resident.param(id).map(|p| p.slot);
        let mut push = |shader, params: Vec<u8>, slots, workgroups| {
            out.push(Dispatch { shader, params, slots, workgroups, stage });
        };
        let t = |id: &TensorId| self.slot(*id);
        let square = |side: u32| [side.div_ceil(8), side.div_ceil(8), 1];
        let kernels = self.resident.choice.kernels;
        match op {
            Op::ImageUnpack { layout, params: p, bytes, pixels } => {
                let shader = match layout {
                    Layout::Rgb24 => &variants::IMAGE_UNPACK_RGB24,
                    Layout::Yuyv => &variants::IMAGE_UNPACK_YUYV,
                    Layout::Nv12 => &variants::IMAGE_UNPACK_NV12,
                };
                push(shader, raw(p), vec![t(bytes), t(pixels)], [p.width.div_ceil(8), p.height.div_ceil(8), 1]);
            }
            Op::ResizeAxis { arithmetic, params: p, table, source, pixels } => {
                let groups = [p.out_width.div_ceil(8), p.out_height.div_ceil(8), 1];
                let kernel = match arithmetic {
                    Arithmetic::Integer => &variants::RESIZE_AXIS_INTEGER,
                    Arithmetic::Float => &variants::RESIZE_AXIS_FLOAT,
                };
                push(kernel, raw(p), vec![t(table), t(source), t(pixels)], groups);
            }
            Op::ResizeTorch { params: p, source, square: to } => {
                push(&variants::RESIZE_TORCH, raw(p), vec![t(source), t(to)], square(p.side));
            }
            Op::ImagePad { params: p, source, square: to } => {
                let groups = [p.out_width.div_ceil(8), p.out_height.div_ceil(8), 1];
                push(&variants::IMAGE_PAD, raw(p), vec![t(source), t(to)], groups);
            }
            Op::Patchify { params: p, square, patches } => {
                let count = (p.width / p.patch_side.max(1)) * (p.height / p.patch_side.max(1));
                let groups = [(3 * p.patch_side * p.patch_side).div_ceil(64), count, 1];
                push(&variants::PATCHIFY, raw(p), vec![t(square), t(patches)], groups);
            }
            Op::Conv3x3 { params: p, x, w, bias, first, second, y } => {
                let weight = self.resident.param(*w)?;
                let shader = match weight.format {
                    WeightFormat::F32 => &variants::CONV3X3_F32,
                    WeightFormat::F16 => &variants::CONV3X3_F16,
                    WeightFormat::Bf16 => &variants::CONV3X3_BF16,
                    WeightFormat::W8 | WeightFormat::W4 { .. } => return Err(quantised("CONV3X3".to_lowercase())),
                };
                let bias = bias.map(vector).unwrap_or_else(|| self.resident.any())?;
                // An addend that is not there is bound to x, and not read.
                let addends = [first, second].map(|a| t(&a.unwrap_or(*x)));
                let groups = [p.out_channels.div_ceil(32), (p.rows * p.out_width).div_ceil(64), 1];
                push(shader, raw(p), vec![t(x), weight.slot, bias, addends[0], addends[1], t(y)], groups);
            }
            Op::ConvTranspose { params: p, x, w, bias, y } => {
                let weight = self.resident.param(*w)?;
                let shader = match weight.format {
                    WeightFormat::F32 => &variants::CONV_TRANSPOSE_F32,
                    WeightFormat::F16 => &variants::CONV_TRANSPOSE_F16,
                    WeightFormat::Bf16 => &variants::CONV_TRANSPOSE_BF16,
                    WeightFormat::W8 | WeightFormat::W4 { .. } => {
                        return Err(quantised("CONV_TRANSPOSE".to_lowercase()));
                    }
                };
                let bias = bias.map(vector).unwrap_or_else(|| self.resident.any())?;
                let columns = p.out_channels * p.factor * p.factor;
                let groups = [columns.div_ceil(32), (p.width * p.height).div_ceil(64), 1];
                push(shader, raw(p), vec![t(x), weight.slot, bias, t(y)], groups);
            }
            Op::ResizeCorners { params: p, x, y } => {
                let groups = [(p.out_width * p.channels).div_ceil(64), p.rows, 1];
                push(&variants::RESIZE_CORNERS, raw(p), vec![t(x), t(y)], groups);
            }
            Op::Linear { params: p, x, w, bias, layer_scale, norm, other, table, side, y } => {
                // What is not there is bound to something else, and not read.
                let unused = self.resident.any()?;
                let optional = |id: &Option<ParamId>| id.map_or(Ok(unused), vector);
                let slots = LinearSlots {
                    x: t(x),
                    unused,
                    bias: bias.map_or(Ok(unused), |id| self.resident.stack(id).map(|p| p.slot))?,
                    layer_scale: optional(layer_scale)?,
                    norm: optional(norm)?,
                    other: t(&other.unwrap_or(*x)),
                    table: t(&table.unwrap_or(*x)),
                    side: t(&side.unwrap_or(*y)),
                    y: t(y),
                };
                let flag = |id: &TensorId, bit: u32| if self.half(*id) { bit } else { 0 };
                let side = side.map_or(0, |side| flag(&side, epilogue::SIDE_F16));
                let flags = p.flags | flag(x, epilogue::X_F16) | flag(y, epilogue::Y_F16) | side;
                self.linear(params::Linear { flags, ..*p }, *w, slots, &mut push)?;
            }
            Op::RmsNorm { params: p, x, weight, y } => {
                let shader = kernels.norm(&variants::RMS_NORM, &variants::RMS_NORM_SUBGROUPS);
                let slots = vec![t(x), vector(*weight)?, t(y)];
                push(half_of(shader, self.half(*y)), raw(p), slots, [p.rows, 1, 1]);
            }
            Op::AdaRmsNorm { params: p, x, modulation, y } => {
                let shader = kernels.norm(&variants::ADA_RMS_NORM, &variants::ADA_RMS_NORM_SUBGROUPS);
                push(half_of(shader, self.half(*y)), raw(p), vec![t(x), t(modulation), t(y)], [p.rows, 1, 1]);
            }
            Op::GatedAdd { params: p, f, gate, x } => {
                push(&variants::GATED_ADD, raw(p), vec![t(f), t(gate), t(x)], [p.cols.div_ceil(64), p.rows, 1]);
            }
            Op::LayerNorm { params: p, x, weight, bias, y } => {
                let slots = vec![t(x), vector(*weight)?, vector(*bias)?, t(y)];
                let shader = kernels.norm(&variants::LAYER_NORM, &variants::LAYER_NORM_SUBGROUPS);
                push(half_of(shader, self.half(*y)), raw(p), slots, [p.rows, 1, 1]);
            }
            Op::Attention { params: p, q, k, v, out: to } => {
                let flag = |id: &TensorId, bit: u32| if self.half(*id) { bit } else { 0 };
                let flags = flag(q, halves::Q_F16) | flag(k, halves::KV_F16) | flag(to, halves::OUT_F16);
                let p = &params::Attention { flags, ..*p };
                let (shader, rows) = kernels.attention(p);
                let block = p.q_block.clamp(1, p.rows.max(1));
                let tiles = (block * (p.heads / p.kv_heads.max(1))).div_ceil(rows);
                // After the bindings themselves those of the same tensors in f16, as many as the variant has.
                let mut slots = vec![t(q), t(k), t(v), t(to), t(to), t(q), t(k), t(v)];
                slots.truncate(shader.bindings.len() - 1);
                push(shader, raw(p), slots, [tiles, p.kv_heads, p.rows.div_ceil(block)]);
            }
            Op::Scale { params: p, x, y } => {
                push(&variants::SCALE, raw(p), vec![t(x), t(y)], [p.cols.div_ceil(64), p.rows, 1]);
            }
            Op::Guide { params: p, x, goal, gains, y } => {
                let slots = vec![t(x), t(goal), t(gains), t(y)];
                push(&variants::GUIDE, raw(p), slots, [p.count.div_ceil(64), 1, 1]);
            }
            Op::Unpatchify { params: p, tokens, map } => {
                push(&variants::UNPATCHIFY, raw(p), vec![t(tokens), t(map)], square(p.side));
            }
        }
        Ok(())
    }

    /// One dispatch, or several over ranges of the weight's rows where these pass the binding limit.
    fn linear(
        &self,
        p: params::Linear,
        w: StackId,
        slots: LinearSlots,
        push: &mut impl FnMut(&'static Shader, Vec<u8>, Vec<Slot>, [u32; 3]),
    ) -> Result<(), EngineError> {
        let weight = self.resident.stack(w)?;
        let (shader, [columns, rows]) = self.resident.choice.kernels.linear(weight.format, &p);
        let group_shift = match weight.format {
            WeightFormat::W4 { group, .. } => group.trailing_zeros(),
            _ => 0,
        };
        let [row, scale] = weight.row;
        let whole = weight.slot.bytes <= self.max_binding_bytes;
        let fitting = (self.max_binding_bytes / row.max(1)) / SPLIT_ROWS * SPLIT_ROWS;
        let window = if whole { u32::MAX } else { u32::try_from(fitting.max(SPLIT_ROWS)).unwrap_or(u32::MAX) };
        let end = p.w_row + p.n;
        let together = self.resident.choice.kernels.rows_together() as u32;
        let mut at = p.w_row;
        while at < end {
            let bound = at / window * window;
            let to = end.min(bound.saturating_add(window));
            let part = |slot: Slot, unit: u64, rows: u32| match whole {
                true => slot,
                false => Slot { offset: slot.offset + u64::from(bound) * unit, bytes: u64::from(rows) * unit, ..slot },
            };
            let n = to - at;
            let params = params::Linear { n, first: p.first + at - p.w_row, w_row: at - bound, group_shift, ..p };
            let mut bound = vec![
                slots.x,
                part(weight.slot, row, (to - bound).next_multiple_of(together)),
                weight.scales.map_or(slots.unused, |s| part(s, scale, to - bound)),
                slots.bias,
                slots.layer_scale,
                slots.norm,
                slots.other,
                slots.table,
                slots.side,
                slots.y,
                // The same in f16, as many as the variant has.
                slots.y,
                slots.side,
                slots.x,
            ];
            bound.truncate(shader.bindings.len() - 1);
            push(shader, raw(&params), bound, [n.div_ceil(columns), p.m.div_ceil(rows), 1]);
            at = to;
        }
        Ok(())
    }
}

struct LinearSlots {
    x: Slot,
    unused: Slot,
    bias: Slot,
    layer_scale: Slot,
    norm: Slot,
    other: Slot,
    table: Slot,
    side: Slot,
    y: Slot,
}

/// A convolution whose weights are quantised, for which there is no kernel.
fn quantised(kernel: String) -> EngineError {
    let detail = format!("{kernel}: expected weights in f32, f16 or bf16, found quantised ones");
    EngineError::Model(ModelError::Shape { op: "convolution", detail })
}

fn raw<T: Pod>(params: &T) -> Vec<u8> {
    bytes_of(params).to_vec()
}
