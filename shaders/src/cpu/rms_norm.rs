use crate::params::RmsNorm;

/// `y[r, c] = x[r, c] / √(mean_c(x²) + eps) · (1 + weight[c])`.
pub fn rms_norm(p: &RmsNorm, x: &[f32], weight: &[f32], y: &mut [f32]) {
    let cols = p.cols as usize;
    for r in 0..p.rows as usize {
        let from = p.x_offset as usize + r * p.x_stride as usize;
        let to = p.y_offset as usize + r * p.y_stride as usize;
        let row = &x[from..from + cols];
        let scale = 1.0 / (row.iter().map(|v| v * v).sum::<f32>() / cols as f32 + p.eps).sqrt();
        for c in 0..cols {
            y[to + c] = row[c] * scale * (1.0 + weight[c]);
        }
    }
}
