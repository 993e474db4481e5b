// Weights: (N, K) row-major as the checkpoint holds them, packed into u32 words.
// `weight(i)` is element i (in elements from the start of the binding) as f32.

#ifdef W_F32
fn weight(i: u32) -> f32 {
    return bitcast<f32>(w[i]);
}
#endif
#ifdef W_F16
fn weight(i: u32) -> f32 {
    return unpack2x16float(w[i >> 1u])[i & 1u];
}
#endif
#ifdef W_BF16
fn weight(i: u32) -> f32 {
    return bitcast<f32>((w[i >> 1u] >> ((i & 1u) * 16u)) << 16u);
}
#endif
