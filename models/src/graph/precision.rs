//! In which format tensors lie between two operations. Sums, norms' statistics and the residual stream are f32 in any case.

use fathom_shaders::params::epilogue;

use crate::graph::{Graph, Op, Storage, TensorId};

/// The largest magnitude that is stored in f16. Larger values saturate to it.
pub const LARGEST: f32 = 65504.0;

/// A number format of tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Float {
    /// IEEE single.
    #[default]
    F32,
    /// IEEE half.
    F16,
}

impl Float {
    /// Its name, as `Display` gives and `FromStr` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Float::F32 => "f32",
            Float::F16 => "f16",
        }
    }
}

impl std::fmt::Display for Float {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Float {
    type Err = String;

    fn from_str(name: &str) -> Result<Float, String> {
        let found = [Float::F32, Float::F16].into_iter().find(|f| f.name() == name);
        found.ok_or_else(|| format!("expected f32 or f16, found {name:?}"))
    }
}

/// The formats of keys and values, and of other tensors between two operations, if all operations on them support it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Precision {
    /// Of the cache of keys and values.
    pub kv: Float,
    /// Of tensors from a norm, an attention or a linear layer to a linear layer or an attention.
    pub activations: Float,
}

impl Precision {
    /// All in f32.
    pub const F32: Precision = Precision { kv: Float::F32, activations: Float::F32 };
    /// All in f16 that can be.
    pub const F16: Precision = Precision { kv: Float::F16, activations: Float::F16 };

    /// Whether any tensor may be in f16.
    pub fn has_f16(self) -> bool {
        self != Precision::F32
    }

    /// Which tensors of `graph` are in f16: activations that linear layers and attentions read without a norm, and that
    /// nothing reads or writes that takes them in f32 only, as the residual stream's additions do.
    pub fn halves(self, graph: &Graph) -> Vec<bool> {
        let mut free: Vec<bool> = graph.tensors.iter().map(|t| t.storage == Storage::Activation).collect();
        let mut operand = vec![false; graph.tensors.len()];
        let set = |marks: &mut [bool], id: &TensorId, to: bool| {
            if let Some(mark) = marks.get_mut(id.0 as usize) {
                *mark = to;
            }
        };
        for (_, op) in &graph.ops {
            let (operands, outputs) = flexible(op);
            let (read, written) = op.tensors();
            read.iter().filter(|id| !operands.contains(id)).for_each(|id| set(&mut free, id, false));
            written.iter().filter(|id| !outputs.contains(id)).for_each(|id| set(&mut free, id, false));
            if let Op::Linear { other, table, .. } = op {
                // One may be an operand, too.
                other.iter().chain(table).for_each(|id| set(&mut free, id, false));
            }
            operands.iter().for_each(|id| set(&mut operand, id, true));
        }
        let kv = keys_values(graph);
        let wanted = |kv: bool| if kv { self.kv } else { self.activations };
        let marks = free.into_iter().zip(operand).zip(kv);
        marks.map(|((free, operand), kv)| free && operand && wanted(kv) == Float::F16).collect()
    }
}

/// Which tensors of `graph` hold keys and values that linear layers put aside.
pub fn keys_values(graph: &Graph) -> Vec<bool> {
    let mut marks = vec![false; graph.tensors.len()];
    for (_, op) in &graph.ops {
        if let Op::Linear { side: Some(side), .. } = op
            && let Some(mark) = marks.get_mut(side.0 as usize)
        {
            *mark = true;
        }
    }
    marks
}

/// The tensors that an operation can read, and those that it can write, in f16.
fn flexible(op: &Op) -> (Vec<TensorId>, Vec<TensorId>) {
    match *op {
        Op::Linear { params, x, side, y, .. } => {
            // The input of a norm is the residual stream.
            let x = (params.flags & epilogue::NORM == 0).then_some(x);
            (x.into_iter().collect(), std::iter::once(y).chain(side).collect())
        }
        Op::Attention { q, k, v, out, .. } => (vec![q, k, v], vec![out]),
        Op::RmsNorm { y, .. } | Op::AdaRmsNorm { y, .. } | Op::LayerNorm { y, .. } => (Vec::new(), vec![y]),
        _ => (Vec::new(), Vec::new()),
    }
}

/// `v` as it comes back from f16.
pub fn stored_in_f16(v: f32) -> f32 {
    half::f16::from_f32(v.clamp(-LARGEST, LARGEST)).to_f32()
}
