use crate::params::{Linear, epilogue};

/// Weights as the checkpoint holds them: (N, K) row-major.
#[derive(Clone, Copy, Debug)]
pub enum Weights<'a> {
    /// IEEE single.
    F32(&'a [f32]),
    /// IEEE half.
    F16(&'a [half::f16]),
    /// bfloat16.
    Bf16(&'a [half::bf16]),
}

impl Weights<'_> {
    /// Element i of the whole.
    pub(super) fn get(&self, i: usize) -> f32 {
        match self {
            Weights::F32(w) => w[i],
            Weights::F16(w) => w[i].to_f32(),
            Weights::Bf16(w) => w[i].to_f32(),
        }
    }
}

/// Bindings of a linear layer's epilogue; a slice is read only when its flag is set.
#[derive(Clone, Copy, Debug)]
pub struct Epilogue<'a> {
    /// `(n,)`
    pub bias: &'a [f32],
    /// `(n,)`
    pub layer_scale: &'a [f32],
    /// Addend or factor, `(m, n)`.
    pub other: &'a [f32],
}

/// `y[r, c] = epilogue( Σ_k x[r, k] · w[c, k] )`: bias, layer scale, addend, activation, factor.
pub fn linear(p: &Linear, x: &[f32], w: Weights<'_>, e: Epilogue<'_>, y: &mut [f32]) {
    let [m, n, k] = [p.m, p.n, p.k].map(|v| v as usize);
    let mut row = vec![0.0; k];
    for c in 0..n {
        for (i, v) in row.iter_mut().enumerate() {
            *v = w.get(p.w_offset as usize + c * p.w_stride as usize + i);
        }
        for r in 0..m {
            let from = p.x_offset as usize + r * p.x_stride as usize;
            let sum = x[from..from + k].iter().zip(&row).map(|(a, b)| a * b).sum::<f32>();
            let o = p.other_offset as usize + r * p.other_stride as usize + c;
            y[p.y_offset as usize + r * p.y_stride as usize + c] = finish(p, e, c, o, sum);
        }
    }
}

fn finish(p: &Linear, e: Epilogue<'_>, c: usize, o: usize, sum: f32) -> f32 {
    let set = |flag| p.flags & flag != 0;
    let mut v = sum;
    if set(epilogue::BIAS) {
        v += e.bias[c];
    }
    if set(epilogue::LAYER_SCALE) {
        v *= e.layer_scale[c];
    }
    if set(epilogue::ADD) {
        v += e.other[o];
    }
    v = activate(v, p.activation);
    if set(epilogue::MULTIPLY) {
        v *= e.other[o];
    }
    v
}

fn activate(x: f32, kind: u32) -> f32 {
    match kind {
        1 => 0.5 * x * (1.0 + (0.797_884_6 * (x + 0.044_715 * x * x * x)).tanh()),
        2 => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
        3 => x / (1.0 + (-x).exp()),
        4 => x.max(0.0),
        5 => 1.0 / (1.0 + (-x).exp()),
        _ => x,
    }
}

/// Abramowitz and Stegun 7.1.26, |error| ≤ 1.5e-7.
fn erf(x: f32) -> f32 {
    let a = x.abs();
    let t = 1.0 / (1.0 + 0.327_591_1 * a);
    let p = ((((1.061_405_4 * t - 1.453_152) * t + 1.421_413_7) * t - 0.284_496_74) * t + 0.254_829_6) * t;
    x.signum() * (1.0 - p * (-a * a).exp())
}
