//! Huffman tables of JPEG. Only the lengths of the coded values are decoded.

use super::JpegError;
use super::bits::{AT_HAND, Bits};

/// Length of the codes that one table look-up finds, in bits.
const FAST_BITS: u32 = 11;
/// Added to the position by the end-of-block code.
pub(super) const END_OF_BLOCK: u32 = 128;

/// The meaning of one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(u32);

impl Code {
    fn new(length: u32, symbol: u8) -> Code {
        let (run, size) = (u32::from(symbol >> 4), u32::from(symbol & 15));
        let advance = match (run, size) {
            (15, 0) => 16,
            (_, 0) => END_OF_BLOCK,
            _ => run + 1,
        };
        Code(u32::from(symbol) | length << 8 | (length + size) << 16 | advance << 24)
    }

    /// The symbol: zeros before a value, and bits of the value.
    pub(super) fn symbol(self) -> u32 {
        self.0 & 0xff
    }

    /// Bits of the code.
    #[inline(always)]
    pub(super) fn length(self) -> u32 {
        self.0 >> 8 & 0xff
    }

    /// Bits of the code and of the value after it.
    #[inline(always)]
    pub(super) fn total(self) -> u32 {
        self.0 >> 16 & 0xff
    }

    /// Coefficients of a sequential block that it completes; [`END_OF_BLOCK`] for all remaining ones.
    #[inline(always)]
    pub(super) fn advance(self) -> u32 {
        self.0 >> 24
    }
}

/// A code, and the code after it if one look-up finds both.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pair(u32);

impl Pair {
    fn new(first: Code, second: Option<Code>) -> Pair {
        let (total, advance) = second.map_or((0, 0), |second| (second.total(), second.advance()));
        let both = (first.advance() + advance) << 8 | (first.total() + total);
        Pair(first.advance() << 24 | first.total() << 16 | both)
    }

    /// Coefficients and bits of the first code.
    #[inline(always)]
    pub(super) fn first(self) -> (u32, u32) {
        (self.0 >> 24, self.0 >> 16 & 0xff)
    }

    /// Coefficients and bits of both.
    #[inline(always)]
    pub(super) fn both(self) -> (u32, u32) {
        (self.0 >> 8 & 0xff, self.0 & 0xff)
    }
}

/// A table of codes.
pub(super) struct Table {
    /// Indexed by the next [`FAST_BITS`] bits; 0 for longer codes.
    fast: [u32; 1 << FAST_BITS],
    /// The same for pairs; only for AC tables.
    pairs: [u32; 1 << FAST_BITS],
    /// Indexed by length: one more than the last code, and the index of a code's symbol minus the code.
    long: [(u32, i32); 17],
    symbols: [u8; 256],
}

impl Table {
    /// A table of `counts` codes of 1 to 16 bits for these symbols, in this order.
    ///
    /// # Errors
    /// [`JpegError::Table`] if the counts do not form a prefix code, or a DC symbol needs more than 15 bits.
    pub(super) fn new(counts: &[u8; 16], symbols: &[u8], dc: bool) -> Result<Box<Table>, JpegError> {
        let empty =
            Table { fast: [0; 1 << FAST_BITS], pairs: [0; 1 << FAST_BITS], long: [(0, 0); 17], symbols: [0; 256] };
        let mut table = Box::new(empty);
        for (to, from) in table.symbols.iter_mut().zip(symbols) {
            *to = *from;
        }
        let (mut code, mut number) = (0_u32, 0_u32);
        for (length, (count, long)) in (1..).zip(counts.iter().zip(table.long.iter_mut().skip(1))) {
            let first = code;
            for symbol in symbols.iter().skip(number as usize).take(usize::from(*count)) {
                if dc && *symbol > 15 {
                    return Err(JpegError::Table);
                }
                if length <= FAST_BITS {
                    let from = (code << (FAST_BITS - length)) as usize;
                    let slots = table.fast.iter_mut().skip(from).take(1 << (FAST_BITS - length));
                    slots.for_each(|slot| *slot = Code::new(length, *symbol).0);
                }
                code += 1;
            }
            // No code is all ones.
            if code > first && code >= 1 << length {
                return Err(JpegError::Table);
            }
            *long = (code, number as i32 - first as i32);
            number += u32::from(*count);
            code <<= 1;
        }
        if !dc {
            table.pair();
        }
        Ok(table)
    }

    /// Pairs the codes that the look-up finds.
    fn pair(&mut self) {
        let fast = &self.fast;
        let pair = |(bits, first): (usize, &u32)| {
            let first = Code(*first);
            if first.0 == 0 {
                return 0;
            }
            let second = bits.checked_shl(first.total()).map_or(0, |bits| bits & ((1 << FAST_BITS) - 1));
            let second = fast.get(second).map(|code| Code(*code)).filter(|second| {
                second.0 != 0
                    && first.total() + second.length() <= FAST_BITS
                    && first.total() + second.total() <= AT_HAND
                    && first.advance() < END_OF_BLOCK
            });
            Pair::new(first, second).0
        };
        self.pairs.iter_mut().zip(fast.iter().enumerate().map(pair)).for_each(|(to, pair)| *to = pair);
    }

    /// Annex K.3's table for DC (`class` 0) or AC (1) of luminance (`slot` 0) or chrominance (1), which Motion-JPEG may
    /// omit; `None` for other slots.
    pub(super) fn default(class: usize, slot: usize) -> Option<Box<Table>> {
        let (counts, symbols): (&[u8; 16], &[u8]) = match (class, slot) {
            (0, 0) => (&DC_LUMINANCE, &DC_SYMBOLS),
            (0, 1) => (&DC_CHROMINANCE, &DC_SYMBOLS),
            (1, 0) => (&AC_LUMINANCE.0, &AC_LUMINANCE.1),
            (1, 1) => (&AC_CHROMINANCE.0, &AC_CHROMINANCE.1),
            _ => return None,
        };
        Table::new(counts, symbols, class == 0).ok()
    }

    /// The code at the start of the filled bits; `None` if there is none.
    #[inline(always)]
    pub(super) fn code(&self, bits: &Bits<'_>) -> Option<Code> {
        let word = bits.word();
        match self.fast.get((word >> (64 - FAST_BITS)) as usize) {
            Some(0) | None => self.long_code(word),
            Some(code) => Some(Code(*code)),
        }
    }

    /// The AC code at the start of the filled bits, and the next one if it is known.
    #[inline(always)]
    pub(super) fn ac_codes(&self, bits: &Bits<'_>) -> Option<Pair> {
        let word = bits.word();
        match self.pairs.get((word >> (64 - FAST_BITS)) as usize) {
            Some(0) | None => self.long_code(word).map(|code| Pair::new(code, None)),
            Some(pair) => Some(Pair(*pair)),
        }
    }

    #[cold]
    #[inline(never)]
    fn long_code(&self, word: u64) -> Option<Code> {
        let lengths = (1..=16_u32).zip(self.long.iter().skip(1));
        for (length, (limit, offset)) in lengths.skip(FAST_BITS as usize) {
            let code = (word >> (64 - length)) as u32;
            if code < *limit {
                let number = usize::try_from(code as i32 + offset).ok()?;
                return Some(Code::new(length, *self.symbols.get(number)?));
            }
        }
        None
    }
}

const DC_LUMINANCE: [u8; 16] = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0];
const DC_CHROMINANCE: [u8; 16] = [0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0];
const DC_SYMBOLS: [u8; 12] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11];

#[rustfmt::skip]
const AC_LUMINANCE: ([u8; 16], [u8; 162]) = (
    [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125],
    [
        0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22, 0x71,
        0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33, 0x62, 0x72,
        0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34, 0x35, 0x36, 0x37,
        0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58, 0x59,
        0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a, 0x83,
        0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3,
        0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3,
        0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2,
        0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
    ],
);

#[rustfmt::skip]
const AC_CHROMINANCE: ([u8; 16], [u8; 162]) = (
    [0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119],
    [
        0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13, 0x22,
        0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62, 0x72, 0xd1,
        0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x35, 0x36,
        0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55, 0x56, 0x57, 0x58,
        0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76, 0x77, 0x78, 0x79, 0x7a,
        0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99, 0x9a,
        0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba,
        0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda,
        0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa,
    ],
);
