// A matrix product whose operands the importing kernel provides: 64 rows × 32 columns a workgroup of 8 × 8 threads, 8 ×
// 4 a thread, K in `parts` of `depth`, each in slices of 16. The kernel defines
//   tile_x(r, part, k)     element k of a part of the tile's row r; r is below 64, k below depth
//   tile_w(c, part, k)     the same of column c of the whole
//   tile_store(r, c, sum)  takes the sum of the tile's row r and column c
// for missing rows and columns, too.

const TILE_ROWS: u32 = 64u;
const TILE_COLS: u32 = 32u;
const TILE_SLICE: u32 = 16u;

// K-major, so that a thread's rows are two neighbours and its columns one.
var<workgroup> tile_xs: array<vec4<f32>, 256>; // (TILE_SLICE, TILE_ROWS / 4)
var<workgroup> tile_ws: array<vec4<f32>, 128>; // (TILE_SLICE, TILE_COLS / 4)

fn tile(col: u32, parts: u32, depth: u32, local: vec2<u32>, index: u32) {
    var s0 = vec4<f32>(); var s1 = vec4<f32>(); var s2 = vec4<f32>(); var s3 = vec4<f32>();
    var s4 = vec4<f32>(); var s5 = vec4<f32>(); var s6 = vec4<f32>(); var s7 = vec4<f32>();
    // This thread stages sixteen rows and eight columns at one k.
    let stage = index % TILE_SLICE;
    let quad = index / TILE_SLICE;
    for (var part = 0u; part < parts; part++) {
        for (var k0 = 0u; k0 < depth; k0 += TILE_SLICE) {
            let k = k0 + stage;
            for (var q = quad * 4u; q < quad * 4u + 4u; q++) {
                var v = vec4<f32>();
                if k < depth {
                    let r = q * 4u;
                    v = vec4(tile_x(r, part, k), tile_x(r + 1u, part, k), tile_x(r + 2u, part, k), tile_x(r + 3u, part, k));
                }
                tile_xs[stage * 16u + q] = v;
            }
            for (var q = quad * 2u; q < quad * 2u + 2u; q++) {
                var v = vec4<f32>();
                if k < depth {
                    let c = col + q * 4u;
                    v = vec4(tile_w(c, part, k), tile_w(c + 1u, part, k), tile_w(c + 2u, part, k), tile_w(c + 3u, part, k));
                }
                tile_ws[stage * 8u + q] = v;
            }
            workgroupBarrier();
            for (var i = 0u; i < TILE_SLICE; i++) {
                let a = tile_xs[i * 16u + local.y * 2u];
                let b = tile_xs[i * 16u + local.y * 2u + 1u];
                let w = tile_ws[i * 8u + local.x];
                s0 += a.x * w;
                s1 += a.y * w;
                s2 += a.z * w;
                s3 += a.w * w;
                s4 += b.x * w;
                s5 += b.y * w;
                s6 += b.z * w;
                s7 += b.w * w;
            }
            workgroupBarrier();
        }
    }
    // Loops, so that the code has the kernel's store only once; the sums, which have no address, pass through the
    // thread's own part of tile_xs.
    let own = index * 4u;
    for (var half = 0u; half < 2u; half++) {
        if half == 0u {
            tile_xs[own] = s0; tile_xs[own + 1u] = s1; tile_xs[own + 2u] = s2; tile_xs[own + 3u] = s3;
        } else {
            tile_xs[own] = s4; tile_xs[own + 1u] = s5; tile_xs[own + 2u] = s6; tile_xs[own + 3u] = s7;
        }
        for (var i = 0u; i < 16u; i++) {
            tile_store(local.y * 8u + half * 4u + i / 4u, col + local.x * 4u + i % 4u, tile_xs[own + i / 4u][i % 4u]);
        }
    }
}
