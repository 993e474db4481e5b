// Eight neighbouring weights of each of the thread's two rows, as f32: `octets(k)` with k a multiple of 8. A driver gathers
// what its lanes read at different addresses one by one, at some fifty cycles. So every thread reads the words of all sixteen
// rows of the workgroup, each of which is one scalar load, and selects its own.
//
// Sixty-four rows of w lie together, word by word. The formats are those of `fathom-shaders`' `cpu::decode`.

const COLUMNS: u32 = 16u;

var<private> lane: vec3<bool>;           // bits of the thread's number
var<private> places: array<u32, 16>;     // of the first words of the workgroup's rows
var<private> factor: vec2<f32>;          // quantised: scales of the thread's rows, and of their group
var<private> addend: vec2<f32>;          // W4: what is added to the products with them
var<private> groups: vec2<u32>;          // W4: the first scales of the thread's rows

// Before the first octet: the workgroup's first row, the last that is used, and the thread's number.
fn begin(first: u32, last: u32, thread: u32) {
    lane = (vec3(thread) & vec3(1u, 2u, 4u)) != vec3(0u);
    for (var c = 0u; c < COLUMNS; c++) {
        let row = min(first + c, last);
#ifdef W_F32
        let words = params.w_stride;
#endif
#ifdef W_F16
        let words = params.w_stride / 2u;
#endif
#ifdef W_BF16
        let words = params.w_stride / 2u;
#endif
#ifdef W_W8
        let words = params.w_stride / 4u;
#endif
#ifdef W_W4
        let words = params.w_stride / 8u;
#endif
        places[c] = (row >> 6u) * words * 64u + (row & 63u);
    }
    let own = min(vec2(first) + 2u * thread + vec2(0u, 1u), vec2(last));
#ifdef W_W8
    factor = bitcast<vec2<f32>>(vec2(scales[own.x], scales[own.y]));
#endif
    groups = own * (params.w_stride >> params.group_shift);
}

fn mine(a: u32, b: u32, c: u32, d: u32, e: u32, f: u32, g: u32, h: u32) -> u32 {
    return select(select(select(a, b, lane.x), select(c, d, lane.x), lane.y),
                  select(select(e, f, lane.x), select(g, h, lane.x), lane.y), lane.z);
}

// Word i of the thread's two rows.
fn pair(i: u32) -> vec2<u32> {
    let at = i * 64u;
    return vec2(mine(w[places[0] + at], w[places[2] + at], w[places[4] + at], w[places[6] + at],
                     w[places[8] + at], w[places[10] + at], w[places[12] + at], w[places[14] + at]),
                mine(w[places[1] + at], w[places[3] + at], w[places[5] + at], w[places[7] + at],
                     w[places[9] + at], w[places[11] + at], w[places[13] + at], w[places[15] + at]));
}

#ifdef W_F32
fn octets(k: u32) -> array<vec2<f32>, 8> {
    return array(bitcast<vec2<f32>>(pair(k)), bitcast<vec2<f32>>(pair(k + 1u)),
                 bitcast<vec2<f32>>(pair(k + 2u)), bitcast<vec2<f32>>(pair(k + 3u)),
                 bitcast<vec2<f32>>(pair(k + 4u)), bitcast<vec2<f32>>(pair(k + 5u)),
                 bitcast<vec2<f32>>(pair(k + 6u)), bitcast<vec2<f32>>(pair(k + 7u)));
}
#endif
#ifdef W_F16
fn two(words: vec2<u32>) -> vec4<f32> {
    return vec4(unpack2x16float(words.x), unpack2x16float(words.y)).xzyw;
}

fn octets(k: u32) -> array<vec2<f32>, 8> {
    let a = two(pair(k / 2u));
    let b = two(pair(k / 2u + 1u));
    let c = two(pair(k / 2u + 2u));
    let d = two(pair(k / 2u + 3u));
    return array(a.xy, a.zw, b.xy, b.zw, c.xy, c.zw, d.xy, d.zw);
}
#endif
#ifdef W_BF16
fn low(words: vec2<u32>) -> vec2<f32> {
    return bitcast<vec2<f32>>(words << vec2(16u));
}

fn high(words: vec2<u32>) -> vec2<f32> {
    return bitcast<vec2<f32>>(words & vec2(0xffff0000u));
}

fn octets(k: u32) -> array<vec2<f32>, 8> {
    let a = pair(k / 2u);
    let b = pair(k / 2u + 1u);
    let c = pair(k / 2u + 2u);
    let d = pair(k / 2u + 3u);
    return array(low(a), high(a), low(b), high(b), low(c), high(c), low(d), high(d));
}
#endif
#ifdef W_W8
fn byte(words: vec2<u32>, left: u32) -> vec2<f32> {
    return factor * vec2<f32>((bitcast<vec2<i32>>(words) << vec2(left)) >> vec2(24u));
}

fn octets(k: u32) -> array<vec2<f32>, 8> {
    let a = pair(k / 4u);
    let b = pair(k / 4u + 1u);
    return array(byte(a, 24u), byte(a, 16u), byte(a, 8u), byte(a, 0u),
                 byte(b, 24u), byte(b, 16u), byte(b, 8u), byte(b, 0u));
}
#endif
#ifdef W_W4
fn octets(k: u32) -> array<vec2<f32>, 8> {
    if (k & ((1u << params.group_shift) - 1u)) == 0u {
        let g = groups + (k >> params.group_shift);
#ifdef MINIMA
        let a = unpack2x16float(scales[g.x]);
        let b = unpack2x16float(scales[g.y]);
        factor = vec2(a.x, b.x);
        addend = vec2(a.y, b.y);
#else
        factor = vec2(unpack2x16float(scales[g.x / 2u])[g.x & 1u], unpack2x16float(scales[g.y / 2u])[g.y & 1u]);
        addend = -8.0 * factor;
#endif
    }
    let words = pair(k / 8u);
    return array(factor * vec2<f32>(words & vec2(15u)) + addend,
                 factor * vec2<f32>((words >> vec2(4u)) & vec2(15u)) + addend,
                 factor * vec2<f32>((words >> vec2(8u)) & vec2(15u)) + addend,
                 factor * vec2<f32>((words >> vec2(12u)) & vec2(15u)) + addend,
                 factor * vec2<f32>((words >> vec2(16u)) & vec2(15u)) + addend,
                 factor * vec2<f32>((words >> vec2(20u)) & vec2(15u)) + addend,
                 factor * vec2<f32>((words >> vec2(24u)) & vec2(15u)) + addend,
                 factor * vec2<f32>(words >> vec2(28u)) + addend);
}
#endif
