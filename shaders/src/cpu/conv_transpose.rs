use crate::params::{ConvTranspose, conv};

/// Transposed convolution whose kernel is its stride f: `x (height · width, channels)` to
/// `y (height · f · width · f, out_channels)`; `w` is `(channels, out_channels, f, f)`.
pub fn conv_transpose(p: &ConvTranspose, x: &[f32], w: &[f32], bias: &[f32], y: &mut [f32]) {
    let [width, height, channels] = [p.width as usize, p.height as usize, p.channels as usize];
    let (out_channels, f) = (p.out_channels as usize, p.factor as usize);
    let columns = out_channels * f * f;
    for column in 0..columns {
        let kernel: Vec<f32> = (0..channels).map(|c| w[c * columns + column]).collect();
        let o = column / (f * f);
        for pixel in 0..width * height {
            let from = &x[pixel * channels..][..channels];
            let sum = from.iter().zip(&kernel).map(|(a, b)| a * b).sum::<f32>();
            let v = pixel / width * f + column / f % f;
            let u = pixel % width * f + column % f;
            let shift = if p.flags & conv::BIAS != 0 { bias[o] } else { 0.0 };
            y[(v * width * f + u) * out_channels + o] = sum + shift;
        }
    }
}
