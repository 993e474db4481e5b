//! The parameters a model has: names, shapes, and what each is used for. The forward definition declares them;
//! a checkpoint must have exactly these.

use std::ops::Range;

/// Index into [`ParamTable::params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(pub u32);

impl ParamId {
    /// Its place in a list of all parameters.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// How a parameter is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `(N, K)` weight of a linear layer: goes to the GPU in the checkpoint's own format, as part of a [`Stack`].
    Matrix,
    /// Weight of a convolution: goes to the GPU as it is.
    Kernel,
    /// Bias, norm weight or layer scale: goes to the GPU as f32.
    Vector,
    /// Read on the host only (embedding table, position embeddings, CLS token).
    Host,
    /// The checkpoint may have it; inference does not use it.
    Unused,
}

/// One parameter.
#[derive(Clone, Debug)]
pub struct Param {
    /// Fathom's own name, which is also that in a Fathom DepthVLA checkpoint.
    pub name: String,
    /// Shape in the checkpoint.
    pub shape: Vec<usize>,
    /// How it is used.
    pub role: Role,
}

/// Index into [`ParamTable::stacks`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StackId(pub u32);

impl StackId {
    /// Its place in a list of all stacks.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// Matrices, or vectors, on top of each other: what one linear layer takes at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// From the top, all with as many columns.
    pub parts: Vec<ParamId>,
    /// Which columns of the matrices.
    pub columns: Range<usize>,
    /// Where not 0: in each block of `2 · pair_distance` rows, the rows i and i + `pair_distance` lie side by side
    /// (`prelude/linear_io.wgsl`).
    pub pair_distance: usize,
    /// Where given, the rows are what these columns of a matrix make of the parts: a layer folded into the one that alone
    /// reads it ([`fold_linear`](crate::fold::fold_linear)).
    pub reader: Option<(ParamId, Range<usize>)>,
}

/// Weight and bias of a layer as the checkpoint has them.
#[derive(Clone, Copy, Debug)]
pub struct Tensors {
    /// Weight, `(N, K)` or a convolution's.
    pub w: ParamId,
    /// Bias `(N,)`.
    pub bias: Option<ParamId>,
    /// Outputs.
    pub n: usize,
    /// Inputs, of a convolution times the kernel's area.
    pub k: usize,
}

/// Rows of a stack as a layer: `y = x · wᵀ`, with an optional bias `(N,)`.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Weights.
    pub w: StackId,
    /// Biases of the stack's columns.
    pub bias: Option<StackId>,
    /// First row.
    pub first: usize,
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
    /// The stack's [`pair_distance`](Stack::pair_distance).
    pub pair_distance: usize,
}

impl Linear {
    /// The rows from `first` on, where that is no place between two rows that lie in pairs.
    pub fn from_row(self, first: usize) -> Linear {
        Linear { first: self.first + first, n: self.n.saturating_sub(first), ..self }
    }
}

/// `(C,)` weight and bias of a LayerNorm.
#[derive(Clone, Copy, Debug)]
pub struct Norm {
    /// Weight.
    pub weight: ParamId,
    /// Bias.
    pub bias: ParamId,
}

/// All parameters of a model.
#[derive(Clone, Debug, Default)]
pub struct ParamTable {
    /// The checkpoint's tensors, in the order of declaration.
    pub params: Vec<Param>,
    /// What linear layers make of them.
    pub stacks: Vec<Stack>,
}

impl ParamTable {
    /// Declares a parameter.
    pub fn declare(&mut self, name: impl Into<String>, shape: &[usize], role: Role) -> ParamId {
        self.params.push(Param { name: name.into(), shape: shape.to_vec(), role });
        ParamId(self.params.len() as u32 - 1)
    }

    /// A layer of its own: `{name}.weight (n, k)` and, with `bias`, `{name}.bias (n,)`.
    pub fn linear(&mut self, name: &str, n: usize, k: usize, bias: bool) -> Linear {
        let tensors = self.tensors(name, n, k, bias);
        self.stack(&[tensors], 0)
    }

    /// `{name}.weight (n, k)` and, with `bias`, `{name}.bias (n,)`, to be stacked.
    pub fn tensors(&mut self, name: &str, n: usize, k: usize, bias: bool) -> Tensors {
        self.shaped(name, &[n, k], Role::Matrix, bias)
    }

    /// As [`linear`](Self::linear), where the checkpoint holds the weight with more dimensions (a patch embedding).
    pub fn linear_shaped(&mut self, name: &str, shape: &[usize], bias: bool) -> Linear {
        let tensors = self.shaped(name, shape, Role::Matrix, bias);
        self.stack(&[tensors], 0)
    }

    /// A convolution `{name}.weight` and, with `bias`, `{name}.bias`.
    pub fn convolution(&mut self, name: &str, shape: &[usize], bias: bool) -> Tensors {
        self.shaped(name, shape, Role::Kernel, bias)
    }

    fn shaped(&mut self, name: &str, shape: &[usize], role: Role, bias: bool) -> Tensors {
        let (n, k) = (shape.first().copied().unwrap_or(0), shape.iter().skip(1).product());
        let w = self.declare(format!("{name}.weight"), shape, role);
        let bias = bias.then(|| self.declare(format!("{name}.bias"), &[n], Role::Vector));
        Tensors { w, bias, n, k }
    }

    /// The layers `parts`, which have the same inputs and all or none a bias, as one.
    pub fn stack(&mut self, parts: &[Tensors], pair_distance: usize) -> Linear {
        let k = parts.first().map_or(0, |p| p.k);
        self.columns(parts, 0..k, pair_distance, true)
    }

    /// As [`stack`](Self::stack), of these columns, and with the biases only where they are asked for.
    pub fn columns(&mut self, parts: &[Tensors], columns: Range<usize>, pair_distance: usize, bias: bool) -> Linear {
        let (n, k) = (parts.iter().map(|p| p.n).sum(), columns.len());
        let w = self.push(Stack { parts: parts.iter().map(|p| p.w).collect(), columns, pair_distance, reader: None });
        let biases: Vec<ParamId> = parts.iter().filter_map(|p| p.bias).collect();
        let biases = Stack { parts: biases, columns: 0..1, pair_distance: 0, reader: None };
        let bias = (bias && !biases.parts.is_empty()).then(|| self.push(biases));
        Linear { w, bias, first: 0, n, k, pair_distance }
    }

    /// The layer `inner` and those columns of `outer` that alone read it, as one, without the outer bias.
    pub fn folded(&mut self, inner: Tensors, outer: Tensors, columns: Range<usize>) -> Linear {
        let reader = Some((outer.w, columns));
        let w = Stack { parts: vec![inner.w], columns: 0..inner.k, pair_distance: 0, reader: reader.clone() };
        let w = self.push(w);
        let bias = inner.bias.map(|bias| Stack { parts: vec![bias], columns: 0..1, pair_distance: 0, reader });
        let bias = bias.map(|bias| self.push(bias));
        Linear { w, bias, first: 0, n: outer.n, k: inner.k, pair_distance: 0 }
    }

    fn push(&mut self, stack: Stack) -> StackId {
        self.stacks.push(stack);
        StackId(self.stacks.len() as u32 - 1)
    }

    /// `{name}.weight (c,)` and `{name}.bias (c,)`.
    pub fn layer_norm(&mut self, name: &str, c: usize) -> Norm {
        Norm { weight: self.vector(format!("{name}.weight"), c), bias: self.vector(format!("{name}.bias"), c) }
    }

    /// A vector `(c,)`.
    pub fn vector(&mut self, name: impl Into<String>, c: usize) -> ParamId {
        self.declare(name, &[c], Role::Vector)
    }
}
