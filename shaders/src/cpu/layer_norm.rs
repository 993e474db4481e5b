use crate::params::LayerNorm;

/// `y[r, c] = (x[r, c] − mean) / √(var + eps) · weight[c] + bias[c]`.
pub fn layer_norm(p: &LayerNorm, x: &[f32], weight: &[f32], bias: &[f32], y: &mut [f32]) {
    let cols = p.cols as usize;
    for r in 0..p.rows as usize {
        let from = p.x_offset as usize + r * p.x_stride as usize;
        let to = p.y_offset as usize + r * p.y_stride as usize;
        let row = &x[from..from + cols];
        let mean = row.iter().sum::<f32>() / cols as f32;
        let variance = row.iter().map(|v| (v - mean) * (v - mean)).sum::<f32>() / cols as f32;
        let scale = 1.0 / (variance + p.eps).sqrt();
        for c in 0..cols {
            y[to + c] = (row[c] - mean) * scale * weight[c] + bias[c];
        }
    }
}
