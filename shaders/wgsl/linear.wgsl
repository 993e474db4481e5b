// y = epilogue(x · wᵀ) for many rows. 64 × 64 outputs a workgroup, 4 × 4 a thread, K in slices of 16.

#import linear_io
#import weight
#import epilogue

const TILE: u32 = 64u;
const SLICE: u32 = 16u;

// K-major, so that a thread's four rows (columns) are neighbours.
var<workgroup> xs: array<vec4<f32>, 256>; // (SLICE, TILE / 4)
var<workgroup> ws: array<vec4<f32>, 256>; // (SLICE, TILE / 4)

fn load_x(r: u32, k: u32) -> f32 {
    if r < params.m && k < params.k { return x[params.x_offset + r * params.x_stride + k]; }
    return 0.0;
}

fn load_w(c: u32, k: u32) -> f32 {
    if c < params.n && k < params.k { return weight(params.w_offset + c * params.w_stride + k); }
    return 0.0;
}

@compute @workgroup_size(16, 16)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>,
        @builtin(local_invocation_index) index: u32) {
    let row = group.y * TILE;
    let col = group.x * TILE;
    var a0 = vec4<f32>();
    var a1 = vec4<f32>();
    var a2 = vec4<f32>();
    var a3 = vec4<f32>();
    // This thread stages four rows at one k.
    let stage_k = index % SLICE;
    let stage_row = (index / SLICE) * 4u;
    let stage_at = stage_k * 16u + index / SLICE;
    for (var k0 = 0u; k0 < params.k; k0 += SLICE) {
        let k = k0 + stage_k;
        let r = row + stage_row;
        let c = col + stage_row;
        xs[stage_at] = vec4(load_x(r, k), load_x(r + 1u, k), load_x(r + 2u, k), load_x(r + 3u, k));
        ws[stage_at] = vec4(load_w(c, k), load_w(c + 1u, k), load_w(c + 2u, k), load_w(c + 3u, k));
        workgroupBarrier();
        for (var i = 0u; i < SLICE; i++) {
            let xv = xs[i * 16u + local.y];
            let wv = ws[i * 16u + local.x];
            a0 += xv.x * wv;
            a1 += xv.y * wv;
            a2 += xv.z * wv;
            a3 += xv.w * wv;
        }
        workgroupBarrier();
    }
    let r = row + local.y * 4u;
    let c = col + local.x * 4u;
    for (var j = 0u; j < 4u; j++) {
        if c + j >= params.n { break; }
        if r < params.m { store(r, c + j, a0[j]); }
        if r + 1u < params.m { store(r + 1u, c + j, a1[j]); }
        if r + 2u < params.m { store(r + 2u, c + j, a2[j]); }
        if r + 3u < params.m { store(r + 3u, c + j, a3[j]); }
    }
}
