// y[r, c] = epilogue( sum_k x[r, k] * w[c, k] ). Offsets and strides are in elements.

struct Linear {
    m: u32,            // rows of x and y
    n: u32,            // columns of y = rows of w
    k: u32,            // columns of x = columns of w
    x_offset: u32,
    x_stride: u32,
    w_offset: u32,
    w_stride: u32,
    y_offset: u32,
    y_stride: u32,
    other_offset: u32,
    other_stride: u32, // 0: the same row for every r
    flags: u32,
    activation: u32,
}

@group(0) @binding(0) var<uniform> params: Linear;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;       // (m, k)
@group(0) @binding(2) var<storage, read> w: array<u32>;             // (n, k), packed
@group(0) @binding(3) var<storage, read> bias: array<f32>;          // (n,)
@group(0) @binding(4) var<storage, read> layer_scale: array<f32>;   // (n,)
@group(0) @binding(5) var<storage, read_write> other: array<f32>;   // (m, n), addend or factor
@group(0) @binding(6) var<storage, read_write> y: array<f32>;       // (m, n)
