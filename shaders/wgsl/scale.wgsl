// y[r, c] = factor · x[r, c]. One thread an element. Offsets and strides in elements.

struct Scale {
    rows: u32,
    cols: u32,
    x_offset: u32,
    x_stride: u32,
    y_offset: u32,
    y_stride: u32,
    factor: f32,
}

@group(0) @binding(0) var<uniform> params: Scale;
@group(0) @binding(1) var<storage, read_write> x: array<f32>; // (rows, cols)
@group(0) @binding(2) var<storage, read_write> y: array<f32>; // (rows, cols)

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.cols { return; }
    y[params.y_offset + id.y * params.y_stride + id.x] = params.factor * x[params.x_offset + id.y * params.x_stride + id.x];
}
