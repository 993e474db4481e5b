// Tensors in f16, in kernels with the flag HALVES: stored values are clamped to the largest f16, because activations of
// trained models may exceed it and must not become infinite. NaN stays NaN. `Stored` and `stored` are for a tensor that
// a variant stores in f16, and the kernel itself in f32.

#ifdef HALVES
fn half(v: f32) -> f16 {
    return f16(select(v, clamp(v, -65504.0, 65504.0), abs(v) > 65504.0));
}

alias Stored = f16;
fn stored(v: f32) -> f16 {
    return half(v);
}
#else
alias Stored = f32;
fn stored(v: f32) -> f32 {
    return v;
}
#endif
