use crate::params::{Conv3x3, conv};

/// 3 × 3 convolution of `x` (rows of pixels from `x_first` on, channels last) with zeros around the image; `w` is
/// `(out_channels, channels, 3, 3)`. `first` and `second` are addends of y's shape, read only when their flag is set.
pub fn conv3x3(p: &Conv3x3, x: &[f32], w: &[f32], bias: &[f32], [first, second]: [&[f32]; 2], y: &mut [f32]) {
    let [width, height, channels] = [p.width as usize, p.height as usize, p.channels as usize];
    let (out_width, out_channels) = (p.out_width as usize, p.out_channels as usize);
    let set = |flag| p.flags & flag != 0;
    let add = |flag, addend: &[f32], i: usize| if p.flags & flag != 0 { addend[i] } else { 0.0 };
    for o in 0..out_channels {
        let kernel: Vec<f32> = (0..channels * 9).map(|i| w[o * channels * 9 + i]).collect();
        for pixel in 0..p.rows as usize * out_width {
            let v = (p.y_first as usize + pixel / out_width) * p.stride as usize;
            let u = pixel % out_width * p.stride as usize;
            let mut sum = 0.0;
            for tap in 0..9 {
                // One more than the input pixel, which starts at −1.
                let (row, column) = (v + tap / 3, u + tap % 3);
                if row == 0 || column == 0 || row > height || column > width {
                    continue;
                }
                let at = ((row - 1 - p.x_first as usize) * width + column - 1) * channels;
                for c in 0..channels {
                    let value = if set(conv::RELU_IN) { x[at + c].max(0.0) } else { x[at + c] };
                    sum += value * kernel[c * 9 + tap];
                }
            }
            let at = pixel * out_channels + o;
            sum += add(conv::BIAS, bias, o);
            sum += add(conv::ADD, first, at);
            sum += add(conv::ADD_SECOND, second, at);
            y[at] = if set(conv::RELU_OUT) { sum.max(0.0) } else { sum };
        }
    }
}
