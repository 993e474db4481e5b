//! Graphs for the kernels between an image and an action.

use fathom_models::checkpoint::WeightFormat;
use fathom_models::graph::builder::{Activation, Fused, GraphBuilder, Keys, Rope};
use fathom_models::graph::{Graph, Tensor};
use fathom_tests::graphs::Parameters;

const SIZES: [usize; 5] = [1, 3, 17, 33, 65];

fn graph(write: impl FnOnce(&mut GraphBuilder)) -> Graph {
    let mut g = GraphBuilder::default();
    g.stage("kernel");
    write(&mut g);
    g.finish().expect("the shapes fit")
}

/// An input `(rows, cols)`, and the tensor that it lies in: itself, or one that is larger on all sides.
fn view(g: &mut GraphBuilder, name: &str, rows: usize, cols: usize, inside: bool) -> (Tensor, Tensor) {
    if !inside {
        let whole = g.input(name, rows, cols);
        return (whole, whole);
    }
    let whole = g.input(name, rows + 2, cols + 3);
    (Tensor { offset: whole.stride + 2, rows, cols, ..whole }, whole)
}

/// As [`view`], where columns and what they lie in are multiples of `unit`.
fn view_of(g: &mut GraphBuilder, name: &str, rows: usize, cols: usize, inside: bool, unit: usize) -> (Tensor, Tensor) {
    if !inside || unit == 1 {
        return view(g, name, rows, cols, inside);
    }
    let whole = g.input(name, rows + 2, cols + 2 * unit);
    (Tensor { offset: whole.stride + unit, rows, cols, ..whole }, whole)
}

/// Inputs of a layer whose weights have this format: of nibbles a multiple of the group.
fn inputs(format: WeightFormat, k: usize) -> usize {
    match format {
        WeightFormat::W4 { group, .. } => k.next_multiple_of(group as usize),
        _ => k,
    }
}

/// How the tensors of a case are made.
#[derive(Clone, Copy)]
pub(crate) struct Mode {
    /// Of which columns, and where they begin, are multiples.
    pub(crate) unit: usize,
    /// Whether operands are what a norm wrote, and outputs are read by another layer, so that both may be in f16.
    pub(crate) half: bool,
}

impl Mode {
    /// What a kernel reads: an input, or a LayerNorm's output; by turns inside a larger tensor.
    fn operand(self, g: &mut GraphBuilder, p: &mut Parameters, name: &str, size: [usize; 2], inside: bool) -> Tensor {
        let [rows, cols] = size;
        if !self.half {
            return view_of(g, name, rows, cols, inside, self.unit).0;
        }
        let x = g.input(name, rows, cols);
        let place = match inside {
            true => g.activation(name, rows + 2, cols + 2 * self.unit).slice(1, rows).columns(self.unit, cols),
            false => g.activation(name, rows, cols),
        };
        g.layer_norm(x, p.norm(cols, WeightFormat::F32), 1e-6, Some(place))
    }

    /// Lets somebody read what a kernel wrote, where that makes it f16.
    fn read(self, g: &mut GraphBuilder, p: &mut Parameters, name: &str, y: Tensor) {
        if self.half {
            let tensors = p.tensors(3, y.cols, WeightFormat::F32);
            let z = g.linear(y, &p.table.columns(&[tensors], 0..y.cols, 0, false), Fused::default());
            g.output(format!("{name}, read"), z);
        }
    }
}

/// All shapes of these `rows` and [`SIZES`], and all combinations of what follows the product; by turns in whole
/// tensors and inside larger ones, whose other elements must stay as they are, and with some columns of a weight; then
/// the layers of a transformer.
pub(crate) fn linear(p: &mut Parameters, format: WeightFormat, rows: &[usize], mode: Mode) -> Graph {
    let unit = mode.unit;
    use Activation::{GeluErf, GeluTanh, Identity, Relu, Sigmoid, Silu};
    let activations = [Identity, GeluTanh, GeluErf, Silu, Relu, Sigmoid];
    graph(|g| {
        // What follows the product is the same in f16 but for the last step: a part of the cases will do.
        for i in (0..120.max(25 * rows.len())).step_by(if mode.half { 7 } else { 1 }) {
            let (m, rest) = (rows[i % rows.len()], i / rows.len());
            let (n, k) = (SIZES[rest % 5], inputs(format, unit * SIZES[rest / 5 % 5]));
            let (bias, scaled, other, activation) = (i % 2 == 1, i / 2 % 2 == 1, i / 4 % 3, i / 20 % 6);
            let inside = i % 3 == 1;
            let columns = if i % 8 == 5 { inputs(format, 5)..inputs(format, 5) + k } else { 0..k };
            let left_out = if i % 8 == 2 { inputs(format, 5) } else { 0 };
            let tensors = p.tensors(n, columns.end + left_out, format);
            let layer = p.table.columns(&[tensors], columns, 0, bias);
            let x = mode.operand(g, p, &format!("x {i}"), [m, k], inside);
            let (into, whole) = match mode.half {
                true if inside => (g.activation("y", m + 2, n + 3).slice(1, m).columns(2, n), None),
                true => (g.activation("y", m, n), None),
                false => {
                    let (into, whole) = view(g, &format!("y {i}"), m, n, inside);
                    (into, Some(whole))
                }
            };
            let other_rows = if other == 1 { m } else { 1 };
            let fused = Fused {
                norm: (i % 5 == 2).then(|| (p.vector(k, WeightFormat::F32), 1e-6)),
                scale: (i % 7 == 3).then_some(-0.3),
                layer_scale: scaled.then(|| p.vector(n, WeightFormat::F32)),
                add: (other > 0).then(|| view(g, &format!("other {i}"), other_rows, n, inside).0),
                activation: activations[activation],
                into: Some(into),
                ..Fused::default()
            };
            let y = g.linear(x, &layer, fused);
            let name = format!("({m}, {k}) · ({n}, {k})ᵀ, {i}");
            mode.read(g, p, &name, y);
            // What lies around an activation is whatever lay there before.
            let whole = whole.or((!inside).then_some(y));
            whole.iter().for_each(|whole| g.output(name.clone(), *whole));
        }
        for (i, (m, (heads, kv_heads, head_dim))) in
            rows.iter().flat_map(|m| [(1, 1, 2), (6, 2, 12), (2, 1, 64)].map(|h| (*m, h))).enumerate()
        {
            fused_layers(g, p, format, m, (heads, kv_heads, head_dim), (i, mode));
        }
    })
}

/// Queries, keys and values at once, keys and values alone, and a gated layer.
fn fused_layers(
    g: &mut GraphBuilder,
    p: &mut Parameters,
    format: WeightFormat,
    m: usize,
    (heads, kv_heads, head_dim): (usize, usize, usize),
    (i, mode): (usize, Mode),
) {
    let k = inputs(format, [8, 40, 65_usize][i % 3].next_multiple_of(mode.unit));
    let (q, kv) = (heads * head_dim, kv_heads * head_dim);
    let name = format!("{m} rows, {heads}:{kv_heads} heads of {head_dim}, {i}");
    let x = mode.operand(g, p, &format!("x, {name}"), [m, k], i % 2 == 1);
    let parts = [q, kv, kv].map(|n| p.tensors(n, k, format));
    let layer = p.table.columns(&parts, 0..k, head_dim / 2, i.is_multiple_of(2));
    let tensor = |g: &mut GraphBuilder, name: String, rows: usize| match mode.half {
        true => g.activation(&name, rows, kv),
        false => g.input(&name, rows, kv),
    };
    let cache = tensor(g, format!("cache, {name}"), 2 * (m + 3));
    let table = g.input(&format!("table, {name}"), m + 5, head_dim);
    let keys_values = Some([cache.slice(2, m), cache.slice(m + 3 + 2, m)]);
    let norm = i.is_multiple_of(2).then(|| (p.vector(k, format_of_vectors(format)), 1e-6));
    let fused = Fused { norm, rope: Some(Rope { table, first: 5 }), keys_values, ..Fused::default() };
    let queries = g.linear(x, &layer, fused);
    g.output(format!("queries, {name}"), queries);
    if mode.half {
        let [k, v] = [cache.slice(2, m), cache.slice(m + 3 + 2, m)];
        g.attention(queries, k, v, Keys::range(0, m), head_dim, None);
        g.output(format!("keys, {name}"), k);
        g.output(format!("values, {name}"), v);
    } else {
        g.output(format!("cache, {name}"), cache);
    }
    let alone = tensor(g, format!("cache alone, {name}"), 2 * m);
    let keys_values = Some([alone.slice(0, m), alone.slice(m, m)]);
    g.linear(x, &layer.from_row(q), Fused { keys_values, ..fused });
    g.output(format!("cache alone, {name}"), alone);
    mode.read(g, p, &format!("cache alone, {name}"), alone);

    let mlp = [1, 33, 40][i % 3];
    let gate_up = [mlp, mlp].map(|n| p.tensors(n, k, format));
    let gate_up = p.table.columns(&gate_up, 0..k, mlp, i.is_multiple_of(3));
    let gated = Fused { norm, activation: Activation::GeluTanh, gated: true, ..Fused::default() };
    let y = g.linear(x, &gate_up, gated);
    g.output(format!("gated, {name}"), y);
    mode.read(g, p, &format!("gated, {name}"), y);
}

fn format_of_vectors(format: WeightFormat) -> WeightFormat {
    if format.is_float() { format } else { WeightFormat::F32 }
}

pub(crate) fn rms_norm(p: &mut Parameters, mode: Mode) -> Graph {
    graph(|g| {
        for (i, (rows, cols)) in [(1, 1), (3, 3), (17, 17), (1, 64), (3, 65), (17, 300)].into_iter().enumerate() {
            let format = [WeightFormat::F32, WeightFormat::Bf16][i % 2];
            let (x, _) = view(g, &format!("x {i}"), rows, cols, i % 2 == 1);
            let y = g.rms_norm(x, p.vector(cols, format), 1e-6);
            mode.read(g, p, &i.to_string(), y);
            g.output(format!("({rows}, {cols})"), y);
        }
    })
}

pub(crate) fn ada_rms_norm(p: &mut Parameters, mode: Mode) -> Graph {
    graph(|g| {
        for (i, (rows, cols)) in [(1, 1), (3, 3), (17, 17), (1, 64), (3, 65), (17, 300)].into_iter().enumerate() {
            let (x, _) = view(g, &format!("x {i}"), rows, cols, i % 2 == 1);
            let modulation = g.input(&format!("modulation {i}"), 3, 3 * cols).slice(i % 3, 1);
            let y = g.ada_rms_norm(x, modulation, 1e-6);
            mode.read(g, p, &i.to_string(), y);
            g.output(format!("({rows}, {cols})"), y);
        }
    })
}

pub(crate) fn gated_add() -> Graph {
    graph(|g| {
        for (i, (rows, cols)) in [(1, 1), (3, 65), (17, 64), (2, 300)].into_iter().enumerate() {
            let (f, _) = view(g, &format!("f {i}"), rows, cols, i % 2 == 0);
            let (x, whole) = view(g, &format!("x {i}"), rows, cols, i % 2 == 1);
            let modulation = g.input(&format!("modulation {i}"), 3, 3 * cols).slice(i % 3, 1);
            g.gated_add(x, f, modulation);
            g.output(format!("({rows}, {cols})"), whole);
        }
    })
}

pub(crate) fn layer_norm(p: &mut Parameters, mode: Mode) -> Graph {
    graph(|g| {
        for (i, (rows, cols)) in [(1, 3), (3, 17), (17, 64), (1, 65), (3, 300)].into_iter().enumerate() {
            let (x, _) = view(g, &format!("x {i}"), rows, cols, i % 2 == 1);
            let (into, whole) = view(g, &format!("y {i}"), rows, cols, i % 2 == 1);
            let into = (!mode.half).then_some(into);
            let y = g.layer_norm(x, p.norm(cols, WeightFormat::F16), 1e-6, into);
            g.output(format!("({rows}, {cols})"), if mode.half { y } else { whole });
            mode.read(g, p, &i.to_string(), y);
        }
    })
}

/// Heads of these widths: grouped queries, few rows and many, tiles of keys, soft cap, views, and rows whose keys are
/// blocks. Logits of thousands only where operands are in f32.
pub(crate) fn attention(p: &mut Parameters, widths: &[usize], mode: Mode) -> Graph {
    graph(|g| {
        let mut add = |name: &str, rows: usize, (heads, kv_heads), keys: Keys, dim: usize, inside: bool, cap| {
            let name = format!("{name}, {rows} rows, {heads}:{kv_heads} heads of {dim}");
            let blocks = (rows - 1) / keys.q_block;
            let tokens = keys.start + blocks * keys.k_block + keys.count + usize::from(inside);
            let q = mode.operand(g, p, &format!("{name} q"), [rows, heads * dim], inside);
            let k = mode.operand(g, p, &format!("{name} k"), [tokens, kv_heads * dim], inside);
            let v = mode.operand(g, p, &format!("{name} v"), [tokens, kv_heads * dim], inside);
            let out = g.attention(q, k, v, keys, dim, cap);
            mode.read(g, p, &name, out);
            g.output(name, out);
        };
        for (i, count) in [1, 63, 64, 65, 130].into_iter().enumerate() {
            for (j, dim) in widths.iter().enumerate() {
                for (l, heads) in [(1, 1), (6, 2), (8, 1)].into_iter().enumerate() {
                    let turn = i + j + l;
                    let keys = Keys::range(turn % 2, count);
                    let cap = (turn % 2 == 0).then_some(0.5);
                    add(&format!("{count} keys"), [1, 3, 33][turn % 3], heads, keys, *dim, turn % 4 < 2, cap);
                }
            }
        }
        for dim in widths {
            add("blocks", 51, (2, 2), Keys::blocks(17), *dim, false, None);
            let overlapping = Keys { start: 2, count: 5, q_block: 3, k_block: 4 };
            add("overlapping blocks", 7, (6, 2), overlapping, *dim, true, None);
            add("no keys", 3, (6, 2), Keys::range(1, 0), *dim, true, None);
            if mode.unit == 1 && !mode.half {
                add("large logits", 3, (1, 1), Keys::range(0, 130), *dim, false, None);
                add("large logits, capped", 3, (1, 1), Keys::range(0, 130), *dim, false, Some(50.0));
            }
        }
    })
}

pub(crate) fn scale() -> Graph {
    graph(|g| {
        for (i, (rows, cols)) in [(1, 1), (3, 65), (17, 64), (2, 300)].into_iter().enumerate() {
            let (x, _) = view(g, &format!("x {i}"), rows, cols, i % 2 == 1);
            let (into, whole) = view(g, &format!("y {i}"), rows, cols, i % 2 == 1);
            g.scale(x, 0.3, Some(into));
            g.output(format!("({rows}, {cols})"), whole);
        }
    })
}

pub(crate) fn guide() -> Graph {
    graph(|g| {
        for (i, (rows, cols)) in [(1, 1), (5, 13), (3, 100)].into_iter().enumerate() {
            let x = g.input(&format!("x {i}"), rows, cols);
            let y = g.input(&format!("y {i}"), rows, cols);
            let goal = g.input(&format!("goal {i}"), rows, cols);
            let gains = g.input(&format!("gains {i}"), 3, rows);
            g.guide(x, y, (goal, gains.slice(1, 1)), (-0.1, -0.7));
            g.output(format!("({rows}, {cols})"), y);
        }
    })
}
