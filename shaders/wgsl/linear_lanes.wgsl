// y = epilogue(x · wᵀ) for drivers that run a workgroup's threads as the lanes of a CPU vector: a thread has two or
// four columns and nine rows, and no barrier in its loop. Addresses in the loop depend only on the workgroup: one read
// serves all threads. On a GPU every thread would read all of the workgroup's rows of weights.

#ifdef HALVES
enable f16;
#endif

#import linear_io
#import lanes
#import epilogue

const ROWS: u32 = 9u;
const THREADS: u32 = 8u;

var<workgroup> squares: array<f32, 72>;  // (ROWS, THREADS)

// Sums of the thread's columns, of each row.
var<private> s0: Columns;
var<private> s1: Columns;
var<private> s2: Columns;
var<private> s3: Columns;
var<private> s4: Columns;
var<private> s5: Columns;
var<private> s6: Columns;
var<private> s7: Columns;
var<private> s8: Columns;

// Eight products with x from `at` on.
fn products(at: u32, v: Octets) -> Columns {
    return x_at(at) * v[0] + x_at(at + 1u) * v[1] + x_at(at + 2u) * v[2] + x_at(at + 3u) * v[3]
        + x_at(at + 4u) * v[4] + x_at(at + 5u) * v[5] + x_at(at + 6u) * v[6] + x_at(at + 7u) * v[7];
}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let row = id.y * ROWS;
    // Rows beyond the last read the last, columns beyond the last read the last; neither is stored.
    let last = params.m - 1u;
    var p: array<u32, 9>;
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
        s0 += products(p[0] + k, v);
        s1 += products(p[1] + k, v);
        s2 += products(p[2] + k, v);
        s3 += products(p[3] + k, v);
        s4 += products(p[4] + k, v);
        s5 += products(p[5] + k, v);
        s6 += products(p[6] + k, v);
        s7 += products(p[7] + k, v);
        s8 += products(p[8] + k, v);
    }
    if whole < params.k {
        var v = octets(whole);
        for (var k = whole; k < params.k; k++) {
            if normed { v[k - whole] *= 1.0 + norm[k]; }
            s0 += x_at(p[0] + k) * v[k - whole];
            s1 += x_at(p[1] + k) * v[k - whole];
            s2 += x_at(p[2] + k) * v[k - whole];
            s3 += x_at(p[3] + k) * v[k - whole];
            s4 += x_at(p[4] + k) * v[k - whole];
            s5 += x_at(p[5] + k) * v[k - whole];
            s6 += x_at(p[6] + k) * v[k - whole];
            s7 += x_at(p[7] + k) * v[k - whole];
            s8 += x_at(p[8] + k) * v[k - whole];
        }
    }
    var scale: array<f32, 9>;
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
    var sums = array<Columns, 9>(s0, s1, s2, s3, s4, s5, s6, s7, s8);
    for (var r = 0u; r < min(ROWS, params.m - row); r++) {
        var sum = scale[r] * sums[r];
#ifdef W_W8
        // The scale is the sum's, not each weight's.
        sum *= factor;
#endif
        if j < params.n { store(row + r, j, sum.xy); }
#ifdef FOUR
        if j + 16u < params.n { store(row + r, j + 16u, sum.zw); }
#endif
    }
}
