//! Number formats of weights: the memory layout and the decoding of a row.

/// Number of a row's values that kernels read at once: a row's length on the GPU is a multiple of it, padded with
/// zeros.
pub const SLICE: usize = 32;

/// Number format of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WeightFormat {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
    /// Signed bytes `q`; the weight is `q · scale`, with a scale (f32) for each row.
    W8,
    /// Nibbles `q`, the first of two in the lower four bits; each `group` of a row, a power of two of at least 32, has
    /// a scale (f16). The weight is `(q − 8) · scale`, or with `minima` `q · scale + minimum` (f16, after the scale).
    W4 {
        /// Neighbours in a row that share a scale.
        group: u32,
        /// Whether a group has a minimum.
        minima: bool,
    },
}

/// A kernel's decoding of weights: a [`WeightFormat`] whose group size is a parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// [`WeightFormat::F32`].
    F32,
    /// [`WeightFormat::F16`].
    F16,
    /// [`WeightFormat::Bf16`].
    Bf16,
    /// [`WeightFormat::W8`].
    W8,
    /// [`WeightFormat::W4`] without minima.
    W4,
    /// [`WeightFormat::W4`] with minima.
    W4Minima,
}

impl From<WeightFormat> for Encoding {
    fn from(format: WeightFormat) -> Encoding {
        match format {
            WeightFormat::F32 => Encoding::F32,
            WeightFormat::F16 => Encoding::F16,
            WeightFormat::Bf16 => Encoding::Bf16,
            WeightFormat::W8 => Encoding::W8,
            WeightFormat::W4 { minima: false, .. } => Encoding::W4,
            WeightFormat::W4 { minima: true, .. } => Encoding::W4Minima,
        }
    }
}

impl WeightFormat {
    /// Bytes of `k` weights of a row; `k` is even for W4.
    pub fn row_bytes(self, k: usize) -> usize {
        match self {
            WeightFormat::F32 => 4 * k,
            WeightFormat::F16 | WeightFormat::Bf16 => 2 * k,
            WeightFormat::W8 => k,
            WeightFormat::W4 { .. } => k / 2,
        }
    }

    /// Bytes of the scales of a row of `k` weights.
    pub fn scale_bytes(self, k: usize) -> usize {
        match self {
            WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16 => 0,
            WeightFormat::W8 => 4,
            WeightFormat::W4 { group, minima } => k / (group as usize).max(1) * if minima { 4 } else { 2 },
        }
    }

    /// Whether weights are plain numbers, without scales.
    pub fn is_float(self) -> bool {
        matches!(self, WeightFormat::F32 | WeightFormat::F16 | WeightFormat::Bf16)
    }

    /// Decodes a row's little-endian bytes and scales.
    pub fn decode(self, bytes: &[u8], scales: &[u8]) -> Vec<f32> {
        let half = |b: &[u8; 2]| half::f16::from_le_bytes(*b).to_f32();
        match self {
            WeightFormat::F32 => bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect(),
            WeightFormat::F16 => bytes.as_chunks().0.iter().map(half).collect(),
            WeightFormat::Bf16 => bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
            WeightFormat::W8 => {
                let scale = scales.as_chunks().0.first().map_or(f32::NAN, |b| f32::from_le_bytes(*b));
                bytes.iter().map(|b| f32::from(b.cast_signed()) * scale).collect()
            }
            WeightFormat::W4 { group, minima } => {
                let scales: Vec<f32> = scales.as_chunks().0.iter().map(half).collect();
                let nibbles = bytes.iter().flat_map(|b| [b & 15, b >> 4]);
                let affine = |g: usize| match minima {
                    true => (scales.get(2 * g), scales.get(2 * g + 1).copied()),
                    false => (scales.get(g), scales.get(g).map(|s| -8.0 * s)),
                };
                let value = |(i, q): (usize, u8)| {
                    let (scale, minimum) = affine(i / (group as usize).max(1));
                    f32::from(q) * scale.copied().unwrap_or(f32::NAN) + minimum.unwrap_or(f32::NAN)
                };
                nibbles.enumerate().map(value).collect()
            }
        }
    }
}

impl std::fmt::Display for WeightFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            WeightFormat::F32 => f.write_str("f32"),
            WeightFormat::F16 => f.write_str("f16"),
            WeightFormat::Bf16 => f.write_str("bf16"),
            WeightFormat::W8 => f.write_str("w8"),
            WeightFormat::W4 { group, minima: false } => write!(f, "w4 g{group}"),
            WeightFormat::W4 { group, minima: true } => write!(f, "w4 g{group} with minima"),
        }
    }
}
