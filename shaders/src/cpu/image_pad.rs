use crate::params::ImagePad;

/// Pixels `(height, width)` into a black rectangle `(out_height, out_width, 3)`, as `x / 255`.
pub fn image_pad(p: &ImagePad, source: &[u32], square: &mut [f32]) {
    for y in 0..p.out_height {
        for x in 0..p.out_width {
            let inside = (p.left..p.left + p.width).contains(&x) && (p.top..p.top + p.height).contains(&y);
            let pixel = if inside { source[((y - p.top) * p.width + x - p.left) as usize] } else { 0 };
            let at = ((y * p.out_width + x) * 3) as usize;
            for channel in 0..3 {
                square[at + channel] = f32::from(pixel.to_le_bytes()[channel]) / 255.0;
            }
        }
    }
}
