// Rotary position embedding in place: half-split pairs (i, i + head_dim/2) of each head are turned by the
// angle of their row's position. Angles come from a table made on the host. One thread a pair.

struct Rope {
    rows: u32,
    heads: u32,
    head_dim: u32,
    x_offset: u32,     // elements
    x_stride: u32,     // elements
    table_offset: u32, // elements: 2 · (head_dim / 2) · the position of row 0
}

@group(0) @binding(0) var<uniform> params: Rope;
@group(0) @binding(1) var<storage, read_write> table: array<f32>; // (positions, head_dim / 2, [cos, sin])
@group(0) @binding(2) var<storage, read_write> x: array<f32>;     // (rows, heads · head_dim)

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let half = params.head_dim / 2u;
    let row = id.y;
    if id.x >= half * params.heads { return; }
    let pair = id.x % half;
    let at = params.x_offset + row * params.x_stride + (id.x / half) * params.head_dim + pair;
    let angle = params.table_offset + (row * half + pair) * 2u;
    let c = table[angle];
    let s = table[angle + 1u];
    let a = x[at];
    let b = x[at + half];
    x[at] = a * c - b * s;
    x[at + half] = b * c + a * s;
}
