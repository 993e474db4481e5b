// u8 pixels into a black rectangle, as x / 255. One thread a pixel of the rectangle.

#import pixel

struct ImagePad {
    width: u32,  // pixels, as all sizes
    height: u32,
    left: u32,   // where the picture lies in the rectangle
    top: u32,
    out_width: u32,  // of the rectangle
    out_height: u32,
}

@group(0) @binding(0) var<uniform> params: ImagePad;
@group(0) @binding(1) var<storage, read_write> source: array<u32>; // (height, width) pixels
@group(0) @binding(2) var<storage, read_write> square: array<f32>; // (out_height, out_width, 3) in 0..1

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.out_width || id.y >= params.out_height { return; }
    var c = vec3<f32>();
    if id.x >= params.left && id.x < params.left + params.width && id.y >= params.top && id.y < params.top + params.height {
        let p = source[(id.y - params.top) * params.width + id.x - params.left];
        c = vec3(f32(red(p)), f32(green(p)), f32(blue(p))) / 255.0;
    }
    let at = (id.y * params.out_width + id.x) * 3u;
    square[at] = c.x;
    square[at + 1u] = c.y;
    square[at + 2u] = c.z;
}
