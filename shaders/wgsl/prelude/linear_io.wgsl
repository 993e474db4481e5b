// y[r, c] = epilogue( sum_k x[r, k] * w[j, k] ), c the layer's own column of w's row j. Offsets and strides are in elements.
//
// A layer is one weight or several on top of each other (queries, keys and values; gate and up). With `pair_distance`,
// w's rows are in pairs: in each block of 2 pair_distance, rows 2i and 2i + 1 are the layer's columns i and i +
// pair_distance. So one thread has both operands of a RoPE rotation, or a gate and its value.

struct Linear {
    m: u32,             // rows of x and y
    n: u32,             // rows of w
    k: u32,             // columns of x and w
    x_offset: u32,
    x_stride: u32,
    w_row: u32,         // the first row of w that is used
    w_stride: u32,      // from row to row, a multiple of 32; w is 0 beyond k
    group_shift: u32,   // W4: 1 << group_shift weights share a scale
    first: u32,         // place among the layer's rows of the first row of w that is used
    pair_distance: u32, // 0: rows are columns
    y_offset: u32,
    y_stride: u32,
    split: u32,         // columns from here on go to `side`
    side_offset: u32,
    side_cols: u32,     // columns of one of its planes
    side_plane: u32,    // from a plane to the next
    other_offset: u32,
    other_stride: u32,  // 0: the same row for every r
    rope_columns: u32,  // RoPE on the columns before this
    table_offset: u32,  // of the first row's cosines and sines
    flags: u32,
    activation: u32,
    eps: f32,           // of the norm
    scale: f32,         // of sum and bias
}

@group(0) @binding(0) var<uniform> params: Linear;
#ifdef WIDE
#ifdef X_F16
alias Four = vec4<f16>;
#else
alias Four = vec4<f32>;
#endif
@group(0) @binding(1) var<storage, read_write> x: array<Four>;      // (m, k), offset, stride and k multiples of 4
@group(0) @binding(2) var<storage, read> w: array<vec4<u32>>;       // rows of w_stride, in the variant's format
@group(0) @binding(6) var<storage, read> norm: array<vec4<f32>>;    // (k,)
#else
@group(0) @binding(1) var<storage, read_write> x: array<f32>;       // (m, k)
@group(0) @binding(2) var<storage, read> w: array<u32>;             // rows of w_stride, in the variant's format
@group(0) @binding(6) var<storage, read> norm: array<f32>;          // (k,)
#endif
@group(0) @binding(3) var<storage, read> scales: array<u32>;        // W8: f32 (rows,); W4: f16 (rows, groups), or with minima f16 (rows, groups, 2)
@group(0) @binding(4) var<storage, read> bias: array<f32>;          // (columns,)
@group(0) @binding(5) var<storage, read> layer_scale: array<f32>;   // (columns,)
@group(0) @binding(7) var<storage, read_write> other: array<f32>;   // (m, columns), addend
@group(0) @binding(8) var<storage, read_write> table: array<f32>;   // (positions, pair_distance, [cos, sin])
@group(0) @binding(9) var<storage, read_write> side: array<f32>;    // (planes, _, side_cols)
@group(0) @binding(10) var<storage, read_write> y: array<f32>;      // (m, columns)
#ifdef HALVES
// The same tensors, for those that `flags` mark as f16.
@group(0) @binding(11) var<storage, read_write> y_half: array<f16>;
@group(0) @binding(12) var<storage, read_write> side_half: array<f16>;
#ifndef WIDE
@group(0) @binding(13) var<storage, read_write> x_half: array<f16>;
#endif
#endif

const X_F16: u32 = 32u;
const Y_F16: u32 = 64u;
const SIDE_F16: u32 = 128u;

#ifndef WIDE
fn x_at(i: u32) -> f32 {
#ifdef HALVES
    if (params.flags & X_F16) != 0u { return f32(x_half[i]); }
#endif
    return x[i];
}
#endif
