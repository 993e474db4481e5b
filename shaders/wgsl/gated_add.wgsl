// x[r, c] += gate[c] · f[r, c], in place. One thread an element. Offsets and strides in elements.

struct GatedAdd {
    rows: u32,
    cols: u32,
    f_offset: u32,
    f_stride: u32,
    gate_offset: u32,
    x_offset: u32,
    x_stride: u32,
}

@group(0) @binding(0) var<uniform> params: GatedAdd;
@group(0) @binding(1) var<storage, read_write> f: array<f32>;    // (rows, cols)
@group(0) @binding(2) var<storage, read_write> gate: array<f32>; // (cols,)
@group(0) @binding(3) var<storage, read_write> x: array<f32>;    // (rows, cols)

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.cols { return; }
    x[params.x_offset + id.y * params.x_stride + id.x] +=
        gate[params.gate_offset + id.x] * f[params.f_offset + id.y * params.f_stride + id.x];
}
