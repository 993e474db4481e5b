// One Euler step of the flow in place: x += dt · velocity. One thread an element.

struct Euler {
    count: u32,
    dt: f32,
}

@group(0) @binding(0) var<uniform> params: Euler;
@group(0) @binding(1) var<storage, read_write> velocity: array<f32>; // (horizon, action dim)
@group(0) @binding(2) var<storage, read_write> x: array<f32>;        // (horizon, action dim)

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if id.x >= params.count { return; }
    x[id.x] = x[id.x] + params.dt * velocity[id.x];
}
