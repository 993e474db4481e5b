//! Writes a [`Graph`]: each call checks shapes, allocates its output and appends one operation.
//!
//! A shape that does not fit is remembered and returned by [`GraphBuilder::finish`], so that a forward definition
//! reads top to bottom without error handling on every line.

use fathom_shaders::params::{self as p, MAX_HEAD_DIM, epilogue};

use crate::error::ModelError;
use crate::graph::{Graph, Named, Op, Storage, Tensor, TensorId, TensorInfo};
use crate::params::{Linear, Norm, ParamId};

/// Activation of a linear layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// None.
    #[default]
    Identity,
    /// Gemma's and SigLIP's GELU.
    GeluTanh,
    /// DINOv2's GELU.
    GeluErf,
    /// `x · sigmoid(x)`.
    Silu,
    /// `max(x, 0)`.
    Relu,
    /// `1 / (1 + exp(−x))`.
    Sigmoid,
}

/// What a linear layer does with its sum, in this order: bias (the layer's own), layer scale, addend, activation, factor.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue {
    /// `(n,)`
    pub layer_scale: Option<ParamId>,
    /// `(m, n)`, or one row for all.
    pub add: Option<Tensor>,
    /// After the addend.
    pub activation: Activation,
    /// `(m, n)`; excludes `add`.
    pub multiply: Option<Tensor>,
    /// Where the output goes; else a new tensor.
    pub into: Option<Tensor>,
    /// Inputs `from .. from + x.cols` of the weight only.
    pub from_input: usize,
    /// Leave the layer's own bias out.
    pub without_bias: bool,
}

/// The keys that each row of queries sees: `start + (row / q_block) · k_block .. + count`, rows of the cache.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// First key.
    pub start: usize,
    /// Keys.
    pub count: usize,
    /// Query rows that share a range.
    pub q_block: usize,
    /// Keys from one range to the next.
    pub k_block: usize,
}

impl Keys {
    /// The same range for every row.
    pub fn range(start: usize, count: usize) -> Keys {
        Keys { start, count, q_block: usize::MAX, k_block: 0 }
    }
    /// Row blocks of `block` that see only themselves.
    pub fn blocks(block: usize) -> Keys {
        Keys { start: 0, count: block, q_block: block, k_block: block }
    }
}

/// Writes a [`Graph`].
#[derive(Debug, Default)]
pub struct GraphBuilder {
    graph: Graph,
    error: Option<ModelError>,
}

pub(crate) fn int(v: usize) -> u32 {
    u32::try_from(v).unwrap_or(u32::MAX)
}

/// Whether a view is a tensor from its beginning, without gaps.
pub(crate) fn whole(t: Tensor) -> bool {
    t.offset == 0 && t.stride == t.cols
}

impl GraphBuilder {
    /// The finished graph.
    ///
    /// # Errors
    /// The first shape that did not fit.
    pub fn finish(self) -> Result<Graph, ModelError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.graph),
        }
    }

    /// Operations from here on belong to the stage `name`.
    pub fn stage(&mut self, name: impl Into<String>) {
        self.graph.stages.push(name.into());
    }

    pub(crate) fn check(&mut self, op: &'static str, fits: bool, detail: impl FnOnce() -> String) {
        if !fits && self.error.is_none() {
            self.error = Some(ModelError::Shape { op, detail: detail() });
        }
    }

    /// Remembers that `op` cannot be done, and gives `x` in place of its output.
    pub(crate) fn refuse(&mut self, op: &'static str, detail: &str, x: Tensor) -> Tensor {
        self.check(op, false, || detail.to_owned());
        x
    }

    fn allocate(&mut self, name: &str, words: usize, storage: Storage) -> TensorId {
        self.graph.tensors.push(TensorInfo { name: name.to_owned(), words, storage });
        TensorId(int(self.graph.tensors.len() - 1))
    }

    pub(crate) fn push(&mut self, op: Op) {
        let (read, written) = op.tensors();
        self.check("operation", !read.contains(&written), || format!("{op:?} reads the tensor that it writes"));
        let stage = self.graph.stages.len().saturating_sub(1) as u16;
        self.graph.ops.push((stage, op));
    }

    /// A new `(rows, cols)` tensor that operations write.
    pub fn activation(&mut self, name: &str, rows: usize, cols: usize) -> Tensor {
        self.tensor(name, rows, cols, Storage::Activation)
    }

    /// A `(rows, cols)` tensor that the caller writes before each run.
    pub fn input(&mut self, name: &str, rows: usize, cols: usize) -> Tensor {
        let tensor = self.tensor(name, rows, cols, Storage::Input);
        self.graph.inputs.push(Named { name: name.to_owned(), tensor });
        tensor
    }

    /// A `(rows, cols)` tensor with the same f32 values in every run.
    pub fn constant(&mut self, name: &str, rows: usize, cols: usize, values: &[f32]) -> Tensor {
        self.check("constant", values.len() == rows * cols, || {
            format!("{name}: {} values for ({rows}, {cols})", values.len())
        });
        self.tensor(name, rows, cols, Storage::Constant(values.iter().map(|v| v.to_bits()).collect()))
    }

    fn tensor(&mut self, name: &str, rows: usize, cols: usize, storage: Storage) -> Tensor {
        let id = self.allocate(name, rows * cols, storage);
        Tensor { id, offset: 0, rows, cols, stride: cols }
    }

    /// A tensor of `words` u32 (an image).
    pub(crate) fn words(&mut self, name: &str, words: usize, storage: Storage) -> TensorId {
        let named = storage == Storage::Input;
        let id = self.allocate(name, words, storage);
        if named {
            let tensor = Tensor { id, offset: 0, rows: 1, cols: words, stride: words };
            self.graph.inputs.push(Named { name: name.to_owned(), tensor });
        }
        id
    }

    pub(crate) fn image_op(&mut self, op: Op) {
        self.push(op);
    }

    /// Lets the caller read `tensor` as `name` after a run.
    pub fn output(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.graph.outputs.push(Named { name: name.into(), tensor });
    }

    /// `epilogue(x · wᵀ)`: `(m, k) → (m, n)`.
    pub fn linear(&mut self, x: Tensor, layer: &Linear, e: Epilogue) -> Tensor {
        let y = e.into.unwrap_or_else(|| self.activation("linear", x.rows, layer.n));
        let other = e.add.or(e.multiply);
        let fits = e.from_input + x.cols <= layer.k
            && (e.from_input + x.cols == layer.k || e.from_input == 0)
            && (y.rows, y.cols) == (x.rows, layer.n)
            && other.is_none_or(|o| o.cols == layer.n && (o.rows == x.rows || o.rows == 1))
            && !(e.add.is_some() && e.multiply.is_some());
        self.check("linear", fits, || {
            format!(
                "x ({}, {}), w ({}, {}), y ({}, {}), other {other:?}",
                x.rows, x.cols, layer.n, layer.k, y.rows, y.cols
            )
        });
        let bias = layer.bias.filter(|_| !e.without_bias);
        let flag = |set: bool, bit: u32| if set { bit } else { 0 };
        let params = p::Linear {
            m: int(x.rows),
            n: int(layer.n),
            k: int(x.cols),
            x_offset: int(x.offset),
            x_stride: int(x.stride),
            w_offset: int(e.from_input),
            w_stride: int(layer.k),
            y_offset: int(y.offset),
            y_stride: int(y.stride),
            other_offset: other.map_or(0, |o| int(o.offset)),
            other_stride: other.map_or(0, |o| if o.rows == 1 { 0 } else { int(o.stride) }),
            flags: flag(bias.is_some(), epilogue::BIAS)
                | flag(e.layer_scale.is_some(), epilogue::LAYER_SCALE)
                | flag(e.add.is_some(), epilogue::ADD)
                | flag(e.multiply.is_some(), epilogue::MULTIPLY),
            activation: match e.activation {
                Activation::Identity => 0,
                Activation::GeluTanh => 1,
                Activation::GeluErf => 2,
                Activation::Silu => 3,
                Activation::Relu => 4,
                Activation::Sigmoid => 5,
            },
        };
        self.push(Op::Linear {
            params,
            x: x.id,
            w: layer.w,
            bias,
            layer_scale: e.layer_scale,
            other: other.map(|o| o.id),
            y: y.id,
        });
        y
    }

    /// Gemma's RMSNorm, `(rows, cols) → (rows, cols)`.
    pub fn rms_norm(&mut self, x: Tensor, weight: ParamId, eps: f32) -> Tensor {
        let y = self.activation("rms_norm", x.rows, x.cols);
        let params = p::RmsNorm {
            rows: int(x.rows),
            cols: int(x.cols),
            x_offset: int(x.offset),
            x_stride: int(x.stride),
            y_offset: 0,
            y_stride: int(y.stride),
            eps,
        };
        self.push(Op::RmsNorm { params, x: x.id, weight, y: y.id });
        y
    }

    /// RMSNorm whose scale and shift are the first two thirds of `modulation (1, 3 · cols)`.
    pub fn ada_rms_norm(&mut self, x: Tensor, modulation: Tensor, eps: f32) -> Tensor {
        let y = self.activation("ada_rms_norm", x.rows, x.cols);
        let fits = (modulation.rows, modulation.cols) == (1, 3 * x.cols);
        self.check("ada_rms_norm", fits, || format!("x {x:?}, modulation {modulation:?}"));
        let params = p::AdaRmsNorm {
            rows: int(x.rows),
            cols: int(x.cols),
            x_offset: int(x.offset),
            x_stride: int(x.stride),
            modulation_offset: int(modulation.offset),
            y_offset: 0,
            y_stride: int(y.stride),
            eps,
        };
        self.push(Op::AdaRmsNorm { params, x: x.id, modulation: modulation.id, y: y.id });
        y
    }

    /// `x += gate · f` in place; the gate is the last third of `modulation (1, 3 · cols)`.
    pub fn gated_add(&mut self, x: Tensor, f: Tensor, modulation: Tensor) {
        let fits = (x.rows, x.cols) == (f.rows, f.cols) && (modulation.rows, modulation.cols) == (1, 3 * x.cols);
        self.check("gated_add", fits, || format!("x {x:?}, f {f:?}, modulation {modulation:?}"));
        let params = p::GatedAdd {
            rows: int(x.rows),
            cols: int(x.cols),
            f_offset: int(f.offset),
            f_stride: int(f.stride),
            gate_offset: int(modulation.offset + 2 * x.cols),
            x_offset: int(x.offset),
            x_stride: int(x.stride),
        };
        self.push(Op::GatedAdd { params, f: f.id, gate: modulation.id, x: x.id });
    }

    /// LayerNorm, `(rows, cols) → (rows, cols)`, into `into` where given.
    pub fn layer_norm(&mut self, x: Tensor, norm: Norm, eps: f32, into: Option<Tensor>) -> Tensor {
        let y = into.unwrap_or_else(|| self.activation("layer_norm", x.rows, x.cols));
        self.check("layer_norm", (y.rows, y.cols) == (x.rows, x.cols), || format!("x {x:?}, y {y:?}"));
        let params = p::LayerNorm {
            rows: int(x.rows),
            cols: int(x.cols),
            x_offset: int(x.offset),
            x_stride: int(x.stride),
            y_offset: int(y.offset),
            y_stride: int(y.stride),
            eps,
        };
        self.push(Op::LayerNorm { params, x: x.id, weight: norm.weight, bias: norm.bias, y: y.id });
        y
    }

    /// RoPE on `x (rows, heads · head_dim)` in place; row 0 has position `first`.
    /// `table` is whole, `(positions, head_dim)`: cos and sin of each pair.
    pub fn rope(&mut self, x: Tensor, table: Tensor, head_dim: usize, first: usize) {
        let fits =
            x.cols.is_multiple_of(head_dim) && table.cols == head_dim && first + x.rows <= table.rows && whole(table);
        self.check("rope", fits, || format!("x {x:?} from position {first}, table {table:?}"));
        let params = p::Rope {
            rows: int(x.rows),
            heads: int(x.cols / head_dim),
            head_dim: int(head_dim),
            x_offset: int(x.offset),
            x_stride: int(x.stride),
            table_offset: int(first * head_dim),
        };
        self.push(Op::Rope { params, table: table.id, x: x.id });
    }

    /// Attention of `q (rows, heads · head_dim)` to the keys `keys` of `k`, `v (_, kv_heads · head_dim)`.
    pub fn attention(
        &mut self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        keys: Keys,
        head_dim: usize,
        softcap: Option<f32>,
    ) -> Tensor {
        let out = self.activation("attention", q.rows, q.cols);
        let blocks = (q.rows.max(1) - 1) / keys.q_block.max(1);
        let fits = head_dim <= MAX_HEAD_DIM
            && q.cols.is_multiple_of(head_dim)
            && k.cols.is_multiple_of(head_dim)
            && k.cols > 0
            && q.cols.is_multiple_of(k.cols)
            && (k.rows, k.cols, k.stride) == (v.rows, v.cols, v.stride)
            && keys.count > 0
            && keys.q_block > 0
            && keys.start + blocks * keys.k_block + keys.count <= k.rows;
        self.check("attention", fits, || {
            format!("q {q:?}, k {k:?}, v {v:?}, {keys:?}, head_dim {head_dim} (at most {MAX_HEAD_DIM})")
        });
        let params = p::Attention {
            rows: int(q.rows),
            heads: int(q.cols / head_dim),
            kv_heads: int(k.cols / head_dim),
            head_dim: int(head_dim),
            q_offset: int(q.offset),
            q_stride: int(q.stride),
            k_offset: int(k.offset),
            v_offset: int(v.offset),
            kv_stride: int(k.stride),
            out_offset: 0,
            out_stride: int(out.stride),
            key_start: int(keys.start),
            key_count: int(keys.count),
            q_block: int(keys.q_block),
            k_block: int(keys.k_block),
            scale: 1.0 / (head_dim as f32).sqrt(),
            softcap: softcap.unwrap_or(0.0),
        };
        self.push(Op::Attention { params, q: q.id, k: k.id, v: v.id, out: out.id });
        out
    }

    /// `factor · x`, into `into` where given.
    pub fn scale(&mut self, x: Tensor, factor: f32, into: Option<Tensor>) -> Tensor {
        let y = into.unwrap_or_else(|| self.activation("scale", x.rows, x.cols));
        self.check("scale", (y.rows, y.cols) == (x.rows, x.cols), || format!("x {x:?}, y {y:?}"));
        let params = p::Scale {
            rows: int(x.rows),
            cols: int(x.cols),
            x_offset: int(x.offset),
            x_stride: int(x.stride),
            y_offset: int(y.offset),
            y_stride: int(y.stride),
            factor,
        };
        self.push(Op::Scale { params, x: x.id, y: y.id });
        y
    }

    /// `x += dt · velocity` in place; both whole tensors of one shape.
    pub fn euler(&mut self, x: Tensor, velocity: Tensor, dt: f32) {
        let fits = (x.rows, x.cols) == (velocity.rows, velocity.cols) && whole(x) && whole(velocity);
        self.check("euler", fits, || format!("x {x:?}, velocity {velocity:?}"));
        let params = p::Euler { count: int(x.rows * x.cols), dt };
        self.push(Op::Euler { params, velocity: velocity.id, x: x.id });
    }

    /// Depth tokens `(grid², patch²)` to a map `(side, side)`. `link`: 0 identity, 1 exp, 2 sigmoid.
    pub fn unpatchify(&mut self, tokens: Tensor, patch: usize, link: u32) -> Tensor {
        let grid = tokens.rows.isqrt();
        let side = grid * patch;
        self.check("unpatchify", grid * grid == tokens.rows && tokens.cols == patch * patch, || {
            format!("tokens {tokens:?}, patch {patch}")
        });
        let map = self.activation("depth", side, side);
        let params = p::Unpatchify {
            side: int(side),
            patch_side: int(patch),
            x_offset: int(tokens.offset),
            x_stride: int(tokens.stride),
            y_offset: 0,
            link,
        };
        self.push(Op::Unpatchify { params, tokens: tokens.id, map: map.id });
        map
    }
}
