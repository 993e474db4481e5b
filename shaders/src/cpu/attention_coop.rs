use super::attention::attention;
use crate::params::Attention;

/// The same function as [`attention`]: the kernels divide the work differently among threads, and this one rounds its
/// operands to f16.
pub fn attention_coop(p: &Attention, q: &[f32], k: &[f32], v: &[f32], out: &mut [f32]) {
    attention(p, q, k, v, out);
}
