//! The bits of a JPEG scan up to its next marker.

/// Reads entropy-coded data from the most significant bit. Stuffed zero bytes are skipped; a marker or the end of the
/// data ends the reading. Bits beyond the end read as zero; [`Bits::overrun`] reports their use.
#[derive(Clone, Copy)]
pub(super) struct Bits<'a> {
    data: &'a [u8],
    /// Next byte to read.
    at: usize,
    /// Read but unused bits, at the top.
    word: u64,
    /// Number of bits in `word`, including those beyond the end.
    count: u32,
    /// Number of them beyond the end.
    beyond: u32,
}

/// Bits available after [`Bits::fill`]: a code of 16 and the 15 bits of its value.
pub(super) const AT_HAND: u32 = 32;

impl<'a> Bits<'a> {
    /// Starts at byte `at` of `data`.
    pub(super) fn new(data: &'a [u8], at: usize) -> Bits<'a> {
        Bits { data, at, word: 0, count: 0, beyond: 0 }
    }

    /// Fills the top of the word with at least [`AT_HAND`] bits.
    #[inline(always)]
    pub(super) fn fill(&mut self) {
        if self.count < AT_HAND {
            match self.data.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
                Some(bytes) if !has_ff(u64::from_be_bytes(*bytes)) => {
                    // A byte that fits only in part is read again as a whole the next time; its first bits are then the
                    // same.
                    self.word |= u64::from_be_bytes(*bytes) >> self.count;
                    let bytes = (64 - self.count) / 8;
                    self.at += bytes as usize;
                    self.count += bytes * 8;
                }
                _ => self.fill_slowly(),
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn fill_slowly(&mut self) {
        while self.count <= 56 {
            let byte = match self.data.get(self.at) {
                // The end is already known.
                _ if self.beyond > 0 => None,
                Some(0xff) => {
                    let next = after_fill_bytes(self.data, self.at);
                    (self.data.get(next) == Some(&0)).then(|| {
                        self.at = next + 1;
                        0xff
                    })
                }
                Some(byte) => {
                    self.at += 1;
                    Some(*byte)
                }
                None => None,
            };
            match byte {
                Some(byte) => self.word |= u64::from(byte) << (56 - self.count),
                None => self.beyond += 8,
            }
            self.count += 8;
        }
    }

    /// The next bits, at the top; [`AT_HAND`] of them are valid after [`Bits::fill`].
    #[inline(always)]
    pub(super) fn word(&self) -> u64 {
        self.word
    }

    /// Consumes `count` of the available bits.
    #[inline(always)]
    pub(super) fn skip(&mut self, count: u32) {
        self.word <<= count;
        self.count = self.count.wrapping_sub(count);
    }

    /// Consumes `count` bits, at most 16, and returns them as a number.
    #[inline(always)]
    pub(super) fn take(&mut self, count: u32) -> u32 {
        self.fill();
        let value = if count == 0 { 0 } else { (self.word >> (64 - count)) as u32 };
        self.skip(count);
        value
    }

    /// Whether bits beyond the end were used.
    #[inline(always)]
    pub(super) fn overrun(&self) -> bool {
        self.count < self.beyond
    }

    /// The first byte without a used bit.
    pub(super) fn end(&self) -> usize {
        let mut at = self.at;
        for _ in 0..self.count.saturating_sub(self.beyond) / 8 {
            at = at.saturating_sub(1);
            // A stuffed zero is skipped with its 0xff and the fill bytes before it.
            if self.data.get(at) == Some(&0) {
                while at > 0 && self.data.get(at - 1) == Some(&0xff) {
                    at -= 1;
                }
            }
        }
        at
    }
}

/// The first byte from `at` on that is not 0xff.
pub(super) fn after_fill_bytes(data: &[u8], mut at: usize) -> usize {
    while data.get(at) == Some(&0xff) {
        at += 1;
    }
    at
}

/// Whether one of the eight bytes is 0xff.
#[inline(always)]
fn has_ff(bytes: u64) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let inverted = !bytes;
    inverted.wrapping_sub(ONES) & bytes & (ONES << 7) != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bits one by one: the reference.
    fn plainly(data: &[u8]) -> (Vec<u32>, Vec<usize>) {
        let (mut bits, mut ends, mut at) = (Vec::new(), Vec::new(), 0);
        while at < data.len() {
            let mut byte = data[at];
            let mut next = at + 1;
            if byte == 0xff {
                while next < data.len() && data[next] == 0xff {
                    next += 1;
                }
                if data.get(next) != Some(&0) {
                    break;
                }
                (byte, next) = (0xff, next + 1);
            }
            bits.extend((0..8).rev().map(|i| u32::from(byte >> i) & 1));
            ends.extend([next; 8]);
            at = next;
        }
        (bits, ends)
    }

    #[test]
    fn bits_their_end_and_their_overrun_are_those_of_a_plain_reader() {
        let mut seed = 1_u32;
        for round in 0..300_usize {
            let mut draw = || {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                seed >> 16
            };
            let mut data = Vec::new();
            for _ in 0..round % 40 {
                match draw() % 6 {
                    0 => data.extend([0xff, 0]),
                    1 if round % 3 == 0 => data.extend([0xff, 0xff, 0]),
                    2 => data.push(0),
                    _ => data.push((draw() % 255) as u8),
                }
            }
            if round % 2 == 0 {
                data.extend([0xff, 0xd9, 0x55, 0x55]);
            }
            let (expected, ends) = plainly(&data);
            let (mut bits, mut used) = (Bits::new(&data, 0), 0);
            while used < expected.len() {
                let count = 1 + (draw() as usize % 16).min(expected.len() - used - 1);
                let value = expected[used..used + count].iter().fold(0, |value, bit| value << 1 | bit);
                assert_eq!(bits.take(count as u32), value, "{data:02x?} bit {used}");
                used += count;
                assert_eq!(bits.end(), ends[used - 1], "{data:02x?} after {used} bits");
                assert!(!bits.overrun());
            }
            assert_eq!(bits.take(1), 0);
            assert!(bits.overrun(), "{data:02x?}");
        }
    }
}
