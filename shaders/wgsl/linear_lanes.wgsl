// y = epilogue(x · wᵀ) for drivers that run a workgroup's threads as the lanes of a processor's vectors: a thread has two
// columns and eight rows, reads its own weights, and meets no barrier in its loop. All threads read the same x, whose address
// depends on nothing but the workgroup: one scalar load. On a GPU its loads of weights do not coalesce.

#ifdef HALVES
enable f16;
#endif

#import linear_io
#import octet
#import epilogue

const ROWS: u32 = 8u;
const THREADS: u32 = 32u;

var<workgroup> squares: array<f32, 256>;  // (ROWS, THREADS)

// Sums of the thread's two columns, and the beginning of each row of x.
var<private> s0: vec2<f32>; var<private> s1: vec2<f32>; var<private> s2: vec2<f32>; var<private> s3: vec2<f32>;
var<private> s4: vec2<f32>; var<private> s5: vec2<f32>; var<private> s6: vec2<f32>; var<private> s7: vec2<f32>;

fn add(p: array<u32, 8>, k: u32, v: vec2<f32>) {
    s0 += x_at(p[0] + k) * v;
    s1 += x_at(p[1] + k) * v;
    s2 += x_at(p[2] + k) * v;
    s3 += x_at(p[3] + k) * v;
    s4 += x_at(p[4] + k) * v;
    s5 += x_at(p[5] + k) * v;
    s6 += x_at(p[6] + k) * v;
    s7 += x_at(p[7] + k) * v;
}

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let row = id.y * ROWS;
    // Rows beyond the last read the last, columns beyond the last read the last; neither is stored.
    let last = params.m - 1u;
    var p: array<u32, 8>;
    for (var r = 0u; r < ROWS; r++) { p[r] = params.x_offset + min(row + r, last) * params.x_stride; }
    let j = (id.x * THREADS + index) * 2u;
    let w0 = params.w_row + min(j, params.n - 1u);
    let w1 = params.w_row + min(j + 1u, params.n - 1u);
    let normed = (params.flags & NORM) != 0u;
    let whole = params.k & ~7u;
    for (var k = 0u; k < whole; k += 8u) {
        var u = octet(w0, k);
        var v = octet(w1, k);
        if normed {
            let a = 1.0 + vec4(norm[k], norm[k + 1u], norm[k + 2u], norm[k + 3u]);
            let b = 1.0 + vec4(norm[k + 4u], norm[k + 5u], norm[k + 6u], norm[k + 7u]);
            u = Octet(u.a * a, u.b * b);
            v = Octet(v.a * a, v.b * b);
        }
        add(p, k, vec2(u.a.x, v.a.x));
        add(p, k + 1u, vec2(u.a.y, v.a.y));
        add(p, k + 2u, vec2(u.a.z, v.a.z));
        add(p, k + 3u, vec2(u.a.w, v.a.w));
        add(p, k + 4u, vec2(u.b.x, v.b.x));
        add(p, k + 5u, vec2(u.b.y, v.b.y));
        add(p, k + 6u, vec2(u.b.z, v.b.z));
        add(p, k + 7u, vec2(u.b.w, v.b.w));
    }
    if whole < params.k {
        let u = octet(w0, whole);
        let v = octet(w1, whole);
        for (var k = whole; k < params.k; k++) {
            let i = k - whole;
            var pair = vec2(u.a[i & 3u], v.a[i & 3u]);
            if i > 3u { pair = vec2(u.b[i & 3u], v.b[i & 3u]); }
            if normed { pair *= 1.0 + norm[k]; }
            add(p, k, pair);
        }
    }
    var scale: array<f32, 8>;
    for (var r = 0u; r < ROWS; r++) { scale[r] = 1.0; }
    if normed {
        for (var r = 0u; r < ROWS; r++) {
            var sum = 0.0;
            for (var k = index; k < params.k; k += THREADS) {
                let v = x_at(params.x_offset + min(row + r, last) * params.x_stride + k);
                sum += v * v;
            }
            squares[r * THREADS + index] = sum;
        }
        workgroupBarrier();
        for (var r = 0u; r < ROWS; r++) {
            var sum = 0.0;
            for (var t = 0u; t < THREADS; t++) { sum += squares[r * THREADS + t]; }
            scale[r] = inverseSqrt(sum / f32(params.k) + params.eps);
        }
    }
    if j >= params.n { return; }
    var sums = array<vec2<f32>, 8>(s0, s1, s2, s3, s4, s5, s6, s7);
    for (var r = 0u; r < min(ROWS, params.m - row); r++) { store(row + r, j, scale[r] * sums[r]); }
}
