//! Graphs that tests make, on the CPU twins and on the GPU.

#![allow(clippy::expect_used, reason = "for tests: a graph that does not run is a failed test")]

use std::collections::BTreeMap;

use fathom::engine::{Arena, Choice, Kernels, Program, Resident};
use fathom::gpu::{Gpu, GpuOptions, GpuTimes};
use fathom_models::checkpoint::{Checkpoint, WeightFormat, Weights, random};
use fathom_models::graph::params::{Linear, Norm, ParamId, ParamTable, Role, Tensors as Layer};
use fathom_models::graph::{Graph, Named, Tensor, TensorId};
use fathom_models::nets::reference::Reference;

use crate::tensors::Tensors;

/// An adapter, be it software.
pub fn open_gpu(checked: bool) -> Gpu {
    let options = GpuOptions { allow_software: true, timestamps: true, checked, ..GpuOptions::default() };
    Gpu::open(&options).expect("an adapter: tools/test sets one up")
}

/// Parameters with seeded values.
#[derive(Debug, Default)]
pub struct Parameters {
    /// What the graph refers to.
    pub table: ParamTable,
    tensors: Tensors,
}

impl Parameters {
    /// `(n, k)` and its bias `(n,)`, of N(0, 1/k) and N(0, 1).
    pub fn linear(&mut self, n: usize, k: usize, format: WeightFormat) -> Linear {
        let tensors = self.tensors(n, k, format);
        self.table.stack(&[tensors], 0)
    }

    /// As [`linear`](Self::linear), to be stacked.
    pub fn tensors(&mut self, n: usize, k: usize, format: WeightFormat) -> Layer {
        self.shaped(n, k, Role::Matrix, format)
    }

    /// As [`linear`](Self::linear), of a convolution.
    pub fn convolution(&mut self, n: usize, k: usize, format: WeightFormat) -> Layer {
        self.shaped(n, k, Role::Kernel, format)
    }

    fn shaped(&mut self, n: usize, k: usize, role: Role, format: WeightFormat) -> Layer {
        let w = self.add(&[n, k], role, format, 1.0 / (k as f32).sqrt());
        Layer { w, bias: Some(self.vector(n, if format.is_float() { format } else { WeightFormat::F32 })), n, k }
    }

    /// `(c,)` of N(0, 1).
    pub fn vector(&mut self, c: usize, format: WeightFormat) -> ParamId {
        self.add(&[c], Role::Vector, format, 1.0)
    }

    /// `(c,)` with these values, in f32.
    pub fn vector_of(&mut self, values: &[f32]) -> ParamId {
        self.put(&[values.len()], Role::Vector, WeightFormat::F32, values)
    }

    /// Weight and bias `(c,)`.
    pub fn norm(&mut self, c: usize, format: WeightFormat) -> Norm {
        Norm { weight: self.vector(c, format), bias: self.vector(c, format) }
    }

    /// `(n, k)` and its bias `(n,)` with these values, in f32.
    pub fn linear_of(&mut self, w: &[f32], bias: &[f32]) -> Linear {
        let tensors = self.tensors_of(w, bias);
        self.table.stack(&[tensors], 0)
    }

    /// As [`linear_of`](Self::linear_of), to be stacked.
    pub fn tensors_of(&mut self, w: &[f32], bias: &[f32]) -> Layer {
        let (n, k) = (bias.len(), w.len() / bias.len());
        let bias = Some(self.put(&[n], Role::Vector, WeightFormat::F32, bias));
        Layer { w: self.put(&[n, k], Role::Matrix, WeightFormat::F32, w), bias, n, k }
    }

    fn add(&mut self, shape: &[usize], role: Role, format: WeightFormat, scale: f32) -> ParamId {
        let values = random::normal(self.table.params.len() as u64, shape.iter().product());
        let values: Vec<f32> = values.into_iter().map(|v| scale * v).collect();
        self.put(shape, role, format, &values)
    }

    fn put(&mut self, shape: &[usize], role: Role, format: WeightFormat, values: &[f32]) -> ParamId {
        let name = self.table.params.len().to_string();
        self.tensors.put(&name, format, shape, values);
        self.table.declare(name, shape, role)
    }

    /// The parameters as a checkpoint.
    pub fn weights(&self) -> Weights {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("weights.safetensors");
        self.tensors.write(&path);
        let checkpoint = Checkpoint::open(&path).expect("the file just written");
        let weights = Weights::resolve(checkpoint, &self.table, |p| vec![p.name.clone()], |_| false);
        weights.expect("exactly the table's").verify().expect("finite")
    }
}

/// Bytes of each input by its name.
pub type Inputs = BTreeMap<String, Vec<u8>>;

/// Seeded inputs: random bytes for `image.…`, else N(0, 1), and N(0, 100²) for names that begin with `large`.
pub fn random_inputs(graph: &Graph) -> Inputs {
    let bytes = |(seed, input): (usize, &Named)| {
        let values = random::normal(seed as u64, input.tensor.rows * input.tensor.cols);
        let scale = if input.name.starts_with("large") { 100.0 } else { 1.0 };
        match input.name.starts_with("image.") {
            true => values.iter().flat_map(|v| (v.to_bits().wrapping_mul(0x9e37_79b9)).to_le_bytes()).collect(),
            false => values.iter().flat_map(|v| (scale * v).to_le_bytes()).collect(),
        }
    };
    graph.inputs.iter().enumerate().map(|(i, input)| (input.name.clone(), bytes((i, input)))).collect()
}

/// Makes every tensor called `name` an output.
pub fn expose(graph: &mut Graph, name: &str) {
    for (i, info) in graph.tensors.iter().enumerate().filter(|(_, info)| info.name == name) {
        let tensor = Tensor { id: TensorId(i as u32), offset: 0, rows: 1, cols: info.words, stride: info.words };
        graph.outputs.push(Named { name: format!("{name} {i}"), tensor });
    }
}

/// Every output, from the CPU twins.
pub fn on_twins(graph: &Graph, weights: &Weights, inputs: &Inputs) -> BTreeMap<String, Vec<f32>> {
    on_twins_of(graph, weights, inputs, Kernels::Tiled)
}

/// Every output, from the twins of these kernels, with tensors in f16 where theirs are.
pub fn on_twins_of(
    graph: &Graph,
    weights: &Weights,
    inputs: &Inputs,
    choice: impl Into<Choice>,
) -> BTreeMap<String, Vec<f32>> {
    let choice = choice.into();
    let mut reference = Reference::with(graph, weights, choice.precision);
    reference.dot8 = choice.kernels == Kernels::Dot8;
    for input in &graph.inputs {
        reference.write(input.tensor.id, inputs.get(&input.name).expect("an input of that name"));
    }
    reference.run().expect("it runs on the twins");
    reference.outputs()
}

/// A GPU with weights on it.
#[derive(Debug)]
pub struct Rig {
    /// The GPU.
    pub gpu: Gpu,
    resident: Resident,
    arena: Arena,
}

impl Rig {
    /// Uploads the weights.
    pub fn new(gpu: Gpu, table: &ParamTable, weights: &Weights) -> Rig {
        let kernels = Kernels::of(gpu.info());
        Rig::with(gpu, table, weights, kernels)
    }

    /// Uploads the weights, for these kernels.
    pub fn with(mut gpu: Gpu, table: &ParamTable, weights: &Weights, choice: impl Into<Choice>) -> Rig {
        let resident = Resident::upload(&mut gpu, table, weights, choice).expect("the weights fit");
        Rig { gpu, resident, arena: Arena::default() }
    }

    /// Prepares `graph`.
    ///
    /// # Errors
    /// As [`Program::prepare`].
    pub fn prepare(&mut self, graph: &Graph) -> Result<Program, fathom::engine::EngineError> {
        Program::prepare(&mut self.gpu, &mut self.arena, &self.resident, graph)
    }

    /// Every output, and the time of each dispatch where the adapter has timestamps.
    pub fn run(&mut self, graph: &Graph, inputs: &Inputs) -> (BTreeMap<String, Vec<f32>>, GpuTimes) {
        let mut program = self.prepare(graph).expect("it is prepared");
        let input = |name: &str| inputs.get(name).expect("an input of that name").as_slice();
        let times = program.run(&mut self.gpu, input, true).expect("it runs on the GPU");
        let outputs = program.outputs().iter().map(|o| (o.name.clone(), o.values.clone())).collect();
        (outputs, times)
    }
}
