//! Changes to weights that leave their results unchanged, up to rounding: done once when weights are packed, they need not be
//! done in every inference. Matrices are row-major `(n, k)`, `y = w · x`, in f32. The equalities are tests in
//! `tests/tests/models/exactness.rs`.

/// `w · (scale ⊙ x) = w' · x`: a norm's scale `(k,)` goes into a layer that reads the norm. Gemma's RMSNorm scales with
/// `1 + weight`, LayerNorm with `weight`.
pub fn fold_scale(w: &mut [f32], scale: &[f32]) {
    for row in w.chunks_exact_mut(scale.len().max(1)) {
        row.iter_mut().zip(scale).for_each(|(w, scale)| *w *= scale);
    }
}

/// `w · (x + shift) + bias = w · x + bias'`: a LayerNorm's bias `(k,)` goes into the bias `(n,)` of a layer that reads it.
/// Before [`fold_scale`].
pub fn fold_shift(bias: &mut [f32], w: &[f32], shift: &[f32]) {
    for (bias, row) in bias.iter_mut().zip(w.chunks_exact(shift.len().max(1))) {
        *bias = (f64::from(*bias) + dot(row, shift)) as f32;
    }
}

/// `outer · (inner · x + b) + bias = w · x + bias'`: a layer `(m, k)` with bias `b (m,)` goes into the one `(n, m)` that
/// alone reads it. Gives `w (n, k)`. So pi0's `action_in_proj` goes into the action half of `action_time_mlp_in`: what the
/// latter adds in flow step s is then the constant row `w_time · τ_s + bias'`. Inference does this one when it loads.
pub fn fold_linear(outer: &[f32], bias: &mut [f32], inner: &[f32], b: &[f32]) -> Vec<f32> {
    fold_shift(bias, outer, b);
    let (m, k) = (b.len().max(1), inner.len() / b.len().max(1));
    let column = |c: usize| inner.iter().skip(c).step_by(k.max(1)).copied().collect::<Vec<f32>>();
    let columns: Vec<Vec<f32>> = (0..k).map(column).collect();
    outer.chunks_exact(m).flat_map(|row| columns.iter().map(|column| dot(row, column) as f32)).collect()
}

/// Columns `first .. first + count` of `w (n, k)`: one half of a layer that reads two things side by side.
pub fn columns(w: &[f32], k: usize, first: usize, count: usize) -> Vec<f32> {
    w.chunks_exact(k.max(1)).flat_map(|row| row.iter().skip(first).take(count)).copied().collect()
}

/// Rows of a query or key projection `(heads · head_dim, k)`, for a RoPE that turns the pairs `(2i, 2i + 1)` of a head
/// instead of `(i, i + head_dim / 2)`. With `k` 1: a row of queries or keys. Logits stay as they are, since queries and keys
/// change places alike.
pub fn interleave_pairs(w: &[f32], head_dim: usize, k: usize) -> Vec<f32> {
    let half = head_dim / 2 * k;
    let pairs = w.chunks_exact((2 * half).max(1)).flat_map(|head| {
        let (first, second) = head.split_at(half);
        first.chunks_exact(k.max(1)).zip(second.chunks_exact(k.max(1)))
    });
    pairs.flat_map(|(a, b)| a.iter().chain(b)).copied().collect()
}

/// Every run of `from` values, continued with zeros to `to`. Heads of width d become heads of width e without a change of
/// what attention gives, as long as its scale stays `d^-0.5`: in the rows of a query, key or value projection
/// `(heads · d, k)` with `(d · k, e · k)`, in their biases and in the columns of the output projection `(n, heads · d)` with
/// `(d, e)`.
pub fn pad_runs(values: &[f32], from: usize, to: usize) -> Vec<f32> {
    let zeros = to.saturating_sub(from);
    values
        .chunks_exact(from.max(1))
        .flat_map(|run| run.iter().copied().chain(std::iter::repeat_n(0.0, zeros)))
        .collect()
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}
