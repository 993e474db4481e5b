use crate::params::ImageUnpack;

/// Layout of the camera's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// Red, green, blue.
    Rgb24,
    /// Luma, blue difference, luma, red difference for two pixels.
    Yuyv,
    /// A plane of luma, then one of interleaved differences at half the size.
    Nv12,
}

/// Unpacks the camera's bytes to one pixel per `u32`. YUYV and NV12 are BT.601, limited range.
pub fn image_unpack(layout: Layout, p: &ImageUnpack, bytes: &[u32], pixels: &mut [u32]) {
    let bytes: &[u8] = bytemuck::cast_slice(bytes);
    let (width, height, stride) = (p.width as usize, p.height as usize, p.stride as usize);
    for y in 0..height {
        for x in 0..width {
            let row = y * stride;
            let [r, g, b] = match layout {
                Layout::Rgb24 => [bytes[row + x * 3], bytes[row + x * 3 + 1], bytes[row + x * 3 + 2]],
                Layout::Yuyv => {
                    let at = row + x / 2 * 4;
                    rgb(bytes[at + (x & 1) * 2], bytes[at + 1], bytes[at + 3])
                }
                Layout::Nv12 => {
                    let chroma = stride * height + y / 2 * stride + x / 2 * 2;
                    rgb(bytes[row + x], bytes[chroma], bytes[chroma + 1])
                }
            };
            pixels[y * width + x] = u32::from_le_bytes([r, g, b, 0]);
        }
    }
}

fn rgb(y: u8, u: u8, v: u8) -> [u8; 3] {
    let c = 298 * (i32::from(y) - 16) + 128;
    let d = i32::from(u) - 128;
    let e = i32::from(v) - 128;
    [c + 409 * e, c - 100 * d - 208 * e, c + 516 * d].map(|v| (v >> 8).clamp(0, 255) as u8)
}
