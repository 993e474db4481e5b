//! What one inference does: tensors, operations on them in order, and the stage each operation belongs to.
//!
//! A graph is data. The forward definition writes it once through [`GraphBuilder`](crate::builder::GraphBuilder);
//! [`crate::reference`] runs it on the CPU twins, the runtime lowers it to GPU dispatches.

use fathom_shaders::cpu::{Arithmetic, Layout};
use fathom_shaders::params as p;

use crate::params::{ParamId, StackId};

/// Index into [`Graph::tensors`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorId(pub u32);

impl TensorId {
    /// Its place in a list of all tensors.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// A `(rows, cols)` f32 view of a tensor; all in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// The tensor that holds it.
    pub id: TensorId,
    /// First element.
    pub offset: usize,
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub cols: usize,
    /// Elements from a row to the next.
    pub stride: usize,
}

impl Tensor {
    /// Rows `from .. from + count`.
    pub fn slice(self, from: usize, count: usize) -> Tensor {
        Tensor { offset: self.offset + from * self.stride, rows: count, ..self }
    }

    /// Columns `from .. from + count`.
    pub fn columns(self, from: usize, count: usize) -> Tensor {
        Tensor { offset: self.offset + from, cols: count, ..self }
    }
}

/// Where a tensor's words come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Storage {
    /// Written by the operations.
    Activation,
    /// Written by the caller before each run.
    Input,
    /// The same in every run.
    Constant(Vec<u32>),
}

/// A tensor of 32-bit words (f32, or u32 for images and tables).
#[derive(Clone, Debug)]
pub struct TensorInfo {
    /// For messages and taps.
    pub name: String,
    /// Size.
    pub words: usize,
    /// Where the words come from.
    pub storage: Storage,
}

/// One operation: the kernel's parameters and its bindings.
#[derive(Clone, Copy, Debug)]
#[allow(
    missing_docs,
    reason = "a variant is a kernel and its fields are the kernel's bindings, documented in the WGSL"
)]
pub enum Op {
    ImageUnpack {
        layout: Layout,
        params: p::ImageUnpack,
        bytes: TensorId,
        pixels: TensorId,
    },
    ResizeAxis {
        arithmetic: Arithmetic,
        params: p::ResizeAxis,
        table: TensorId,
        source: TensorId,
        pixels: TensorId,
    },
    ResizeTorch {
        params: p::ResizeTorch,
        source: TensorId,
        square: TensorId,
    },
    ImagePad {
        params: p::ImagePad,
        source: TensorId,
        square: TensorId,
    },
    Patchify {
        params: p::Patchify,
        square: TensorId,
        patches: TensorId,
    },
    Conv3x3 {
        params: p::Conv3x3,
        x: TensorId,
        w: ParamId,
        bias: Option<ParamId>,
        first: Option<TensorId>,
        second: Option<TensorId>,
        y: TensorId,
    },
    ConvTranspose {
        params: p::ConvTranspose,
        x: TensorId,
        w: ParamId,
        bias: Option<ParamId>,
        y: TensorId,
    },
    ResizeCorners {
        params: p::ResizeCorners,
        x: TensorId,
        y: TensorId,
    },
    Linear {
        params: p::Linear,
        x: TensorId,
        w: StackId,
        bias: Option<StackId>,
        layer_scale: Option<ParamId>,
        norm: Option<ParamId>,
        other: Option<TensorId>,
        table: Option<TensorId>,
        /// Where the columns from `split` on go; all of them, where it is y.
        side: Option<TensorId>,
        y: TensorId,
    },
    RmsNorm {
        params: p::RmsNorm,
        x: TensorId,
        weight: ParamId,
        y: TensorId,
    },
    AdaRmsNorm {
        params: p::AdaRmsNorm,
        x: TensorId,
        modulation: TensorId,
        y: TensorId,
    },
    GatedAdd {
        params: p::GatedAdd,
        f: TensorId,
        gate: TensorId,
        x: TensorId,
    },
    LayerNorm {
        params: p::LayerNorm,
        x: TensorId,
        weight: ParamId,
        bias: ParamId,
        y: TensorId,
    },
    Attention {
        params: p::Attention,
        q: TensorId,
        k: TensorId,
        v: TensorId,
        out: TensorId,
    },
    Scale {
        params: p::Scale,
        x: TensorId,
        y: TensorId,
    },
    Guide {
        params: p::Guide,
        x: TensorId,
        goal: TensorId,
        gains: TensorId,
        y: TensorId,
    },
    Unpatchify {
        params: p::Unpatchify,
        tokens: TensorId,
        map: TensorId,
    },
}

impl Op {
    /// The tensors it reads, and those it writes. One that is changed in place is only the latter.
    pub fn tensors(&self) -> (Vec<TensorId>, Vec<TensorId>) {
        let (read, written) = match *self {
            Op::Linear { x, other, table, side, y, .. } => {
                let written = std::iter::once(y).chain(side.filter(|s| *s != y)).collect();
                return (std::iter::once(x).chain(other).chain(table).collect(), written);
            }
            Op::ImageUnpack { bytes, pixels, .. } => (vec![bytes], pixels),
            Op::ResizeAxis { table, source, pixels, .. } => (vec![table, source], pixels),
            Op::ResizeTorch { source, square, .. } | Op::ImagePad { source, square, .. } => (vec![source], square),
            Op::Patchify { square, patches, .. } => (vec![square], patches),
            Op::Conv3x3 { x, first, second, y, .. } => (std::iter::once(x).chain(first).chain(second).collect(), y),
            Op::ConvTranspose { x, y, .. } | Op::ResizeCorners { x, y, .. } => (vec![x], y),
            Op::RmsNorm { x, y, .. } | Op::LayerNorm { x, y, .. } | Op::Scale { x, y, .. } => (vec![x], y),
            Op::AdaRmsNorm { x, modulation, y, .. } => (vec![x, modulation], y),
            Op::GatedAdd { f, gate, x, .. } => (vec![f, gate], x),
            Op::Attention { q, k, v, out, .. } => (vec![q, k, v], out),
            Op::Guide { x, goal, gains, y, .. } => (vec![x, goal, gains], y),
            Op::Unpatchify { tokens, map, .. } => (vec![tokens], map),
        };
        (read, vec![written])
    }
}

/// A named tensor the caller may read after a run.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its name, e.g. `vlm.layers.3.k`.
    pub name: String,
    /// The view.
    pub tensor: Tensor,
}

/// One inference as data.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    /// Every tensor.
    pub tensors: Vec<TensorInfo>,
    /// Names of the stages, in order.
    pub stages: Vec<String>,
    /// Stage (index into `stages`) and operation, in order.
    pub ops: Vec<(u16, Op)>,
    /// What the caller writes.
    pub inputs: Vec<Named>,
    /// What the caller reads.
    pub outputs: Vec<Named>,
}

impl Graph {
    /// The input of that name.
    pub fn input(&self, name: &str) -> Option<Tensor> {
        self.inputs.iter().find(|n| n.name == name).map(|n| n.tensor)
    }

    /// The output of that name.
    pub fn output(&self, name: &str) -> Option<Tensor> {
        self.outputs.iter().find(|n| n.name == name).map(|n| n.tensor)
    }
}
