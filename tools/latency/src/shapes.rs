//! The kernels at the full-size model's shapes, each by itself.

use std::collections::BTreeMap;

use fathom::clock::monotonic_ns;
use fathom::engine::{Arena, Kernels, Program, Resident};
use fathom::gpu::{Gpu, GpuOptions};
use fathom_models::builder::{Activation, Fused, GraphBuilder, Keys};
use fathom_models::graph::Graph;
use fathom_models::params::{Linear, ParamTable};
use fathom_models::quantize::encode;
use fathom_models::random;
use fathom_models::save::{Saved, Values, write_tensors};
use fathom_models::weights::{Checkpoint, WeightFormat, Weights, scales_of};

use crate::Failure;

pub(crate) struct Options {
    pub(crate) count: u32,
    pub(crate) kernels: Option<Kernels>,
    pub(crate) only: Option<String>,
    pub(crate) software: bool,
    pub(crate) adapter: Option<String>,
}

const W4: WeightFormat = WeightFormat::W4 { group: 64, minima: false };

/// A measured shape: its name, weights' format, rows, inputs, outputs.
const LINEAR: [(&str, WeightFormat, usize, usize, usize); 7] = [
    ("GEMM 276×2048×16384 f32", WeightFormat::F32, 276, 2048, 16384),
    ("GEMM 276×2048×16384 bf16", WeightFormat::Bf16, 276, 2048, 16384),
    ("GEMM 276×2048×16384 w8", WeightFormat::W8, 276, 2048, 16384),
    ("GEMM 276×2048×16384 w4", W4, 276, 2048, 16384),
    ("skinny 17×1024×4096 bf16", WeightFormat::Bf16, 17, 1024, 4096),
    ("skinny 17×1024×4096 w8", WeightFormat::W8, 17, 1024, 4096),
    ("skinny 17×1024×4096 w4", W4, 17, 1024, 4096),
];

/// Queries, keys, heads, head width.
const ATTENTION: [(&str, usize, usize, usize, usize); 2] =
    [("attention 276 × 549 keys", 276, 549, 8, 256), ("attention 17 × 549 keys", 17, 549, 8, 256)];

pub(crate) fn run(o: &Options) -> Result<(), Failure> {
    let gpu_options = GpuOptions { adapter: o.adapter.clone(), allow_software: o.software, ..GpuOptions::default() };
    let mut gpu = Gpu::open(&gpu_options)?;
    let kernels = o.kernels.unwrap_or_else(|| Kernels::of(gpu.info()));
    println!("adapter: {} ({}), {kernels:?} kernels", gpu.info().name, gpu.info().kind);
    let wanted = |name: &str| o.only.as_ref().is_none_or(|only| name.contains(only.as_str()));
    println!("{:28} {:>10} {:>10} {:>10} {:>14}", "shape", "median ms", "GFLOP/s", "GB/s", "GFLOP/CPU-s");
    for (name, format, m, k, n) in LINEAR.into_iter().filter(|l| wanted(l.0)) {
        let mut table = ParamTable::default();
        let layer = table.linear("w", n, k, false);
        let weights = random_weights(&table, format)?;
        let graph = linear(&layer, m, k)?;
        let bytes = n * (format.row_bytes(k) + format.scale_bytes(k)) + 4 * m * (k + n);
        report(name, &mut gpu, o.count, kernels, (&table, &weights, &graph), (2 * m * k * n, bytes))?;
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
        report(name, &mut gpu, o.count, kernels, (&table, &weights, &graph), (4 * rows * keys * heads * dim, bytes))?;
    }
    Ok(())
}

fn linear(layer: &Linear, m: usize, k: usize) -> Result<Graph, Failure> {
    let mut g = GraphBuilder::default();
    g.stage("linear");
    let x = g.input("x", m, k);
    let y = g.linear(x, layer, Fused { activation: Activation::Identity, ..Fused::default() });
    g.output("y", y);
    Ok(g.finish()?)
}

/// Seeded values, in `format` where they are a matrix.
fn random_weights(table: &ParamTable, format: WeightFormat) -> Result<Weights, Failure> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("weights.safetensors");
    let mut saved = Vec::new();
    let names: Vec<String> = table.params.iter().map(|p| scales_of(&p.name)).collect();
    let mut shapes = Vec::new();
    for (i, p) in table.params.iter().enumerate() {
        let columns: usize = p.shape.iter().skip(1).product();
        let rows = p.shape.first().copied().unwrap_or(0);
        // One row's values again and again: their numbers change no time.
        let (own, scale) = encode(format, &random::normal(i as u64, columns), &[]);
        let groups = match format {
            WeightFormat::W4 { group, .. } => vec![rows, columns / group as usize],
            _ => vec![rows],
        };
        let stored = match format {
            WeightFormat::W4 { .. } => vec![rows, columns / 2],
            _ => p.shape.clone(),
        };
        shapes.push((stored, groups, own.repeat(rows), scale.repeat(rows)));
    }
    for ((p, name), (stored, groups, own, scale)) in table.params.iter().zip(&names).zip(&shapes) {
        saved.push(Saved { name: &p.name, shape: stored, values: Values::Given(format, own.into()) });
        let of_scales = if format == WeightFormat::W8 { WeightFormat::F32 } else { WeightFormat::F16 };
        if !format.is_float() {
            saved.push(Saved { name, shape: groups, values: Values::Given(of_scales, scale.into()) });
        }
    }
    write_tensors(&path, &saved)?;
    Ok(Weights::resolve(Checkpoint::open(&path)?, table, |p| vec![p.name.clone()], |_| false)?)
}

fn report(
    name: &str,
    gpu: &mut Gpu,
    count: u32,
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
    for i in 0..count + 2 {
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
    let per_cpu = flops as f64 * f64::from(count) / 1e9 / (cpu_seconds() - cpu).max(1e-9);
    let (speed, rate) = (flops as f64 / median, bytes as f64 / median);
    println!("{name:28} {:10.3} {speed:10.1} {rate:10.2} {per_cpu:14.1}", median / 1e6);
    Ok(())
}

/// Processor time of this process, in steps of 10 ms: what a software driver's work is measured in on a busy machine.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The name, in brackets, may hold spaces.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|f| f.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}
