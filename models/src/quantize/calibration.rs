//! Second moments of the inputs of a model's layers: how much each input of a weight matters when it is quantised, and which
//! of its neighbours can compensate an error.

use std::collections::BTreeMap;

use fathom_shaders::params::epilogue;

use crate::checkpoint::Weights;
use crate::error::ModelError;
use crate::graph::params::{ParamId, Stack, StackId};
use crate::graph::{Graph, Named, Op, Tensor};

/// Neighbours in a block: a multiple of every group.
pub const BLOCK: usize = 128;
/// Share of the mean square that is added to every input's: no input counts nothing, and every block has an inverse.
const DAMPING: f64 = 0.01;

/// Sums of products of a layer's inputs, of blocks of [`BLOCK`] neighbours.
#[derive(Clone, Debug)]
pub struct Moments {
    k: usize,
    /// `(k, BLOCK)`: of input i with those of its own block.
    sums: Vec<f32>,
}

impl Moments {
    /// Of a layer with `k` inputs, before it was given any.
    pub fn new(k: usize) -> Moments {
        Moments { k, sums: vec![0.0; k * BLOCK] }
    }

    /// One row of inputs.
    pub fn add(&mut self, x: &[f32]) {
        for (block, sums) in x.chunks(BLOCK).zip(self.sums.chunks_mut(BLOCK * BLOCK)) {
            for (a, row) in block.iter().zip(sums.chunks_mut(BLOCK)) {
                row.iter_mut().zip(block).for_each(|(sum, b)| *sum += a * b);
            }
        }
    }

    /// Of each input, how much its errors matter, and how they go over to those after it.
    pub fn layer(&self) -> Layer {
        let diagonal = (0..self.k).map(|i| f64::from(self.sums.get(i * BLOCK + i % BLOCK).copied().unwrap_or(0.0)));
        let mean = diagonal.clone().sum::<f64>() / self.k.max(1) as f64;
        let damping = (DAMPING * mean).max(f64::MIN_POSITIVE);
        let importance = diagonal.map(|d| ((d + damping) / mean.max(f64::MIN_POSITIVE)) as f32).collect();
        let mut feedback = vec![0.0; self.sums.len()];
        for (b, (sums, out)) in self.sums.chunks(BLOCK * BLOCK).zip(feedback.chunks_mut(BLOCK * BLOCK)).enumerate() {
            let n = (self.k - b * BLOCK).min(BLOCK);
            if let Some(factors) = factors(sums, n, damping) {
                out.iter_mut().zip(factors).for_each(|(out, f)| *out = f as f32);
            }
        }
        Layer { importance, feedback }
    }
}

/// How a weight's inputs bear on its quantisation.
#[derive(Clone, Debug)]
pub struct Layer {
    /// `(k,)`, 1 in the mean.
    pub importance: Vec<f32>,
    /// `(k, BLOCK)`: what an error at input i takes from those after it in its block.
    pub feedback: Vec<f32>,
}

/// `U[i][j] / U[i][i]` of the upper `U` with `Uᵀ U = (H + damping)⁻¹`, in rows of [`BLOCK`]; `H` is `n × n`. With the order of
/// rows and columns turned around, `U` is the inverse of the Cholesky factor.
fn factors(h: &[f32], n: usize, damping: f64) -> Option<Vec<f64>> {
    let turned =
        |i: usize, j: usize| f64::from(h[(n - 1 - i) * BLOCK + n - 1 - j]) + if i == j { damping } else { 0.0 };
    let mut l = vec![0.0; n * n];
    for i in 0..n {
        for j in 0..=i {
            let dot: f64 = (0..j).map(|m| l[i * n + m] * l[j * n + m]).sum();
            let rest = turned(i, j) - dot;
            l[i * n + j] = if i == j { rest.sqrt() } else { rest / l[j * n + j] };
        }
        // Also if it is NaN.
        if !(l[i * n + i] > 0.0 && l[i * n + i].is_finite()) {
            return None;
        }
    }
    let mut inverse = vec![0.0; n * n];
    for j in 0..n {
        inverse[j * n + j] = 1.0 / l[j * n + j];
        for i in j + 1..n {
            let dot: f64 = (j..i).map(|m| l[i * n + m] * inverse[m * n + j]).sum();
            inverse[i * n + j] = -dot / l[i * n + i];
        }
    }
    let mut out = vec![0.0; BLOCK * BLOCK];
    for i in 0..n {
        let at = |j: usize| inverse[(n - 1 - i) * n + n - 1 - j];
        for j in i + 1..n {
            out[i * BLOCK + j] = at(j) / at(i);
        }
    }
    Some(out)
}

/// An output that holds a layer's inputs.
#[derive(Clone, Debug)]
struct Tap {
    stack: StackId,
    output: String,
    /// Weight and epsilon of the norm that the layer has before its product.
    norm: Option<(ParamId, f32)>,
}

/// The inputs of layers over some inferences.
#[derive(Clone, Debug, Default)]
pub struct Calibration {
    moments: BTreeMap<ParamId, Moments>,
    taps: Vec<Tap>,
}

impl Calibration {
    /// Makes the inputs of every layer whose weights are among `params` outputs of `graph`.
    pub fn expose(&mut self, graph: &mut Graph, weights: &Weights, params: &dyn Fn(ParamId) -> bool) {
        let stacks = weights.table().stacks;
        self.taps.clear();
        let mut outputs = Vec::new();
        for (i, (_, op)) in graph.ops.iter().enumerate() {
            let Op::Linear { params: p, x, w, norm, .. } = op else { continue };
            // A layer that reads some columns of a weight, or a folded one, gives no statistics of its other inputs.
            let whole = |s: &&Stack| {
                let columns = s.parts.first().map(|id| weights.rows_and_columns(*id).1);
                s.reader.is_none() && columns == Some(s.columns.len())
            };
            let Some(stack) = stacks.get(w.0 as usize).filter(whole) else { continue };
            if !stack.parts.iter().any(|id| params(*id)) {
                continue;
            }
            let [rows, cols, offset, stride] = [p.m, p.k, p.x_offset, p.x_stride].map(|v| v as usize);
            let output = format!("layer.{i}.input");
            let tensor = Tensor { id: *x, offset, rows, cols, stride };
            let norm = norm.filter(|_| p.flags & epilogue::NORM != 0).map(|id| (id, p.eps));
            self.taps.push(Tap { stack: *w, output: output.clone(), norm });
            outputs.push(Named { name: output, tensor });
        }
        graph.outputs.extend(outputs);
    }

    /// Adds the outputs of an inference of the graph of the last [`expose`](Self::expose): `output` has the values of an
    /// output, row by row.
    ///
    /// # Errors
    /// A norm's weight that is not there.
    pub fn add<'a>(&mut self, weights: &Weights, output: impl Fn(&str) -> &'a [f32]) -> Result<(), ModelError> {
        let stacks = weights.table().stacks;
        for tap in &self.taps {
            let Some(stack) = stacks.get(tap.stack.0 as usize) else { continue };
            let k = stack.columns.len();
            let values = output(&tap.output);
            let norm = tap.norm.map(|(id, eps)| Ok::<_, ModelError>((weights.host(id)?, eps))).transpose()?;
            // The parts of a stack have the same inputs.
            let Some(first) = stack.parts.first() else { continue };
            let moments = self.moments.entry(*first).or_insert_with(|| Moments::new(k));
            for row in values.chunks_exact(k.max(1)) {
                match &norm {
                    Some((weight, eps)) => {
                        let scale = 1.0 / (row.iter().map(|v| v * v).sum::<f32>() / k as f32 + eps).sqrt();
                        let normed = row.iter().zip(weight.iter()).map(|(v, w)| scale * v * (1.0 + w));
                        moments.add(&normed.collect::<Vec<_>>());
                    }
                    None => moments.add(row),
                }
            }
        }
        Ok(())
    }

    /// The statistics of the layer that reads a parameter.
    pub fn layer(&self, weights: &Weights, id: ParamId) -> Option<Layer> {
        let stacks = weights.table().stacks;
        let firsts =
            stacks.iter().filter(|s| s.parts.contains(&id) && s.reader.is_none()).filter_map(|s| s.parts.first());
        let moments = firsts.filter_map(|first| self.moments.get(first)).next()?;
        Some(moments.layer())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::random::normal;

    /// `Uᵀ U (H + damping) = 1`, with `U`'s diagonal taken out.
    #[test]
    fn factors_are_those_of_the_inverse() {
        let (n, damping) = (5, 0.25);
        let x = normal(1, 40 * n);
        let mut h = vec![0.0_f32; BLOCK * BLOCK];
        for row in x.chunks(n) {
            for i in 0..n {
                (0..n).for_each(|j| h[i * BLOCK + j] += row[i] * row[j]);
            }
        }
        let f = factors(&h, n, damping).expect("positive definite");
        let u = |i: usize, j: usize| match i.cmp(&j) {
            std::cmp::Ordering::Less => f[i * BLOCK + j],
            std::cmp::Ordering::Equal => 1.0,
            std::cmp::Ordering::Greater => 0.0,
        };
        let damped = |i: usize, j: usize| f64::from(h[i * BLOCK + j]) + if i == j { damping } else { 0.0 };
        // With H' = H + damping: U' H' U'ᵀ is diagonal for the inverse's factor U'ᵀ⁻¹, so errors left over do not correlate.
        let solve = |i: usize| -> Vec<f64> {
            // Row i of D⁻² U⁻ᵀ: what of H' is left after the inputs before i.
            (0..n).map(|j| (0..n).map(|m| u(i, m) * damped(m, j)).sum()).collect()
        };
        for i in 0..n {
            let row = solve(i);
            for (j, value) in row.iter().enumerate().filter(|(j, _)| *j > i) {
                assert!(value.abs() < 1e-9 * damped(j, j), "row {i}, column {j}: {value}");
            }
        }
    }
}
