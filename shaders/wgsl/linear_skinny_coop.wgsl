// y = epilogue(x · wᵀ) for few rows on cooperative matrices: the weights are streamed once for 2 T rows. A workgroup has T
// columns; its first four subgroups take turns at slices of 32 of K, each with its own sums, which are added in the end.
// Subgroups have at most 32 threads.

enable f16;
enable wgpu_cooperative_matrix;

#import linear_io
#import octet
#import epilogue
#import coop

const ROWS: u32 = 2u * T;
const SLICE: u32 = 128u;      // of four subgroups
const X_PITCH: u32 = 136u;
const W_PITCH: u32 = 40u;

var<workgroup> xs: array<f16, ROWS * X_PITCH>;
var<workgroup> ws: array<f16, 4u * T * W_PITCH>;  // (subgroup, column, 32)
var<workgroup> sums: array<f32, 8u * T * T>;      // (subgroup, row, column)
var<workgroup> scale: array<f32, ROWS>;           // of the norm
var<workgroup> squares: array<f32, 128>;

fn stage_x(to: u32, r: u32, k: u32, normed: bool) {
    let begin = params.x_offset + r * params.x_stride + k;
    for (var i = 0u; i < 8u; i++) {
        var v = 0.0;
        if r < params.m && k + i < params.k {
            v = x[begin + i];
            if normed { v *= (1.0 + norm[k + i]) * scale[r % ROWS]; }
        }
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
    let col = group.x * T;
    let normed = (params.flags & NORM) != 0u;
    if normed {
        let parts = 128u / ROWS;
        let r = row + index / parts;
        var square = 0.0;
        if r < params.m {
            for (var k = index % parts; k < params.k; k += parts) {
                let v = x[params.x_offset + r * params.x_stride + k];
                square += v * v;
            }
        }
        squares[index] = square;
        workgroupBarrier();
        if index < ROWS {
            var total = 0.0;
            for (var p = 0u; p < parts; p++) { total += squares[index * parts + p]; }
            scale[index] = inverseSqrt(total / f32(params.k) + params.eps);
        }
        workgroupBarrier();
    }
    var a = Sum();
    var b = Sum();
    for (var k0 = 0u; k0 < params.k; k0 += SLICE) {
        for (var i = index; i < ROWS * 16u; i += 128u) {
            stage_x(i / 16u * X_PITCH + i % 16u * 8u, row + i / 16u, k0 + i % 16u * 8u, normed);
        }
        // Neighbouring threads have neighbouring octets of a column.
        for (var i = index; i < T * 16u; i += 128u) {
            let slice = i % 16u / 4u;
            let j = min(col + i / 16u, params.n - 1u);
            stage_w((slice * T + i / 16u) * W_PITCH + i % 4u * 8u, j, k0 + i % 16u * 8u);
        }
        workgroupBarrier();
        for (var k = 0u; k < 32u; k += T) {
            let wk = coopLoad<Right>(&ws[subgroup * T * W_PITCH + k], W_PITCH);
            a = coopMultiplyAdd(coopLoadT<Left>(&xs[subgroup * 32u + k], X_PITCH), wk, a);
            b = coopMultiplyAdd(coopLoadT<Left>(&xs[T * X_PITCH + subgroup * 32u + k], X_PITCH), wk, b);
        }
        workgroupBarrier();
    }
    coopStoreT(a, &sums[subgroup * 2u * T * T], T);
    coopStoreT(b, &sums[subgroup * 2u * T * T + T * T], T);
    workgroupBarrier();
    for (var i = index; i < T * T; i += 128u) {
        let at = row + i / (T / 2u);
        let j = col + i % (T / 2u) * 2u;
        if at < params.m && j < params.n {
            var total = vec2<f32>();
            for (var s = 0u; s < 4u; s++) {
                let from_sums = s * 2u * T * T + 2u * i;
                total += vec2(sums[from_sums], sums[from_sums + 1u]);
            }
            store(at, j, total);
        }
    }
}
