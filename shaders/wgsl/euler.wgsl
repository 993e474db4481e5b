// One Euler step of the flow in place, with the velocity drawn towards a chunk that is being followed:
// x += dt · (v − gain[r] · (goal − (x + ahead · v))). x + ahead · v is where the flow would end. With gains of zero
// it is the plain step. One thread an element.

struct Euler {
    count: u32,
    cols: u32,
    gain_offset: u32,
    dt: f32,
    ahead: f32, // flow time to the end, with the sign of dt
}

@group(0) @binding(0) var<uniform> params: Euler;
@group(0) @binding(1) var<storage, read_write> velocity: array<f32>; // (horizon, action dim)
@group(0) @binding(2) var<storage, read_write> goal: array<f32>;     // (horizon, action dim)
@group(0) @binding(3) var<storage, read_write> gains: array<f32>;    // (steps, horizon)
@group(0) @binding(4) var<storage, read_write> x: array<f32>;        // (horizon, action dim)

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    if i >= params.count { return; }
    let v = velocity[i];
    let at = x[i];
    let missed = goal[i] - (at + params.ahead * v);
    let gain = gains[params.gain_offset + i / params.cols];
    x[i] = at + params.dt * (v - gain * missed);
}
