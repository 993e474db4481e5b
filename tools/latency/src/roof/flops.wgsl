// Multiplications and additions without memory: eight independent chains a thread, so that none waits for another.

struct Params { rounds: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> out: array<vec4<f32>>; // (threads)

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let m = vec4(0.999 + f32(id.x & 7u) * 1e-5);
    let c = vec4(0.001);
    var a = vec4(f32(id.x) * 1e-6); var b = a + c; var d = b + c; var e = d + c;
    var f = e + c; var g = f + c; var h = g + c; var k = h + c;
    for (var i = 0u; i < params.rounds; i++) {
        a = fma(a, m, c); b = fma(b, m, c); d = fma(d, m, c); e = fma(e, m, c);
        f = fma(f, m, c); g = fma(g, m, c); h = fma(h, m, c); k = fma(k, m, c);
        a = fma(a, m, c); b = fma(b, m, c); d = fma(d, m, c); e = fma(e, m, c);
        f = fma(f, m, c); g = fma(g, m, c); h = fma(h, m, c); k = fma(k, m, c);
    }
    out[id.x] = a + b + d + e + f + g + h + k;
}
