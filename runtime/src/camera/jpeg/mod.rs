//! JPEG pictures to RGB24, Motion-JPEG included.
//!
//! A decoder makes up what is missing of a picture. So the picture is read twice: first its segments and the lengths of
//! its Huffman codes, which shows whether every block is there, then by the decoder, which gets it in one form: without
//! stray bytes, with default tables where it leaves tables out, and with an end.

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

/// Reads JPEG pictures; keeps its memory from one to the next.
#[derive(Debug, Default)]
pub(crate) struct JpegReader {
    /// The picture as the decoder gets it.
    clean: Vec<u8>,
}

impl JpegReader {
    /// Decodes a JPEG picture into the pixels of `into` as [`PixelFormat::Rgb24`]; stamps and sequence are left alone.
    /// Grey pictures become grey RGB. Adds EXIF and XMP to `metadata`, where it is given; no pixel is turned by it.
    ///
    /// Taken are bytes between segments, after the picture, and up to 1024 between its data and a marker; fill bytes;
    /// tables that are left out; a missing end marker where the data end, too. All blocks and restart markers of the picture must be there.
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
