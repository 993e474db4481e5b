// Transposed convolution whose kernel is its stride f, channels last: every input pixel becomes f × f output pixels.
// y[(v·f + i, u·f + j), o] = bias[o] + sum x[(v, u), c] · w[c, o, i, j]. A tile is 64 input pixels × 32 of the
// out_channels · f² columns of w. Dispatch: (columns / 32, input pixels / 64).

#import weight
#import tile

struct ConvTranspose {
    width: u32,        // of the input, in pixels
    height: u32,
    channels: u32,
    out_channels: u32,
    factor: u32,       // f
    flags: u32,        // 1: with bias
}

@group(0) @binding(0) var<uniform> params: ConvTranspose;
@group(0) @binding(1) var<storage, read_write> x: array<f32>; // (height · width, channels)
@group(0) @binding(2) var<storage, read> w: array<u32>;       // (channels, out_channels, f, f), packed
@group(0) @binding(3) var<storage, read> bias: array<f32>;    // (out_channels,)
@group(0) @binding(4) var<storage, read_write> y: array<f32>; // (height · f · width · f, out_channels)

var<private> row: u32;

fn columns() -> u32 {
    return params.out_channels * params.factor * params.factor;
}

fn tile_x(r: u32, part: u32, k: u32) -> f32 {
    if row + r >= params.width * params.height { return 0.0; }
    return x[(row + r) * params.channels + k];
}

fn tile_w(c: u32, part: u32, k: u32) -> f32 {
    if c >= columns() { return 0.0; }
    return weight(k * columns() + c);
}

fn tile_store(r: u32, c: u32, sum: f32) {
    let pixel = row + r;
    if pixel >= params.width * params.height || c >= columns() { return; }
    let f = params.factor;
    let o = c / (f * f);
    let v = (pixel / params.width) * f + (c / f) % f;
    let u = (pixel % params.width) * f + c % f;
    let shift = select(0.0, bias[o], (params.flags & 1u) != 0u);
    y[(v * params.width * f + u) * params.out_channels + o] = sum + shift;
}

@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>,
        @builtin(local_invocation_index) index: u32) {
    row = group.y * TILE_ROWS;
    tile(group.x * TILE_COLS, 1u, params.channels, local.xy, index);
}
