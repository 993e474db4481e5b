//! Seeded random numbers and checkpoints: a model of any configuration without a download.

use crate::graph::params::{Param, Role};

/// `n` values of N(0, 1): SplitMix64 and Box–Muller, the same for a seed on every machine.
pub fn normal(seed: u64, n: usize) -> Vec<f32> {
    normals(seed).take(n).collect()
}

/// As [`normal`], without end.
fn normals(seed: u64) -> impl Iterator<Item = f32> {
    let mut state = seed;
    let mut uniform = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    std::iter::repeat_with(move || {
        ((-2.0 * (1.0 - uniform()).ln()).sqrt() * (std::f64::consts::TAU * uniform()).cos()) as f32
    })
}

/// A parameter's values in bf16.
pub(crate) fn values(p: &Param, seed: u64) -> Vec<u8> {
    // FNV-1a of the name, so that a tensor's values do not depend on the others.
    let hash = p.name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    let count: usize = p.shape.iter().product();
    let inputs: usize = p.shape.iter().skip(1).product();
    let multiplies = p.name.contains("lambda1")
        || (p.name.contains("norm") && p.name.ends_with("weight") && !p.name.contains("joint_model"));
    let (mean, std) = match p.role {
        Role::Matrix | Role::Kernel => (0.0, 1.0 / (inputs.max(1) as f32).sqrt()),
        _ if multiplies => (1.0, 0.1),
        _ => (0.0, 0.1),
    };
    let mut bytes = Vec::with_capacity(2 * count);
    for value in normals(seed ^ hash).take(count) {
        bytes.extend(half::bf16::from_f32(mean + std * value).to_le_bytes());
    }
    bytes
}
