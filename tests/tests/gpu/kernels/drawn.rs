//! Every family of kernels agrees with the CPU twins at shapes that nobody chose.

use std::cell::RefCell;

use fathom::engine::{Choice, Kernels};
use fathom_models::checkpoint::WeightFormat;
use fathom_models::graph::Tensor;
use fathom_models::graph::builder::{Activation, Fused, GraphBuilder, Keys};
use fathom_models::graph::precision::{Float, Precision};
use fathom_tests::graphs::{Parameters, Rig, on_twins_of, open_gpu, random_inputs};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::{FLIPPED, HALF, error_of};

/// A linear layer and an attention.
#[derive(Clone, Debug)]
struct Shape {
    rows: usize,
    inputs: usize,
    outputs: usize,
    fused: [bool; 3],
    heads: (usize, usize),
    head_dim: usize,
    keys: usize,
    q_block: usize,
    /// What keys and values, and what other operands are stored in.
    precision: Precision,
}

const FORMATS: [WeightFormat; 6] = [
    WeightFormat::F32,
    WeightFormat::F16,
    WeightFormat::Bf16,
    WeightFormat::W8,
    WeightFormat::W4 { group: 32, minima: false },
    WeightFormat::W4 { group: 32, minima: true },
];

/// Sizes of tiles, their neighbours, one row, 17 rows, heads of 72, rows without keys, and whatever lies between.
fn shape() -> impl Strategy<Value = Shape> {
    let size = || prop_oneof![Just(1_usize), Just(17), 30..35_usize, 60..70_usize, 1..150_usize];
    let head_dim = prop_oneof![Just(72_usize), Just(64), Just(256), 1..256_usize, (1..64_usize).prop_map(|d| 4 * d)];
    let keys = prop_oneof![Just(0_usize), Just(64), 1..140_usize];
    let float = || prop_oneof![Just(Float::F32), Just(Float::F16)];
    let attention = ((1..9_usize, 1..3_usize), head_dim, keys, 1..70_usize, float(), float());
    (size(), size(), 1..300_usize, any::<[bool; 3]>(), attention).prop_map(
        |(rows, inputs, outputs, fused, ((group, kv_heads), head_dim, keys, q_block, kv, activations))| Shape {
            rows,
            // Most are whole vectors of four, as the model's own are.
            inputs: if outputs % 4 == 0 { inputs } else { 4 * inputs },
            outputs,
            fused,
            heads: (group * kv_heads, kv_heads),
            head_dim,
            keys,
            q_block,
            precision: Precision { kv, activations },
        },
    )
}

fn write(g: &mut GraphBuilder, p: &mut Parameters, s: &Shape) {
    g.stage("kernel");
    for (i, format) in FORMATS.into_iter().enumerate() {
        let grouped = matches!(format, WeightFormat::W4 { .. });
        let k = if grouped { s.inputs.next_multiple_of(32) } else { s.inputs };
        let x = operand(g, p, &format!("x {i}"), s.rows, k, s);
        let [bias, norm, add] = s.fused;
        let tensors = p.tensors(s.outputs, k, format);
        let layer = p.table.columns(&[tensors], 0..k, 0, bias);
        let fused = Fused {
            norm: norm.then(|| (p.vector(k, WeightFormat::F32), 1e-6)),
            add: add.then(|| g.input(&format!("other {i}"), s.rows, s.outputs)),
            activation: Activation::GeluTanh,
            ..Fused::default()
        };
        let y = g.linear(x, &layer, fused);
        g.output(format!("{format}"), y);
        read(g, p, y);
    }
    let (heads, kv_heads) = s.heads;
    let blocks = (s.rows - 1) / s.q_block;
    let q = operand(g, p, "q", s.rows, heads * s.head_dim, s);
    let (tokens, columns) = ((s.keys + blocks).max(1), kv_heads * s.head_dim);
    let [k, v] = match s.precision.kv {
        Float::F32 => ["k", "v"].map(|name| g.input(name, tokens, columns)),
        Float::F16 => {
            let cache = g.activation("cache", 2 * tokens, columns);
            let planes = [cache.slice(0, tokens), cache.slice(tokens, tokens)];
            let x = g.input("tokens", tokens, 8);
            let parts = [columns, columns].map(|n| p.tensors(n, 8, WeightFormat::F32));
            let layer = p.table.columns(&parts, 0..8, 0, true);
            g.linear(x, &layer, Fused { keys_values: Some(planes), ..Fused::default() });
            planes
        }
    };
    let keys = Keys { start: 0, count: s.keys, q_block: s.q_block, k_block: 1 };
    let out = g.attention(q, k, v, keys, s.head_dim, None);
    g.output("attention", out);
    read(g, p, out);
}

/// What a kernel reads: an input, or where it is to be in f16 what a norm makes of it.
fn operand(g: &mut GraphBuilder, p: &mut Parameters, name: &str, rows: usize, cols: usize, s: &Shape) -> Tensor {
    let x = g.input(name, rows, cols);
    match s.precision.activations {
        Float::F32 => x,
        Float::F16 => g.layer_norm(x, p.norm(cols, WeightFormat::F32), 1e-6, None),
    }
}

/// Reads what a kernel wrote, which may be in f16 then.
fn read(g: &mut GraphBuilder, p: &mut Parameters, y: Tensor) {
    g.linear(y, &p.linear(1, y.cols, WeightFormat::F32), Fused::default());
}

#[test]
fn every_family_agrees_at_shapes_drawn_at_random() {
    let gpus: Vec<_> = Kernels::ALL.map(|kernels| (kernels, RefCell::new(Some(open_gpu(false))))).into();
    let config = Config { cases: 4, failure_persistence: None, max_shrink_iters: 8, ..Config::default() };
    let outcome = TestRunner::new(config).run(&shape(), |shape| {
        let (mut g, mut parameters) = (GraphBuilder::default(), Parameters::default());
        write(&mut g, &mut parameters, &shape);
        let graph = g.finish().map_err(|e| TestCaseError::fail(format!("{shape:?}: {e}")))?;
        let (weights, inputs) = (parameters.weights(), random_inputs(&graph));
        for (kernels, gpu) in &gpus {
            let choice = Choice { kernels: *kernels, precision: shape.precision };
            let expected = on_twins_of(&graph, &weights, &inputs, choice);
            let opened = gpu.take().unwrap_or_else(|| open_gpu(false));
            let mut rig = Rig::with(opened, &parameters.table, &weights, choice);
            let (found, _) = rig.run(&graph, &inputs);
            gpu.replace(Some(rig.gpu));
            for (output, expected) in &expected {
                let rounded = matches!(kernels, Kernels::Coop16 | Kernels::Coop8 | Kernels::Dot8);
                let tolerance = match shape.precision.has_f16() {
                    _ if rounded => HALF,
                    true => FLIPPED,
                    false => 1e-5,
                };
                let error = error_of(expected, &found[output], tolerance);
                prop_assert!(
                    error <= tolerance,
                    "{kernels}, {output}, {:?}: error {error:.2e}, at most {tolerance:.0e}",
                    shape.precision
                );
            }
        }
        Ok(())
    });
    outcome.expect("kernels and twins agree");
}
