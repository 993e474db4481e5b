// out[r, h] = softmax_j( cap( q[r, h] · k[j, h'] · scale ) ) · v[j, h'], h' = h / (heads / kv_heads),
// over the keys j of row r: key_start + (r / q_block) · k_block + 0 .. key_count.
// A row without keys is 0.
// With the cache ordered depth, VLM, state, action, each row of the block mask is one such range.
//
// The query heads of one key/value head are rows of one matrix: row i of it is query i / group, head i % group.
// Dispatch: (tiles of a block's rows, kv_heads, blocks).

#import half

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
    flags: u32,      // which tensors are in f16
}

@group(0) @binding(0) var<uniform> params: Attention;
#ifdef WIDE
// Offsets, strides and head_dim multiples of 4.
#ifdef KV_F16
alias Four = vec4<f16>;
#else
alias Four = vec4<f32>;
#endif
@group(0) @binding(1) var<storage, read_write> q: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> k: array<Four>;
@group(0) @binding(3) var<storage, read_write> v: array<Four>;
#else
@group(0) @binding(1) var<storage, read_write> q: array<f32>;   // (rows, heads · head_dim)
@group(0) @binding(2) var<storage, read_write> k: array<f32>;   // (keys, kv_heads · head_dim)
@group(0) @binding(3) var<storage, read_write> v: array<f32>;   // (keys, kv_heads · head_dim)
#endif
@group(0) @binding(4) var<storage, read_write> out: array<f32>; // (rows, heads · head_dim)
#ifdef HALVES
// The same tensors, for those that `flags` mark as f16.
@group(0) @binding(5) var<storage, read_write> out_half: array<f16>;
#ifdef WIDE
@group(0) @binding(6) var<storage, read_write> q_half: array<vec4<f16>>;
#else
@group(0) @binding(6) var<storage, read_write> q_half: array<f16>;
@group(0) @binding(7) var<storage, read_write> k_half: array<f16>;
@group(0) @binding(8) var<storage, read_write> v_half: array<f16>;
#endif
#endif

const Q_F16: u32 = 1u;
const KV_F16: u32 = 2u;
const OUT_F16: u32 = 4u;

#ifndef WIDE
fn q_at(i: u32) -> f32 {
#ifdef HALVES
    if (params.flags & Q_F16) != 0u { return f32(q_half[i]); }
#endif
    return q[i];
}

fn k_at(i: u32) -> f32 {
#ifdef HALVES
    if (params.flags & KV_F16) != 0u { return f32(k_half[i]); }
#endif
    return k[i];
}

fn v_at(i: u32) -> f32 {
#ifdef HALVES
    if (params.flags & KV_F16) != 0u { return f32(v_half[i]); }
#endif
    return v[i];
}
#endif

fn put(i: u32, value: f32) {
#ifdef HALVES
    if (params.flags & OUT_F16) != 0u {
        out_half[i] = half(value);
        return;
    }
#endif
    out[i] = value;
}
