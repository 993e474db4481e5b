// The image as rows of patches, normalised: row t is patch (t / grid, t % grid) with grid = width / patch, its elements
// in the order (channel, y, x) of the checkpoint's convolution weight. One thread an element.

struct Patchify {
    width: u32,    // of the image, in pixels
    height: u32,
    patch_side: u32,    // side of a patch, in pixels
    y_offset: u32, // elements
    mean_r: f32,
    mean_g: f32,
    mean_b: f32,
    std_r: f32,
    std_g: f32,
    std_b: f32,
}

@group(0) @binding(0) var<uniform> params: Patchify;
@group(0) @binding(1) var<storage, read_write> square: array<f32>;  // (height, width, 3) in 0..1
@group(0) @binding(2) var<storage, read_write> patches: array<f32>; // (height / patch · grid, 3 · patch²)

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let p = params.patch_side;
    let cols = 3u * p * p;
    if id.x >= cols { return; }
    let grid = params.width / p;
    let channel = id.x / (p * p);
    let y = (id.y / grid) * p + (id.x / p) % p;
    let x = (id.y % grid) * p + id.x % p;
    let mean = vec3(params.mean_r, params.mean_g, params.mean_b)[channel];
    let deviation = vec3(params.std_r, params.std_g, params.std_b)[channel];
    patches[params.y_offset + id.y * cols + id.x] = (square[(y * params.width + x) * 3u + channel] - mean) / deviation;
}
