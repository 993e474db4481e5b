// y = epilogue(x · wᵀ) for many rows on cooperative matrices: f16 operands, f32 sums. A workgroup has 4 T rows and 8 T columns;
// each of its first four subgroups has 4 × 2 tiles of T × T. K in slices of 32, staged as f16 in workgroup memory.
// Subgroups have at most 32 threads.

enable f16;
enable wgpu_cooperative_matrix;

#import linear_io
#import octet
#import epilogue
#import coop

const ROWS: u32 = 4u * T;
const COLS: u32 = 8u * T;
const SLICE: u32 = 32u;
const PITCH: u32 = 40u; // halves from row to row: the rows of a matrix begin in different banks

var<workgroup> xs: array<f16, ROWS * PITCH>;
var<workgroup> ws: array<f16, COLS * PITCH>;
var<workgroup> sums: array<f32, 8u * T * T>; // (subgroup, T, 2 T)

// Eight neighbours of row r of x, zeros where there are none.
fn stage_x(to: u32, r: u32, k: u32) {
    let begin = params.x_offset + r * params.x_stride + k;
    for (var i = 0u; i < 8u; i++) {
        var v = 0.0;
        if r < params.m && k + i < params.k { v = x[begin + i]; }
        xs[to + i] = f16(clamp(v, -LARGEST, LARGEST));
    }
}

fn stage_w(to: u32, j: u32, k: u32) {
    var eight = Octet(vec4<f32>(), vec4<f32>());
    if k < params.w_stride { eight = octet(params.w_row + j, k); }
    let a = half4(eight.a);
    let b = half4(eight.b);
    ws[to] = a.x; ws[to + 1u] = a.y; ws[to + 2u] = a.z; ws[to + 3u] = a.w;
    ws[to + 4u] = b.x; ws[to + 5u] = b.y; ws[to + 6u] = b.z; ws[to + 7u] = b.w;
}

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32,
        @builtin(subgroup_id) id: u32) {
    let subgroup = min(id, 3u); // smaller subgroups than 32: the others do what the fourth does
    let row = group.y * ROWS;
    let col = group.x * COLS;
    var a0 = Sum(); var a1 = Sum(); var a2 = Sum(); var a3 = Sum();
    var b0 = Sum(); var b1 = Sum(); var b2 = Sum(); var b3 = Sum();
    for (var k0 = 0u; k0 < params.k; k0 += SLICE) {
        for (var i = index; i < ROWS * 4u; i += 128u) {
            stage_x(i / 4u * PITCH + i % 4u * 8u, row + i / 4u, k0 + i % 4u * 8u);
        }
        for (var i = index; i < COLS * 4u; i += 128u) {
            // A column beyond the last is the last again, and is not stored.
            stage_w(i / 4u * PITCH + i % 4u * 8u, min(col + i / 4u, params.n - 1u), k0 + i % 4u * 8u);
        }
        workgroupBarrier();
        let own = subgroup * 2u * T * PITCH;
        for (var k = 0u; k < SLICE; k += T) {
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
    // T rows at a time go through workgroup memory to the epilogue.
    for (var r = 0u; r < 4u; r++) {
        let own = subgroup * 2u * T * T;
        switch r {
            case 0u: { coopStoreT(a0, &sums[own], 2u * T); coopStoreT(b0, &sums[own + T], 2u * T); }
            case 1u: { coopStoreT(a1, &sums[own], 2u * T); coopStoreT(b1, &sums[own + T], 2u * T); }
            case 2u: { coopStoreT(a2, &sums[own], 2u * T); coopStoreT(b2, &sums[own + T], 2u * T); }
            default: { coopStoreT(a3, &sums[own], 2u * T); coopStoreT(b3, &sums[own + T], 2u * T); }
        }
        workgroupBarrier();
        for (var i = index; i < 4u * T * T; i += 128u) {
            let at = row + r * T + i % (T * T) / T;
            let j = col + i / (T * T) * 2u * T + i % T * 2u;
            if at < params.m && j < params.n { store(at, j, vec2(sums[2u * i], sums[2u * i + 1u])); }
        }
        workgroupBarrier();
    }
}
