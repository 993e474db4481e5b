// torch's interpolate(mode="bilinear", align_corners=True) of (height, width, channels), or of a band of the output's
// rows: the corners' centres keep their positions. One thread an element.

struct ResizeCorners {
    width: u32,     // of the input, in pixels, as all sizes
    height: u32,
    channels: u32,
    out_width: u32,
    rows: u32,      // of y
    y_first: u32,   // row of the output that y begins with
    scale_x: f32,   // (width − 1) / (out width − 1), or 0
    scale_y: f32,
}

@group(0) @binding(0) var<uniform> params: ResizeCorners;
@group(0) @binding(1) var<storage, read_write> x: array<f32>; // (height · width, channels)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (rows · out_width, channels)

fn value(u: u32, v: u32, c: u32) -> f32 {
    return x[(v * params.width + u) * params.channels + c];
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.out_width * params.channels { return; }
    let c = id.x % params.channels;
    let at_x = f32(id.x / params.channels) * params.scale_x;
    let at_y = f32(params.y_first + id.y) * params.scale_y;
    let u0 = min(u32(at_x), params.width - 1u);
    let v0 = min(u32(at_y), params.height - 1u);
    let u1 = min(u0 + 1u, params.width - 1u);
    let v1 = min(v0 + 1u, params.height - 1u);
    let fx = at_x - f32(u0);
    let fy = at_y - f32(v0);
    let upper = value(u0, v0, c) * (1.0 - fx) + value(u1, v0, c) * fx;
    let lower = value(u0, v1, c) * (1.0 - fx) + value(u1, v1, c) * fx;
    y[id.y * params.out_width * params.channels + id.x] = upper * (1.0 - fy) + lower * fy;
}
