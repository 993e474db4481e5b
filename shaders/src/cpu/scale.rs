use crate::params::Scale;

/// `y[r, c] = factor · x[r, c]`.
pub fn scale(p: &Scale, x: &[f32], y: &mut [f32]) {
    for r in 0..p.rows as usize {
        for c in 0..p.cols as usize {
            y[p.y_offset as usize + r * p.y_stride as usize + c] =
                p.factor * x[p.x_offset as usize + r * p.x_stride as usize + c];
        }
    }
}
