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
    var sum: array<f32, 16>;
    if col < params.n {
        let w_row = params.w_offset + col * params.w_stride;
        let x_row = params.x_offset + row * params.x_stride;
        for (var k = lane; k < params.k; k += LANES) {
            let wv = weight(w_row + k);
            for (var r = 0u; r < rows; r++) {
                sum[r] += x[x_row + r * params.x_stride + k] * wv;
            }
        }
    }
    let base = (lane * COLS + index / LANES) * ROWS;
    for (var r = 0u; r < ROWS; r++) { part[base + r] = sum[r]; }
    workgroupBarrier();
    for (var o = index; o < COLS * ROWS; o += 64u) {
        let r = o % ROWS;
        let c = group.x * COLS + o / ROWS;
        var total = 0.0;
        for (var l = 0u; l < LANES; l++) { total += part[l * COLS * ROWS + o]; }
        if r < rows && c < params.n { store(row + r, c, total); }
    }
}
