use crate::params::ResizePillow;

/// One axis of Pillow's resize. `table` has, per output coordinate, the first input, the taps used, and `taps` weights
/// (i32, 22-bit fixed point).
pub fn resize_pillow(p: &ResizePillow, table: &[u32], source: &[u32], pixels: &mut [u32]) {
    let (in_width, out_width, taps) = (p.in_width as usize, p.out_width as usize, p.taps as usize);
    for y in 0..p.out_height as usize {
        for x in 0..out_width {
            let entry = &table[if p.vertical == 1 { y } else { x } * (taps + 2)..][..taps + 2];
            let (first, used) = (entry[0] as usize, entry[1] as usize);
            let mut sum = [1_i32 << 21; 3];
            for t in 0..used {
                let at = if p.vertical == 1 { (first + t) * in_width + x } else { y * in_width + first + t };
                for (sum, byte) in sum.iter_mut().zip(source[at].to_le_bytes()) {
                    *sum += entry[2 + t].cast_signed() * i32::from(byte);
                }
            }
            let [r, g, b] = sum.map(|s| (s >> 22).clamp(0, 255) as u8);
            pixels[y * out_width + x] = u32::from_le_bytes([r, g, b, 0]);
        }
    }
}
