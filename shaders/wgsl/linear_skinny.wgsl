// y = epilogue(x · wᵀ) for few rows: the weights are streamed once for 16 rows. 16 columns a workgroup: a thread has four of
// them, and 16 threads share these and split K, an octet at a time.

#ifdef HALVES
enable f16;
#endif

#import linear_io
#import octet
#import epilogue

const ROWS: u32 = 16u;
const COLS: u32 = 16u;
const LANES: u32 = 16u;
const SLICE: u32 = 128u; // LANES octets

// First a slice of x, (k, row quad); in the end the partial sums, (lane, column, row quad).
var<workgroup> stage: array<vec4<f32>, 1024>;
var<workgroup> squares: array<f32, 64>; // (row, part)

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let lane = index % LANES;
    let quarter = index / LANES;
    let row = group.y * ROWS;
    let col = group.x * COLS + quarter * 4u;
    // Rows and columns beyond the last are the last again, and are not stored.
    let last = params.m - 1u;
    let rows = params.w_row + min(vec4(col, col + 1u, col + 2u, col + 3u), vec4(params.n - 1u));
    let normed = (params.flags & NORM) != 0u;
    var s: array<array<vec4<f32>, 4>, 4>; // (column, row quad)
    // This thread stages one row, every fourth k.
    let begin = params.x_offset + min(row + index % ROWS, last) * params.x_stride;
    var square = 0.0;
    for (var k0 = 0u; k0 < params.k; k0 += SLICE) {
        for (var i = index / ROWS; i < SLICE; i += 4u) {
            var v = 0.0;
            if k0 + i < params.k {
                v = x_at(begin + k0 + i);
                square += v * v;
                if normed { v *= 1.0 + norm[k0 + i]; }
            }
            stage[i * 4u + index % ROWS / 4u][index % 4u] = v;
        }
        workgroupBarrier();
        let k = k0 + lane * 8u;
        if k < params.k {
            for (var c = 0u; c < 4u; c++) {
                let eight = octet(rows[c], k);
                for (var i = 0u; i < 8u; i++) {
                    var v = eight.a[i & 3u];
                    if i > 3u { v = eight.b[i & 3u]; }
                    let at = (lane * 8u + i) * 4u;
                    s[c][0] += v * stage[at];
                    s[c][1] += v * stage[at + 1u];
                    s[c][2] += v * stage[at + 2u];
                    s[c][3] += v * stage[at + 3u];
                }
            }
        }
        workgroupBarrier();
    }
    squares[index % ROWS * 4u + index / ROWS] = square;
    for (var c = 0u; c < 4u; c++) {
        for (var q = 0u; q < 4u; q++) { stage[(lane * COLS + quarter * 4u + c) * 4u + q] = s[c][q]; }
    }
    workgroupBarrier();
    // Two columns and two rows a thread.
    let j = group.x * COLS + index % 8u * 2u;
    for (var r = index / 8u; r < ROWS; r += 8u) {
        if row + r >= params.m || j >= params.n { break; }
        var sums = vec2<f32>();
        for (var l = 0u; l < LANES; l++) {
            let at = (l * COLS + index % 8u * 2u) * 4u + r / 4u;
            sums += vec2(stage[at][r % 4u], stage[at + 4u][r % 4u]);
        }
        if normed {
            let total = squares[r * 4u] + squares[r * 4u + 1u] + squares[r * 4u + 2u] + squares[r * 4u + 3u];
            sums *= inverseSqrt(total / f32(params.k) + params.eps);
        }
        store(row + r, j, sums);
    }
}
