// y = epilogue(x · wᵀ) for drivers that run a workgroup's threads as the lanes of a processor's vectors: a thread has two
// columns and eight rows, and meets no barrier in its loop. Addresses in the loop depend on nothing but the workgroup: what is
// read is read once for all threads. On a GPU every thread would read all sixteen rows of weights.

#ifdef HALVES
enable f16;
#endif

#import linear_io
#import lanes
#import epilogue

const ROWS: u32 = 8u;
const THREADS: u32 = 8u;

var<workgroup> squares: array<f32, 64>;  // (ROWS, THREADS)

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

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let row = id.y * ROWS;
    // Rows beyond the last read the last, columns beyond the last read the last; neither is stored.
    let last = params.m - 1u;
    var p: array<u32, 8>;
    for (var r = 0u; r < ROWS; r++) { p[r] = params.x_offset + min(row + r, last) * params.x_stride; }
    let j = id.x * COLUMNS + index * 2u;
    begin(params.w_row + id.x * COLUMNS, params.w_row + params.n - 1u, index);
    let normed = (params.flags & NORM) != 0u;
    let whole = params.k & ~7u;
    for (var k = 0u; k < whole; k += 8u) {
        var v = octets(k);
        if normed {
            v[0] *= 1.0 + norm[k];
            v[1] *= 1.0 + norm[k + 1u];
            v[2] *= 1.0 + norm[k + 2u];
            v[3] *= 1.0 + norm[k + 3u];
            v[4] *= 1.0 + norm[k + 4u];
            v[5] *= 1.0 + norm[k + 5u];
            v[6] *= 1.0 + norm[k + 6u];
            v[7] *= 1.0 + norm[k + 7u];
        }
        add(p, k, v[0]);
        add(p, k + 1u, v[1]);
        add(p, k + 2u, v[2]);
        add(p, k + 3u, v[3]);
        add(p, k + 4u, v[4]);
        add(p, k + 5u, v[5]);
        add(p, k + 6u, v[6]);
        add(p, k + 7u, v[7]);
    }
    if whole < params.k {
        var v = octets(whole);
        for (var k = whole; k < params.k; k++) {
            if normed { v[k - whole] *= 1.0 + norm[k]; }
            add(p, k, v[k - whole]);
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
