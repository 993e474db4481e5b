use crate::params::ResizeCorners;

/// torch's bilinear interpolation with `align_corners=True` of `x (height · width, channels)`: rows `y_first ..` of the
/// output, `(rows · out_width, channels)`.
pub fn resize_corners(p: &ResizeCorners, x: &[f32], y: &mut [f32]) {
    let (out_width, channels) = (p.out_width as usize, p.channels as usize);
    for (i, y) in y[..p.rows as usize * out_width * channels].iter_mut().enumerate() {
        let (c, pixel) = (i % channels, i / channels);
        let (u0, u1, fx) = neighbours((pixel % out_width) as f32 * p.scale_x, p.width);
        let (v0, v1, fy) = neighbours((p.y_first as usize + pixel / out_width) as f32 * p.scale_y, p.height);
        let value = |u: usize, v: usize| x[(v * p.width as usize + u) * channels + c];
        let upper = value(u0, v0) * (1.0 - fx) + value(u1, v0) * fx;
        let lower = value(u0, v1) * (1.0 - fx) + value(u1, v1) * fx;
        *y = upper * (1.0 - fy) + lower * fy;
    }
}

/// The two inputs around `at`, and the share of the second.
fn neighbours(at: f32, size: u32) -> (usize, usize, f32) {
    let first = (at as u32).min(size - 1);
    (first as usize, (first + 1).min(size - 1) as usize, at - first as f32)
}
