// y[r, c] = (x[r, c] − mean) / sqrt(var + eps) · weight[c] + bias[c]. One workgroup a row. Offsets in elements.

#ifdef HALVES
enable f16;
#endif

#import row_sum
#import half

struct LayerNorm {
    rows: u32,
    cols: u32,
    x_offset: u32,
    x_stride: u32,
    y_offset: u32,
    y_stride: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: LayerNorm;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;    // (rows, cols)
@group(0) @binding(2) var<storage, read> weight: array<f32>;     // (cols,)
@group(0) @binding(3) var<storage, read> bias: array<f32>;       // (cols,)
@group(0) @binding(4) var<storage, read_write> y: array<Stored>; // (rows, cols)

@compute @workgroup_size(64)
fn main(row: Row) {
    let x_at = params.x_offset + row.group.x * params.x_stride;
    let y_at = params.y_offset + row.group.x * params.y_stride;
    var sum = 0.0;
    for (var c = row.index; c < params.cols; c += 64u) { sum += x[x_at + c]; }
    let mean = row_sum(row, sum) / f32(params.cols);
    var squares = 0.0;
    for (var c = row.index; c < params.cols; c += 64u) {
        let d = x[x_at + c] - mean;
        squares += d * d;
    }
    let scale = inverseSqrt(row_sum(row, squares) / f32(params.cols) + params.eps);
    for (var c = row.index; c < params.cols; c += 64u) {
        y[y_at + c] = stored((x[x_at + c] - mean) * scale * weight[c] + bias[c]);
    }
}
