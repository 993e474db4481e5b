//! The kernels at the full-size model's shapes, one by one.

use std::collections::BTreeMap;

use clap::Args;
use fathom::clock::monotonic_ns;
use fathom::engine::{Arena, Kernels, Program, Resident};
use fathom::gpu::{Gpu, GpuOptions};
use fathom::{bounds, within};
use fathom_models::checkpoint::save::{Saved, Values, write_tensors};
use fathom_models::checkpoint::{Checkpoint, WeightFormat, Weights, random, scales_of};
use fathom_models::graph::Graph;
use fathom_models::graph::builder::{Activation, Fused, GraphBuilder, Keys, Rope};
use fathom_models::graph::params::{Linear, Param, ParamTable, Role};
use fathom_models::outln;
use fathom_models::quantize::encode;

use crate::Failure;

/// Options of the measurement.
#[derive(Args, Clone, Debug)]
pub(crate) struct Options {
    /// Measured runs of each shape.
    #[arg(long, default_value_t = 5, value_parser = within!(bounds::REPEATS))]
    pub(crate) count: u32,
    /// Print one JSON line for each shape. Default: a table.
    #[arg(long)]
    pub(crate) json: bool,
    /// Only shapes whose name contains this text.
    #[arg(long)]
    pub(crate) only: Option<String>,
    /// Kernel family: tiled (for GPUs) or lanes (for software drivers). Default: chosen by the adapter.
    #[arg(long)]
    pub(crate) kernels: Option<Kernels>,
    /// Allow a software driver.
    #[arg(long)]
    pub(crate) software: bool,
    /// Part of the adapter's name. Default: any hardware adapter.
    #[arg(long)]
    pub(crate) adapter: Option<String>,
}

const W4: WeightFormat = WeightFormat::W4 { group: 64, minima: false };

/// A measured shape: its name, weights' format, rows, inputs, outputs.
const LINEAR: [(&str, WeightFormat, usize, usize, usize); 8] = [
    ("GEMM 276×2048×16384 f32", WeightFormat::F32, 276, 2048, 16384),
    ("GEMM 276×2048×16384 bf16", WeightFormat::Bf16, 276, 2048, 16384),
    ("GEMM 276×2048×16384 w8", WeightFormat::W8, 276, 2048, 16384),
    ("GEMM 276×2048×16384 w4", W4, 276, 2048, 16384),
    ("skinny 17×1024×4096 f32", WeightFormat::F32, 17, 1024, 4096),
    ("skinny 17×1024×4096 bf16", WeightFormat::Bf16, 17, 1024, 4096),
    ("skinny 17×1024×4096 w8", WeightFormat::W8, 17, 1024, 4096),
    ("skinny 17×1024×4096 w4", W4, 17, 1024, 4096),
];

/// Queries, keys, heads, head width.
const ATTENTION: [(&str, usize, usize, usize, usize); 2] =
    [("attention 276 × 549 keys", 276, 549, 8, 256), ("attention 17 × 549 keys", 17, 549, 8, 256)];

/// One whole layer of the VLM.
const LAYER: [(&str, WeightFormat); 2] = [("layer 276 f32", WeightFormat::F32), ("layer 276 w4", W4)];

pub(crate) fn run(o: &Options) -> Result<(), Failure> {
    let gpu_options = GpuOptions { adapter: o.adapter.clone(), allow_software: o.software, ..GpuOptions::default() };
    let mut gpu = Gpu::open(&gpu_options)?;
    let kernels = o.kernels.unwrap_or_else(|| Kernels::of(gpu.info()));
    let wanted = |name: &str| o.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    if !o.json {
        outln!("adapter: {} ({}), {kernels} kernels", gpu.info().name, gpu.info().kind);
        outln!("{:28} {:>10} {:>10} {:>10} {:>14}", "shape", "median ms", "GFLOP/s", "GB/s", "GFLOP/CPU-s");
    }
    for (name, format, m, k, n) in LINEAR.into_iter().filter(|l| wanted(l.0)) {
        let mut table = ParamTable::default();
        let layer = table.linear("w", n, k, false);
        let weights = random_weights(&table, format)?;
        let graph = linear(&layer, m, k)?;
        let bytes = n * (format.row_bytes(k) + format.scale_bytes(k)) + 4 * m * (k + n);
        report(name, &mut gpu, o, kernels, (&table, &weights, &graph), (2 * m * k * n, bytes))?;
    }
    let mut table = ParamTable::default();
    table.vector("unused", 64);
    let weights = random_weights(&table, WeightFormat::F32)?;
    for (name, rows, keys, heads, dim) in ATTENTION.into_iter().filter(|l| wanted(l.0)) {
        let mut g = GraphBuilder::default();
        g.stage("attention");
        let q = g.input("q", rows, heads * dim);
        let kv = g.input("kv", 2 * keys, dim);
        let out = g.attention(q, kv.slice(0, keys), kv.slice(keys, keys), Keys::range(0, keys), dim, None);
        g.output("out", out);
        let graph = g.finish()?;
        let bytes = 4 * (2 * rows * heads * dim + 2 * keys * dim);
        report(name, &mut gpu, o, kernels, (&table, &weights, &graph), (4 * rows * keys * heads * dim, bytes))?;
    }
    for (name, format) in LAYER.into_iter().filter(|l| wanted(l.0)) {
        let mut table = ParamTable::default();
        let (graph, flops, bytes) = gemma_layer(&mut table, format)?;
        let weights = random_weights(&table, format)?;
        report(name, &mut gpu, o, kernels, (&table, &weights, &graph), (flops, bytes))?;
    }
    Ok(())
}

/// A layer of Gemma-2B on 276 tokens with full attention: norms, queries, keys and values with RoPE, attention, gated
/// MLP.
fn gemma_layer(t: &mut ParamTable, format: WeightFormat) -> Result<(Graph, usize, usize), Failure> {
    let (tokens, width, mlp, heads, dim) = (276, 2048, 16384, 8, 256);
    let norms = ["input_norm", "post_norm"].map(|name| t.vector(name, width));
    let parts = [("q", heads * dim), ("k", dim), ("v", dim)].map(|(name, n)| t.tensors(name, n, width, false));
    let qkv = t.stack(&parts, dim / 2);
    let o = t.linear("o", width, heads * dim, false);
    let gate_up = ["gate", "up"].map(|name| t.tensors(name, mlp, width, false));
    let gate_up = t.stack(&gate_up, mlp);
    let down = t.linear("down", width, mlp, false);
    let bytes = [qkv, o, gate_up, down].iter().map(|l| l.n * (format.row_bytes(l.k) + format.scale_bytes(l.k))).sum();

    let mut g = GraphBuilder::default();
    g.stage("layer");
    let x = g.input("x", tokens, width);
    let table = g.input("rope", tokens, dim);
    let cache = g.activation("cache", 2 * tokens, dim);
    let (k, v) = (cache.slice(0, tokens), cache.slice(tokens, tokens));
    let norm = |i: usize| norms.get(i).map(|weight| (*weight, 1e-6));
    let rope = Some(Rope { table, first: 0 });
    let q = g.linear(x, &qkv, Fused { norm: norm(0), rope, keys_values: Some([k, v]), ..Fused::default() });
    let a = g.attention(q, k, v, Keys::range(0, tokens), dim, None);
    let x = g.linear(a, &o, Fused { add: Some(x), ..Fused::default() });
    let activation = Activation::GeluTanh;
    let h = g.linear(x, &gate_up, Fused { norm: norm(1), activation, gated: true, ..Fused::default() });
    let y = g.linear(h, &down, Fused { add: Some(x), ..Fused::default() });
    g.output("y", y);
    let weights: usize = [qkv, o, gate_up, down].iter().map(|l| l.n * l.k).sum();
    Ok((g.finish()?, 2 * tokens * weights + 4 * tokens * tokens * heads * dim, bytes))
}

fn linear(layer: &Linear, m: usize, k: usize) -> Result<Graph, Failure> {
    let mut g = GraphBuilder::default();
    g.stage("linear");
    let x = g.input("x", m, k);
    let y = g.linear(x, layer, Fused { activation: Activation::Identity, ..Fused::default() });
    g.output("y", y);
    Ok(g.finish()?)
}

/// One row's values repeated, in `format` for matrices: the numbers do not affect the time.
fn random_weights(table: &ParamTable, format: WeightFormat) -> Result<Weights, Failure> {
    struct Stored {
        names: [String; 2],
        shapes: [Vec<usize>; 2],
        formats: [WeightFormat; 2],
        bytes: [Vec<u8>; 2],
    }
    let stored = |(i, p): (usize, &Param)| {
        let matrix = p.role == Role::Matrix;
        let format = if matrix { format } else { WeightFormat::F32 };
        let elements: usize = p.shape.iter().product();
        let rows = if matrix { p.shape.first().copied().unwrap_or(1) } else { 1 };
        let columns = elements / rows.max(1);
        let (own, scale) = encode(format, &random::normal(i as u64, columns), &[]);
        let shapes = match format {
            WeightFormat::W4 { group, .. } => [vec![rows, columns / 2], vec![rows, columns / group as usize]],
            _ => [p.shape.clone(), vec![rows]],
        };
        let of_scales = if format == WeightFormat::W8 { WeightFormat::F32 } else { WeightFormat::F16 };
        let (names, formats) = ([p.name.clone(), scales_of(&p.name)], [format, of_scales]);
        Stored { names, shapes, formats, bytes: [own.repeat(rows), scale.repeat(rows)] }
    };
    let stored: Vec<Stored> = table.params.iter().enumerate().map(stored).collect();
    let saved: Vec<Saved<'_>> = stored
        .iter()
        .flat_map(|s| {
            let parts = s.names.iter().zip(&s.shapes).zip(s.formats.iter().zip(&s.bytes));
            parts.filter(|(_, (_, bytes))| !bytes.is_empty()).map(|((name, shape), (format, bytes))| Saved {
                name,
                shape,
                values: Values::Given(*format, bytes.into()),
            })
        })
        .collect();
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("weights.safetensors");
    write_tensors(&path, &saved)?;
    Ok(Weights::resolve(Checkpoint::open(&path)?, table, |p| vec![p.name.clone()], |_| false)?)
}

fn report(
    name: &str,
    gpu: &mut Gpu,
    o: &Options,
    kernels: Kernels,
    (table, weights, graph): (&ParamTable, &Weights, &Graph),
    (flops, bytes): (usize, usize),
) -> Result<(), Failure> {
    let resident = Resident::upload(gpu, table, weights, kernels)?;
    let mut arena = Arena::default();
    let mut program = Program::prepare(gpu, &mut arena, &resident, graph)?;
    let inputs: BTreeMap<String, Vec<u8>> = graph
        .inputs
        .iter()
        .enumerate()
        .map(|(i, n)| {
            let values = random::normal(i as u64, n.tensor.rows * n.tensor.cols);
            (n.name.clone(), values.iter().flat_map(|v| v.to_le_bytes()).collect())
        })
        .collect();
    let mut times = Vec::new();
    let mut cpu = 0.0;
    for i in 0..o.count + 2 {
        if i == 2 {
            cpu = cpu_seconds();
        }
        let began = monotonic_ns();
        program.run(gpu, |name| inputs.get(name).map_or(&[], Vec::as_slice), false)?;
        if i >= 2 {
            times.push(monotonic_ns() - began);
        }
    }
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or(1).max(1) as f64;
    if o.json {
        let cpu_ms = (cpu_seconds() - cpu) * 1e3 / f64::from(o.count);
        let line = serde_json::json!({"peer": "fathom", "shape": name, "ms": median / 1e6, "cpu_ms": cpu_ms});
        outln!("{line}");
        return Ok(());
    }
    let per_cpu = flops as f64 * f64::from(o.count) / 1e9 / (cpu_seconds() - cpu).max(1e-9);
    let (speed, rate) = (flops as f64 / median, bytes as f64 / median);
    outln!("{name:28} {:10.3} {speed:10.1} {rate:10.2} {per_cpu:14.1}", median / 1e6);
    Ok(())
}

/// Processor time of this process, in units of 10 ms: the measure of a software driver's work on a busy machine.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in brackets, may contain spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
