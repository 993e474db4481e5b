//! A picture's orientation in EXIF or XMP, and the rotation that turns it upright.
//!
//! The sources and their order are Pillow's (`ImageOps.exif_transpose`, which transformers applies): EXIF, and without
//! an orientation there, XMP. Unreadable metadata leave the picture unturned.

use std::mem::swap;

use super::{Image, PixelFormat};

/// EXIF's number of the orientation tag.
const ORIENTATION: u16 = 0x0112;

/// The metadata of a picture's file.
#[derive(Debug, Default)]
pub(crate) struct Metadata {
    /// A TIFF header and the data that its offsets reach.
    exif: Vec<u8>,
    /// An XMP packet.
    xmp: Vec<u8>,
}

impl Metadata {
    pub(super) fn clear(&mut self) {
        self.exif.clear();
        self.xmp.clear();
    }

    /// Adds the body of a JPEG's APP1 segment. Several of EXIF are parts of one.
    pub(super) fn add_app1(&mut self, body: &[u8]) {
        if let Some(exif) = body.strip_prefix(b"Exif\0\0") {
            self.exif.extend(exif);
        } else if let Some(xmp) = body.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
            self.xmp.clear();
            self.xmp.extend(xmp);
        }
    }

    /// Adds EXIF from a PNG's `eXIf` chunk.
    pub(super) fn add_exif(&mut self, exif: &[u8]) {
        self.exif.clear();
        self.exif.extend(exif);
    }

    /// Adds a text of a PNG: ImageMagick's `Raw profile type exif`, EXIF as hexadecimal digits after three lines, and
    /// `XML:com.adobe.xmp`.
    pub(super) fn add_text(&mut self, keyword: &str, text: &str) {
        match keyword {
            "Raw profile type exif" if self.exif.is_empty() => {
                let digits = text.splitn(4, '\n').nth(3).unwrap_or_default();
                let digits: Vec<u8> = digits.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
                self.exif.extend(digits.as_chunks::<2>().0.iter().map(|[high, low]| high << 4 | low));
            }
            "XML:com.adobe.xmp" => {
                self.xmp.clear();
                self.xmp.extend(text.as_bytes());
            }
            _ => {}
        }
    }

    /// The orientation, 1 to 8; 1 if there is none.
    pub(super) fn orientation(&self) -> u16 {
        let mut exif = self.exif.as_slice();
        while let Some(rest) = exif.strip_prefix(b"Exif\0\0") {
            exif = rest;
        }
        let value = of_exif(exif).or_else(|| of_xmp(&self.xmp));
        value.filter(|value| (1..=8).contains(value)).unwrap_or(1)
    }
}

/// The orientation in the first directory of EXIF; 0 if it exists but is not a whole number.
fn of_exif(exif: &[u8]) -> Option<u16> {
    let little = match exif.first_chunk::<4>()? {
        [b'I', b'I', 42, 0] => true,
        [b'M', b'M', 0, 42] => false,
        _ => return None,
    };
    let bytes2 = |bytes: [u8; 2]| if little { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) };
    let bytes4 = |bytes: [u8; 4]| if little { u32::from_le_bytes(bytes) } else { u32::from_be_bytes(bytes) };
    let u16_at = |at: usize| exif.get(at..)?.first_chunk().map(|bytes| bytes2(*bytes));
    let u32_at = |at: usize| exif.get(at..)?.first_chunk().map(|bytes| bytes4(*bytes));
    let directory = usize::try_from(u32_at(4)?).ok()?;
    let entries = u16_at(directory)?;
    for number in 0..usize::from(entries) {
        let at = directory.checked_add(2 + 12 * number)?;
        let [t0, t1, k0, k1, c0, c1, c2, c3, v0, v1, v2, v3] = *exif.get(at..)?.first_chunk::<12>()?;
        if bytes2([t0, t1]) != ORIENTATION {
            continue;
        }
        // SHORT, LONG and their signed forms; of several values the first. More than fit here are stored elsewhere.
        let (kind, count, word) = (bytes2([k0, k1]), bytes4([c0, c1, c2, c3]), bytes4([v0, v1, v2, v3]));
        let value = match (kind, count) {
            (3 | 8, 1 | 2) => u32::from(bytes2([v0, v1])),
            (4 | 9, 1) => word,
            (3 | 8, 3..) => u32::from(u16_at(usize::try_from(word).ok()?)?),
            (4 | 9, 2..) => u32_at(usize::try_from(word).ok()?)?,
            _ => 0,
        };
        return Some(u16::try_from(value).unwrap_or(0));
    }
    None
}

/// The digit after `tiff:Orientation`, as an attribute or an element.
fn of_xmp(xmp: &[u8]) -> Option<u16> {
    const NAME: &[u8] = b"tiff:Orientation";
    xmp.windows(NAME.len() + 3).find_map(|window| {
        let (digit, marked) = match window.strip_prefix(NAME)? {
            [b'=', b'"', digit] => (digit, true),
            [b'>', digit, _] => (digit, true),
            [_, _, digit] => (digit, false),
            _ => return None,
        };
        (marked && digit.is_ascii_digit()).then(|| u16::from(digit - b'0'))
    })
}

/// Turns an image of [`PixelFormat::Rgb24`] upright. `orientation` is its EXIF orientation; `spare` is scratch memory.
pub(super) fn turn_upright(image: &mut Image, orientation: u16, spare: &mut Vec<u8>) {
    if !(2..=8).contains(&orientation) || image.format != PixelFormat::Rgb24 {
        return;
    }
    let (width, height) = (image.width as usize, image.height as usize);
    // Start of the first pixel, and steps in pixels to the next one right and down, in the turned image.
    let end = (width * height).saturating_sub(1);
    let right = width.saturating_sub(1);
    let below = end.saturating_sub(right);
    let (one, row) = (1_isize, width as isize);
    let (first, across, down) = match orientation {
        2 => (right, -one, row),
        3 => (end, -one, -row),
        4 => (below, one, -row),
        5 => (0, row, one),
        6 => (below, -row, one),
        7 => (end, -row, -one),
        _ => (right, row, -one),
    };
    let (to_width, to_height) = if orientation < 5 { (width, height) } else { (height, width) };
    let (pixels, _) = image.data.as_chunks::<3>();
    spare.clear();
    spare.reserve(image.data.len());
    for y in 0..to_height {
        let mut at = first.wrapping_add_signed(down.wrapping_mul(y as isize));
        for _ in 0..to_width {
            spare.extend(pixels.get(at).copied().unwrap_or_default());
            at = at.wrapping_add_signed(across);
        }
    }
    swap(&mut image.data, spare);
    (image.width, image.height) =
        if orientation < 5 { (image.width, image.height) } else { (image.height, image.width) };
    image.stride = image.format.row_bytes(image.width);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// EXIF with one entry: kind, count and the four bytes of the value.
    fn exif(little: bool, kind: u16, count: u32, value: [u8; 4]) -> Vec<u8> {
        let two = |v: u16| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let four = |v: u32| if little { v.to_le_bytes() } else { v.to_be_bytes() };
        let mut bytes = if little { b"II".to_vec() } else { b"MM".to_vec() };
        bytes.extend(two(42));
        bytes.extend(four(8));
        bytes.extend(two(1));
        bytes.extend(two(ORIENTATION));
        bytes.extend(two(kind));
        bytes.extend(four(count));
        bytes.extend(value);
        bytes.extend(four(0));
        bytes
    }

    fn orientation(exif: &[u8], xmp: &str) -> u16 {
        let mut metadata = Metadata::default();
        metadata.add_exif(exif);
        metadata.add_text("XML:com.adobe.xmp", xmp);
        metadata.orientation()
    }

    #[test]
    fn the_orientation_is_read_in_both_byte_orders_and_all_whole_numbers() {
        for value in 1..=8 {
            assert_eq!(orientation(&exif(true, 3, 1, [value, 0, 0, 0]), ""), u16::from(value));
            assert_eq!(orientation(&exif(false, 3, 1, [0, value, 0, 0]), ""), u16::from(value));
            assert_eq!(orientation(&exif(true, 4, 1, [value, 0, 0, 0]), ""), u16::from(value));
            assert_eq!(orientation(&exif(false, 9, 1, [0, 0, 0, value]), ""), u16::from(value));
            assert_eq!(orientation(&exif(false, 8, 2, [0, value, 0, 1]), ""), u16::from(value));
        }
    }

    #[test]
    fn xmp_counts_where_exif_has_no_orientation() {
        assert_eq!(orientation(&[], r#"<x tiff:Orientation="6"/>"#), 6);
        assert_eq!(orientation(&[], "<tiff:Orientation>8</tiff:Orientation>"), 8);
        assert_eq!(orientation(&[], "<tiff:Orientation>8"), 1);
        assert_eq!(orientation(&exif(true, 3, 1, [3, 0, 0, 0]), r#"tiff:Orientation="6""#), 3);
        // The entry exists without a valid orientation.
        assert_eq!(orientation(&exif(true, 2, 1, [b'6', 0, 0, 0]), r#"tiff:Orientation="6""#), 1);
        assert_eq!(orientation(&[], r#"tiff:Orientation="9""#), 1);
        assert_eq!(orientation(&[], r#"tiff:Orientation='6'"#), 1);
    }

    #[test]
    fn malformed_exif_means_as_it_is() {
        let good = exif(true, 3, 1, [6, 0, 0, 0]);
        for length in 0..good.len() - 4 {
            assert_eq!(orientation(&good[..length], ""), 1, "{length} bytes");
        }
        let with = |at: usize, bytes: &[u8]| {
            let mut bad = good.clone();
            bad[at..at + bytes.len()].copy_from_slice(bytes);
            orientation(&bad, "")
        };
        let past = u32::MAX.to_le_bytes();
        assert_eq!(with(0, b"II\x2b\0"), 1, "BigTIFF, which cameras do not write");
        assert_eq!(with(4, &past), 1, "a directory past the end");
        assert_eq!(with(4, &0_u32.to_le_bytes()), 1, "a directory in its own header");
        assert_eq!(with(8, &[0xff, 0xff]), 6, "more entries than there are, after the one");
        assert_eq!(with(10, &[0, 0]), 1, "another tag");
        for kind in [0_u16, 1, 2, 5, 7, 11, 12, 13, u16::MAX] {
            assert_eq!(with(12, &kind.to_le_bytes()), 1, "kind {kind}");
        }
        assert_eq!(with(14, &0_u32.to_le_bytes()), 1, "no value");
        assert_eq!(with(14, &past), 1, "four thousand million values, at an offset that is in the header");
        for value in [0_u16, 9, 255, u16::MAX] {
            assert_eq!(with(18, &value.to_le_bytes()), 1, "orientation {value}");
        }
    }

    #[test]
    fn text_of_a_png_is_read_as_its_writers_write_it() {
        let mut metadata = Metadata::default();
        let digits: String = exif(false, 3, 1, [0, 8, 0, 0]).iter().map(|byte| format!("{byte:02x}")).collect();
        let (first, second) = digits.split_at(20);
        metadata.add_text("Raw profile type exif", &format!("\nexif\n      34\n457869660000{first}\n{second}\n"));
        assert_eq!(metadata.orientation(), 8);
        let mut metadata = Metadata::default();
        metadata.add_text("Raw profile type exif", "\nexif\n");
        assert_eq!(metadata.orientation(), 1);
    }

    #[test]
    fn each_orientation_is_turned_to_its_place() {
        let mut spare = Vec::new();
        for orientation in 0..=9 {
            // Upright: pixel (x, y) is [x, y, 7]. Its position in memory follows the orientation.
            let (width, height) = (3_usize, 2_usize);
            let (wide, high) = if (5..=8).contains(&orientation) { (height, width) } else { (width, height) };
            let mut image = Image::default();
            image.reshape(PixelFormat::Rgb24, wide as u32, high as u32);
            for y in 0..height {
                for x in 0..width {
                    // EXIF: row 0 and column 0 of the memory are these sides of the picture.
                    let (column, row) = match orientation {
                        2 => (width - 1 - x, y),
                        3 => (width - 1 - x, height - 1 - y),
                        4 => (x, height - 1 - y),
                        5 => (y, x),
                        6 => (y, width - 1 - x),
                        7 => (height - 1 - y, width - 1 - x),
                        8 => (height - 1 - y, x),
                        _ => (x, y),
                    };
                    let at = (row * wide + column) * 3;
                    image.data[at..at + 3].copy_from_slice(&[x as u8, y as u8, 7]);
                }
            }
            turn_upright(&mut image, orientation, &mut spare);
            assert_eq!((image.width, image.height, image.stride), (3, 2, 9), "{orientation}");
            let expected: Vec<u8> = (0..6).flat_map(|i| [i % 3, i / 3, 7]).collect();
            assert_eq!(image.data, expected, "orientation {orientation}");
        }
    }
}
