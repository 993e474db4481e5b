//! Camera sources behind one trait: V4L2 devices, folders of pictures, a simulated scene.
//!
//! A source writes the newest image into a caller's [`Image`], whose memory is reused. Its users only receive
//! [`PixelFormat::Rgb24`], [`PixelFormat::Yuyv`] and [`PixelFormat::Nv12`]: a source with Motion-JPEG decodes it first.

use std::fmt;
use std::time::Duration;

use fathom_models::nets::image::ImageSpec;
use fathom_shaders::cpu::Layout;
use serde::Deserialize;

mod error;
mod folder;
mod jpeg;
mod orientation;
mod picture;
#[cfg(feature = "robot")]
mod refused;
#[cfg(feature = "v4l")]
mod v4l;

pub use error::CameraError;
pub use folder::{FolderCamera, FolderConfig};
#[cfg(feature = "robot")]
pub(crate) use jpeg::JpegReader;
pub use picture::read_picture;
#[cfg(feature = "robot")]
pub(crate) use refused::Refused;
#[cfg(feature = "v4l")]
pub use v4l::{V4lCamera, V4lConfig};

/// Memory layout of an image's pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PixelFormat {
    /// Red, green, blue; 3 bytes a pixel.
    Rgb24,
    /// Y0 U Y1 V; 4 bytes for two pixels side by side, BT.601.
    Yuyv,
    /// A plane of Y, then a plane of U V pairs at half width and half height, BT.601.
    Nv12,
    /// One JPEG picture per image, as USB cameras send it.
    Mjpeg,
}

impl PixelFormat {
    /// All formats, in the order of preference if none is configured.
    pub const ALL: [Self; 4] = [Self::Yuyv, Self::Nv12, Self::Rgb24, Self::Mjpeg];

    /// The four-character code of V4L2.
    #[must_use]
    pub fn fourcc(self) -> [u8; 4] {
        match self {
            Self::Rgb24 => *b"RGB3",
            Self::Yuyv => *b"YUYV",
            Self::Nv12 => *b"NV12",
            Self::Mjpeg => *b"MJPG",
        }
    }

    /// The format of a four-character code of V4L2, if it is one that Fathom reads.
    #[must_use]
    pub fn from_fourcc(code: [u8; 4]) -> Option<Self> {
        match &code {
            b"RGB3" => Some(Self::Rgb24),
            b"YUYV" => Some(Self::Yuyv),
            b"NV12" => Some(Self::Nv12),
            b"MJPG" | b"JPEG" => Some(Self::Mjpeg),
            _ => None,
        }
    }

    /// Bytes of a row of the first plane without padding; 0 for [`PixelFormat::Mjpeg`].
    #[must_use]
    pub fn row_bytes(self, width: u32) -> u32 {
        match self {
            Self::Rgb24 => width.saturating_mul(3),
            // An odd last pixel still needs a whole pair.
            Self::Yuyv => width.div_ceil(2).saturating_mul(4),
            Self::Nv12 => width,
            Self::Mjpeg => 0,
        }
    }

    /// Bytes of a complete image with rows of `stride` bytes; 0 for [`PixelFormat::Mjpeg`].
    ///
    /// The last row counts in full, padding included.
    #[must_use]
    pub fn image_bytes(self, stride: u32, height: u32) -> usize {
        let rows = match self {
            Self::Rgb24 | Self::Yuyv => u64::from(height),
            Self::Nv12 => u64::from(height) + u64::from(height.div_ceil(2)),
            Self::Mjpeg => 0,
        };
        usize::try_from(u64::from(stride).saturating_mul(rows)).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for PixelFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rgb24 => "RGB24",
            Self::Yuyv => "YUYV",
            Self::Nv12 => "NV12",
            Self::Mjpeg => "MJPEG",
        })
    }
}

/// The event that an image's time stamp marks, and the clock that took it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum StampSource {
    /// The driver's stamp on CLOCK_MONOTONIC, at the start of the exposure.
    DriverStartOfExposure,
    /// The driver's stamp on CLOCK_MONOTONIC, when the last byte had arrived.
    DriverEndOfImage,
    /// The driver's stamp is missing, of an unknown clock, or in the future: this is the time of the image's arrival
    /// from the driver.
    Dequeued,
    /// The source runs in this process and reads the clock itself.
    #[default]
    Host,
}

impl StampSource {
    /// Every source, by its index.
    pub const ALL: [StampSource; 4] =
        [StampSource::DriverStartOfExposure, StampSource::DriverEndOfImage, StampSource::Dequeued, StampSource::Host];
}

impl fmt::Display for StampSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DriverStartOfExposure => "driver, start of exposure",
            Self::DriverEndOfImage => "driver, end of image",
            Self::Dequeued => "dequeued",
            Self::Host => "host",
        })
    }
}

/// One image of a camera, with its memory reused from capture to capture.
#[derive(Debug, Clone)]
pub struct Image {
    /// Layout of `data`; never [`PixelFormat::Mjpeg`] after a capture.
    pub format: PixelFormat,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bytes from one row of the first plane to the next.
    pub stride: u32,
    /// The pixels: at least [`PixelFormat::image_bytes`]`(stride, height)` bytes.
    pub data: Vec<u8>,
    /// Time of the image in nanoseconds of CLOCK_MONOTONIC; `stamp` names the event.
    pub stamp_ns: u64,
    /// The event that `stamp_ns` marks.
    pub stamp: StampSource,
    /// Time of the image's arrival in this process, in nanoseconds of CLOCK_MONOTONIC.
    pub dequeued_ns: u64,
    /// The source's count of images; a gap means lost or skipped images.
    pub sequence: u64,
}

impl Default for Image {
    fn default() -> Self {
        Self {
            format: PixelFormat::Rgb24,
            width: 0,
            height: 0,
            stride: 0,
            data: Vec::new(),
            stamp_ns: 0,
            stamp: StampSource::Host,
            dequeued_ns: 0,
            sequence: 0,
        }
    }
}

impl Image {
    /// The bytes of its pixels, without bytes that a source may leave behind them.
    pub(crate) fn pixels(&self) -> &[u8] {
        self.data.get(..self.spec().bytes()).unwrap_or(&self.data)
    }

    /// An image of 8-bit RGB pixels, row-major `(height, width, 3)`.
    ///
    /// ```
    /// use fathom::camera::Image;
    ///
    /// let image = Image::rgb(640, 480, vec![0; 640 * 480 * 3])?;
    /// assert!(Image::rgb(640, 480, vec![0; 7]).is_err());
    /// # let _ = image;
    /// # Ok::<(), fathom::camera::CameraError>(())
    /// ```
    ///
    /// # Errors
    /// [`CameraError::EmptyImage`] for a width or height of 0, [`CameraError::Incomplete`] for another number of bytes.
    pub fn rgb(width: u32, height: u32, data: Vec<u8>) -> Result<Image, CameraError> {
        let format = PixelFormat::Rgb24;
        let image = Image { format, width, height, stride: format.row_bytes(width), data, ..Image::default() };
        image.check("image")?;
        if image.data.len() != format.image_bytes(image.stride, height) {
            let (device, expected) = ("image".to_owned(), format.image_bytes(image.stride, height));
            return Err(CameraError::Incomplete { device, expected, received: image.data.len() });
        }
        Ok(image)
    }

    /// Changes the geometry to unpadded rows and resizes `data` to match.
    ///
    /// Allocates only when the image becomes larger than it ever was.
    pub fn reshape(&mut self, format: PixelFormat, width: u32, height: u32) {
        self.format = format;
        self.width = width;
        self.height = height;
        self.stride = format.row_bytes(width);
        self.data.resize(format.image_bytes(self.stride, height), 0);
    }

    /// The image's format for the model. A source decodes Motion-JPEG before it passes an image on.
    #[must_use]
    pub fn spec(&self) -> ImageSpec {
        let layout = match self.format {
            PixelFormat::Rgb24 | PixelFormat::Mjpeg => Layout::Rgb24,
            PixelFormat::Yuyv => Layout::Yuyv,
            PixelFormat::Nv12 => Layout::Nv12,
        };
        let [width, height, stride] = [self.width, self.height, self.stride].map(|v| v as usize);
        ImageSpec { layout, width, height, stride }
    }

    /// Checks that the image has pixels and that `data` is complete.
    ///
    /// # Errors
    /// [`CameraError::EmptyImage`] for a width or height of 0; [`CameraError::Incomplete`] if `data` or a row is too
    /// short. `device` names the source in the errors.
    pub fn check(&self, device: &str) -> Result<(), CameraError> {
        if self.width == 0 || self.height == 0 {
            return Err(CameraError::EmptyImage { device: device.to_owned(), width: self.width, height: self.height });
        }
        let row = self.format.row_bytes(self.width);
        let expected = self.format.image_bytes(self.stride.max(row), self.height);
        if self.stride < row || self.data.len() < expected {
            return Err(CameraError::Incomplete { device: device.to_owned(), expected, received: self.data.len() });
        }
        Ok(())
    }
}

/// A source of images.
pub trait Camera: Send {
    /// One line for the log: the source and its settings.
    fn describe(&self) -> String;

    /// Writes the newest image into `into`; waits at most `timeout` for one.
    ///
    /// Older queued images are skipped. After the first call of a size, the source does not allocate (picture decoders
    /// may).
    ///
    /// # Errors
    /// A [`CameraError`]; the source remains usable, and the next call tries again: it restarts a silent camera and
    /// opens an unplugged one anew. `into` then has no valid image.
    fn capture(&mut self, into: &mut Image, timeout: Duration) -> Result<(), CameraError>;

    /// Number of unusable images since the source was opened: empty, truncated, damaged or repeated.
    fn refused(&self) -> u64 {
        0
    }

    /// True depth of the latest image in metres along the optical axis, row-major `(height, width)`, infinite for empty
    /// pixels; `None` for sources without depth.
    fn true_depth(&self) -> Option<&[f32]> {
        None
    }
}
