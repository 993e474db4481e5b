// What a linear layer does with its sum before it stores it. The order is part of the contract:
// bias, layer scale, addend (residual), activation, factor (gate).

const BIAS: u32 = 1u;
const LAYER_SCALE: u32 = 2u;
const ADD: u32 = 4u;
const MULTIPLY: u32 = 8u;

const GELU_TANH: u32 = 1u;
const GELU_ERF: u32 = 2u;
const SILU: u32 = 3u;
const RELU: u32 = 4u;
const SIGMOID: u32 = 5u;

// Abramowitz and Stegun 7.1.26, |error| <= 1.5e-7.
fn erf(x: f32) -> f32 {
    let a = abs(x);
    let t = 1.0 / (1.0 + 0.3275911 * a);
    let p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t;
    return sign(x) * (1.0 - p * exp(-a * a));
}

fn activate(x: f32, kind: u32) -> f32 {
    switch kind {
        // Beyond 10 tanh is 1 in f32; its own argument must not overflow exp.
        case 1u: { return 0.5 * x * (1.0 + tanh(clamp(0.7978845608 * (x + 0.044715 * x * x * x), -10.0, 10.0))); }
        case 2u: { return 0.5 * x * (1.0 + erf(x * 0.7071067812)); }
        case 3u: { return x / (1.0 + exp(-x)); }
        case 4u: { return max(x, 0.0); }
        case 5u: { return 1.0 / (1.0 + exp(-x)); }
        default: { return x; }
    }
}

// Row r and column c of the output; `sum` is the dot product.
fn store(r: u32, c: u32, sum: f32) {
    var v = sum;
    if (params.flags & BIAS) != 0u { v += bias[c]; }
    if (params.flags & LAYER_SCALE) != 0u { v *= layer_scale[c]; }
    let o = params.other_offset + r * params.other_stride + c;
    if (params.flags & ADD) != 0u { v += other[o]; }
    v = activate(v, params.activation);
    if (params.flags & MULTIPLY) != 0u { v *= other[o]; }
    y[params.y_offset + r * params.y_stride + c] = v;
}
