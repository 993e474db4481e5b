// Reads all of x and writes next to nothing: what memory gives at best. A workgroup reads a range from its begin to its
// end, neighbouring threads neighbouring words.

struct Params { each: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>; // (workgroups, each, 64)
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>; // (workgroups, 64)

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    var a = vec4(0.0); var b = a; var c = a; var d = a;
    var at = group.x * params.each * 64u + index;
    for (var i = 0u; i < params.each; i += 4u) {
        a += x[at];
        b += x[at + 64u];
        c += x[at + 128u];
        d += x[at + 192u];
        at += 256u;
    }
    out[group.x * 64u + index] = a + b + c + d;
}
