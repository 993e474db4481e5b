// torch's interpolate(mode="bilinear", align_corners=False) on x / 255, into a black square, centred.
// One thread a pixel of the square.

#import pixel

struct ResizeTorch {
    in_width: u32,  // pixels, as all sizes
    in_height: u32,
    width: u32,     // of the resized picture
    height: u32,
    left: u32,      // where it lies in the square
    top: u32,
    side: u32,      // of the square
}

@group(0) @binding(0) var<uniform> params: ResizeTorch;
@group(0) @binding(1) var<storage, read_write> source: array<u32>; // (in_height, in_width) pixels
@group(0) @binding(2) var<storage, read_write> square: array<f32>; // (side, side, 3) in 0..1

fn colour(x: u32, y: u32) -> vec3<f32> {
    let p = source[y * params.in_width + x];
    return vec3(f32(red(p)), f32(green(p)), f32(blue(p))) / 255.0;
}

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.side || id.y >= params.side { return; }
    var c = vec3<f32>();
    if id.x >= params.left && id.x < params.left + params.width && id.y >= params.top && id.y < params.top + params.height {
        let sx = max((f32(id.x - params.left) + 0.5) * (f32(params.in_width) / f32(params.width)) - 0.5, 0.0);
        let sy = max((f32(id.y - params.top) + 0.5) * (f32(params.in_height) / f32(params.height)) - 0.5, 0.0);
        let x0 = min(u32(sx), params.in_width - 1u);
        let y0 = min(u32(sy), params.in_height - 1u);
        let x1 = min(x0 + 1u, params.in_width - 1u);
        let y1 = min(y0 + 1u, params.in_height - 1u);
        let fx = sx - f32(x0);
        let fy = sy - f32(y0);
        let upper = colour(x0, y0) * (1.0 - fx) + colour(x1, y0) * fx;
        let lower = colour(x0, y1) * (1.0 - fx) + colour(x1, y1) * fx;
        c = clamp(upper * (1.0 - fy) + lower * fy, vec3(0.0), vec3(1.0));
    }
    let at = (id.y * params.side + id.x) * 3u;
    square[at] = c.x;
    square[at + 1u] = c.y;
    square[at + 2u] = c.z;
}
