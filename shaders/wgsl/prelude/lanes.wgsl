// Eight neighbouring weights of each of the thread's rows, as f32: `octets(k)` with k a multiple of 8. A driver gathers
// its lanes' reads at different addresses one by one, at some fifty cycles each. So every thread reads the words of all
// rows of the workgroup, each of which is one scalar load, and selects its own.
//
// A thread has a pair of rows, and for quantised weights a second pair 16 rows on: a word is eight weights then, and
// scalar loads of x, each of which serves as many columns, bound the loop. Sixty-four rows of w are interleaved word by
// word. The formats are those of `fathom-shaders`' `cpu::decode`.
//
// A function that returns an array constructs it by the type's name. With `array(…)` naga 30 gives the value a type of
// its own beside the alias, and the SPIR-V is invalid: OpReturnValue's type is not the function's
// (VUID-VkShaderModuleCreateInfo-pCode-08737).

#import lane

#ifdef FOUR
const COLUMNS: u32 = 32u;
alias Columns = vec4<f32>;
alias Octets = array<vec4<f32>, 8>;
#else
const COLUMNS: u32 = 16u;
alias Columns = vec2<f32>;
alias Octets = array<vec2<f32>, 8>;
#endif

var<private> places: array<u32, COLUMNS>; // of the first words of the workgroup's rows
#ifdef FOUR
var<private> factor: vec4<f32>;          // scales of the thread's rows, or of their group
var<private> addend: vec4<f32>;          // W4: addend of the products with them
var<private> groups: vec4<u32>;          // W4: the first scales of the thread's rows
#endif

// Called before the first octet: the workgroup's first row, the last used row, and the thread's number.
fn begin(first: u32, last: u32, thread: u32) {
    set_lane(thread);
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
#ifdef FOUR
    let own = min(vec4(first) + 2u * thread + vec4(0u, 1u, 16u, 17u), vec4(last));
#ifdef W_W8
    factor = bitcast<vec4<f32>>(vec4(scales[own.x], scales[own.y], scales[own.z], scales[own.w]));
#endif
    groups = own * (params.w_stride >> params.group_shift);
#endif
}

// Word i of every second of sixteen rows, the first of them the workgroup's row c.
fn word(c: u32, i: u32) -> u32 {
    let at = i * 64u;
    return mine(w[places[c] + at], w[places[c + 2u] + at], w[places[c + 4u] + at], w[places[c + 6u] + at],
                w[places[c + 8u] + at], w[places[c + 10u] + at], w[places[c + 12u] + at], w[places[c + 14u] + at]);
}

// Word i of the thread's rows.
#ifdef FOUR
fn words(i: u32) -> vec4<u32> {
    return vec4(word(0u, i), word(1u, i), word(16u, i), word(17u, i));
}
#else
fn words(i: u32) -> vec2<u32> {
    return vec2(word(0u, i), word(1u, i));
}
#endif

#ifdef W_F32
fn octets(k: u32) -> Octets {
    return Octets(bitcast<vec2<f32>>(words(k)), bitcast<vec2<f32>>(words(k + 1u)),
                  bitcast<vec2<f32>>(words(k + 2u)), bitcast<vec2<f32>>(words(k + 3u)),
                  bitcast<vec2<f32>>(words(k + 4u)), bitcast<vec2<f32>>(words(k + 5u)),
                  bitcast<vec2<f32>>(words(k + 6u)), bitcast<vec2<f32>>(words(k + 7u)));
}
#endif
#ifdef W_F16
fn two(pair: vec2<u32>) -> vec4<f32> {
    return vec4(unpack2x16float(pair.x), unpack2x16float(pair.y)).xzyw;
}

fn octets(k: u32) -> Octets {
    let a = two(words(k / 2u));
    let b = two(words(k / 2u + 1u));
    let c = two(words(k / 2u + 2u));
    let d = two(words(k / 2u + 3u));
    return Octets(a.xy, a.zw, b.xy, b.zw, c.xy, c.zw, d.xy, d.zw);
}
#endif
#ifdef W_BF16
fn low(pair: vec2<u32>) -> vec2<f32> {
    return bitcast<vec2<f32>>(pair << vec2(16u));
}

fn high(pair: vec2<u32>) -> vec2<f32> {
    return bitcast<vec2<f32>>(pair & vec2(0xffff0000u));
}

fn octets(k: u32) -> Octets {
    let a = words(k / 2u);
    let b = words(k / 2u + 1u);
    let c = words(k / 2u + 2u);
    let d = words(k / 2u + 3u);
    return Octets(low(a), high(a), low(b), high(b), low(c), high(c), low(d), high(d));
}
#endif
#ifdef W_W8
fn byte(four: vec4<u32>, left: u32) -> vec4<f32> {
    return vec4<f32>((bitcast<vec4<i32>>(four) << vec4(left)) >> vec4(24u));
}

fn octets(k: u32) -> Octets {
    let a = words(k / 4u);
    let b = words(k / 4u + 1u);
    return Octets(byte(a, 24u), byte(a, 16u), byte(a, 8u), byte(a, 0u),
                  byte(b, 24u), byte(b, 16u), byte(b, 8u), byte(b, 0u));
}
#endif
#ifdef W_W4
fn nibble(four: vec4<u32>, right: u32) -> vec4<f32> {
    return factor * vec4<f32>((four >> vec4(right)) & vec4(15u)) + addend;
}

fn octets(k: u32) -> Octets {
    if (k & ((1u << params.group_shift) - 1u)) == 0u {
        let g = groups + (k >> params.group_shift);
#ifdef MINIMA
        let a = unpack2x16float(scales[g.x]);
        let b = unpack2x16float(scales[g.y]);
        let c = unpack2x16float(scales[g.z]);
        let d = unpack2x16float(scales[g.w]);
        factor = vec4(a.x, b.x, c.x, d.x);
        addend = vec4(a.y, b.y, c.y, d.y);
#else
        factor = vec4(unpack2x16float(scales[g.x / 2u])[g.x & 1u], unpack2x16float(scales[g.y / 2u])[g.y & 1u],
                      unpack2x16float(scales[g.z / 2u])[g.z & 1u], unpack2x16float(scales[g.w / 2u])[g.w & 1u]);
        addend = -8.0 * factor;
#endif
    }
    let four = words(k / 8u);
    return Octets(nibble(four, 0u), nibble(four, 4u), nibble(four, 8u), nibble(four, 12u),
                  nibble(four, 16u), nibble(four, 20u), nibble(four, 24u), nibble(four, 28u));
}
#endif
