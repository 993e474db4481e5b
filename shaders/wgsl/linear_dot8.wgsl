// y = epilogue(x · wᵀ) for many rows with both operands in 8 bits, for adapters that have integer dot products and no matrix
// units: a row of x becomes bytes of 1/127 of its largest magnitude, sums are exact integers. 64 × 64 outputs a workgroup,
// 8 × 8 a thread, K in slices of 64, four bytes a word.

#ifdef HALVES
enable f16;
#endif

#import linear_io
#import epilogue

const TILE: u32 = 64u;
const SLICE: u32 = 16u; // words
const QUADS: u32 = 16u; // TILE / 4

var<workgroup> xs: array<vec4<u32>, 256>; // (SLICE, QUADS)
var<workgroup> ws: array<vec4<u32>, 256>; // (SLICE, QUADS)
var<workgroup> largest: array<f32, 512>;  // (row, part), then of each row

fn load_x(r: u32, k: u32) -> f32 {
    if r < params.m && k < params.k { return x_at(params.x_offset + r * params.x_stride + k); }
    return 0.0;
}

// Four neighbours as bytes, for a row whose largest magnitude is `top`.
fn bytes_of_x(r: u32, k: u32, top: f32) -> u32 {
    let v = vec4(load_x(r, k), load_x(r, k + 1u), load_x(r, k + 2u), load_x(r, k + 3u));
    if top == 0.0 { return 0u; }
    return pack4xI8(vec4<i32>(round(v / top * 127.0)));
}

fn dots(a: vec4<u32>, b: u32) -> vec4<i32> {
    return vec4(dot4I8Packed(a.x, b), dot4I8Packed(a.y, b), dot4I8Packed(a.z, b), dot4I8Packed(a.w, b));
}

@compute @workgroup_size(8, 8)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>,
        @builtin(local_invocation_index) index: u32) {
    let row = group.y * TILE;
    let col = group.x * TILE;
    for (var r = index / 8u; r < TILE; r += 8u) {
        var top = 0.0;
        for (var k = index % 8u; k < params.k; k += 8u) { top = max(top, abs(load_x(row + r, k))); }
        largest[r * 8u + index % 8u] = top;
    }
    workgroupBarrier();
    var top = 0.0;
    for (var part = 0u; part < 8u; part++) { top = max(top, largest[index * 8u + part]); }
    workgroupBarrier();
    largest[index] = top;
    workgroupBarrier();

    var a0 = vec4<i32>(); var b0 = vec4<i32>();
    var a1 = vec4<i32>(); var b1 = vec4<i32>();
    var a2 = vec4<i32>(); var b2 = vec4<i32>();
    var a3 = vec4<i32>(); var b3 = vec4<i32>();
    var a4 = vec4<i32>(); var b4 = vec4<i32>();
    var a5 = vec4<i32>(); var b5 = vec4<i32>();
    var a6 = vec4<i32>(); var b6 = vec4<i32>();
    var a7 = vec4<i32>(); var b7 = vec4<i32>();
    let word = index % SLICE;
    let quad = index / SLICE * 4u;
    let words = params.w_stride / 4u;
    for (var k0 = 0u; k0 < words; k0 += SLICE) {
        let k = k0 + word;
        for (var q = quad; q < quad + 4u; q++) {
            let r = q * 4u;
            xs[word * QUADS + q] = vec4(bytes_of_x(row + r, k * 4u, largest[r]),
                                        bytes_of_x(row + r + 1u, k * 4u, largest[r + 1u]),
                                        bytes_of_x(row + r + 2u, k * 4u, largest[r + 2u]),
                                        bytes_of_x(row + r + 3u, k * 4u, largest[r + 3u]));
            var v = vec4<u32>();
            if k < words {
                // Columns beyond the last are the last again, and are not stored.
                let c = params.w_row + min(vec4(col + r) + vec4(0u, 1u, 2u, 3u), vec4(params.n - 1u));
                v = vec4(w[c.x * words + k], w[c.y * words + k], w[c.z * words + k], w[c.w * words + k]);
            }
            ws[word * QUADS + q] = v;
        }
        workgroupBarrier();
        for (var i = 0u; i < SLICE; i++) {
            let xa = xs[i * QUADS + local.y * 2u];
            let xb = xs[i * QUADS + local.y * 2u + 1u];
            let wa = ws[i * QUADS + local.x * 2u];
            let wb = ws[i * QUADS + local.x * 2u + 1u];
            a0 += dots(xa, wa.x); b0 += dots(xb, wa.x);
            a1 += dots(xa, wa.y); b1 += dots(xb, wa.y);
            a2 += dots(xa, wa.z); b2 += dots(xb, wa.z);
            a3 += dots(xa, wa.w); b3 += dots(xb, wa.w);
            a4 += dots(xa, wb.x); b4 += dots(xb, wb.x);
            a5 += dots(xa, wb.y); b5 += dots(xb, wb.y);
            a6 += dots(xa, wb.z); b6 += dots(xb, wb.z);
            a7 += dots(xa, wb.w); b7 += dots(xb, wb.w);
        }
        workgroupBarrier();
    }
    let r = local.y * 8u;
    let j = col + local.x * 8u;
    // Loops, so that the code has the epilogue only once; the sums, which have no address, pass through the thread's
    // own part of xs.
    let own = index * 4u;
    for (var pair = 0u; pair < 8u; pair += 2u) {
        var s = array<vec4<i32>, 4>(a6, b6, a7, b7);
        switch pair {
            case 0u: { s = array<vec4<i32>, 4>(a0, b0, a1, b1); }
            case 2u: { s = array<vec4<i32>, 4>(a2, b2, a3, b3); }
            case 4u: { s = array<vec4<i32>, 4>(a4, b4, a5, b5); }
            default: {}
        }
        for (var i = 0u; i < 4u; i++) { xs[own + i] = bitcast<vec4<u32>>(s[i]); }
        for (var i = 0u; i < 8u; i++) {
            if row + r + i < params.m && j + pair < params.n {
                let c = params.w_row + min(vec2(j + pair, j + pair + 1u), vec2(params.n - 1u));
                let scale = largest[r + i] / 127.0 * vec2(bitcast<f32>(scales[c.x]), bitcast<f32>(scales[c.y]));
                let at = own + i / 4u;
                let sum = bitcast<vec2<i32>>(vec2(xs[at][i % 4u], xs[at + 2u][i % 4u]));
                store(row + r + i, j + pair, scale * vec2<f32>(sum));
            }
        }
    }
}
