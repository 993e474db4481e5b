//! JPEG pictures to RGB24, Motion-JPEG included.

use std::borrow::Cow;

use zune_jpeg::JpegDecoder;
use zune_jpeg::errors::DecodeErrors;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::{CameraError, Image, PixelFormat};

/// Start of image followed by an `AVI1` segment, which tells the decoder to take the Huffman
/// tables of JPEG's annex K.3 wherever the picture brings none.
const START_WITH_DEFAULT_TABLES: [u8; 20] =
    [0xff, 0xd8, 0xff, 0xe0, 0x00, 0x10, b'A', b'V', b'I', b'1', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Decodes a JPEG picture into the pixels of `into` as [`PixelFormat::Rgb24`]; stamps and
/// sequence are left alone. Grey pictures become grey RGB.
///
/// # Errors
/// [`CameraError::Decode`] and [`CameraError::EmptyImage`], with `device` as the name.
pub(super) fn decode_jpeg(data: &[u8], device: &str, into: &mut Image) -> Result<(), CameraError> {
    let problem = |error: &DecodeErrors| match error {
        DecodeErrors::ZeroError => CameraError::EmptyImage { device: device.to_owned(), width: 0, height: 0 },
        other => CameraError::Decode { device: device.to_owned(), kind: "JPEG", problem: format!("{other:?}") },
    };
    // Cut-off pictures are errors, not half-grey images.
    let options = DecoderOptions::default().set_strict_mode(true).jpeg_set_out_colorspace(ColorSpace::RGB);
    let data = with_huffman_tables(data);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(data.as_ref()), options);
    decoder.decode_headers().map_err(|error| problem(&error))?;
    let (width, height) = decoder.dimensions().unwrap_or((0, 0));
    let width = u32::try_from(width).unwrap_or(0);
    let height = u32::try_from(height).unwrap_or(0);
    if width == 0 || height == 0 {
        return Err(CameraError::EmptyImage { device: device.to_owned(), width, height });
    }
    into.reshape(PixelFormat::Rgb24, width, height);
    decoder.decode_into(&mut into.data).map_err(|error| problem(&error))
}

/// The picture itself when it brings Huffman tables, else a copy which asks for the default ones.
///
/// Motion-JPEG allows to leave the tables out, and many USB cameras do.
fn with_huffman_tables(data: &[u8]) -> Cow<'_, [u8]> {
    match (data, has_huffman_tables(data)) {
        ([0xff, 0xd8, rest @ ..], false) => Cow::Owned([START_WITH_DEFAULT_TABLES.as_slice(), rest].concat()),
        _ => Cow::Borrowed(data),
    }
}

/// Whether a define-Huffman-tables segment comes before the first scan. Broken pictures count as
/// having one, so that the decoder sees them as they are.
fn has_huffman_tables(data: &[u8]) -> bool {
    const DEFINE_TABLES: u8 = 0xc4;
    const START_OF_SCAN: u8 = 0xda;
    let mut rest = data.get(2..).unwrap_or_default();
    loop {
        match rest {
            // Fill bytes may come before a marker.
            [0xff, 0xff, ..] => rest = rest.get(1..).unwrap_or_default(),
            [0xff, START_OF_SCAN, ..] => return false,
            [0xff, DEFINE_TABLES, ..] => return true,
            [0xff, _, high, low, ..] => {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                rest = rest.get(2 + length..).unwrap_or_default();
            }
            _ => return true,
        }
    }
}
