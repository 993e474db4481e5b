//! What can go wrong with a camera source.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

use crate::scene::SceneError;

/// A failure of a camera source. Each message names the device or file, what was asked of it and,
/// where it matters, what it offered.
#[derive(Debug, Error)]
pub enum CameraError {
    /// There is no such device node, or no device behind it.
    #[error("{device}: no such camera; is it plugged in, and is the path right?")]
    Absent {
        /// Path of the device node.
        device: String,
    },
    /// Another program streams from the device.
    #[error("{device}: the camera is in use by another program")]
    Busy {
        /// Path of the device node.
        device: String,
    },
    /// The device node is not a single-planar capture device.
    #[error(
        "{device}: \"{card}\" is not a capture device that streams single-planar images \
         (a USB camera's second node carries metadata only; try its first)"
    )]
    NotCapture {
        /// Path of the device node.
        device: String,
        /// The name that the driver gives the device.
        card: String,
    },
    /// The device does not have the format asked for.
    #[error("{device}: asked for {asked}, the camera offers {offered}")]
    Format {
        /// Path of the device node.
        device: String,
        /// Format and size asked for.
        asked: String,
        /// Formats (and sizes where the driver tells them) that the device offers.
        offered: String,
    },
    /// No image came in time.
    #[error("{device}: no image within {timeout:?}")]
    Silent {
        /// Name of the source.
        device: String,
        /// How long was waited.
        timeout: Duration,
    },
    /// The device went away while it was in use; it is opened again at the next capture.
    #[error("{device}: the camera was unplugged")]
    Unplugged {
        /// Path of the device node.
        device: String,
    },
    /// A compressed picture could not be decoded.
    #[error("{device}: cannot decode the {kind} picture: {problem}")]
    Decode {
        /// Device or file that the picture came from.
        device: String,
        /// Kind of picture, as "JPEG".
        kind: &'static str,
        /// The decoder's words.
        problem: String,
    },
    /// An image came with fewer bytes than its geometry needs, and no whole one in time.
    #[error("{device}: incomplete image: {received} bytes of {expected}")]
    Incomplete {
        /// Name of the source.
        device: String,
        /// Bytes that a whole image has.
        expected: usize,
        /// Bytes that came.
        received: usize,
    },
    /// The driver gave a buffer back that holds nothing.
    #[error("{device}: the driver gave a buffer without bytes; is the USB bus overloaded, or the cable loose?")]
    NoBytes {
        /// Name of the source.
        device: String,
    },
    /// The driver flagged the image as damaged.
    #[error("{device}: the driver flags the image as damaged")]
    Damaged {
        /// Name of the source.
        device: String,
    },
    /// The driver gave the image before once more.
    #[error("{device}: the driver gave the same image again, number {number}")]
    Repeated {
        /// Name of the source.
        device: String,
        /// The driver's number of the image.
        number: u32,
    },
    /// The image has no pixels.
    #[error("{device}: empty image of {width}×{height} pixels")]
    EmptyImage {
        /// Device or file that the image came from.
        device: String,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The folder holds no picture.
    #[error("{folder}: no picture in this folder; asked for files named *.png, *.jpg or *.jpeg")]
    NoPictures {
        /// The folder.
        folder: PathBuf,
    },
    /// A replay that is not repeated has come to its end.
    #[error("{device}: the replay is over after {pictures} pictures")]
    Ended {
        /// Name of the source.
        device: String,
        /// Pictures in the replay.
        pictures: usize,
    },
    /// The scene could not be rendered.
    #[error("{device}: {source}")]
    Scene {
        /// Name of the source.
        device: String,
        /// What is wrong.
        source: SceneError,
    },
    /// Any other failure of the operating system.
    #[error("{device}: {doing}: {source}")]
    Io {
        /// Device or file.
        device: String,
        /// What was being done.
        doing: &'static str,
        /// The operating system's words.
        source: io::Error,
    },
}

impl CameraError {
    /// Whether the source is there and this was about one image, or about the images of some time: the age of the
    /// newest one that is good says what to do.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Silent { .. }) || self.is_of_an_image()
    }

    /// Whether an image came, and could not be used.
    #[must_use]
    pub fn is_of_an_image(&self) -> bool {
        matches!(
            self,
            Self::Incomplete { .. }
                | Self::Decode { .. }
                | Self::EmptyImage { .. }
                | Self::NoBytes { .. }
                | Self::Damaged { .. }
                | Self::Repeated { .. }
        )
    }
}
