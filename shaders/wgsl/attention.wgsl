// out[r, h] = softmax_j( cap( q[r, h] · k[j, h'] · scale ) ) · v[j, h'], h' = h / (heads / kv_heads),
// over the keys j of row r: key_start + (r / q_block) · k_block + 0 .. key_count.
// With the cache ordered depth, VLM, state, action, each row of the block mask is one such range.
// One workgroup a (row, head); keys in chunks of 64 with a running maximum.

struct Attention {
    rows: u32,
    heads: u32,
    kv_heads: u32,
    head_dim: u32,   // at most 256
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
@group(0) @binding(1) var<storage, read_write> q: array<f32>;   // (rows, heads · head_dim)
@group(0) @binding(2) var<storage, read_write> k: array<f32>;   // (keys, kv_heads · head_dim)
@group(0) @binding(3) var<storage, read_write> v: array<f32>;   // (keys, kv_heads · head_dim)
@group(0) @binding(4) var<storage, read_write> out: array<f32>; // (rows, heads · head_dim)

const CHUNK: u32 = 64u;

var<workgroup> query: array<f32, 256>;
var<workgroup> weight: array<f32, 64>;
var<workgroup> reduced: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let row = group.x;
    let head = group.y;
    let dim = params.head_dim;
    let kv = (head / (params.heads / params.kv_heads)) * dim;
    let first = params.key_start + (row / params.q_block) * params.k_block;
    for (var d = index; d < dim; d += CHUNK) {
        query[d] = q[params.q_offset + row * params.q_stride + head * dim + d] * params.scale;
    }
    workgroupBarrier();
    var acc = vec4<f32>(); // dimensions index, index + 64, + 128, + 192
    var top = -3.4e38;
    var sum = 0.0;
    for (var j0 = 0u; j0 < params.key_count; j0 += CHUNK) {
        let live = min(CHUNK, params.key_count - j0);
        var logit = -3.4e38;
        if index < live {
            let at = params.k_offset + (first + j0 + index) * params.kv_stride + kv;
            var dot = 0.0;
            for (var d = 0u; d < dim; d++) { dot += query[d] * k[at + d]; }
            logit = dot;
            if params.softcap > 0.0 { logit = params.softcap * tanh(clamp(dot / params.softcap, -10.0, 10.0)); }
        }
        reduced[index] = logit;
        workgroupBarrier();
        for (var s = 32u; s > 0u; s >>= 1u) {
            if index < s { reduced[index] = max(reduced[index], reduced[index + s]); }
            workgroupBarrier();
        }
        let next = max(top, reduced[0]);
        workgroupBarrier();
        var p = 0.0;
        if index < live { p = exp(logit - next); }
        weight[index] = p;
        reduced[index] = p;
        workgroupBarrier();
        for (var s = 32u; s > 0u; s >>= 1u) {
            if index < s { reduced[index] += reduced[index + s]; }
            workgroupBarrier();
        }
        let shrink = exp(top - next);
        sum = sum * shrink + reduced[0];
        acc *= shrink;
        top = next;
        for (var i = 0u; i * CHUNK < dim; i++) {
            let d = index + i * CHUNK;
            if d >= dim { break; }
            let at = params.v_offset + (first + j0) * params.kv_stride + kv + d;
            var a = 0.0;
            for (var j = 0u; j < live; j++) { a += weight[j] * v[at + j * params.kv_stride]; }
            acc[i] += a;
        }
        workgroupBarrier();
    }
    for (var i = 0u; i * CHUNK < dim; i++) {
        let d = index + i * CHUNK;
        if d >= dim { break; }
        out[params.out_offset + row * params.out_stride + head * dim + d] = acc[i] / sum;
    }
}
