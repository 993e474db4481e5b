// y = epilogue(x · wᵀ) for few rows: the weights are streamed once per 16 rows.
// 8 columns a workgroup; 8 threads share a column and split K.

#import linear_io
#import weight
#import epilogue

const ROWS: u32 = 16u;
const COLS: u32 = 8u;
const LANES: u32 = 8u;

var<workgroup> part: array<f32, 1024>; // (LANES, COLS, ROWS)

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    let lane = index % LANES;
    let col = group.x * COLS + index / LANES;
    let row = group.y * ROWS;
    let rows = min(ROWS, params.m - row);
    var s0 = vec4<f32>(); // rows 0 to 3, and so on
    var s1 = vec4<f32>();
    var s2 = vec4<f32>();
    var s3 = vec4<f32>();
    if col < params.n {
        let w_row = params.w_offset + col * params.w_stride;
        // Rows beyond the last read the last, and are not stored.
        let last = params.x_offset + (row + rows - 1u) * params.x_stride;
        let base = params.x_offset + row * params.x_stride;
        let r0 = min(base + vec4(0u, 1u, 2u, 3u) * params.x_stride, vec4(last));
        let r1 = min(base + vec4(4u, 5u, 6u, 7u) * params.x_stride, vec4(last));
        let r2 = min(base + vec4(8u, 9u, 10u, 11u) * params.x_stride, vec4(last));
        let r3 = min(base + vec4(12u, 13u, 14u, 15u) * params.x_stride, vec4(last));
        for (var k = lane; k < params.k; k += LANES) {
            let wv = weight(w_row + k);
            s0 += wv * vec4(x[r0.x + k], x[r0.y + k], x[r0.z + k], x[r0.w + k]);
            if rows > 4u {
                s1 += wv * vec4(x[r1.x + k], x[r1.y + k], x[r1.z + k], x[r1.w + k]);
                s2 += wv * vec4(x[r2.x + k], x[r2.y + k], x[r2.z + k], x[r2.w + k]);
                s3 += wv * vec4(x[r3.x + k], x[r3.y + k], x[r3.z + k], x[r3.w + k]);
            }
        }
    }
    let at = (lane * COLS + index / LANES) * ROWS;
    for (var r = 0u; r < 4u; r++) {
        part[at + r] = s0[r];
        part[at + 4u + r] = s1[r];
        part[at + 8u + r] = s2[r];
        part[at + 12u + r] = s3[r];
    }
    workgroupBarrier();
    for (var o = index; o < COLS * ROWS; o += 64u) {
        let r = o % ROWS;
        let c = group.x * COLS + o / ROWS;
        var total = 0.0;
        for (var l = 0u; l < LANES; l++) { total += part[l * COLS * ROWS + o]; }
        if r < rows && c < params.n { store(row + r, c, total); }
    }
}
