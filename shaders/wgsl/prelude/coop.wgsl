// Operands of a linear layer as staged for cooperative matrices: in f16, 32 of a row at a time. x and w are read in
// vectors of 16 bytes.

#import matrix

const SLICE: u32 = 32u;
// Stride of staged rows in units of vec4<f16>: the rows of a matrix start in different banks.
const PITCH: u32 = 10u;

// Addends of `widen`, each as two f16: 1024, whose last bits hold an integer up to 1023, and the correction for an
// integer that is four bits higher. They depend on `row`, which is never that high, because some compilers would load
// constants anew for each use.
fn addends(row: u32) -> vec2<u32> {
#ifdef MINIMA
    return vec2(0x64006400u, 0xd400d400u) | vec2(row >> 31u); // -64
#else
    return vec2(0x64006400u, 0xd480d480u) | vec2(row >> 31u); // -64 - 8
#endif
}

fn halves(word: u32) -> vec2<f16> {
    return bitcast<vec2<f16>>(vec2<u16>(u16(word), u16(word >> 16u)));
}

// Vectors of a slice of a row of w, and how many vec4<f16> one of them becomes; `widen` gives the q-th. Words are widened two
// halves at a time, which changes the order within eight of a row: `limited` gives eight of x the same.
#ifdef W_F16
const VECTORS: u32 = 4u;
const QUADS: u32 = 2u;
fn scale_of(groups: u32, k: u32) -> vec2<f16> { return vec2<f16>(); }
fn widen(v: vec4<u32>, q: u32, s: vec2<f16>, add: vec2<u32>) -> vec4<f16> {
    return vec4<f16>(halves(v[2u * q]), halves(v[2u * q + 1u]));
}
#endif
#ifdef W_BF16
const VECTORS: u32 = 4u;
const QUADS: u32 = 2u;
fn scale_of(groups: u32, k: u32) -> vec2<f16> { return vec2<f16>(); }
fn widen(v: vec4<u32>, q: u32, s: vec2<f16>, add: vec2<u32>) -> vec4<f16> {
    let p = vec2(v[2u * q], v[2u * q + 1u]);
    let f = bitcast<vec4<f32>>(vec4(p.x << 16u, p.x & 0xffff0000u, p.y << 16u, p.y & 0xffff0000u));
    return vec4<f16>(f);
}
#endif
#ifdef W_W8
const VECTORS: u32 = 2u;
const QUADS: u32 = 4u;
fn scale_of(groups: u32, k: u32) -> vec2<f16> { return vec2<f16>(); }
// The bytes themselves: the row's scale is the sum's. 0x6400 | q is 1024 + q in f16.
fn widen(v: vec4<u32>, q: u32, s: vec2<f16>, add: vec2<u32>) -> vec4<f16> {
    let bytes = v[q] ^ 0x80808080u;
    let even = halves((bytes & 0x00ff00ffu) | add.x);
    let odd = halves(((bytes >> 8u) & 0x00ff00ffu) | add.x);
    return vec4<f16>(even, odd) - vec4(1152.0h);
}
#endif
#ifdef W_W4
const VECTORS: u32 = 1u;
const QUADS: u32 = 8u;
// Scale and minimum of a slice, which lies in one group, of a row whose groups begin there.
fn scale_of(groups: u32, k: u32) -> vec2<f16> {
    let g = groups + (k >> params.group_shift);
#ifdef MINIMA
    return halves(scales[g]);
#else
    return vec2(halves(scales[g >> 1u] >> ((g & 1u) * 16u)).x, 0.0h);
#endif
}
fn widen(v: vec4<u32>, q: u32, s: vec2<f16>, add: vec2<u32>) -> vec4<f16> {
    let nibbles = v[q / 2u] >> (q % 2u * 8u);
#ifdef MINIMA
    const MIDDLE: f16 = 0.0h;
#else
    const MIDDLE: f16 = 8.0h;
#endif
    let low = halves((nibbles & 0x000f000fu) | add.x) - vec2(1024.0h + MIDDLE);
    let high = fma(halves((nibbles & 0x00f000f0u) | add.x), vec2(0.0625h), halves(add.y)); // of 1024 + 16 q
#ifdef MINIMA
    return fma(vec4<f16>(low, high), vec4(s.x), vec4(s.y));
#else
    return vec4<f16>(low, high) * s.x;
#endif
}
#endif

// The q-th half of eight neighbours of x in the order of `widen`.
fn ordered(a: Four, b: Four, q: u32) -> vec4<f16> {
#ifdef W_W4
    return vec4<f16>(select(vec4(a.x, b.x, a.y, b.y), vec4(a.z, b.z, a.w, b.w), q == 1u));
#else
    let four = select(a, b, q == 1u);
#ifdef W_W8
    return vec4<f16>(four.xzyw);
#else
    return vec4<f16>(four);
#endif
#endif
}

// The same, at most `most` of their first and second four in magnitude.
fn limited(a: Four, b: Four, q: u32, most: vec2<f16>) -> vec4<f16> {
#ifdef W_W4
    let limits = most.xyxy;
#else
    let limits = vec4(most[q]);
#endif
    return clamp(ordered(a, b, q), -limits, limits);
}

// Factors that are still missing from the sums with the used rows j and j + 1 of w.
fn sum_scale(j: u32) -> vec2<f32> {
#ifdef W_W8
    let rows = params.w_row + min(vec2(j, j + 1u), vec2(params.n - 1u));
    return bitcast<vec2<f32>>(vec2(scales[rows.x], scales[rows.y]));
#else
    return vec2(1.0);
#endif
}
