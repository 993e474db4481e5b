//! The board's identity.

use firmware_bridge::joint::Name;

use crate::register::{RCC_CR, Register};

/// Each chip's unique number, three words (RM0090 chapter 39, RM0383 chapter 24).
const UNIQUE: usize = 0x1FFF_7A10;

/// `name-` and eight hexadecimal digits of the chip's unique number; `name-emulated` in an emulator without one. Empty
/// if `name` is longer than 15 bytes.
pub fn identity(name: &str) -> Name {
    let mut digits = *b"emulated";
    if RCC_CR.read() != 0 {
        // FNV-1a of the three words.
        let words = [0, 4, 8].map(|offset| Register::at(UNIQUE, offset).read());
        let bytes = words.into_iter().flat_map(u32::to_le_bytes);
        let hash = bytes.fold(0x811C_9DC5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        for (digit, shift) in digits.iter_mut().zip((0..32).step_by(4).rev()) {
            let nibble = (hash >> shift & 0xF) as u8;
            *digit = if nibble < 10 { b'0' + nibble } else { b'a' + (nibble - 10) };
        }
    }
    let mut text = [0_u8; 24];
    let mut length = 0_usize;
    for (place, letter) in text.iter_mut().zip(name.bytes().chain(*b"-").chain(digits)) {
        *place = letter;
        length = length.saturating_add(1);
    }
    let whole = text.get(..length).filter(|_| length == name.len().saturating_add(9));
    whole.and_then(|text| core::str::from_utf8(text).ok()).and_then(Name::new).unwrap_or(Name::EMPTY)
}
