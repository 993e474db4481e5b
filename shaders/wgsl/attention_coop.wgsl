// Attention on cooperative matrices of T × T: f16 operands, f32 sums. A workgroup has 2 T rows of one block and visits
// the keys twice, 32 at a time: the rows of a matrix cannot be scaled separately, so each row's largest logit must be
// known before values are summed. Each of its first 64 / T subgroups has T × T of a tile's logits, and an equal share
// of the outputs' columns. Subgroups have at most 32 threads.

enable f16;
enable wgpu_cooperative_matrix;

#import attention_io

#import matrix

const SUBGROUPS: u32 = 64u / T;
const THREADS: u32 = 32u * SUBGROUPS;
const ROWS: u32 = 2u * T;
const KEYS: u32 = 32u;
const SHARERS: u32 = ROWS * 4u; // threads with a quarter of a row's logits each
// Columns of the outputs in units of 64.
#ifdef HEAD_256
const WIDTHS: u32 = 4u;
#else
#ifdef HEAD_64
const WIDTHS: u32 = 1u;
#else
const WIDTHS: u32 = 2u;
#endif
#endif
// From row to row, in units of vec4<f16>: the rows of a matrix begin in different banks.
const Q_PITCH: u32 = WIDTHS * 16u + 2u;
const K_PITCH: u32 = 10u;
const V_PITCH: u32 = 18u;
const LOWEST: f32 = -3.4e38;

var<workgroup> qs: array<vec4<f16>, ROWS * Q_PITCH>;
var<workgroup> kvs: array<vec4<f16>, 2u * KEYS * K_PITCH>; // 64 columns: (half, key, 32) of keys, (2 T, 64) of values
var<workgroup> ps: array<vec4<f16>, ROWS * K_PITCH>;       // weights, (row, key)
var<workgroup> tile: array<f32, ROWS * KEYS>;              // logits, (row, key); in the end (subgroup, T, T) of the outputs
var<workgroup> most: array<f32, SHARERS>;                  // (row, quarter of the keys)
var<workgroup> total: array<f32, SHARERS>;

var<private> first: u32;    // vector of q, k and v at which the block's first key starts, without their offsets
var<private> subgroup: u32;
var<private> index: u32;

fn half4(v: vec4<f32>) -> vec4<f16> {
    return clamp(vec4<f16>(v), vec4(-LARGEST), vec4(LARGEST));
}

// Of keys and values, which are no larger where they are in f16.
fn half_of(v: Four) -> vec4<f16> {
#ifdef KV_F16
    return v;
#else
    return half4(v);
#endif
}

// Vector of the cache at `offset`: 8 columns from d of key j on. Vectors beyond the end are finite and have no effect.
fn kv_at(offset: u32, j: u32, d: u32) -> u32 {
    let key = first + min(j, params.key_count - 1u) * (params.kv_stride / 4u);
    return offset / 4u + key + min(d, params.head_dim - 4u) / 4u;
}

// Logits of the tile that begins with key j0, before they are scaled.
fn multiply_keys(j0: u32) {
    let rows = subgroup / (KEYS / T) * T;
    let column = subgroup % (KEYS / T) * T;
    var sum = coopMultiplyAdd(Left(), Right(), Sum());
    for (var d0 = 0u; d0 < WIDTHS * 64u; d0 += 64u) {
        for (var i = index; i < KEYS * 8u; i += THREADS) {
            let d = d0 + i % 8u * 8u;
            let to = (i % 8u / 4u * KEYS + i / 8u) * K_PITCH + i % 4u * 2u;
            kvs[to] = half_of(k[kv_at(params.k_offset, j0 + i / 8u, d)]);
            kvs[to + 1u] = half_of(k[kv_at(params.k_offset, j0 + i / 8u, d + 4u)]);
        }
        workgroupBarrier();
        for (var c = 0u; c < 64u; c += T) {
            let queries = coopLoadT<Left>(&qs[rows * Q_PITCH + (d0 + c) / 4u], Q_PITCH);
            let keys = coopLoad<Right>(&kvs[(c / 32u * KEYS + column) * K_PITCH + c % 32u / 4u], K_PITCH);
            sum = coopMultiplyAdd(queries, keys, sum);
        }
        workgroupBarrier();
    }
    coopStoreT(sum, &tile[rows * KEYS + column], KEYS);
    workgroupBarrier();
}

// Four of this thread's eight logits of the tile.
fn logits(j0: u32, four: u32) -> vec4<f32> {
    let at = index % SHARERS * 8u + four * 4u;
    var l = vec4(tile[at], tile[at + 1u], tile[at + 2u], tile[at + 3u]) * params.scale;
    if params.softcap > 0.0 { l = params.softcap * tanh(clamp(l / params.softcap, vec4(-10.0), vec4(10.0))); }
    let j = j0 + index % 4u * 8u + four * 4u;
    return select(vec4(LOWEST), l, vec4(j, j + 1u, j + 2u, j + 3u) < vec4(params.key_count));
}

fn largest(a: vec4<f32>, b: vec4<f32>) -> f32 {
    let m = max(a, b);
    return max(max(m.x, m.y), max(m.z, m.w));
}

// Values of 2 T keys from j0 on, of each subgroup's u-th T columns.
fn stage_values(j0: u32, u: u32) {
    for (var i = index; i < 2u * T * 8u; i += THREADS) {
        let d = (i % 8u / (T / 8u) * WIDTHS + u) * T + i % (T / 8u) * 8u;
        let to = i / 8u * V_PITCH + i % 8u * 2u;
        kvs[to] = half_of(v[kv_at(params.v_offset, j0 + i / 8u, d)]);
        kvs[to + 1u] = half_of(v[kv_at(params.v_offset, j0 + i / 8u, d + 4u)]);
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32,
        @builtin(subgroup_id) subgroup_id: u32) {
    index = local;
    subgroup = min(subgroup_id, SUBGROUPS - 1u); // with subgroups below 32 threads, the surplus ones repeat the last one's work
    let dim = params.head_dim;
    let group = params.heads / params.kv_heads;
    let base = id.z * params.q_block;
    let rows = min(params.q_block, params.rows - base) * group;
    let row = id.x * ROWS;
    first = ((params.key_start + id.z * params.k_block) * params.kv_stride + id.y * dim) / 4u;

    for (var i = index; i < ROWS * WIDTHS * 16u; i += THREADS) {
        let r = min(row + i / (WIDTHS * 16u), rows - 1u);
        let d = i % (WIDTHS * 16u);
        let at = params.q_offset + (base + r / group) * params.q_stride + (id.y * group + r % group) * dim;
        let vector = at / 4u + min(d, dim / 4u - 1u);
        var queries: vec4<f16>;
        if (params.flags & Q_F16) != 0u { queries = q_half[vector]; } else { queries = half4(q[vector]); }
        qs[i / (WIDTHS * 16u) * Q_PITCH + d] = select(vec4<f16>(), queries, d < dim / 4u);
    }
    // First the largest logit of each row, and the sum of its weights: four threads a row, each with eight keys of a tile.
    var top = LOWEST;
    var sum = 0.0;
    for (var j0 = 0u; j0 < params.key_count; j0 += KEYS) {
        multiply_keys(j0);
        let a = logits(j0, 0u);
        let b = logits(j0, 1u);
        let next = max(top, largest(a, b));
        sum = sum * exp(top - next) + dot(exp(a - next) + exp(b - next), vec4(1.0));
        top = next;
    }
    let shares = THREADS == SHARERS || index < SHARERS;
    if shares { most[index] = top; }
    workgroupBarrier();
    let r = index % SHARERS / 4u * 4u;
    let peak = max(max(most[r], most[r + 1u]), max(most[r + 2u], most[r + 3u]));
    if shares { total[index] = sum * exp(top - peak); }
    // Then the values.
    var a0 = coopMultiplyAdd(Left(), Right(), Sum()); var b0 = coopMultiplyAdd(Left(), Right(), Sum());
    var a1 = coopMultiplyAdd(Left(), Right(), Sum()); var b1 = coopMultiplyAdd(Left(), Right(), Sum());
    var a2 = coopMultiplyAdd(Left(), Right(), Sum()); var b2 = coopMultiplyAdd(Left(), Right(), Sum());
    var a3 = coopMultiplyAdd(Left(), Right(), Sum()); var b3 = coopMultiplyAdd(Left(), Right(), Sum());
    for (var j0 = 0u; j0 < params.key_count; j0 += KEYS) {
        multiply_keys(j0);
        if shares {
            let to = index / 4u * K_PITCH + index % 4u * 2u;
            ps[to] = vec4<f16>(exp(logits(j0, 0u) - peak));
            ps[to + 1u] = vec4<f16>(exp(logits(j0, 1u) - peak));
        }
        workgroupBarrier();
        for (var j = 0u; j < KEYS; j += 2u * T) {
            let upper = coopLoadT<Left>(&ps[j / 4u], K_PITCH);
            let upper_last = coopLoadT<Left>(&ps[(j + T) / 4u], K_PITCH);
            let lower = coopLoadT<Left>(&ps[T * K_PITCH + j / 4u], K_PITCH);
            let lower_last = coopLoadT<Left>(&ps[T * K_PITCH + (j + T) / 4u], K_PITCH);
            let column = subgroup * (T / 4u);
            stage_values(j0 + j, 0u);
            workgroupBarrier();
            let v0 = coopLoadT<Right>(&kvs[column], V_PITCH);
            let w0 = coopLoadT<Right>(&kvs[T * V_PITCH + column], V_PITCH);
            a0 = coopMultiplyAdd(upper_last, w0, coopMultiplyAdd(upper, v0, a0));
            b0 = coopMultiplyAdd(lower_last, w0, coopMultiplyAdd(lower, v0, b0));
            workgroupBarrier();
#ifndef HEAD_64
            stage_values(j0 + j, 1u);
            workgroupBarrier();
            let v1 = coopLoadT<Right>(&kvs[column], V_PITCH);
            let w1 = coopLoadT<Right>(&kvs[T * V_PITCH + column], V_PITCH);
            a1 = coopMultiplyAdd(upper_last, w1, coopMultiplyAdd(upper, v1, a1));
            b1 = coopMultiplyAdd(lower_last, w1, coopMultiplyAdd(lower, v1, b1));
            workgroupBarrier();
#ifdef HEAD_256
            stage_values(j0 + j, 2u);
            workgroupBarrier();
            let v2 = coopLoadT<Right>(&kvs[column], V_PITCH);
            let w2 = coopLoadT<Right>(&kvs[T * V_PITCH + column], V_PITCH);
            a2 = coopMultiplyAdd(upper_last, w2, coopMultiplyAdd(upper, v2, a2));
            b2 = coopMultiplyAdd(lower_last, w2, coopMultiplyAdd(lower, v2, b2));
            workgroupBarrier();
            stage_values(j0 + j, 3u);
            workgroupBarrier();
            let v3 = coopLoadT<Right>(&kvs[column], V_PITCH);
            let w3 = coopLoadT<Right>(&kvs[T * V_PITCH + column], V_PITCH);
            a3 = coopMultiplyAdd(upper_last, w3, coopMultiplyAdd(upper, v3, a3));
            b3 = coopMultiplyAdd(lower_last, w3, coopMultiplyAdd(lower, v3, b3));
            workgroupBarrier();
#endif
#endif
        }
    }
    for (var turn = 0u; turn < 2u * WIDTHS; turn++) {
        let to = subgroup * T * T;
        switch turn {
            case 0u: { coopStoreT(a0, &tile[to], T); }
            case 1u: { coopStoreT(b0, &tile[to], T); }
            case 2u: { coopStoreT(a1, &tile[to], T); }
            case 3u: { coopStoreT(b1, &tile[to], T); }
            case 4u: { coopStoreT(a2, &tile[to], T); }
            case 5u: { coopStoreT(b2, &tile[to], T); }
            case 6u: { coopStoreT(a3, &tile[to], T); }
            default: { coopStoreT(b3, &tile[to], T); }
        }
        workgroupBarrier();
        for (var i = index; i < SUBGROUPS * T * T; i += THREADS) {
            let at = turn % 2u * T + i % (T * T) / T;
            let d = (i / (T * T) * WIDTHS + turn / 2u) * T + i % T;
            if row + at < rows && d < dim {
                let quarters = vec4(total[at * 4u], total[at * 4u + 1u], total[at * 4u + 2u], total[at * 4u + 3u]);
                let weights = dot(quarters, vec4(1.0));
                let query = row + at;
                let to_row = params.out_offset + (base + query / group) * params.out_stride;
                // A row without keys is 0.
                put(to_row + (id.y * group + query % group) * dim + d, select(0.0, tile[i] / weights, weights > 0.0));
            }
        }
        workgroupBarrier();
    }
}
