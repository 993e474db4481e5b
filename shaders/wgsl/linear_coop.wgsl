// y = epilogue(x · wᵀ) for many rows on cooperative matrices: f16 operands, f32 sums. A workgroup has 4 T rows and 16 T columns;
// each of its first eight subgroups has 4 × 2 tiles of T × T. K in slices of 32, staged as f16 in workgroup memory.
// Subgroups have at most 32 threads.

enable f16;
enable wgpu_int16;
enable wgpu_cooperative_matrix;

#import linear_io
#import epilogue
#import coop

const SUBGROUPS: u32 = 8u;
const HALF: u32 = SUBGROUPS / 2u;
const THREADS: u32 = 256u;
const ROWS: u32 = 4u * T;
const COLS: u32 = SUBGROUPS * 2u * T;
const X_TURNS: u32 = (ROWS * 4u + THREADS - 1u) / THREADS;
const W_TURNS: u32 = (COLS * VECTORS + THREADS - 1u) / THREADS;

var<workgroup> xs: array<vec4<f16>, ROWS * PITCH>;
var<workgroup> ws: array<vec4<f16>, COLS * PITCH>;
var<workgroup> sums: array<f32, HALF * T * T>; // (subgroup, T, T)

@compute @workgroup_size(THREADS)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32,
        @builtin(subgroup_id) id: u32) {
    let subgroup = min(id, SUBGROUPS - 1u); // with subgroups below 32 threads, the surplus ones repeat the last one's work
    let row = group.y * ROWS;
    let col = group.x * COLS;
    // Products of zeros: a compiler gives their sums whole registers, and need not move them in the loop.
    var a0 = coopMultiplyAdd(Left(), Right(), Sum()); var b0 = coopMultiplyAdd(Left(), Right(), Sum());
    var a1 = coopMultiplyAdd(Left(), Right(), Sum()); var b1 = coopMultiplyAdd(Left(), Right(), Sum());
    var a2 = coopMultiplyAdd(Left(), Right(), Sum()); var b2 = coopMultiplyAdd(Left(), Right(), Sum());
    var a3 = coopMultiplyAdd(Left(), Right(), Sum()); var b3 = coopMultiplyAdd(Left(), Right(), Sum());
    // Rows and columns beyond the last are the last again, and are not stored.
    let lane = index % 4u * 2u;
    let last = (params.x_offset + (params.m - 1u) * params.x_stride + params.k) / 4u - 1u;
    var x_at: array<u32, X_TURNS>;
    for (var i = 0u; i < X_TURNS; i++) {
        let r = min(row + (index + i * THREADS) / 4u, params.m - 1u);
        x_at[i] = (params.x_offset + r * params.x_stride) / 4u + lane;
    }
    var w_row: array<u32, W_TURNS>;
    var groups: array<u32, W_TURNS>;
    for (var i = 0u; i < W_TURNS; i++) {
        w_row[i] = params.w_row + min(col + (index + i * THREADS) / VECTORS, params.n - 1u);
        groups[i] = w_row[i] * (params.w_stride >> params.group_shift);
    }
    let add = addends(w_row[0]);
    let part = index % VECTORS;
    let w_vectors = params.w_stride / SLICE * VECTORS;
    let own = subgroup * 2u * T * PITCH;
    for (var k0 = 0u; k0 < params.k; k0 += SLICE) {
        for (var i = 0u; i < X_TURNS; i++) {
#ifdef COOP8
            if index + i * THREADS >= ROWS * 4u { break; }
#endif
            let at = x_at[i] + k0 / 4u;
            let k = k0 + lane * 4u;
            let a = x[min(at, last)];
            let b = x[min(at + 1u, last)];
            // Beyond a row's end is another's beginning.
            let most = vec2(select(0.0h, LARGEST, k < params.k), select(0.0h, LARGEST, k + 4u < params.k));
            let to = (index + i * THREADS) / 4u * PITCH + lane;
            xs[to] = limited(a, b, 0u, most);
            xs[to + 1u] = limited(a, b, 1u, most);
        }
        for (var i = 0u; i < W_TURNS; i++) {
#ifdef COOP8
            if index + i * THREADS >= COLS * VECTORS { break; }
#endif
            let v = w[w_row[i] * w_vectors + k0 / SLICE * VECTORS + part];
            let s = scale_of(groups[i], k0);
            let to = (index + i * THREADS) / VECTORS * PITCH + part * QUADS;
            for (var q = 0u; q < QUADS; q++) { ws[to + q] = widen(v, q, s, add); }
        }
        workgroupBarrier();
        for (var k = 0u; k < SLICE / 4u; k += T / 4u) {
            let wa = coopLoad<Right>(&ws[own + k], PITCH);
            let wb = coopLoad<Right>(&ws[own + T * PITCH + k], PITCH);
            let x0 = coopLoadT<Left>(&xs[k], PITCH);
            a0 = coopMultiplyAdd(x0, wa, a0);
            b0 = coopMultiplyAdd(x0, wb, b0);
            let x1 = coopLoadT<Left>(&xs[T * PITCH + k], PITCH);
            a1 = coopMultiplyAdd(x1, wa, a1);
            b1 = coopMultiplyAdd(x1, wb, b1);
            let x2 = coopLoadT<Left>(&xs[2u * T * PITCH + k], PITCH);
            a2 = coopMultiplyAdd(x2, wa, a2);
            b2 = coopMultiplyAdd(x2, wb, b2);
            let x3 = coopLoadT<Left>(&xs[3u * T * PITCH + k], PITCH);
            a3 = coopMultiplyAdd(x3, wa, a3);
            b3 = coopMultiplyAdd(x3, wb, b3);
        }
        workgroupBarrier();
    }
    // Tiles go through workgroup memory to the epilogue: those of the first subgroups, then of the second.
    for (var turn = 0u; turn < 16u; turn++) {
        let tile = turn / 2u;
        if subgroup / HALF == turn % 2u {
            let to = subgroup % HALF * T * T;
            switch tile {
                case 0u: { coopStoreT(a0, &sums[to], T); }
                case 1u: { coopStoreT(b0, &sums[to], T); }
                case 2u: { coopStoreT(a1, &sums[to], T); }
                case 3u: { coopStoreT(b1, &sums[to], T); }
                case 4u: { coopStoreT(a2, &sums[to], T); }
                case 5u: { coopStoreT(b2, &sums[to], T); }
                case 6u: { coopStoreT(a3, &sums[to], T); }
                default: { coopStoreT(b3, &sums[to], T); }
            }
        }
        workgroupBarrier();
        for (var i = index; i < HALF * T * T / 2u; i += THREADS) {
            let own = turn % 2u * HALF + 2u * i / (T * T);
            let at = row + tile / 2u * T + 2u * i % (T * T) / T;
            let j = col + own * 2u * T + tile % 2u * T + 2u * i % T;
            if at < params.m && j < params.n { store(at, j, vec2(sums[2u * i], sums[2u * i + 1u]) * sum_scale(j)); }
        }
        workgroupBarrier();
    }
}
