// Attention for GPUs: a workgroup has 64 rows of one block and goes through the keys in tiles of 64 with a running maximum.
// 4 × 4 logits and 4 × (4, 8 or 16) outputs a thread.

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

var<workgroup> left: array<vec4<f32>, 256>;   // (SLICE, TILE / 4): queries
var<workgroup> right: array<vec4<f32>, 256>;  // (SLICE, TILE / 4): keys, then values
var<workgroup> weight: array<f32, 4096>;      // (key, row): logits, then weights
var<workgroup> shrink: array<f32, 64>;        // what a row's maximum did to what was summed before
var<workgroup> total: array<f32, 64>;

fn load_q(i: u32, d: u32, base: u32, group: u32, head: u32, rows: u32) -> f32 {
    if i < rows && d < params.head_dim {
        return q[params.q_offset + (base + i / group) * params.q_stride + (head + i % group) * params.head_dim + d];
    }
    return 0.0;
}

fn load_kv(offset: u32, j: u32, d: u32, column: u32) -> u32 {
    return offset + j * params.kv_stride + column + d;
}

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>,
        @builtin(local_invocation_index) index: u32) {
    let dim = params.head_dim;
    let group = params.heads / params.kv_heads;
    let head = id.y * group;
    let column = id.y * dim;
    let base = id.z * params.q_block;
    let rows = min(params.q_block, params.rows - base) * group;
    let row = id.x * TILE;
    let first = params.key_start + id.z * params.k_block;
    let at = local.y * 4u;   // this thread's rows of the tile
    let col = local.x * 4u;  // and its columns

    var acc: array<array<vec4<f32>, 4>, WIDTHS>;
    var top = LOWEST; // of row `index`, in the first 64 threads
    var sum = 0.0;
    for (var j0 = 0u; j0 < params.key_count; j0 += TILE) {
        let live = min(TILE, params.key_count - j0);
        // Logits of the tile.
        var s: array<vec4<f32>, 4>;
        for (var d0 = 0u; d0 < dim; d0 += SLICE) {
            let d = d0 + index % SLICE;
            let i = (index / SLICE) * 4u;
            let stage = (index % SLICE) * 16u + index / SLICE;
            left[stage] = vec4(load_q(row + i, d, base, group, head, rows), load_q(row + i + 1u, d, base, group, head, rows),
                               load_q(row + i + 2u, d, base, group, head, rows), load_q(row + i + 3u, d, base, group, head, rows));
            var keys = vec4<f32>();
            if d < dim {
                for (var c = 0u; c < 4u; c++) {
                    if i + c < live { keys[c] = k[load_kv(params.k_offset, first + j0 + i + c, d, column)]; }
                }
            }
            right[stage] = keys;
            workgroupBarrier();
            for (var t = 0u; t < SLICE; t++) {
                let a = left[t * 16u + local.y];
                let b = right[t * 16u + local.x];
                s[0] += a.x * b;
                s[1] += a.y * b;
                s[2] += a.z * b;
                s[3] += a.w * b;
            }
            workgroupBarrier();
        }
        for (var r = 0u; r < 4u; r++) {
            for (var c = 0u; c < 4u; c++) {
                var logit = s[r][c] * params.scale;
                if params.softcap > 0.0 { logit = params.softcap * tanh(clamp(logit / params.softcap, -10.0, 10.0)); }
                if col + c >= live { logit = LOWEST; }
                weight[(col + c) * TILE + at + r] = logit;
            }
        }
        workgroupBarrier();
        // Weights of the tile, a row a thread.
        if index < TILE {
            var next = top;
            for (var j = 0u; j < live; j++) { next = max(next, weight[j * TILE + index]); }
            let factor = exp(top - next);
            sum *= factor;
            for (var j = 0u; j < live; j++) {
                let p = exp(weight[j * TILE + index] - next);
                weight[j * TILE + index] = p;
                sum += p;
            }
            top = next;
            shrink[index] = factor;
            total[index] = sum;
        }
        workgroupBarrier();
        // Outputs of the tile.
        for (var u = 0u; u < WIDTHS; u++) {
            if u * TILE >= dim { break; }
            for (var r = 0u; r < 4u; r++) { acc[u][r] *= shrink[at + r]; }
            for (var t0 = 0u; t0 < live; t0 += SLICE) {
                let j = t0 + index / 16u;
                let d = u * TILE + (index % 16u) * 4u;
                var values = vec4<f32>();
                if j < live {
                    for (var c = 0u; c < 4u; c++) {
                        if d + c < dim { values[c] = v[load_kv(params.v_offset, first + j0 + j, d + c, column)]; }
                    }
                }
                right[index] = values;
                workgroupBarrier();
                let count = min(SLICE, live - t0);
                for (var t = 0u; t < count; t++) {
                    let b = right[t * 16u + local.x];
                    let p = (t0 + t) * TILE + at;
                    acc[u][0] += weight[p] * b;
                    acc[u][1] += weight[p + 1u] * b;
                    acc[u][2] += weight[p + 2u] * b;
                    acc[u][3] += weight[p + 3u] * b;
                }
                workgroupBarrier();
            }
        }
    }
    for (var u = 0u; u < WIDTHS; u++) {
        for (var r = 0u; r < 4u; r++) {
            let i = row + at + r;
            if i >= rows { break; }
            let to = params.out_offset + (base + i / group) * params.out_stride + (head + i % group) * dim;
            for (var c = 0u; c < 4u; c++) {
                let d = u * TILE + col + c;
                if d < dim { out[to + d] = acc[u][r][c] / total[at + r]; }
            }
        }
    }
}
