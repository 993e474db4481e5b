// 3 × 3 convolution with zeros around the image, channels last:
// y[(v, u), o] = bias[o] + sum x[(v·stride + i − 1, u·stride + j − 1), c] · w[o, c, i, j], then the addends.
// x and y may be bands: rows of the image from x_first and y_first on. A tile is 64 pixels × 32 channels.
// Dispatch: (out_channels / 32, rows · out_width / 64).

#import weight
#import tile

struct Conv3x3 {
    width: u32,        // of the input image, in pixels, as all sizes
    height: u32,       // of the whole input image
    channels: u32,
    x_first: u32,      // row of the input image that x begins with
    out_width: u32,
    out_channels: u32,
    rows: u32,         // of y
    y_first: u32,      // row of the output image that y begins with
    stride: u32,
    flags: u32,        // BIAS, RELU_IN, RELU_OUT, ADD, ADD_SECOND
}

@group(0) @binding(0) var<uniform> params: Conv3x3;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;      // (input pixels, channels)
@group(0) @binding(2) var<storage, read> w: array<u32>;            // (out_channels, channels, 3, 3), packed
@group(0) @binding(3) var<storage, read> bias: array<f32>;         // (out_channels,)
@group(0) @binding(4) var<storage, read_write> first: array<f32>;  // (output pixels, out_channels), addend
@group(0) @binding(5) var<storage, read_write> second: array<f32>; // (output pixels, out_channels), addend
@group(0) @binding(6) var<storage, read_write> y: array<f32>;      // (output pixels, out_channels)

const BIAS: u32 = 1u;
const RELU_IN: u32 = 2u;
const RELU_OUT: u32 = 4u;
const ADD: u32 = 8u;
const ADD_SECOND: u32 = 16u;

// Upper left input pixel (x, y) of each of the tile's rows; far outside where there is no such row.
var<workgroup> corner: array<vec2<i32>, 64>;
var<private> row: u32;

fn tile_x(r: u32, part: u32, k: u32) -> f32 {
    let at = corner[r] + vec2(i32(part % 3u), i32(part / 3u));
    if at.x < 0 || at.y < 0 || at.x >= i32(params.width) || at.y >= i32(params.height) { return 0.0; }
    let v = x[((u32(at.y) - params.x_first) * params.width + u32(at.x)) * params.channels + k];
    return select(v, max(v, 0.0), (params.flags & RELU_IN) != 0u);
}

fn tile_w(c: u32, part: u32, k: u32) -> f32 {
    if c >= params.out_channels { return 0.0; }
    return weight((c * params.channels + k) * 9u + part);
}

fn tile_store(r: u32, c: u32, sum: f32) {
    if row + r >= params.rows * params.out_width || c >= params.out_channels { return; }
    let at = (row + r) * params.out_channels + c;
    var v = sum;
    if (params.flags & BIAS) != 0u { v += bias[c]; }
    if (params.flags & ADD) != 0u { v += first[at]; }
    if (params.flags & ADD_SECOND) != 0u { v += second[at]; }
    if (params.flags & RELU_OUT) != 0u { v = max(v, 0.0); }
    y[at] = v;
}

@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>,
        @builtin(local_invocation_index) index: u32) {
    row = group.y * TILE_ROWS;
    var at = vec2(-1048576, -1048576);
    if row + index < params.rows * params.out_width {
        let u = (row + index) % params.out_width;
        let v = params.y_first + (row + index) / params.out_width;
        at = vec2(i32(u * params.stride) - 1, i32(v * params.stride) - 1);
    }
    corner[index] = at;
    workgroupBarrier();
    tile(group.x * TILE_COLS, 9u, params.channels, local.xy, index);
}
