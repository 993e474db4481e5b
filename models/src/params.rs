//! The parameters a model has: names, shapes, and what each is used for. The forward definition declares them;
//! a checkpoint must have exactly these.

/// Index into [`ParamTable::params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParamId(pub u32);

/// How a parameter is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `(N, K)` weight of a linear layer: goes to the GPU in the checkpoint's own format.
    Matrix,
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

/// `(N, K)` weight: `y = x · wᵀ`, with an optional bias `(N,)`.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    /// Weight.
    pub w: ParamId,
    /// Bias.
    pub bias: Option<ParamId>,
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
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
    /// In the order of declaration.
    pub params: Vec<Param>,
}

impl ParamTable {
    /// Declares a parameter.
    pub fn declare(&mut self, name: impl Into<String>, shape: &[usize], role: Role) -> ParamId {
        self.params.push(Param { name: name.into(), shape: shape.to_vec(), role });
        ParamId(self.params.len() as u32 - 1)
    }

    /// `{name}.weight (n, k)` and, with `bias`, `{name}.bias (n,)`.
    pub fn linear(&mut self, name: &str, n: usize, k: usize, bias: bool) -> Linear {
        self.linear_shaped(name, &[n, k], bias)
    }

    /// As [`linear`](Self::linear), where the checkpoint holds the weight with more dimensions (a convolution).
    pub fn linear_shaped(&mut self, name: &str, shape: &[usize], bias: bool) -> Linear {
        let (n, k) = (shape.first().copied().unwrap_or(0), shape.iter().skip(1).product());
        let w = self.declare(format!("{name}.weight"), shape, Role::Matrix);
        let bias = bias.then(|| self.declare(format!("{name}.bias"), &[n], Role::Vector));
        Linear { w, bias, n, k }
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
