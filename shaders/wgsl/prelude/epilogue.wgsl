// The epilogue of a linear layer, applied to its sums before they are stored. The order is part of the contract: the
// norm's scale of the row (the caller's), bias, scale, layer scale, addend (residual), activation; then the product of
// a gate and its value, or RoPE.

#import half

const BIAS: u32 = 1u;
const LAYER_SCALE: u32 = 2u;
const ADD: u32 = 4u;
const GATE: u32 = 8u;   // w's rows are pairs of a gate and its value: y has half as many columns
const NORM: u32 = 16u;  // x is x / sqrt(mean(x²) + eps) · (1 + norm)

// Abramowitz and Stegun 7.1.26, |error| <= 1.5e-7.
fn erf(x: f32) -> f32 {
    let a = abs(x);
    let t = 1.0 / (1.0 + 0.3275911 * a);
    let p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return sign(x) * (1.0 - p * exp(-a * a));
}

fn activate(x: f32) -> f32 {
    switch params.activation {
        // Beyond 10 tanh is 1 in f32; its own argument must not overflow exp.
        case 1u: { return 0.5 * x * (1.0 + tanh(clamp(0.7978845608 * (x + 0.044715 * x * x * x), -10.0, 10.0))); }
        case 2u: { return 0.5 * x * (1.0 + erf(x * 0.7071067812)); }
        case 3u: { return x / (1.0 + exp(-x)); }
        case 4u: { return max(x, 0.0); }
        case 5u: { return 1.0 / (1.0 + exp(-x)); }
        default: { return x; }
    }
}

// Everything up to the activation, of row r and the layer's column c.
fn affine(r: u32, c: u32, sum: f32) -> f32 {
    var v = sum;
    if (params.flags & BIAS) != 0u { v += bias[c]; }
    v *= params.scale;
    if (params.flags & LAYER_SCALE) != 0u { v *= layer_scale[c]; }
    if (params.flags & ADD) != 0u { v += other[params.other_offset + r * params.other_stride + c]; }
    return v;
}

fn put(r: u32, c: u32, v: f32) {
    if c < params.split {
        let at = params.y_offset + r * params.y_stride + c;
#ifdef HALVES
        if (params.flags & Y_F16) != 0u {
            y_half[at] = half(v);
            return;
        }
#endif
        y[at] = v;
    } else {
        let s = c - params.split;
        let at = params.side_offset + s / params.side_cols * params.side_plane + r * params.side_cols + s % params.side_cols;
#ifdef HALVES
        if (params.flags & SIDE_F16) != 0u {
            side_half[at] = half(v);
            return;
        }
#endif
        side[at] = v;
    }
}

// The sums of row r with the used rows j and j + 1 of w; j is even, and the second row may be missing.
fn store(r: u32, j: u32, sums: vec2<f32>) {
    var c = params.first + j;
    var next = c + 1u;
    var pair = 0u;
    if params.pair_distance != 0u {
        pair = c % (2u * params.pair_distance) / 2u;
        c = c / (2u * params.pair_distance) * (2u * params.pair_distance) + pair;
        next = c + params.pair_distance;
    }
    if (params.flags & GATE) != 0u {
        var v = sums;
        if (params.flags & BIAS) != 0u { v += vec2(bias[c], bias[next]); }
        put(r, c, activate(v.x) * v.y);
        return;
    }
    var v = vec2(activate(affine(r, c, sums.x)), 0.0);
    let both = j + 1u < params.n;
    if both { v.y = activate(affine(r, next, sums.y)); }
    if c < params.rope_columns {
        let at = params.table_offset + (r * params.pair_distance + pair) * 2u;
        let turn = vec2(table[at], table[at + 1u]);
        v = vec2(v.x * turn.x - v.y * turn.y, v.y * turn.x + v.x * turn.y);
    }
    put(r, c, v.x);
    if both { put(r, next, v.y); }
}
