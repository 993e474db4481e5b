// One axis of Pillow's resize on u8: a weighted sum in 22-bit fixed point, rounded and clipped to u8
// (Pillow, src/libImaging/Resample.c, ImagingResampleHorizontal_8bpc and Vertical). Weights come from the host.
// One thread an output pixel.

#import pixel

struct ResizePillow {
    in_width: u32,   // pixels
    out_width: u32,  // pixels
    out_height: u32, // pixels
    vertical: u32,   // 0: along rows, 1: along columns
    taps: u32,       // weights an output coordinate has at most
}

@group(0) @binding(0) var<uniform> params: ResizePillow;
@group(0) @binding(1) var<storage, read_write> table: array<u32>;  // per output coordinate: first input, taps used, weights (i32)
@group(0) @binding(2) var<storage, read_write> source: array<u32>; // (in height, in_width) pixels
@group(0) @binding(3) var<storage, read_write> pixels: array<u32>; // (out_height, out_width) pixels

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.out_width || id.y >= params.out_height { return; }
    let entry = select(id.x, id.y, params.vertical == 1u) * (params.taps + 2u);
    let first = table[entry];
    let used = table[entry + 1u];
    var sum = vec3<i32>(2097152); // one half in 22-bit fixed point
    for (var t = 0u; t < used; t++) {
        let at = select(id.y * params.in_width + first + t, (first + t) * params.in_width + id.x, params.vertical == 1u);
        let p = source[at];
        sum += bitcast<i32>(table[entry + 2u + t]) * vec3(i32(red(p)), i32(green(p)), i32(blue(p)));
    }
    let c = clamp(sum >> vec3(22u), vec3(0), vec3(255));
    pixels[id.y * params.out_width + id.x] = pixel(u32(c.x), u32(c.y), u32(c.z));
}
