// y[r, c] = x[r, c] / sqrt(mean_c(x²) + eps) · (1 + scale[c]) + shift[c]; `modulation` holds one row [scale | shift].
// One workgroup a row. Offsets in elements.

#ifdef HALVES
enable f16;
#endif

#import row_sum
#import half

struct AdaRmsNorm {
    rows: u32,
    cols: u32,
    x_offset: u32,
    x_stride: u32,
    modulation_offset: u32,
    y_offset: u32,
    y_stride: u32,
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: AdaRmsNorm;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;          // (rows, cols)
@group(0) @binding(2) var<storage, read_write> modulation: array<f32>; // (2 · cols,)
@group(0) @binding(3) var<storage, read_write> y: array<Stored>;       // (rows, cols)

@compute @workgroup_size(64)
fn main(row: Row) {
    let x_at = params.x_offset + row.group.x * params.x_stride;
    let y_at = params.y_offset + row.group.x * params.y_stride;
    var squares = 0.0;
    for (var c = row.index; c < params.cols; c += 64u) { squares += x[x_at + c] * x[x_at + c]; }
    let norm = inverseSqrt(row_sum(row, squares) / f32(params.cols) + params.eps);
    for (var c = row.index; c < params.cols; c += 64u) {
        let m = params.modulation_offset + c;
        y[y_at + c] = stored(x[x_at + c] * norm * (1.0 + modulation[m]) + modulation[m + params.cols]);
    }
}
