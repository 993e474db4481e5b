// y = epilogue(x · wᵀ) for many rows. 64 × 64 outputs a workgroup, 8 × 8 a thread, K in slices of 16.

#ifdef HALVES
enable f16;
#endif

#import linear_io
#import octet
#import epilogue

const TILE: u32 = 64u;
const SLICE: u32 = 16u;
const QUADS: u32 = 16u; // TILE / 4

// K-major, so that a thread's eight rows (columns) are two neighbours.
var<workgroup> xs: array<vec4<f32>, 256>; // (SLICE, QUADS)
var<workgroup> ws: array<vec4<f32>, 256>; // (SLICE, QUADS)

fn load_x(r: u32, k: u32) -> f32 {
    if r < params.m && k < params.k { return x_at(params.x_offset + r * params.x_stride + k); }
    return 0.0;
}

@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>,
        @builtin(local_invocation_index) index: u32) {
    let row = group.y * TILE;
    let col = group.x * TILE;
    // Column j of this thread: rows 0 to 3 and 4 to 7.
    var a0 = vec4<f32>(); var b0 = vec4<f32>();
    var a1 = vec4<f32>(); var b1 = vec4<f32>();
    var a2 = vec4<f32>(); var b2 = vec4<f32>();
    var a3 = vec4<f32>(); var b3 = vec4<f32>();
    var a4 = vec4<f32>(); var b4 = vec4<f32>();
    var a5 = vec4<f32>(); var b5 = vec4<f32>();
    var a6 = vec4<f32>(); var b6 = vec4<f32>();
    var a7 = vec4<f32>(); var b7 = vec4<f32>();
    // This thread stages sixteen rows of x at one k, and sixteen weights of one column.
    let stage_k = index % SLICE;
    let stage_quad = (index / SLICE) * 4u;
    let stage_row = params.w_row + min(col + index, params.n - 1u);
    let quad = index / 4u;
    let lane = index % 4u;
    for (var k0 = 0u; k0 < params.k; k0 += SLICE) {
        let k = k0 + stage_k;
        for (var q = stage_quad; q < stage_quad + 4u; q++) {
            let r = row + q * 4u;
            xs[stage_k * QUADS + q] = vec4(load_x(r, k), load_x(r + 1u, k), load_x(r + 2u, k), load_x(r + 3u, k));
        }
        // A column beyond the last is the last again, and is not stored.
        for (var h = 0u; h < SLICE; h += 8u) {
            var eight = Octet(vec4<f32>(), vec4<f32>());
            if k0 + h < params.k { eight = octet(stage_row, k0 + h); }
            ws[h * QUADS + quad][lane] = eight.a.x;
            ws[(h + 1u) * QUADS + quad][lane] = eight.a.y;
            ws[(h + 2u) * QUADS + quad][lane] = eight.a.z;
            ws[(h + 3u) * QUADS + quad][lane] = eight.a.w;
            ws[(h + 4u) * QUADS + quad][lane] = eight.b.x;
            ws[(h + 5u) * QUADS + quad][lane] = eight.b.y;
            ws[(h + 6u) * QUADS + quad][lane] = eight.b.z;
            ws[(h + 7u) * QUADS + quad][lane] = eight.b.w;
        }
        workgroupBarrier();
        for (var i = 0u; i < SLICE; i++) {
            let xa = xs[i * QUADS + local.y * 2u];
            let xb = xs[i * QUADS + local.y * 2u + 1u];
            let wa = ws[i * QUADS + local.x * 2u];
            let wb = ws[i * QUADS + local.x * 2u + 1u];
            a0 += wa.x * xa; b0 += wa.x * xb;
            a1 += wa.y * xa; b1 += wa.y * xb;
            a2 += wa.z * xa; b2 += wa.z * xb;
            a3 += wa.w * xa; b3 += wa.w * xb;
            a4 += wb.x * xa; b4 += wb.x * xb;
            a5 += wb.y * xa; b5 += wb.y * xb;
            a6 += wb.z * xa; b6 += wb.z * xb;
            a7 += wb.w * xa; b7 += wb.w * xb;
        }
        workgroupBarrier();
    }
    let r = row + local.y * 8u;
    let j = col + local.x * 8u;
    // Loops, so that the code has the epilogue only once; the sums, which have no address, pass through the thread's
    // own part of xs.
    let own = index * 4u;
    for (var pair = 0u; pair < 8u; pair += 2u) {
        switch pair {
            case 0u: { xs[own] = a0; xs[own + 1u] = b0; xs[own + 2u] = a1; xs[own + 3u] = b1; }
            case 2u: { xs[own] = a2; xs[own + 1u] = b2; xs[own + 2u] = a3; xs[own + 3u] = b3; }
            case 4u: { xs[own] = a4; xs[own + 1u] = b4; xs[own + 2u] = a5; xs[own + 3u] = b5; }
            default: { xs[own] = a6; xs[own + 1u] = b6; xs[own + 2u] = a7; xs[own + 3u] = b7; }
        }
        for (var i = 0u; i < 8u; i++) {
            if r + i < params.m && j + pair < params.n {
                let at = own + i / 4u;
                store(r + i, j + pair, vec2(xs[at][i % 4u], xs[at + 2u][i % 4u]));
            }
        }
    }
}
