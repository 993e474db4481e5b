// One axis of a resize of pixels of three bytes: a weighted sum, rounded and clipped to bytes. INTEGER sums in 22-bit
// fixed point (Pillow, src/libImaging/Resample.c, ImagingResampleHorizontal_8bpc and Vertical; aten's resize of u8), or
// exactly over both axes (OpenCV, resize.cpp); FLOAT in f32 (aten's resize of f32). Weights come from the host.
// One thread an output pixel.

#import pixel

struct ResizeAxis {
    in_width: u32,   // pixels
    out_width: u32,  // pixels
    out_height: u32, // pixels
    vertical: u32,   // 0: along rows, 1: along columns
    taps: u32,       // weights an output coordinate has at most
    wide: u32,       // bit 0: three words a source pixel, sums of the other axis; bit 1: three words an output pixel, sums
}

@group(0) @binding(0) var<uniform> params: ResizeAxis;
@group(0) @binding(1) var<storage, read_write> table: array<u32>;  // per output coordinate: first input, taps used, weights
@group(0) @binding(2) var<storage, read_write> source: array<u32>; // (in height, in_width) pixels
@group(0) @binding(3) var<storage, read_write> pixels: array<u32>; // (out_height, out_width) pixels

#ifdef INTEGER
alias Number = i32;
fn bytes(sum: vec3<i32>) -> vec3<u32> {
    return vec3<u32>(clamp((sum + vec3(2097152)) >> vec3(22u), vec3(0), vec3(255)));
}
#endif
#ifdef FLOAT
alias Number = f32;
fn bytes(sum: vec3<f32>) -> vec3<u32> {
    return vec3<u32>(clamp(round(sum), vec3(0.0), vec3(255.0)));
}
#endif

fn colour(at: u32) -> vec3<Number> {
    if (params.wide & 1u) == 1u {
        return bitcast<vec3<Number>>(vec3(source[at * 3u], source[at * 3u + 1u], source[at * 3u + 2u]));
    }
    let p = source[at];
    return vec3<Number>(vec3(red(p), green(p), blue(p)));
}

@compute @workgroup_size(8, 8)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.out_width || id.y >= params.out_height { return; }
    let entry = select(id.x, id.y, params.vertical == 1u) * (params.taps + 2u);
    let first = table[entry];
    let used = table[entry + 1u];
    var sum = vec3<Number>();
    for (var t = 0u; t < used; t++) {
        let at = select(id.y * params.in_width + first + t, (first + t) * params.in_width + id.x, params.vertical == 1u);
        sum += bitcast<Number>(table[entry + 2u + t]) * colour(at);
    }
    let at = id.y * params.out_width + id.x;
    if (params.wide & 2u) == 2u {
        let words = bitcast<vec3<u32>>(sum);
        pixels[at * 3u] = words.x;
        pixels[at * 3u + 1u] = words.y;
        pixels[at * 3u + 2u] = words.z;
    } else {
        let c = bytes(sum);
        pixels[at] = pixel(c.x, c.y, c.z);
    }
}
