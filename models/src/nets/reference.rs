//! Runs a [`Graph`] on the CPU twins: the whole model without a GPU, for tests and for bisecting a wrong result.

use std::collections::BTreeMap;

use fathom_shaders::cpu;

use crate::checkpoint::{WeightFormat, Weights};
use crate::error::ModelError;
use crate::graph::builder::SKINNY_ROWS;
use crate::graph::params::ParamId;
use crate::graph::precision::{Precision, stored_in_f16};
use crate::graph::{Graph, Op, Storage, Tensor, TensorId};

/// A graph's tensors on the host.
#[derive(Debug)]
pub struct Reference<'a> {
    graph: &'a Graph,
    weights: &'a Weights,
    tensors: Vec<Vec<u32>>,
    /// Which tensors are rounded to f16 when they are written, as a GPU may store them.
    halves: Vec<bool>,
    /// Whether W8 layers of many rows take 8 bits of their input, too, as the kernel `linear_dot8` does.
    pub dot8: bool,
}

impl<'a> Reference<'a> {
    /// Allocates every tensor of `graph`, all in f32.
    pub fn new(graph: &'a Graph, weights: &'a Weights) -> Reference<'a> {
        Reference::with(graph, weights, Precision::F32)
    }

    /// Allocates every tensor of `graph`, whose values are those of this precision.
    pub fn with(graph: &'a Graph, weights: &'a Weights, precision: Precision) -> Reference<'a> {
        let tensors = graph
            .tensors
            .iter()
            .map(|t| match &t.storage {
                Storage::Constant(words) => words.clone(),
                Storage::Activation | Storage::Input => vec![0; t.words],
            })
            .collect();
        Reference { graph, weights, tensors, halves: precision.halves(graph), dot8: false }
    }

    /// Writes an input; bytes beyond the tensor are ignored.
    pub fn write(&mut self, id: TensorId, bytes: &[u8]) {
        let to: &mut [u8] = bytemuck::cast_slice_mut(&mut self.tensors[id.0 as usize]);
        let count = bytes.len().min(to.len());
        to[..count].copy_from_slice(&bytes[..count]);
    }

    /// Runs every operation.
    ///
    /// # Errors
    /// A parameter that is not there.
    pub fn run(&mut self) -> Result<(), ModelError> {
        for (_, op) in &self.graph.ops {
            let (_, written) = op.tensors();
            let mut out: Vec<Vec<u32>> =
                written.iter().map(|id| std::mem::take(&mut self.tensors[id.0 as usize])).collect();
            let done = match out.as_mut_slice() {
                [only] => self.step(op, only, &mut []),
                [first, second, ..] => self.step(op, first, second),
                [] => Ok(()),
            };
            for (id, mut words) in written.iter().zip(out) {
                if self.halves[id.0 as usize] {
                    floats(&mut words).iter_mut().for_each(|v| *v = stored_in_f16(*v));
                }
                self.tensors[id.0 as usize] = words;
            }
            done?;
        }
        Ok(())
    }

    /// Values of a view, row by row.
    pub fn read(&self, t: Tensor) -> Vec<f32> {
        let all = self.f32(t.id);
        (0..t.rows).flat_map(|r| all[t.offset + r * t.stride..][..t.cols].iter().copied()).collect()
    }

    /// Every output, by name.
    pub fn outputs(&self) -> BTreeMap<String, Vec<f32>> {
        self.graph.outputs.iter().map(|n| (n.name.clone(), self.read(n.tensor))).collect()
    }

    fn f32(&self, id: TensorId) -> &[f32] {
        bytemuck::cast_slice(&self.tensors[id.0 as usize])
    }

    fn words(&self, id: TensorId) -> &[u32] {
        &self.tensors[id.0 as usize]
    }

    /// One operation; `second` is where a linear layer's keys and values go.
    fn step(&self, op: &Op, out: &mut [u32], second: &mut [u32]) -> Result<(), ModelError> {
        let host = |id: ParamId| self.weights.host(id);
        match op {
            Op::ImageUnpack { layout, params, bytes, .. } => {
                cpu::image_unpack(*layout, params, self.words(*bytes), out)
            }
            Op::ResizeAxis { arithmetic, params, table, source, .. } => {
                cpu::resize_axis(*arithmetic, params, self.words(*table), self.words(*source), out);
            }
            Op::ResizeTorch { params, source, .. } => cpu::resize_torch(params, self.words(*source), floats(out)),
            Op::ImagePad { params, source, .. } => cpu::image_pad(params, self.words(*source), floats(out)),
            Op::Patchify { params, square, .. } => cpu::patchify(params, self.f32(*square), floats(out)),
            Op::Conv3x3 { params, x, w, bias, first, second, .. } => {
                let bias = bias.map(host).transpose()?.unwrap_or_default();
                let addends = [first, second].map(|a| a.map(|a| self.f32(a)).unwrap_or_default());
                cpu::conv3x3(params, self.f32(*x), &host(*w)?, &bias, addends, floats(out));
            }
            Op::ConvTranspose { params, x, w, bias, .. } => {
                let bias = bias.map(host).transpose()?.unwrap_or_default();
                cpu::conv_transpose(params, self.f32(*x), &host(*w)?, &bias, floats(out));
            }
            Op::ResizeCorners { params, x, .. } => cpu::resize_corners(params, self.f32(*x), floats(out)),
            Op::Linear { params, x, w, bias, layer_scale, norm, other, table, side, y } => {
                let optional = |id: Option<ParamId>| id.map(host).transpose().map(Option::unwrap_or_default);
                let tensor = |id: Option<TensorId>| id.map(|id| self.f32(id)).unwrap_or_default();
                let bias = bias.map(|id| self.weights.stacked_vector(id)).transpose()?.unwrap_or_default();
                let rows = self.weights.stacked(*w)?;
                let in_bytes = self.dot8 && rows.format == WeightFormat::W8 && params.m as usize > SKINNY_ROWS;
                let rows = rows.decoded();
                let read = cpu::LinearIn {
                    x: self.f32(*x),
                    w: &rows,
                    bias: &bias,
                    layer_scale: &optional(*layer_scale)?,
                    norm: &optional(*norm)?,
                    other: tensor(*other),
                    table: tensor(*table),
                };
                let (y, side) = if *side == Some(*y) { (second, out) } else { (out, second) };
                let twin = if in_bytes { cpu::linear_dot8 } else { cpu::linear };
                twin(params, read, floats(y), floats(side));
            }
            Op::RmsNorm { params, x, weight, .. } => cpu::rms_norm(params, self.f32(*x), &host(*weight)?, floats(out)),
            Op::AdaRmsNorm { params, x, modulation, .. } => {
                cpu::ada_rms_norm(params, self.f32(*x), self.f32(*modulation), floats(out));
            }
            Op::GatedAdd { params, f, gate, .. } => {
                cpu::gated_add(params, self.f32(*f), self.f32(*gate), floats(out));
            }
            Op::LayerNorm { params, x, weight, bias, .. } => {
                cpu::layer_norm(params, self.f32(*x), &host(*weight)?, &host(*bias)?, floats(out));
            }
            Op::Attention { params, q, k, v, .. } => {
                cpu::attention(params, self.f32(*q), self.f32(*k), self.f32(*v), floats(out));
            }
            Op::Scale { params, x, .. } => cpu::scale(params, self.f32(*x), floats(out)),
            Op::Guide { params, x, goal, gains, .. } => {
                cpu::guide(params, self.f32(*x), self.f32(*goal), self.f32(*gains), floats(out));
            }
            Op::Unpatchify { params, tokens, .. } => cpu::unpatchify(params, self.f32(*tokens), floats(out)),
        }
        Ok(())
    }
}

fn floats(words: &mut [u32]) -> &mut [f32] {
    bytemuck::cast_slice_mut(words)
}
