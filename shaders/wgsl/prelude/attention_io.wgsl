// out[r, h] = softmax_j( cap( q[r, h] · k[j, h'] · scale ) ) · v[j, h'], h' = h / (heads / kv_heads),
// over the keys j of row r: key_start + (r / q_block) · k_block + 0 .. key_count.
// A row without keys is 0.
// With the cache ordered depth, VLM, state, action, each row of the block mask is one such range.
//
// The query heads of one key/value head are rows of one matrix: row i of it is query i / group, head i % group.
// Dispatch: (tiles of a block's rows, kv_heads, blocks).

struct Attention {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,   // at most 64, 128 or 256, by the variant
    q_offset: u32,   // elements, as all offsets and strides
    q_stride: u32,
    k_offset: u32,
    v_offset: u32,
    kv_stride: u32,
    out_offset: u32,
    out_stride: u32,
    key_start: u32,
    key_count: u32,
    q_block: u32,    // rows that share a range of keys
    k_block: u32,    // keys from one block's range to the next
    scale: f32,
    softcap: f32,    // 0: none
}

@group(0) @binding(0) var<uniform> params: Attention;
#ifdef WIDE
// Offsets, strides and head_dim multiples of 4.
@group(0) @binding(1) var<storage, read_write> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> k: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> v: array<vec4<f32>>;
#else
@group(0) @binding(1) var<storage, read_write> q: array<f32>;   // (rows, heads · head_dim)
@group(0) @binding(2) var<storage, read_write> k: array<f32>;   // (keys, kv_heads · head_dim)
@group(0) @binding(3) var<storage, read_write> v: array<f32>;   // (keys, kv_heads · head_dim)
#endif
@group(0) @binding(4) var<storage, read_write> out: array<f32>; // (rows, heads · head_dim)
