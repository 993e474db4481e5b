use crate::params::AdaRmsNorm;

/// `y[r, c] = x[r, c] / √(mean_c(x²) + eps) · (1 + scale[c]) + shift[c]`; `modulation` holds `[scale ∥ shift]`.
pub fn ada_rms_norm(p: &AdaRmsNorm, x: &[f32], modulation: &[f32], y: &mut [f32]) {
    let cols = p.cols as usize;
    let (scale, shift) = modulation[p.modulation_offset as usize..][..2 * cols].split_at(cols);
    for r in 0..p.rows as usize {
        let from = p.x_offset as usize + r * p.x_stride as usize;
        let to = p.y_offset as usize + r * p.y_stride as usize;
        let row = &x[from..from + cols];
        let norm = 1.0 / (row.iter().map(|v| v * v).sum::<f32>() / cols as f32 + p.eps).sqrt();
        for c in 0..cols {
            y[to + c] = row[c] * norm * (1.0 + scale[c]) + shift[c];
        }
    }
}
