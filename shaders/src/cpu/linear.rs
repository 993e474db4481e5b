use crate::params::{Linear, epilogue};

/// Bindings of a linear layer; the parameters select the slices that are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct LinearIn<'a> {
    /// `(m, k)`
    pub x: &'a [f32],
    /// Rows of `w_stride` values, in pairs if there is a `pair_distance`.
    pub w: &'a [f32],
    /// `(columns,)`
    pub bias: &'a [f32],
    /// `(columns,)`
    pub layer_scale: &'a [f32],
    /// `(k,)`
    pub norm: &'a [f32],
    /// `(m, columns)`
    pub other: &'a [f32],
    /// `(positions, pair_distance, [cos, sin])`
    pub table: &'a [f32],
}

/// `epilogue( Σ_k x[r, k] · w[j, k] )`: the norm's scale of the row, bias, scale, layer scale, addend, activation; then
/// gate times value, or RoPE. The first columns go to `y (m, columns)`, those from `split` on to the planes of `side`.
pub fn linear(p: &Linear, i: LinearIn<'_>, y: &mut [f32], side: &mut [f32]) {
    let [m, n, k, distance] = [p.m, p.n, p.k, p.pair_distance].map(|v| v as usize);
    for r in 0..m {
        let row = &i.x[p.x_offset as usize + r * p.x_stride as usize..][..k];
        let (row, scale) = if p.flags & epilogue::NORM == 0 {
            (row.to_vec(), 1.0)
        } else {
            let scale = 1.0 / (row.iter().map(|v| v * v).sum::<f32>() / k as f32 + p.eps).sqrt();
            (row.iter().zip(i.norm).map(|(v, w)| v * (1.0 + w)).collect(), scale)
        };
        let sum = |j: usize| {
            let w = &i.w[(p.w_row as usize + j) * p.w_stride as usize..][..k];
            scale * row.iter().zip(w).map(|(a, b)| a * b).sum::<f32>()
        };
        let mut put = |c: usize, v: f32| match c.checked_sub(p.split as usize) {
            None => y[p.y_offset as usize + r * p.y_stride as usize + c] = v,
            Some(s) => {
                let (plane, s) = (s / p.side_cols as usize, s % p.side_cols as usize);
                side[p.side_offset as usize + plane * p.side_plane as usize + r * p.side_cols as usize + s] = v;
            }
        };
        for j in (0..n).step_by(2) {
            let mut c = p.first as usize + j;
            let (mut next, mut pair) = (c + 1, 0);
            if distance != 0 {
                pair = c % (2 * distance) / 2;
                c = c / (2 * distance) * (2 * distance) + pair;
                next = c + distance;
            }
            let both = j + 1 < n;
            if p.flags & epilogue::GATE != 0 {
                let bias = |c: usize| if p.flags & epilogue::BIAS == 0 { 0.0 } else { i.bias[c] };
                put(c, activate(p, sum(j) + bias(c)) * (sum(j + 1) + bias(next)));
                continue;
            }
            let mut a = activate(p, affine(p, i, r, c, sum(j)));
            let mut b = if both { activate(p, affine(p, i, r, next, sum(j + 1))) } else { 0.0 };
            if c < p.rope_columns as usize {
                let at = p.table_offset as usize + (r * distance + pair) * 2;
                let (cos, sin) = (i.table[at], i.table[at + 1]);
                (a, b) = (a * cos - b * sin, b * cos + a * sin);
            }
            put(c, a);
            if both {
                put(next, b);
            }
        }
    }
}

fn affine(p: &Linear, i: LinearIn<'_>, r: usize, c: usize, sum: f32) -> f32 {
    let set = |flag| p.flags & flag != 0;
    let mut v = sum;
    if set(epilogue::BIAS) {
        v += i.bias[c];
    }
    v *= p.scale;
    if set(epilogue::LAYER_SCALE) {
        v *= i.layer_scale[c];
    }
    if set(epilogue::ADD) {
        v += i.other[p.other_offset as usize + r * p.other_stride as usize + c];
    }
    v
}

fn activate(p: &Linear, x: f32) -> f32 {
    match p.activation {
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
