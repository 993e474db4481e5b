//! Writes a [`Graph`]: each call checks shapes, allocates its output and appends one operation.
//!
//! A shape that does not fit is remembered and returned by [`GraphBuilder::finish`], so that a forward definition
//! reads top to bottom without error handling on every line.

use fathom_shaders::format::SLICE;
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

/// Up to this many rows a linear layer streams its weights and takes a norm of its input along; more rows are normalised
/// before.
pub const SKINNY_ROWS: usize = 32;

/// What a linear layer does beside its product, in this order: norm of its input, bias (the layer's own), scale, layer
/// scale, addend, activation; then gate times value, or RoPE.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fused {
    /// Gemma's RMSNorm of the input: weight `(k,)` and epsilon.
    pub norm: Option<(ParamId, f32)>,
    /// Of sum and bias.
    pub scale: Option<f32>,
    /// `(n,)`
    pub layer_scale: Option<ParamId>,
    /// `(m, n)`, or one row for all.
    pub add: Option<Tensor>,
    /// After the addend.
    pub activation: Activation,
    /// The layer's rows are gates and then as many values (a stack with a `pair_distance` of that many): `activation(gate) · value`.
    pub gated: bool,
    /// Turns queries and keys.
    pub rope: Option<Rope>,
    /// Keys and values of these tokens, each `(m, cols)` of one tensor: where the layer's last `2 · cols` columns go.
    pub keys_values: Option<[Tensor; 2]>,
    /// Where the output goes; else a new tensor.
    pub into: Option<Tensor>,
}

/// Rotary position embedding of heads that are a stack's blocks.
#[derive(Clone, Copy, Debug)]
pub struct Rope {
    /// Whole, `(positions, head_dim)`: cos and sin of each pair.
    pub table: Tensor,
    /// Position of row 0.
    pub first: usize,
}

/// The keys that each row of queries sees: `start + (row / q_block) · k_block .. + count`, rows of the cache.
#[derive(Clone, Copy, Debug)]
pub struct Keys {
    /// First key.
    pub start: usize,
    /// Keys; attention of a row without is 0.
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
        // Then places in it fit kernels' parameters, too.
        self.check("tensor", u32::try_from(words).is_ok(), || format!("{name}: {words} words, at most {}", u32::MAX));
        self.graph.tensors.push(TensorInfo { name: name.to_owned(), words, storage });
        TensorId(int(self.graph.tensors.len() - 1))
    }

    pub(crate) fn push(&mut self, op: Op) {
        let (read, written) = op.tensors();
        self.check("operation", !read.iter().any(|r| written.contains(r)), || {
            format!("{op:?} reads the tensor that it writes")
        });
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

    /// `x · wᵀ` with what `f` says: `(m, k) → (m, n)` without the columns that are keys and values, or, gated,
    /// `(m, n / 2)`.
    pub fn linear(&mut self, x: Tensor, layer: &Linear, mut f: Fused) -> Tensor {
        let x = match f.norm {
            Some((weight, eps)) if x.rows > SKINNY_ROWS => {
                f.norm = None;
                self.rms_norm(x, weight, eps)
            }
            _ => x,
        };
        let side = f.keys_values.map_or(0, |[k, v]| k.cols + v.cols);
        let all = layer.first + layer.n;
        let split = all - side.min(all);
        let columns = if f.gated { layer.n / 2 } else { layer.n - side.min(layer.n) };
        let y = match (f.into, f.keys_values) {
            (Some(into), _) => into,
            // Nothing but keys and values: they are the output.
            (None, Some([k, _])) if columns == 0 => Tensor { cols: 0, ..k },
            (None, _) => self.activation("linear", x.rows, columns),
        };
        let pairs = layer.pair_distance == 0
            || (layer.first.is_multiple_of(2) && layer.n.is_multiple_of(2 * layer.pair_distance));
        let planes = |[k, v]: [Tensor; 2]| {
            let rows = (k.rows, v.rows) == (x.rows, x.rows) && k.cols == v.cols && k.cols > 0;
            rows && k.id == v.id && (k.stride, v.stride) == (k.cols, k.cols) && k.offset <= v.offset && side <= layer.n
        };
        let turned = |r: Rope| {
            let fits = layer.pair_distance > 0 && r.table.cols == 2 * layer.pair_distance && whole(r.table);
            fits && r.first + x.rows <= r.table.rows && side > 0 && (side / 2).is_multiple_of(2 * layer.pair_distance)
        };
        let fits = x.cols == layer.k
            && (y.rows, y.cols) == (x.rows, columns)
            && f.add.is_none_or(|o| o.cols == layer.n && (o.rows == x.rows || o.rows == 1))
            && f.keys_values.is_none_or(planes)
            && f.rope.is_none_or(turned)
            && pairs
            && (layer.first == 0 || columns == 0)
            && (!f.gated
                || (layer.n == 2 * layer.pair_distance
                    && f.layer_scale.is_none()
                    && f.add.is_none()
                    && f.scale.is_none()
                    && side == 0));
        self.check("linear", fits, || {
            format!("x ({}, {}), w {layer:?}, y ({}, {}), {f:?}", x.rows, x.cols, y.rows, y.cols)
        });
        let flag = |set: bool, bit: u32| if set { bit } else { 0 };
        let params = p::Linear {
            m: int(x.rows),
            n: int(layer.n),
            k: int(x.cols),
            x_offset: int(x.offset),
            x_stride: int(x.stride),
            w_row: int(layer.first),
            w_stride: int(layer.k.next_multiple_of(SLICE)),
            group_shift: 0, // the weights' own
            first: int(layer.first),
            pair_distance: int(layer.pair_distance),
            y_offset: int(y.offset),
            y_stride: int(y.stride),
            split: int(split),
            side_offset: f.keys_values.map_or(0, |[k, _]| int(k.offset)),
            side_cols: f.keys_values.map_or(1, |[k, _]| int(k.cols)),
            side_plane: f.keys_values.map_or(0, |[k, v]| int(v.offset.saturating_sub(k.offset))),
            other_offset: f.add.map_or(0, |o| int(o.offset)),
            other_stride: f.add.map_or(0, |o| if o.rows == 1 { 0 } else { int(o.stride) }),
            rope_columns: f.rope.map_or(0, |_| int(all - (side / 2).min(all))),
            table_offset: f.rope.map_or(0, |r| int(r.first * r.table.cols)),
            flags: flag(layer.bias.is_some(), epilogue::BIAS)
                | flag(f.layer_scale.is_some(), epilogue::LAYER_SCALE)
                | flag(f.add.is_some(), epilogue::ADD)
                | flag(f.gated, epilogue::GATE)
                | flag(f.norm.is_some(), epilogue::NORM),
            activation: match f.activation {
                Activation::Identity => 0,
                Activation::GeluTanh => 1,
                Activation::GeluErf => 2,
                Activation::Silu => 3,
                Activation::Relu => 4,
                Activation::Sigmoid => 5,
            },
            eps: f.norm.map_or(0.0, |(_, eps)| eps),
            scale: f.scale.unwrap_or(1.0),
        };
        self.push(Op::Linear {
            params,
            x: x.id,
            w: layer.w,
            bias: layer.bias,
            layer_scale: f.layer_scale,
            norm: f.norm.map(|(weight, _)| weight),
            other: f.add.map(|o| o.id),
            table: f.rope.map(|r| r.table.id),
            side: f.keys_values.map(|[k, _]| k.id),
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
            flags: 0, // by the precision
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

    /// Draws `y`, an Euler step from `x`, towards `goal` by `gains (1, rows)`: with `v = (y − x) / dt`,
    /// `y −= dt · gain · (goal − (x + ahead · v))` in place. All others are whole tensors of one shape.
    pub fn guide(&mut self, x: Tensor, y: Tensor, (goal, gains): (Tensor, Tensor), (dt, ahead): (f32, f32)) {
        let shape = |t: Tensor| (t.rows, t.cols, whole(t));
        let fits = shape(x) == (y.rows, y.cols, true)
            && shape(y) == shape(x)
            && shape(goal) == shape(x)
            && (gains.rows, gains.cols) == (1, x.rows);
        self.check("guide", fits, || format!("x {x:?}, y {y:?}, goal {goal:?}, gains {gains:?}"));
        let (count, gain_offset) = (int(x.rows * x.cols), int(gains.offset));
        let params = p::Guide { count, cols: int(x.cols), gain_offset, dt, ahead };
        self.push(Op::Guide { params, x: x.id, goal: goal.id, gains: gains.id, y: y.id });
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
