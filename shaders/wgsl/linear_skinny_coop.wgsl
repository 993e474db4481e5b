// y = epilogue(x · wᵀ) for few rows on cooperative matrices: the weights are streamed once for 2 T rows. A workgroup has 4 T
// columns and goes through K 64 at a time; of its first eight subgroups, four have T columns each and the first half of these
// 64, and four have the second half. Subgroups have at most 32 threads.

enable f16;
enable wgpu_int16;
enable wgpu_cooperative_matrix;

#import linear_io
#import epilogue
#import coop

const THREADS: u32 = 256u;
const ROWS: u32 = 2u * T;
const COLS: u32 = 4u * T;
// How many threads share a vector of w.
#ifdef W_W4
const SHARERS: u32 = 2u;
#else
const SHARERS: u32 = 1u;
#endif
const OWN_QUADS: u32 = QUADS / SHARERS;
const W_PARTS: u32 = 2u * VECTORS * SHARERS; // of a column
const W_TURNS: u32 = (COLS * W_PARTS + THREADS - 1u) / THREADS;

var<workgroup> xs: array<vec4<f16>, 2u * ROWS * PITCH>; // (half of 64, row)
var<workgroup> ws: array<vec4<f16>, 2u * COLS * PITCH>; // (half of 64, column)
var<workgroup> sums: array<f32, 8u * T * T>;            // (subgroup, T, T)
#ifndef X_F16
var<workgroup> squares: array<f32, THREADS>;            // (row, part)
#endif

#ifndef X_F16
// 1 / sqrt(mean(x²) + eps) of row r of the workgroup. What a norm reads is never in f16.
fn row_norm(r: u32, row: u32, index: u32) -> f32 {
    let parts = THREADS / ROWS;
    let begin = (params.x_offset + min(row + index / parts, params.m - 1u) * params.x_stride) / 4u;
    var square = 0.0;
    for (var k = index % parts; k < params.k / 4u; k += parts) { square += dot(x[begin + k], x[begin + k]); }
    squares[index] = square;
    workgroupBarrier();
    var total = 0.0;
    for (var p = 0u; p < parts; p++) { total += squares[r * parts + p]; }
    return inverseSqrt(total / f32(params.k) + params.eps);
}
#endif

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32,
        @builtin(subgroup_id) id: u32) {
    let subgroup = min(id, 7u); // smaller subgroups than 32: the others do what the last does
    let row = group.y * ROWS;
    let col = group.x * COLS;
    // Products with nothing, as in linear_coop.
    var a = coopMultiplyAdd(Left(), Right(), Sum());
    var b = coopMultiplyAdd(Left(), Right(), Sum());
    // Rows and columns beyond the last are the last again, and are not stored.
    let lane = index % 8u;
    let r = index / 8u % ROWS;
    let x_at = (params.x_offset + min(row + r, params.m - 1u) * params.x_stride) / 4u + lane * 2u;
    let last = (params.x_offset + (params.m - 1u) * params.x_stride + params.k) / 4u - 1u;
    let x_to = (lane / 4u * ROWS + r) * PITCH + lane % 4u * 2u;
#ifndef X_F16
    let normed = (params.flags & NORM) != 0u;
    var factor = 1.0;
    if normed { factor = row_norm(r, row, index); }
#endif
    var w_row: array<u32, W_TURNS>;
    for (var i = 0u; i < W_TURNS; i++) {
        w_row[i] = params.w_row + min(col + (index + i * THREADS) / W_PARTS, params.n - 1u);
    }
    let many = thousand(w_row[0]);
    let part = index % W_PARTS;
    let half = part / (VECTORS * SHARERS);
    let w_vectors = params.w_stride / SLICE * VECTORS;
    let w_last = w_vectors - 1u;
    let tile = (subgroup / 4u * COLS + subgroup % 4u * T) * PITCH;
    let own_half = subgroup / 4u * ROWS * PITCH;
    for (var k0 = 0u; k0 < params.k; k0 += 2u * SLICE) {
#ifdef COOP8
        if index < ROWS * 8u {
#endif
        let k = k0 + lane * 8u;
        var u = x[min(x_at + k0 / 4u, last)];
        var v = x[min(x_at + k0 / 4u + 1u, last)];
#ifndef X_F16
        u *= factor;
        v *= factor;
        if normed {
            u *= 1.0 + norm[min(k, params.k - 4u) / 4u];
            v *= 1.0 + norm[min(k + 4u, params.k - 4u) / 4u];
        }
#endif
        // Beyond a row's end is another's beginning.
        let most = vec2(select(0.0h, LARGEST, k < params.k), select(0.0h, LARGEST, k + 4u < params.k));
        xs[x_to] = limited(u, v, 0u, most);
        xs[x_to + 1u] = limited(u, v, 1u, most);
#ifdef COOP8
        }
#endif
        for (var i = 0u; i < W_TURNS; i++) {
#ifdef COOP8
            if index + i * THREADS >= COLS * W_PARTS { break; }
#endif
            // The second half may be beyond the row's end: then x is 0, and the last vector as good as another.
            let at = min(k0 / SLICE * VECTORS + part / SHARERS, w_last);
            var v = w[w_row[i] * w_vectors + at];
            let s = scale_of(w_row[i], min(k0 + half * SLICE, params.w_stride - SLICE));
            let column = (index + i * THREADS) / W_PARTS;
            let to = (half * COLS + column) * PITCH + part % (VECTORS * SHARERS) * OWN_QUADS;
#ifdef W_W4
            v = select(v.xyxy, v.zwzw, part % 2u == 1u);
#endif
            for (var q = 0u; q < OWN_QUADS; q++) { ws[to + q] = widen(v, q, s, many); }
        }
        workgroupBarrier();
        for (var k = 0u; k < SLICE / 4u; k += T / 4u) {
            let wk = coopLoad<Right>(&ws[tile + k], PITCH);
            a = coopMultiplyAdd(coopLoadT<Left>(&xs[own_half + k], PITCH), wk, a);
            b = coopMultiplyAdd(coopLoadT<Left>(&xs[own_half + T * PITCH + k], PITCH), wk, b);
        }
        workgroupBarrier();
    }
    for (var turn = 0u; turn < 2u; turn++) {
        if turn == 0u { coopStoreT(a, &sums[subgroup * T * T], T); } else { coopStoreT(b, &sums[subgroup * T * T], T); }
        workgroupBarrier();
        for (var i = 2u * index; i < 4u * T * T; i += 2u * THREADS) {
            let at = row + turn * T + i % (T * T) / T;
            let j = col + i / (T * T) * T + i % T;
            if at < params.m && j < params.n {
                let total = vec2(sums[i], sums[i + 1u]) + vec2(sums[4u * T * T + i], sums[4u * T * T + i + 1u]);
                store(at, j, total * sum_scale(j));
            }
        }
        workgroupBarrier();
    }
}
