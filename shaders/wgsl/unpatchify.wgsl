// Depth tokens to a depth map: map[y, x] = link( tokens[(y / p) · grid + x / p, (y % p) · p + x % p] ).
// One thread a pixel.

struct Unpatchify {
    side: u32,     // of the map, in pixels
    patch_side: u32,    // p
    x_offset: u32, // elements
    x_stride: u32, // elements
    y_offset: u32, // elements
    link: u32,     // 0 identity, 1 exp, 2 sigmoid
}

@group(0) @binding(0) var<uniform> params: Unpatchify;
@group(0) @binding(1) var<storage, read_write> tokens: array<f32>; // (grid², p²)
@group(0) @binding(2) var<storage, read_write> map: array<f32>;    // (side, side)

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.side || id.y >= params.side { return; }
    let p = params.patch_side;
    let token = (id.y / p) * (params.side / p) + id.x / p;
    var v = tokens[params.x_offset + token * params.x_stride + (id.y % p) * p + id.x % p];
    if params.link == 1u { v = exp(v); }
    if params.link == 2u { v = 1.0 / (1.0 + exp(-v)); }
    map[params.y_offset + id.y * params.side + id.x] = v;
}
