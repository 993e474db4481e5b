// Eight neighbouring weights of a row, as f32: `octet(row, k)` with k a multiple of 8, `row` counted from the binding's first.
// The formats are those of `fathom-shaders`' `cpu::decode`.

struct Octet { a: vec4<f32>, b: vec4<f32> }

fn word(row: u32, i: u32, row_words: u32) -> u32 {
    return row * row_words + i;
}

#ifdef W_F32
fn octet(row: u32, k: u32) -> Octet {
    let i = word(row, k, params.w_stride);
    return Octet(bitcast<vec4<f32>>(vec4(w[i], w[i + 1u], w[i + 2u], w[i + 3u])),
                 bitcast<vec4<f32>>(vec4(w[i + 4u], w[i + 5u], w[i + 6u], w[i + 7u])));
}
#endif
#ifdef W_F16
fn octet(row: u32, k: u32) -> Octet {
    let i = word(row, k / 2u, params.w_stride / 2u);
    return Octet(vec4(unpack2x16float(w[i]), unpack2x16float(w[i + 1u])),
                 vec4(unpack2x16float(w[i + 2u]), unpack2x16float(w[i + 3u])));
}
#endif
#ifdef W_BF16
fn octet(row: u32, k: u32) -> Octet {
    let i = word(row, k / 2u, params.w_stride / 2u);
    let p = vec4(w[i], w[i + 1u], w[i + 2u], w[i + 3u]);
    let low = bitcast<vec4<f32>>(p << vec4(16u));
    let high = bitcast<vec4<f32>>(p & vec4(0xffff0000u));
    return Octet(vec4(low.x, high.x, low.y, high.y), vec4(low.z, high.z, low.w, high.w));
}
#endif
#ifdef W_W8
fn octet(row: u32, k: u32) -> Octet {
    let i = word(row, k / 4u, params.w_stride / 4u);
    let s = bitcast<f32>(scales[row]);
    return Octet(s * vec4<f32>(unpack4xI8(w[i])), s * vec4<f32>(unpack4xI8(w[i + 1u])));
}
#endif
#ifdef W_W4
fn octet(row: u32, k: u32) -> Octet {
    let eight = w[word(row, k / 8u, params.w_stride / 8u)];
    let g = row * (params.w_stride >> params.group_shift) + (k >> params.group_shift);
#ifdef MINIMA
    let affine = unpack2x16float(scales[g]);
#else
    let s = unpack2x16float(scales[g / 2u])[g & 1u];
    let affine = vec2(s, -8.0 * s);
#endif
    let low = vec4(eight, eight >> 4u, eight >> 8u, eight >> 12u) & vec4(15u);
    let high = vec4(eight >> 16u, eight >> 20u, eight >> 24u, eight >> 28u) & vec4(15u);
    return Octet(affine.x * vec4<f32>(low) + affine.y, affine.x * vec4<f32>(high) + affine.y);
}
#endif
