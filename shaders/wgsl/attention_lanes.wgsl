// Attention for drivers that run a workgroup's threads as the lanes of a processor's vectors: a thread has one row, reads the
// same keys and values as the others (one scalar load), meets no barrier, and sums up in `out`. Keys in tiles of 16.

#ifdef HALVES
enable f16;
#endif

#import attention_io

const TILE: u32 = 16u;
const THREADS: u32 = 32u;
const LOWEST: f32 = -3.4e38;

// Where the tile's keys begin, or its values; those beyond the last are the last.
fn places(offset: u32, first: u32, live: u32, column: u32) -> array<u32, 16> {
    var at: array<u32, 16>;
    for (var j = 0u; j < TILE; j++) { at[j] = offset + (first + min(j, live - 1u)) * params.kv_stride + column; }
    return at;
}

// Sums of the thread's row, whose output begins at `to`: in the output itself, where that is in f32.
#ifdef HALVES
var<private> sums: array<f32, 256>;
#endif

fn sum_at(to: u32, d: u32) -> f32 {
#ifdef HALVES
    return sums[d];
#else
    return out[to + d];
#endif
}

fn set_sum(to: u32, d: u32, value: f32) {
#ifdef HALVES
    sums[d] = value;
#else
    out[to + d] = value;
#endif
}

fn cap(logits: vec4<f32>) -> vec4<f32> {
    let scaled = logits * params.scale;
    if params.softcap > 0.0 { return params.softcap * tanh(clamp(scaled / params.softcap, vec4(-10.0), vec4(10.0))); }
    return scaled;
}

fn mask(logits: vec4<f32>, j: u32, live: u32) -> vec4<f32> {
    return select(vec4(LOWEST), logits, vec4(j, j + 1u, j + 2u, j + 3u) < vec4(live));
}

fn largest(a: vec4<f32>) -> f32 {
    return max(max(a.x, a.y), max(a.z, a.w));
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let dim = params.head_dim;
    let group = params.heads / params.kv_heads;
    let base = id.z * params.q_block;
    let rows = min(params.q_block, params.rows - base) * group;
    let i = id.x * THREADS + index;
    if i >= rows { return; }
    let head = id.y * group + i % group;
    let column = id.y * dim;
    let query = params.q_offset + (base + i / group) * params.q_stride + head * dim;
    let to = params.out_offset + (base + i / group) * params.out_stride + head * dim;
    let first = params.key_start + id.z * params.k_block;

    var top = LOWEST;
    var sum = 0.0;
    for (var j0 = 0u; j0 < params.key_count; j0 += TILE) {
        let live = min(TILE, params.key_count - j0);
        let key = places(params.k_offset, first + j0, live, column);
        var a = vec4<f32>(); var b = vec4<f32>(); var c = vec4<f32>(); var e = vec4<f32>();
        for (var d = 0u; d < dim; d++) {
            let x = q_at(query + d);
            a += x * vec4(k_at(key[0] + d), k_at(key[1] + d), k_at(key[2] + d), k_at(key[3] + d));
            b += x * vec4(k_at(key[4] + d), k_at(key[5] + d), k_at(key[6] + d), k_at(key[7] + d));
            c += x * vec4(k_at(key[8] + d), k_at(key[9] + d), k_at(key[10] + d), k_at(key[11] + d));
            e += x * vec4(k_at(key[12] + d), k_at(key[13] + d), k_at(key[14] + d), k_at(key[15] + d));
        }
        a = mask(cap(a), 0u, live);
        b = mask(cap(b), 4u, live);
        c = mask(cap(c), 8u, live);
        e = mask(cap(e), 12u, live);
        let next = max(top, largest(max(max(a, b), max(c, e))));
        let shrink = exp(top - next);
        a = exp(a - next);
        b = exp(b - next);
        c = exp(c - next);
        e = exp(e - next);
        sum = sum * shrink + dot(a + b + c + e, vec4(1.0));
        top = next;
        let value = places(params.v_offset, first + j0, live, column);
        for (var d = 0u; d < dim; d++) {
            var total = 0.0;
            if j0 > 0u { total = sum_at(to, d) * shrink; }
            total += dot(a, vec4(v_at(value[0] + d), v_at(value[1] + d), v_at(value[2] + d), v_at(value[3] + d)));
            total += dot(b, vec4(v_at(value[4] + d), v_at(value[5] + d), v_at(value[6] + d), v_at(value[7] + d)));
            total += dot(c, vec4(v_at(value[8] + d), v_at(value[9] + d), v_at(value[10] + d), v_at(value[11] + d)));
            total += dot(e, vec4(v_at(value[12] + d), v_at(value[13] + d), v_at(value[14] + d), v_at(value[15] + d)));
            set_sum(to, d, total);
        }
    }
    if params.key_count == 0u {
        for (var d = 0u; d < dim; d++) { put(to + d, 0.0); }
        return;
    }
    for (var d = 0u; d < dim; d++) { put(to + d, sum_at(to, d) / sum); }
}
