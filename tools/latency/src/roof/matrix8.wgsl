// Products of cooperative matrices of 8 × 8, f16 with f32 sums, without memory between them: four independent sums.

enable f16;
enable wgpu_cooperative_matrix;

struct Params { rounds: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> out: array<f32>; // (workgroups, 8, 8)

var<workgroup> xs: array<f16, 64>;

@compute @workgroup_size(32)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) index: u32) {
    for (var i = index; i < 64u; i += 32u) { xs[i] = f16(0.01); }
    workgroupBarrier();
    let x = coopLoadT<coop_mat8x8<f16, A>>(&xs[0], 8u);
    let w = coopLoad<coop_mat8x8<f16, B>>(&xs[0], 8u);
    var a = coop_mat8x8<f32, C>(); var b = a; var c = a; var d = a;
    for (var i = 0u; i < params.rounds; i++) {
        a = coopMultiplyAdd(x, w, a);
        b = coopMultiplyAdd(x, w, b);
        c = coopMultiplyAdd(x, w, c);
        d = coopMultiplyAdd(x, w, d);
    }
    coopStoreT(a + b + c + d, &out[group.x * 64u], 8u);
}
