// Attention for GPUs: a workgroup has 64 rows of one block and visits the keys in tiles of 64 with a running maximum. 4
// × 4 logits and 4 × (4, 8 or 16) outputs a thread; four threads share the softmax of a row.

#ifdef HALVES
enable f16;
#endif

#import attention_io

const TILE: u32 = 64u;
const SLICE: u32 = 16u;
const LOWEST: f32 = -3.4e38;
// Columns of the output in units of TILE.
#ifdef HEAD_256
const WIDTHS: u32 = 4u;
#else
#ifdef HEAD_128
const WIDTHS: u32 = 2u;
#else
const WIDTHS: u32 = 1u;
#endif
#endif
const QUADS: u32 = 16u * WIDTHS; // of a row of the output
const VALUES: u32 = 512u / QUADS; // rows of v that are staged at once

var<workgroup> stage: array<vec4<f32>, 512>;   // queries and keys, (SLICE, TILE / 4) each; then values, (VALUES, QUADS)
var<workgroup> weight: array<vec4<f32>, 1024>; // (key, rows / 4): logits, then weights
var<workgroup> part: array<f32, 256>;          // (quarter of the keys, row): maxima, sums
var<workgroup> shrink: array<vec4<f32>, 16>;   // (rows / 4,): factor on a row's earlier sums when its maximum rises

fn load_q(i: u32, d: u32, base: u32, group: u32, head: u32, rows: u32) -> f32 {
    if i < rows && d < params.head_dim {
        return q_at(params.q_offset + (base + i / group) * params.q_stride + (head + i % group) * params.head_dim + d);
    }
    return 0.0;
}

fn load_k(j: u32, live: u32, d: u32, from_key: u32) -> f32 {
    if j < live && d < params.head_dim { return k_at(from_key + j * params.kv_stride + d); }
    return 0.0;
}

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>,
        @builtin(local_invocation_index) index: u32) {
    let dim = params.head_dim;
    let group = params.heads / params.kv_heads;
    let head = id.y * group;
    let base = id.z * params.q_block;
    let rows = min(params.q_block, params.rows - base) * group;
    let row = id.x * TILE;
    let first = (params.key_start + id.z * params.k_block) * params.kv_stride + id.y * dim;
    let col = local.x * 4u; // this thread's columns of the tile; its rows are local.y * 4u and three more
    let own = index % TILE; // its row of the softmax, and which of its keys
    let quarter = index / TILE;

    var acc: array<vec4<f32>, 4u * WIDTHS>; // (width, row)
    for (var i = 0u; i < 4u * WIDTHS; i++) { acc[i] = vec4<f32>(); }
    var top = LOWEST;
    var sum = 0.0;
    for (var j0 = 0u; j0 < params.key_count; j0 += TILE) {
        let live = min(TILE, params.key_count - j0);
        // Logits of the tile.
        var s0 = vec4<f32>(); var s1 = vec4<f32>(); var s2 = vec4<f32>(); var s3 = vec4<f32>();
        for (var d0 = 0u; d0 < dim; d0 += SLICE) {
            let d = d0 + index % SLICE;
            let i = (index / SLICE) * 4u;
            let at = (index % SLICE) * 16u + index / SLICE;
            let from_key = params.k_offset + first + j0 * params.kv_stride;
            stage[at] = vec4(load_q(row + i, d, base, group, head, rows), load_q(row + i + 1u, d, base, group, head, rows),
                             load_q(row + i + 2u, d, base, group, head, rows), load_q(row + i + 3u, d, base, group, head, rows));
            stage[256u + at] = vec4(load_k(i, live, d, from_key), load_k(i + 1u, live, d, from_key),
                                    load_k(i + 2u, live, d, from_key), load_k(i + 3u, live, d, from_key));
            workgroupBarrier();
            for (var t = 0u; t < SLICE; t++) {
                let a = stage[t * 16u + local.y];
                let b = stage[256u + t * 16u + local.x];
                s0 += a.x * b;
                s1 += a.y * b;
                s2 += a.z * b;
                s3 += a.w * b;
            }
            workgroupBarrier();
        }
        for (var c = 0u; c < 4u; c++) {
            var logits = vec4(s0[c], s1[c], s2[c], s3[c]) * params.scale;
            if params.softcap > 0.0 {
                logits = params.softcap * tanh(clamp(logits / params.softcap, vec4(-10.0), vec4(10.0)));
            }
            weight[(col + c) * 16u + local.y] = select(vec4(LOWEST), logits, col + c < live);
        }
        workgroupBarrier();
        // Weights of the tile.
        var most = LOWEST;
        for (var j = quarter * 16u; j < quarter * 16u + 16u; j++) { most = max(most, weight[j * 16u + own / 4u][own % 4u]); }
        part[index] = most;
        workgroupBarrier();
        let next = max(top, max(max(part[own], part[own + 64u]), max(part[own + 128u], part[own + 192u])));
        let factor = exp(top - next);
        sum *= factor;
        for (var j = quarter * 16u; j < quarter * 16u + 16u; j++) {
            let p = exp(weight[j * 16u + own / 4u][own % 4u] - next);
            weight[j * 16u + own / 4u][own % 4u] = p;
            sum += p;
        }
        top = next;
        if quarter == 0u { shrink[own / 4u][own % 4u] = factor; }
        workgroupBarrier();
        // Outputs of the tile.
        let factors = shrink[local.y];
        for (var u = 0u; u < WIDTHS; u++) {
            for (var r = 0u; r < 4u; r++) { acc[u * 4u + r] *= factors[r]; }
        }
        for (var t0 = 0u; t0 < live; t0 += VALUES) {
            for (var i = index; i < 512u; i += 256u) {
                let j = t0 + i / QUADS;
                let d = i % QUADS * 4u;
                let at = params.v_offset + first + (j0 + j) * params.kv_stride + d;
                var values = vec4<f32>();
                if j < live {
                    if d < dim { values.x = v_at(at); }
                    if d + 1u < dim { values.y = v_at(at + 1u); }
                    if d + 2u < dim { values.z = v_at(at + 2u); }
                    if d + 3u < dim { values.w = v_at(at + 3u); }
                }
                stage[i] = values;
            }
            workgroupBarrier();
            for (var t = 0u; t < VALUES; t++) {
                let p = weight[(t0 + t) * 16u + local.y];
                for (var u = 0u; u < WIDTHS; u++) {
                    let b = stage[t * QUADS + u * 16u + local.x];
                    acc[u * 4u] += p.x * b;
                    acc[u * 4u + 1u] += p.y * b;
                    acc[u * 4u + 2u] += p.z * b;
                    acc[u * 4u + 3u] += p.w * b;
                }
            }
            workgroupBarrier();
        }
    }
    part[index] = sum;
    workgroupBarrier();
    for (var r = 0u; r < 4u; r++) {
        let at = local.y * 4u + r;
        let i = row + at;
        if i < rows {
            // A row without keys is 0.
            let total = part[at] + part[at + 64u] + part[at + 128u] + part[at + 192u];
            let scale = select(0.0, 1.0 / total, total > 0.0);
            let to = params.out_offset + (base + i / group) * params.out_stride + (head + i % group) * dim;
            for (var u = 0u; u < WIDTHS; u++) {
                for (var c = 0u; c < 4u; c++) {
                    let d = u * TILE + col + c;
                    if d < dim { put(to + d, acc[u * 4u + r][c] * scale); }
                }
            }
        }
    }
}
