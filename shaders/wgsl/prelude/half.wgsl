// Tensors in f16, in kernels with the flag HALVES: what is stored in one is at most the largest f16 in magnitude, for the
// activations of trained models may pass it, and must not become infinite. What is no number stays none.
// `Stored` and `stored` are of a tensor that a variant stores in f16, and the kernel itself in f32.

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
