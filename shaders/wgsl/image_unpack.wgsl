// The camera's bytes to one u32 a pixel. YUYV and NV12 are BT.601, limited range, in integers. One thread a pixel.

#import pixel

struct ImageUnpack {
    width: u32,  // pixels
    height: u32, // pixels
    stride: u32, // bytes of a row (of the first plane)
}

@group(0) @binding(0) var<uniform> params: ImageUnpack;
@group(0) @binding(1) var<storage, read_write> bytes: array<u32>;  // the image as the driver gave it, little-endian words
@group(0) @binding(2) var<storage, read_write> pixels: array<u32>; // (height, width)

fn byte(i: u32) -> u32 {
    return (bytes[i >> 2u] >> ((i & 3u) * 8u)) & 255u;
}

fn yuv(y: u32, u: u32, v: u32) -> u32 {
    let c = 298 * (i32(y) - 16) + 128;
    let d = i32(u) - 128;
    let e = i32(v) - 128;
    let r = clamp((c + 409 * e) >> 8u, 0, 255);
    let g = clamp((c - 100 * d - 208 * e) >> 8u, 0, 255);
    let b = clamp((c + 516 * d) >> 8u, 0, 255);
    return pixel(u32(r), u32(g), u32(b));
}

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.width || id.y >= params.height { return; }
    let row = id.y * params.stride;
#ifdef RGB24
    let at = row + id.x * 3u;
    let out = pixel(byte(at), byte(at + 1u), byte(at + 2u));
#endif
#ifdef YUYV
    let at = row + (id.x / 2u) * 4u;
    let out = yuv(byte(at + (id.x & 1u) * 2u), byte(at + 1u), byte(at + 3u));
#endif
#ifdef NV12
    let chroma = params.stride * params.height + (id.y / 2u) * params.stride + (id.x / 2u) * 2u;
    let out = yuv(byte(row + id.x), byte(chroma), byte(chroma + 1u));
#endif
    pixels[id.y * params.width + id.x] = out;
}
