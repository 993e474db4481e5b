//! PNG and JPEG files to RGB24.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use super::jpeg::JpegReader;
use super::orientation::{Metadata, turn_upright};
use super::{CameraError, Image, PixelFormat};

/// Limit on the expansion factor of a deflate stream.
const MOST_GROWTH: usize = 1032;

/// Limit on a PNG's text that is unpacked to find its orientation, in bytes.
const MOST_TEXT: usize = 1 << 20;

/// The PNG or JPEG file at `path` as [`PixelFormat::Rgb24`], turned upright by its EXIF or XMP orientation.
/// Transparency is dropped, grey becomes RGB, 16 bits become 8.
///
/// # Errors
/// A [`CameraError`] that names the file.
pub fn read_picture(path: &Path) -> Result<Image, CameraError> {
    let mut image = Image::default();
    PictureReader::default().read(path, &mut image)?;
    Ok(image)
}

/// Reads pictures; its memory is reused for the next one.
#[derive(Debug, Default)]
pub(super) struct PictureReader {
    /// The file's bytes.
    file: Vec<u8>,
    /// Decoded pixels of a PNG that is not plain RGB, or of a picture that is turned.
    pixels: Vec<u8>,
    metadata: Metadata,
    jpeg: JpegReader,
}

impl PictureReader {
    /// Whether the extension of the file's name is a readable picture's.
    pub(super) fn reads(path: &Path) -> bool {
        path.extension()
            .and_then(|extension| extension.to_str())
            .is_some_and(|e| ["png", "jpg", "jpeg"].iter().any(|known| e.eq_ignore_ascii_case(known)))
    }

    /// Reads the file at `path` into the pixels of `into` as [`PixelFormat::Rgb24`].
    ///
    /// The file's first bytes decide its type, not its name. The picture is turned upright by its EXIF or XMP
    /// orientation. Transparency is dropped, grey becomes RGB, 16 bits become 8.
    ///
    /// # Errors
    /// A [`CameraError`] that names the file.
    pub(super) fn read(&mut self, path: &Path, into: &mut Image) -> Result<(), CameraError> {
        let device = path.display().to_string();
        let io = |doing| {
            let device = device.clone();
            move |source| CameraError::Io { device, doing, source }
        };
        self.file.clear();
        File::open(path)
            .map_err(io("opening the picture"))?
            .read_to_end(&mut self.file)
            .map_err(io("reading the picture"))?;
        self.metadata.clear();
        match self.file.as_slice() {
            [0x89, b'P', b'N', b'G', ..] => self.decode_png(&device, into)?,
            [0xff, 0xd8, ..] => self.jpeg.read(&self.file, &device, Some(&mut self.metadata), into)?,
            _ => {
                return Err(CameraError::Decode {
                    device,
                    kind: "PNG or JPEG",
                    problem: "the file begins like neither".to_owned(),
                });
            }
        }
        turn_upright(into, self.metadata.orientation(), &mut self.pixels);
        Ok(())
    }

    fn decode_png(&mut self, device: &str, into: &mut Image) -> Result<(), CameraError> {
        let failed = |problem: String| CameraError::Decode { device: device.to_owned(), kind: "PNG", problem };
        // The size stands at fixed offsets: signature 8, length 4, "IHDR" 4, width 4, height 4.
        if let Some([w0, w1, w2, w3, h0, h1, h2, h3]) = self.file.get(16..24) {
            let width = u32::from_be_bytes([*w0, *w1, *w2, *w3]);
            let height = u32::from_be_bytes([*h0, *h1, *h2, *h3]);
            if width == 0 || height == 0 {
                return Err(CameraError::EmptyImage { device: device.to_owned(), width, height });
            }
        }
        let mut decoder = png::Decoder::new(Cursor::new(&self.file));
        decoder.set_transformations(png::Transformations::EXPAND | png::Transformations::STRIP_16);
        let mut reader = decoder.read_info().map_err(|error| failed(error.to_string()))?;
        let info = reader.info();
        if info.raw_bytes() > self.file.len().saturating_mul(MOST_GROWTH) {
            let (width, height, bytes) = (info.width, info.height, self.file.len());
            return Err(failed(format!("expected pixels for {width} × {height}, found a file of {bytes} bytes")));
        }
        let Some(bytes) = reader.output_buffer_size() else {
            return Err(failed("it is too large".to_owned()));
        };
        self.pixels.resize(bytes, 0);
        let info = reader.next_frame(&mut self.pixels).map_err(|error| failed(error.to_string()))?;
        // EXIF may come after the pixels; a file that ends before that is whole as a picture.
        let _ = reader.finish();
        let about = reader.info();
        if let Some(exif) = &about.exif_metadata {
            self.metadata.add_exif(exif);
        }
        for text in &about.uncompressed_latin1_text {
            self.metadata.add_text(&text.keyword, &text.text);
        }
        for text in &about.compressed_latin1_text {
            let mut text = text.clone();
            if text.decompress_text_with_limit(MOST_TEXT).is_ok() {
                self.metadata.add_text(&text.keyword, &text.get_text().unwrap_or_default());
            }
        }
        for text in &about.utf8_text {
            let mut text = text.clone();
            if text.decompress_text_with_limit(MOST_TEXT).is_ok() {
                self.metadata.add_text(&text.keyword, &text.get_text().unwrap_or_default());
            }
        }
        into.reshape(PixelFormat::Rgb24, info.width, info.height);
        let samples = info.color_type.samples();
        let (pixels, _) = into.data.as_chunks_mut::<3>();
        for (to, from) in pixels.iter_mut().zip(self.pixels.chunks_exact(samples)) {
            *to = match from {
                [grey] | [grey, _] => [*grey; 3],
                [red, green, blue, ..] => [*red, *green, *blue],
                [] => [0; 3],
            };
        }
        Ok(())
    }
}
