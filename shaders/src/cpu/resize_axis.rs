use std::array;

use crate::params::ResizeAxis;

/// The number format of a resize's sums.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arithmetic {
    /// Fixed point: over both axes together, or over each, 22 bits.
    Integer,
    /// f32.
    Float,
}

/// One axis of a resize. `table` has, per output coordinate, the first input, the taps used, and `taps` weights (i32 in
/// fixed point, or f32).
pub fn resize_axis(arithmetic: Arithmetic, p: &ResizeAxis, table: &[u32], source: &[u32], pixels: &mut [u32]) {
    let (in_width, out_width, taps) = (p.in_width as usize, p.out_width as usize, p.taps as usize);
    let colour = |at: usize, channel: usize| match p.wide & 1 == 1 {
        true => source[at * 3 + channel],
        false => match (source[at].to_le_bytes()[channel], arithmetic) {
            (byte, Arithmetic::Integer) => u32::from(byte),
            (byte, Arithmetic::Float) => f32::from(byte).to_bits(),
        },
    };
    for y in 0..p.out_height as usize {
        for x in 0..out_width {
            let entry = &table[if p.vertical == 1 { y } else { x } * (taps + 2)..][..taps + 2];
            let (first, used) = (entry[0] as usize, entry[1] as usize);
            let at = |t: usize| if p.vertical == 1 { (first + t) * in_width + x } else { y * in_width + first + t };
            let terms = |channel: usize| (0..used).map(move |t| (entry[2 + t], colour(at(t), channel)));
            let out = y * out_width + x;
            // As bits, or as a byte.
            let sums: [(u32, u8); 3] = array::from_fn(|channel| match arithmetic {
                Arithmetic::Integer => {
                    let sum = terms(channel).fold(0_u32, |sum, (w, c)| sum.wrapping_add(w.wrapping_mul(c)));
                    (sum, (sum.wrapping_add(1 << 21).cast_signed() >> 22).clamp(0, 255) as u8)
                }
                Arithmetic::Float => {
                    let sum = terms(channel).fold(0.0, |sum, (w, c)| sum + f32::from_bits(w) * f32::from_bits(c));
                    (sum.to_bits(), sum.round_ties_even().clamp(0.0, 255.0) as u8)
                }
            });
            if p.wide & 2 == 2 {
                pixels[out * 3..out * 3 + 3].copy_from_slice(&sums.map(|s| s.0));
            } else {
                let [r, g, b] = sums.map(|s| s.1);
                pixels[out] = u32::from_le_bytes([r, g, b, 0]);
            }
        }
    }
}
