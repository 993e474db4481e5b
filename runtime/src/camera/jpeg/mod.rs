//! JPEG pictures to RGB24, Motion-JPEG included.
//!
//! The decoder invents the missing parts of a picture. Each picture is therefore read twice: first its segments and the
//! lengths of its Huffman codes, which shows whether every block is present; then by the decoder, which receives a
//! cleaned form: without stray bytes, with default tables if it has none, and with an end marker.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use self::error::JpegError;
use self::segments::read_segments;
use super::orientation::Metadata;
use super::{CameraError, Image, PixelFormat};

mod bits;
mod error;
mod frame;
mod huffman;
mod scan;
mod segments;

/// Reads JPEG pictures; its memory is reused for the next one.
#[derive(Debug, Default)]
pub(crate) struct JpegReader {
    /// The picture in the decoder's form.
    clean: Vec<u8>,
}

impl JpegReader {
    /// Decodes a JPEG picture into the pixels of `into` as [`PixelFormat::Rgb24`], and leaves stamps and sequence
    /// unchanged. Grey pictures become grey RGB. Adds EXIF and XMP to `metadata`, if given, without turning the
    /// picture.
    ///
    /// Accepted: bytes between segments, after the picture, and up to 1024 between its data and a marker; fill bytes;
    /// missing default tables; a missing end marker at the end of the data. All blocks and restart markers of the
    /// picture must be present.
    ///
    /// # Errors
    /// [`CameraError::Decode`] and [`CameraError::EmptyImage`], with `device` as the name.
    pub(crate) fn read(
        &mut self,
        data: &[u8],
        device: &str,
        metadata: Option<&mut Metadata>,
        into: &mut Image,
    ) -> Result<(), CameraError> {
        self.try_read(data, metadata, into).map_err(|error| match error {
            JpegError::Empty { width, height } => CameraError::EmptyImage { device: device.to_owned(), width, height },
            other => CameraError::Decode { device: device.to_owned(), kind: "JPEG", problem: other.to_string() },
        })
    }

    fn try_read(&mut self, data: &[u8], metadata: Option<&mut Metadata>, into: &mut Image) -> Result<(), JpegError> {
        self.clean.clear();
        let frame = read_segments(data, metadata, &mut self.clean)?;
        let decoder = |error| JpegError::Decoder(format!("{error:?}"));
        let options = DecoderOptions::default().set_strict_mode(true).jpeg_set_out_colorspace(ColorSpace::RGB);
        let mut zune = JpegDecoder::new_with_options(ZCursor::new(self.clean.as_slice()), options);
        zune.decode_headers().map_err(decoder)?;
        if zune.dimensions() != Some((frame.width as usize, frame.height as usize)) {
            return Err(JpegError::Decoder(format!("found {:?} pixels", zune.dimensions())));
        }
        into.reshape(PixelFormat::Rgb24, frame.width, frame.height);
        zune.decode_into(&mut into.data).map_err(decoder)
    }
}
