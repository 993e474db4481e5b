use crate::params::ResizeTorch;

/// torch's bilinear interpolation (`align_corners=False`) of `x / 255` into a black square `(side, side, 3)`.
pub fn resize_torch(p: &ResizeTorch, source: &[u32], square: &mut [f32]) {
    let colour = |x: usize, y: usize, channel: usize| {
        f32::from(source[y * p.in_width as usize + x].to_le_bytes()[channel]) / 255.0
    };
    for y in 0..p.side {
        for x in 0..p.side {
            let inside = (p.left..p.left + p.width).contains(&x) && (p.top..p.top + p.height).contains(&y);
            let at = ((y * p.side + x) * 3) as usize;
            if !inside {
                square[at..at + 3].fill(0.0);
                continue;
            }
            let (x0, x1, fx) = neighbours(x - p.left, p.in_width, p.width);
            let (y0, y1, fy) = neighbours(y - p.top, p.in_height, p.height);
            for channel in 0..3 {
                let upper = colour(x0, y0, channel) * (1.0 - fx) + colour(x1, y0, channel) * fx;
                let lower = colour(x0, y1, channel) * (1.0 - fx) + colour(x1, y1, channel) * fx;
                square[at + channel] = (upper * (1.0 - fy) + lower * fy).clamp(0.0, 1.0);
            }
        }
    }
}

/// The two inputs around an output coordinate, and the share of the second.
fn neighbours(out: u32, in_size: u32, out_size: u32) -> (usize, usize, f32) {
    let at = ((out as f32 + 0.5) * (in_size as f32 / out_size as f32) - 0.5).max(0.0);
    let first = (at as u32).min(in_size - 1);
    (first as usize, (first + 1).min(in_size - 1) as usize, at - first as f32)
}
