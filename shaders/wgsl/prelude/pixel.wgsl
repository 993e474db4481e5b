// A pixel is one u32: red in bits 0..8, green 8..16, blue 16..24.

fn red(p: u32) -> u32 { return p & 255u; }
fn green(p: u32) -> u32 { return (p >> 8u) & 255u; }
fn blue(p: u32) -> u32 { return (p >> 16u) & 255u; }

fn pixel(r: u32, g: u32, b: u32) -> u32 {
    return r | (g << 8u) | (b << 16u);
}
