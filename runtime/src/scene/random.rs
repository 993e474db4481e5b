//! The generator behind every draw of a scene, and of what is made from it.

/// Draws by SplitMix64 (Steele, Lea and Flood, 2014): the same seed gives the same numbers on every machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Random(u64);

impl Random {
    /// The draws of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Draws of `seed` for one purpose. Those for other purposes do not depend on how many are taken.
    #[must_use]
    pub fn stream(seed: u64, purpose: u64) -> Self {
        let mut mixed = Self(seed ^ purpose.wrapping_mul(0xd134_2543_de82_ef95));
        Self(mixed.bits())
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from -1 to below 1.
    pub fn sign(&mut self) -> f32 {
        // The upper 24 bits fill the significand of an f32 exactly.
        (self.bits() >> 40) as f32 / (1_u32 << 23) as f32 - 1.0
    }

    /// A number from 0 to below 1.
    pub fn share(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1_u32 << 24) as f32
    }

    /// A number from `least` to `most`.
    pub fn within(&mut self, [least, most]: [f32; 2]) -> f32 {
        least + (most - least) * self.share()
    }

    /// A number of mean 0 and standard deviation 1: the sum of twelve even ones, which ends at 6.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.share()).sum::<f32>() - 6.0
    }

    /// An index below `count`; 0 if `count` is 0.
    pub fn index(&mut self, count: usize) -> usize {
        let count = count.max(1) as u64;
        usize::try_from((self.bits() >> 32) % count).unwrap_or(0)
    }
}
