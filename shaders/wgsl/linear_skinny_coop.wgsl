// y = epilogue(x · wᵀ) for few rows on cooperative matrices: the weights are streamed once for 2 T rows. A workgroup
// has 4 T columns and visits K 64 at a time; of its first eight subgroups, four have T columns each and the first half
// of these 64, and four have the second half. Subgroups have at most 32 threads.

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
// 1 / sqrt(mean(x²) + eps) of row r of the workgroup. A norm's input is never in f16.
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

// The part of x and w that a thread stages, without k.
var<private> x_at: u32;
var<private> x_to: u32;
var<private> last: u32;    // vector of x
var<private> staged: u32;  // the thread's number
var<private> normed: bool;
var<private> factor: f32;
var<private> w_at: array<u32, W_TURNS>;
var<private> w_to: array<u32, W_TURNS>;
var<private> groups: array<u32, W_TURNS>;
var<private> add: vec2<u32>;
var<private> second: bool; // of the two threads that share a vector of w

// Stages the 64 columns from k0 on if they are `whole`; otherwise the existing ones, with x beyond them unread.
fn stage(k0: u32, whole: bool) {
    let lane = staged % 8u;
#ifdef COOP8
    if staged < ROWS * 8u {
#endif
    let k = k0 + lane * 8u;
    var u = x[select(min(x_at + k0 / 4u, last), x_at + k0 / 4u, whole)];
    var v = x[select(min(x_at + k0 / 4u + 1u, last), x_at + k0 / 4u + 1u, whole)];
#ifndef X_F16
    if normed {
        u *= factor;
        v *= factor;
        u = fma(u, norm[select(min(k, params.k - 4u), k, whole) / 4u], u);
        v = fma(v, norm[select(min(k + 4u, params.k - 4u), k + 4u, whole) / 4u], v);
    }
#endif
    // Data beyond a row's end belong to the next row.
    let most = select(vec2<f16>(), vec2(LARGEST), vec2(whole) | (vec2(k, k + 4u) < vec2(params.k)));
#ifdef X_F16
    if whole {
        xs[x_to] = ordered(u, v, 0u);
        xs[x_to + 1u] = ordered(u, v, 1u);
    } else {
        xs[x_to] = limited(u, v, 0u, most);
        xs[x_to + 1u] = limited(u, v, 1u, most);
    }
#else
    xs[x_to] = limited(u, v, 0u, most);
    xs[x_to + 1u] = limited(u, v, 1u, most);
#endif
#ifdef COOP8
    }
#endif
    let part = staged % W_PARTS / SHARERS;
    let slice = k0 / SLICE + part / VECTORS;
    for (var i = 0u; i < W_TURNS; i++) {
#ifdef COOP8
        if staged + i * THREADS >= COLS * W_PARTS { break; }
#endif
        // The second half may be beyond the row's end: x is 0 there, so any slice of w serves.
        let own = select(min(slice, params.w_stride / SLICE - 1u), slice, whole);
        var v = w[w_at[i] + own * VECTORS + part % VECTORS];
        let s = scale_of(groups[i], own * SLICE);
#ifdef W_W4
        v = select(v.xyxy, v.zwzw, second);
#endif
        for (var q = 0u; q < OWN_QUADS; q++) { ws[w_to[i] + q] = widen(v, q, s, add); }
    }
}

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32,
        @builtin(subgroup_id) id: u32) {
    let subgroup = min(id, 7u); // with subgroups below 32 threads, the surplus ones repeat the last one's work
    let row = group.y * ROWS;
    let col = group.x * COLS;
    // Products of zeros, as in linear_coop.
    var a = coopMultiplyAdd(Left(), Right(), Sum());
    var b = coopMultiplyAdd(Left(), Right(), Sum());
    // Rows and columns beyond the last repeat the last, and are not stored.
    let lane = index % 8u;
    let r = index / 8u % ROWS;
    staged = index;
    x_at = (params.x_offset + min(row + r, params.m - 1u) * params.x_stride) / 4u + lane * 2u;
    x_to = (lane / 4u * ROWS + r) * PITCH + lane % 4u * 2u;
    last = (params.x_offset + (params.m - 1u) * params.x_stride + params.k) / 4u - 1u;
#ifndef X_F16
    normed = (params.flags & NORM) != 0u;
    if normed { factor = row_norm(r, row, index); }
#endif
    let part = index % W_PARTS;
    second = part % SHARERS == 1u;
    for (var i = 0u; i < W_TURNS; i++) {
        let column = (index + i * THREADS) / W_PARTS;
        let w_row = params.w_row + min(col + column, params.n - 1u);
        w_at[i] = w_row * (params.w_stride / SLICE * VECTORS);
        groups[i] = w_row * (params.w_stride >> params.group_shift);
        w_to[i] = (part / (VECTORS * SHARERS) * COLS + column) * PITCH + part % (VECTORS * SHARERS) * OWN_QUADS;
        add = addends(w_row);
    }
    let tile = (subgroup / 4u * COLS + subgroup % 4u * T) * PITCH;
    let own_half = subgroup / 4u * ROWS * PITCH;
    let whole = params.k & ~(2u * SLICE - 1u);
    for (var k0 = 0u; k0 < whole; k0 += 2u * SLICE) {
        stage(k0, true);
        workgroupBarrier();
        for (var k = 0u; k < SLICE / 4u; k += T / 4u) {
            let wk = coopLoad<Right>(&ws[tile + k], PITCH);
            a = coopMultiplyAdd(coopLoadT<Left>(&xs[own_half + k], PITCH), wk, a);
            b = coopMultiplyAdd(coopLoadT<Left>(&xs[own_half + T * PITCH + k], PITCH), wk, b);
        }
        workgroupBarrier();
    }
    if whole < params.k {
        stage(whole, false);
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
