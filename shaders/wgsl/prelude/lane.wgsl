// A lane's selection from scalars that all lanes have: `set_lane` with the thread's number among its eight first, then
// `mine`.

var<private> lane: vec3<bool>; // bits of the thread's number

fn set_lane(thread: u32) {
    lane = (vec3(thread) & vec3(1u, 2u, 4u)) != vec3(0u);
}

fn mine(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32) -> u32 {
    return select(select(select(a, b, lane.x), select(c, d, lane.x), lane.y),
                  select(select(e, f, lane.x), select(g, h, lane.x), lane.y), lane.z);
}

fn mine_f32(a: f32, b: f32, c: f32, d: f32, e: f32, f: f32, g: f32, h: f32) -> f32 {
    return select(select(select(a, b, lane.x), select(c, d, lane.x), lane.y),
                  select(select(e, f, lane.x), select(g, h, lane.x), lane.y), lane.z);
}
