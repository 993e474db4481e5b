// Draws an Euler step of the flow towards the chunk in progress, in place: y = x + dt · v becomes x + dt · (v − gain[r]
// · (goal − (x + ahead · v))). x + ahead · v is the flow's expected end. Gains of zero leave y unchanged. One thread an
// element.

struct Guide {
    count: u32,
    cols: u32,
    gain_offset: u32,
    dt: f32,
    ahead: f32, // flow time to the end, with the sign of dt
}

@group(0) @binding(0) var<uniform> params: Guide;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;     // (horizon, action dim)
@group(0) @binding(2) var<storage, read_write> goal: array<f32>;  // (horizon, action dim)
@group(0) @binding(3) var<storage, read_write> gains: array<f32>; // (steps, horizon)
@group(0) @binding(4) var<storage, read_write> y: array<f32>;     // (horizon, action dim)

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let i = id.x;
    if i >= params.count { return; }
    let before = x[i];
    let after = y[i];
    let end = before + params.ahead * ((after - before) / params.dt);
    let gain = gains[params.gain_offset + i / params.cols];
    y[i] = after - params.dt * gain * (goal[i] - end);
}
