// Attention for drivers that run a workgroup's threads as the lanes of a CPU vector: a thread has four keys for logits,
// two columns for sums of values, and 24 rows in both. Addresses in the inner loops depend only on the workgroup. Keys
// come in chunks of 192, all weights of which are kept.

#ifdef HALVES
enable f16;
#endif

#import attention_io
#import lane

const ROWS: u32 = 24u;
const THREADS: u32 = 8u;
const KEYS: u32 = 32u;   // of a tile of logits
const TILE: u32 = 16u;   // columns of a tile of values
const CHUNK: u32 = 192u; // keys
const LOWEST: f32 = -3.4e38;

var<workgroup> weight: array<f32, 4608>; // (CHUNK, ROWS): logits, then weights
var<workgroup> part: array<f32, 192>;     // (ROWS, THREADS): maxima, sums

// Sums over the chunks before, of two columns of each tile, row by row.
var<private> sums: array<vec2<f32>, 384>;
var<private> l0: vec4<f32>;
var<private> l1: vec4<f32>;
var<private> l2: vec4<f32>;
var<private> l3: vec4<f32>;
var<private> l4: vec4<f32>;
var<private> l5: vec4<f32>;
var<private> l6: vec4<f32>;
var<private> l7: vec4<f32>;
var<private> l8: vec4<f32>;
var<private> l9: vec4<f32>;
var<private> l10: vec4<f32>;
var<private> l11: vec4<f32>;
var<private> l12: vec4<f32>;
var<private> l13: vec4<f32>;
var<private> l14: vec4<f32>;
var<private> l15: vec4<f32>;
var<private> l16: vec4<f32>;
var<private> l17: vec4<f32>;
var<private> l18: vec4<f32>;
var<private> l19: vec4<f32>;
var<private> l20: vec4<f32>;
var<private> l21: vec4<f32>;
var<private> l22: vec4<f32>;
var<private> l23: vec4<f32>;
var<private> s0: vec2<f32>;
var<private> s1: vec2<f32>;
var<private> s2: vec2<f32>;
var<private> s3: vec2<f32>;
var<private> s4: vec2<f32>;
var<private> s5: vec2<f32>;
var<private> s6: vec2<f32>;
var<private> s7: vec2<f32>;
var<private> s8: vec2<f32>;
var<private> s9: vec2<f32>;
var<private> s10: vec2<f32>;
var<private> s11: vec2<f32>;
var<private> s12: vec2<f32>;
var<private> s13: vec2<f32>;
var<private> s14: vec2<f32>;
var<private> s15: vec2<f32>;
var<private> s16: vec2<f32>;
var<private> s17: vec2<f32>;
var<private> s18: vec2<f32>;
var<private> s19: vec2<f32>;
var<private> s20: vec2<f32>;
var<private> s21: vec2<f32>;
var<private> s22: vec2<f32>;
var<private> s23: vec2<f32>;

fn cap(logit: vec4<f32>) -> vec4<f32> {
    let scaled = logit * params.scale;
    if params.softcap > 0.0 { return params.softcap * tanh(clamp(scaled / params.softcap, vec4(-10.0), vec4(10.0))); }
    return scaled;
}

// Element `at` of every second of sixteen keys, the first of them the tile's key c.
fn key(p: array<u32, 32>, c: u32, at: u32) -> f32 {
    return mine_f32(k_at(p[c] + at), k_at(p[c + 2u] + at), k_at(p[c + 4u] + at), k_at(p[c + 6u] + at),
                    k_at(p[c + 8u] + at), k_at(p[c + 10u] + at), k_at(p[c + 12u] + at), k_at(p[c + 14u] + at));
}

// Element `at` of the thread's four keys.
fn keys(p: array<u32, 32>, at: u32) -> vec4<f32> {
    return vec4(key(p, 0u, at), key(p, 1u, at), key(p, 16u, at), key(p, 17u, at));
}

// The thread's two of the columns at `p`, of the key whose values begin at `at`.
fn values(p: array<u32, 16>, at: u32) -> vec2<f32> {
    return vec2(mine_f32(v_at(p[0] + at), v_at(p[2] + at), v_at(p[4] + at), v_at(p[6] + at),
                         v_at(p[8] + at), v_at(p[10] + at), v_at(p[12] + at), v_at(p[14] + at)),
                mine_f32(v_at(p[1] + at), v_at(p[3] + at), v_at(p[5] + at), v_at(p[7] + at),
                         v_at(p[9] + at), v_at(p[11] + at), v_at(p[13] + at), v_at(p[15] + at)));
}

fn products(at: u32, v: array<vec4<f32>, 4>) -> vec4<f32> {
    return q_at(at) * v[0] + q_at(at + 1u) * v[1] + q_at(at + 2u) * v[2] + q_at(at + 3u) * v[3];
}

// Logits of the thread's four keys, the first of them `key` of the chunk, in row r.
fn keep(key: u32, live: u32, r: u32, logits: vec4<f32>) {
    let own = vec4(key, key + 1u, key + 16u, key + 17u);
    let capped = select(vec4(LOWEST), cap(logits), own < vec4(live));
    weight[own.x * ROWS + r] = capped.x;
    weight[own.y * ROWS + r] = capped.y;
    weight[own.z * ROWS + r] = capped.z;
    weight[own.w * ROWS + r] = capped.w;
}

// Where the output of row i of a block begins.
fn out_place(base: u32, i: u32, group: u32, head: u32) -> u32 {
    return params.out_offset + (base + i / group) * params.out_stride + (head * group + i % group) * params.head_dim;
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let dim = params.head_dim;
    let group = params.heads / params.kv_heads;
    let base = id.z * params.q_block;
    let rows = min(params.q_block, params.rows - base) * group;
    let row = id.x * ROWS;
    if row >= rows { return; }
    let column = id.y * dim;
    let first = params.key_start + id.z * params.k_block;
    set_lane(index);
    // Rows beyond the last read the last, and are not stored.
    var q: array<u32, 24>;
    for (var r = 0u; r < ROWS; r++) {
        let i = min(row + r, rows - 1u);
        q[r] = params.q_offset + (base + i / group) * params.q_stride + (id.y * group + i % group) * dim;
    }
    var top: array<f32, 24>;
    var sum: array<f32, 24>;
    for (var r = 0u; r < ROWS; r++) {
        top[r] = LOWEST;
        sum[r] = 0.0;
    }

    for (var j0 = 0u; j0 < params.key_count; j0 += CHUNK) {
        let live = min(CHUNK, params.key_count - j0);
        workgroupBarrier();
        for (var t = 0u; t < live; t += KEYS) {
            var p: array<u32, 32>;
            for (var c = 0u; c < KEYS; c++) {
                p[c] = params.k_offset + (first + j0 + min(t + c, live - 1u)) * params.kv_stride + column;
            }
            l0 = vec4<f32>();
            l1 = vec4<f32>();
            l2 = vec4<f32>();
            l3 = vec4<f32>();
            l4 = vec4<f32>();
            l5 = vec4<f32>();
            l6 = vec4<f32>();
            l7 = vec4<f32>();
            l8 = vec4<f32>();
            l9 = vec4<f32>();
            l10 = vec4<f32>();
            l11 = vec4<f32>();
            l12 = vec4<f32>();
            l13 = vec4<f32>();
            l14 = vec4<f32>();
            l15 = vec4<f32>();
            l16 = vec4<f32>();
            l17 = vec4<f32>();
            l18 = vec4<f32>();
            l19 = vec4<f32>();
            l20 = vec4<f32>();
            l21 = vec4<f32>();
            l22 = vec4<f32>();
            l23 = vec4<f32>();
            for (var d = 0u; d < (dim & ~3u); d += 4u) {
                let v = array(keys(p, d), keys(p, d + 1u), keys(p, d + 2u), keys(p, d + 3u));
                l0 += products(q[0] + d, v);
                l1 += products(q[1] + d, v);
                l2 += products(q[2] + d, v);
                l3 += products(q[3] + d, v);
                l4 += products(q[4] + d, v);
                l5 += products(q[5] + d, v);
                l6 += products(q[6] + d, v);
                l7 += products(q[7] + d, v);
                l8 += products(q[8] + d, v);
                l9 += products(q[9] + d, v);
                l10 += products(q[10] + d, v);
                l11 += products(q[11] + d, v);
                l12 += products(q[12] + d, v);
                l13 += products(q[13] + d, v);
                l14 += products(q[14] + d, v);
                l15 += products(q[15] + d, v);
                l16 += products(q[16] + d, v);
                l17 += products(q[17] + d, v);
                l18 += products(q[18] + d, v);
                l19 += products(q[19] + d, v);
                l20 += products(q[20] + d, v);
                l21 += products(q[21] + d, v);
                l22 += products(q[22] + d, v);
                l23 += products(q[23] + d, v);
            }
            for (var d = dim & ~3u; d < dim; d++) {
                let v = keys(p, d);
                l0 += q_at(q[0] + d) * v;
                l1 += q_at(q[1] + d) * v;
                l2 += q_at(q[2] + d) * v;
                l3 += q_at(q[3] + d) * v;
                l4 += q_at(q[4] + d) * v;
                l5 += q_at(q[5] + d) * v;
                l6 += q_at(q[6] + d) * v;
                l7 += q_at(q[7] + d) * v;
                l8 += q_at(q[8] + d) * v;
                l9 += q_at(q[9] + d) * v;
                l10 += q_at(q[10] + d) * v;
                l11 += q_at(q[11] + d) * v;
                l12 += q_at(q[12] + d) * v;
                l13 += q_at(q[13] + d) * v;
                l14 += q_at(q[14] + d) * v;
                l15 += q_at(q[15] + d) * v;
                l16 += q_at(q[16] + d) * v;
                l17 += q_at(q[17] + d) * v;
                l18 += q_at(q[18] + d) * v;
                l19 += q_at(q[19] + d) * v;
                l20 += q_at(q[20] + d) * v;
                l21 += q_at(q[21] + d) * v;
                l22 += q_at(q[22] + d) * v;
                l23 += q_at(q[23] + d) * v;
            }
            let own = t + 2u * index;
            keep(own, live, 0u, l0);
            keep(own, live, 1u, l1);
            keep(own, live, 2u, l2);
            keep(own, live, 3u, l3);
            keep(own, live, 4u, l4);
            keep(own, live, 5u, l5);
            keep(own, live, 6u, l6);
            keep(own, live, 7u, l7);
            keep(own, live, 8u, l8);
            keep(own, live, 9u, l9);
            keep(own, live, 10u, l10);
            keep(own, live, 11u, l11);
            keep(own, live, 12u, l12);
            keep(own, live, 13u, l13);
            keep(own, live, 14u, l14);
            keep(own, live, 15u, l15);
            keep(own, live, 16u, l16);
            keep(own, live, 17u, l17);
            keep(own, live, 18u, l18);
            keep(own, live, 19u, l19);
            keep(own, live, 20u, l20);
            keep(own, live, 21u, l21);
            keep(own, live, 22u, l22);
            keep(own, live, 23u, l23);
        }
        workgroupBarrier();
        let all = (live + KEYS - 1u) & ~(KEYS - 1u);
        for (var r = 0u; r < ROWS; r++) {
            var most = LOWEST;
            for (var key = index; key < all; key += THREADS) { most = max(most, weight[key * ROWS + r]); }
            part[r * THREADS + index] = most;
        }
        workgroupBarrier();
        var shrink: array<f32, 24>;
        for (var r = 0u; r < ROWS; r++) {
            var next = top[r];
            for (var t = 0u; t < THREADS; t++) { next = max(next, part[r * THREADS + t]); }
            shrink[r] = exp(top[r] - next);
            top[r] = next;
        }
        workgroupBarrier();
        for (var r = 0u; r < ROWS; r++) {
            var own = 0.0;
            for (var key = index; key < all; key += THREADS) {
                let e = exp(weight[key * ROWS + r] - top[r]);
                weight[key * ROWS + r] = e;
                own += e;
            }
            part[r * THREADS + index] = own;
        }
        workgroupBarrier();
        for (var r = 0u; r < ROWS; r++) {
            sum[r] *= shrink[r];
            for (var t = 0u; t < THREADS; t++) { sum[r] += part[r * THREADS + t]; }
        }
        let end = j0 + live == params.key_count;
        for (var d = 0u; d < dim; d += TILE) {
            // Columns beyond the last read the last, and are not stored.
            var p: array<u32, 16>;
            for (var c = 0u; c < TILE; c++) { p[c] = column + min(d + c, dim - 1u); }
            s0 = vec2<f32>();
            s1 = vec2<f32>();
            s2 = vec2<f32>();
            s3 = vec2<f32>();
            s4 = vec2<f32>();
            s5 = vec2<f32>();
            s6 = vec2<f32>();
            s7 = vec2<f32>();
            s8 = vec2<f32>();
            s9 = vec2<f32>();
            s10 = vec2<f32>();
            s11 = vec2<f32>();
            s12 = vec2<f32>();
            s13 = vec2<f32>();
            s14 = vec2<f32>();
            s15 = vec2<f32>();
            s16 = vec2<f32>();
            s17 = vec2<f32>();
            s18 = vec2<f32>();
            s19 = vec2<f32>();
            s20 = vec2<f32>();
            s21 = vec2<f32>();
            s22 = vec2<f32>();
            s23 = vec2<f32>();
            for (var key = 0u; key < live; key++) {
                let v = values(p, params.v_offset + (first + j0 + key) * params.kv_stride);
                let at = key * ROWS;
                s0 += weight[at + 0u] * v;
                s1 += weight[at + 1u] * v;
                s2 += weight[at + 2u] * v;
                s3 += weight[at + 3u] * v;
                s4 += weight[at + 4u] * v;
                s5 += weight[at + 5u] * v;
                s6 += weight[at + 6u] * v;
                s7 += weight[at + 7u] * v;
                s8 += weight[at + 8u] * v;
                s9 += weight[at + 9u] * v;
                s10 += weight[at + 10u] * v;
                s11 += weight[at + 11u] * v;
                s12 += weight[at + 12u] * v;
                s13 += weight[at + 13u] * v;
                s14 += weight[at + 14u] * v;
                s15 += weight[at + 15u] * v;
                s16 += weight[at + 16u] * v;
                s17 += weight[at + 17u] * v;
                s18 += weight[at + 18u] * v;
                s19 += weight[at + 19u] * v;
                s20 += weight[at + 20u] * v;
                s21 += weight[at + 21u] * v;
                s22 += weight[at + 22u] * v;
                s23 += weight[at + 23u] * v;
            }
            var s = array<vec2<f32>, 24>(
                s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11,
                s12, s13, s14, s15, s16, s17, s18, s19, s20, s21, s22, s23,
            );
            for (var r = 0u; r < ROWS; r++) {
                let i = d / TILE * ROWS + r;
                var total = s[r];
                if j0 > 0u { total += shrink[r] * sums[i]; }
                if !end {
                    sums[i] = total;
                    continue;
                }
                let own = d + 2u * index;
                if row + r >= rows { continue; }
                let to = out_place(base, row + r, group, id.y) + own;
                total /= sum[r];
                if own < dim { put(to, total.x); }
                if own + 1u < dim { put(to + 1u, total.y); }
            }
        }
    }
    if params.key_count > 0u { return; }
    for (var r = 0u; r < min(ROWS, rows - row); r++) {
        for (var d = index; d < dim; d += THREADS) { put(out_place(base, row + r, group, id.y) + d, 0.0); }
    }
}
