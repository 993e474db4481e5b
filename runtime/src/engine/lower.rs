//! Lowers graph operations to dispatches: kernel variant, slots, workgroups.

use bytemuck::{Pod, bytes_of};
use fathom_models::checkpoint::WeightFormat;
use fathom_models::graph::params::{ParamId, StackId};
use fathom_models::graph::{Graph, Op, TensorId};
use fathom_shaders::cpu::{Arithmetic, Layout};
use fathom_shaders::params::{epilogue, halves};
use fathom_shaders::{Kernel, Key, Variant, params, variants};

use super::EngineError;
use super::arena::{Place, Placement};
use super::kernels::variant;
use super::resident::Resident;
use super::work;
use crate::gpu::{BufferId, Commands, Dispatch, Slot};

/// A weight beyond the binding limit is split at multiples of this number of rows, so that each part is aligned.
const SPLIT_ROWS: u64 = 128;

/// The places of all tensors and weights that dispatches bind.
pub(super) struct Places<'a> {
    pub(super) graph: &'a Graph,
    pub(super) placement: &'a Placement,
    pub(super) buffer: BufferId,
    pub(super) resident: &'a Resident,
    pub(super) max_binding_bytes: u64,
}

impl Places<'_> {
    /// The whole of a tensor.
    pub(super) fn slot(&self, id: TensorId) -> Result<Slot, EngineError> {
        let Place { offset, bytes, .. } = self.placement.place(id)?;
        Ok(Slot { buffer: self.buffer, offset, bytes })
    }

    /// Whether a tensor is in f16.
    pub(super) fn f16(&self, id: TensorId) -> Result<bool, EngineError> {
        Ok(self.placement.place(id)?.f16)
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
        let t = |id: &TensorId| self.slot(*id);
        let flag = |id: &TensorId, bit: u32| self.f16(*id).map(|f16| if f16 { bit } else { 0 });
        let square = |side: u32| [side.div_ceil(8), side.div_ceil(8), 1];
        let kernels = self.resident.choice.kernels;
        let (variant, params, slots, workgroups): (&'static Variant, _, _, _) = match op {
            Op::ImageUnpack { layout, params: p, bytes, pixels } => {
                let shader = match layout {
                    Layout::Rgb24 => &variants::IMAGE_UNPACK_RGB24,
                    Layout::Yuyv => &variants::IMAGE_UNPACK_YUYV,
                    Layout::Nv12 => &variants::IMAGE_UNPACK_NV12,
                };
                (shader, raw(p), vec![t(bytes)?, t(pixels)?], [p.width.div_ceil(8), p.height.div_ceil(8), 1])
            }
            Op::ResizeAxis { arithmetic, params: p, table, source, pixels } => {
                let groups = [p.out_width.div_ceil(8), p.out_height.div_ceil(8), 1];
                let kernel = match arithmetic {
                    Arithmetic::Integer => &variants::RESIZE_AXIS_INTEGER,
                    Arithmetic::Float => &variants::RESIZE_AXIS_FLOAT,
                };
                (kernel, raw(p), vec![t(table)?, t(source)?, t(pixels)?], groups)
            }
            Op::ResizeTorch { params: p, source, square: to } => {
                (&variants::RESIZE_TORCH, raw(p), vec![t(source)?, t(to)?], square(p.side))
            }
            Op::ImagePad { params: p, source, square: to } => {
                let groups = [p.out_width.div_ceil(8), p.out_height.div_ceil(8), 1];
                (&variants::IMAGE_PAD, raw(p), vec![t(source)?, t(to)?], groups)
            }
            Op::Patchify { params: p, square, patches } => {
                let count = (p.width / p.patch_side.max(1)) * (p.height / p.patch_side.max(1));
                let groups = [(3 * p.patch_side * p.patch_side).div_ceil(64), count, 1];
                (&variants::PATCHIFY, raw(p), vec![t(square)?, t(patches)?], groups)
            }
            Op::Conv3x3 { params: p, x, w, bias, first, second, y } => {
                let weight = self.resident.param(*w)?;
                let variant = variant(Key { weights: Some(weight.format.into()), ..Kernel::Conv3x3.key() })?;
                let [rows, columns] = variant.tile;
                let bias = bias.map(vector).unwrap_or_else(|| self.resident.any())?;
                // A missing addend is bound to x and not read.
                let addends = [t(&first.unwrap_or(*x))?, t(&second.unwrap_or(*x))?];
                let groups = [p.out_channels.div_ceil(columns), (p.rows * p.out_width).div_ceil(rows), 1];
                (variant, raw(p), vec![t(x)?, weight.slot, bias, addends[0], addends[1], t(y)?], groups)
            }
            Op::ConvTranspose { params: p, x, w, bias, y } => {
                let weight = self.resident.param(*w)?;
                let variant = variant(Key { weights: Some(weight.format.into()), ..Kernel::ConvTranspose.key() })?;
                let [rows, columns] = variant.tile;
                let bias = bias.map(vector).unwrap_or_else(|| self.resident.any())?;
                let width = p.out_channels * p.factor * p.factor;
                let groups = [width.div_ceil(columns), (p.width * p.height).div_ceil(rows), 1];
                (variant, raw(p), vec![t(x)?, weight.slot, bias, t(y)?], groups)
            }
            Op::ResizeCorners { params: p, x, y } => {
                let groups = [(p.out_width * p.channels).div_ceil(64), p.rows, 1];
                (&variants::RESIZE_CORNERS, raw(p), vec![t(x)?, t(y)?], groups)
            }
            Op::Linear { params: p, x, w, bias, layer_scale, norm, other, table, side, y } => {
                // Missing operands are bound to some buffer that the kernel does not read.
                let unused = self.resident.any()?;
                let optional = |id: &Option<ParamId>| id.map_or(Ok(unused), vector);
                let slots = LinearSlots {
                    x: t(x)?,
                    unused,
                    bias: bias.map_or(Ok(unused), |id| self.resident.stack(id).map(|p| p.slot))?,
                    layer_scale: optional(layer_scale)?,
                    norm: optional(norm)?,
                    other: t(&other.unwrap_or(*x))?,
                    table: t(&table.unwrap_or(*x))?,
                    side: t(&side.unwrap_or(*y))?,
                    y: t(y)?,
                };
                let side = side.map_or(Ok(0), |side| flag(&side, epilogue::SIDE_F16))?;
                let flags = p.flags | flag(x, epilogue::X_F16)? | flag(y, epilogue::Y_F16)? | side;
                return self.linear(params::Linear { flags, ..*p }, *w, slots, stage, out);
            }
            Op::RmsNorm { params: p, x, weight, y } => {
                let variant = kernels.norm(Kernel::RmsNorm, self.f16(*y)?)?;
                let slots = vec![t(x)?, vector(*weight)?, t(y)?];
                (variant, raw(p), slots, [p.rows, 1, 1])
            }
            Op::AdaRmsNorm { params: p, x, modulation, y } => {
                let variant = kernels.norm(Kernel::AdaRmsNorm, self.f16(*y)?)?;
                (variant, raw(p), vec![t(x)?, t(modulation)?, t(y)?], [p.rows, 1, 1])
            }
            Op::GatedAdd { params: p, f, gate, x } => {
                (&variants::GATED_ADD, raw(p), vec![t(f)?, t(gate)?, t(x)?], [p.cols.div_ceil(64), p.rows, 1])
            }
            Op::LayerNorm { params: p, x, weight, bias, y } => {
                let slots = vec![t(x)?, vector(*weight)?, vector(*bias)?, t(y)?];
                let variant = kernels.norm(Kernel::LayerNorm, self.f16(*y)?)?;
                (variant, raw(p), slots, [p.rows, 1, 1])
            }
            Op::Attention { params: p, q, k, v, out: to } => {
                let flags = flag(q, halves::Q_F16)? | flag(k, halves::KV_F16)? | flag(to, halves::OUT_F16)?;
                let p = &params::Attention { flags, ..*p };
                let Variant { shader, tile: [rows, _], .. } = kernels.attention(p)?;
                let block = p.q_block.clamp(1, p.rows.max(1));
                let tiles = (block * (p.heads / p.kv_heads.max(1))).div_ceil(*rows);
                // The bindings are followed by bindings of the same tensors in f16, as many as the variant has.
                let mut slots = vec![t(q)?, t(k)?, t(v)?, t(to)?, t(to)?, t(q)?, t(k)?, t(v)?];
                slots.truncate(shader.bindings.len() - 1);
                let workgroups = [tiles, p.kv_heads, p.rows.div_ceil(block)];
                out.push(Dispatch { shader, params: raw(p), slots, workgroups, stage, work: work::attention(p) });
                return Ok(());
            }
            Op::Scale { params: p, x, y } => {
                (&variants::SCALE, raw(p), vec![t(x)?, t(y)?], [p.cols.div_ceil(64), p.rows, 1])
            }
            Op::Guide { params: p, x, goal, gains, y } => {
                let slots = vec![t(x)?, t(goal)?, t(gains)?, t(y)?];
                (&variants::GUIDE, raw(p), slots, [p.count.div_ceil(64), 1, 1])
            }
            Op::Unpatchify { params: p, tokens, map } => {
                (&variants::UNPATCHIFY, raw(p), vec![t(tokens)?, t(map)?], square(p.side))
            }
        };
        let (shader, work) = (&variant.shader, work::of(op, variant, &slots));
        out.push(Dispatch { shader, params, slots, workgroups, stage, work });
        Ok(())
    }

    /// One dispatch, or several over ranges of the weight's rows beyond the binding limit.
    fn linear(
        &self,
        p: params::Linear,
        w: StackId,
        slots: LinearSlots,
        stage: u16,
        out: &mut Vec<Dispatch>,
    ) -> Result<(), EngineError> {
        let weight = self.resident.stack(w)?;
        let Variant { shader, tile: [rows, columns], .. } = self.resident.choice.kernels.linear(weight.format, &p)?;
        let group_shift = match weight.format {
            WeightFormat::W4 { group, .. } => group.trailing_zeros(),
            _ => 0,
        };
        let [row, scale] = weight.row;
        let whole = weight.slot.bytes <= self.max_binding_bytes;
        let fitting = (self.max_binding_bytes / row.max(1)) / SPLIT_ROWS * SPLIT_ROWS;
        let end = p.w_row + p.n;
        let window = if whole { end } else { fitting.max(SPLIT_ROWS).min(end.into()) as u32 };
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
            let (workgroups, work) =
                ([n.div_ceil(*columns), p.m.div_ceil(*rows), 1], work::linear(weight.format, &params));
            out.push(Dispatch { shader, params: raw(&params), slots: bound, workgroups, stage, work });
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

fn raw<T: Pod>(params: &T) -> Vec<u8> {
    bytes_of(params).to_vec()
}
