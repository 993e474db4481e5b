//! Errors of camera sources.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;

/// A failure of a camera source. Each message names the device or file and the request; some add what the device
/// offers.
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
        /// Formats that the device offers, with sizes if the driver lists them.
        offered: String,
    },
    /// No image arrived in time.
    #[error("{device}: no image within {timeout:?}")]
    Silent {
        /// Name of the source.
        device: String,
        /// The time limit.
        timeout: Duration,
    },
    /// The device was unplugged while in use; the next capture opens it again.
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
        /// The decoder's message.
        problem: String,
    },
    /// The image has fewer bytes than its geometry needs, and no complete one arrived in time.
    #[error("{device}: incomplete image: {received} bytes of {expected}")]
    Incomplete {
        /// Name of the source.
        device: String,
        /// Bytes of a complete image.
        expected: usize,
        /// Bytes received.
        received: usize,
    },
    /// The driver returned an empty buffer.
    #[error("{device}: the driver returned an empty buffer; check the USB bandwidth and the cable")]
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
    /// The driver delivered the previous image again.
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
    /// The folder has no picture.
    #[error("{folder}: no picture in this folder; asked for files named *.png, *.jpg or *.jpeg")]
    NoPictures {
        /// The folder.
        folder: PathBuf,
    },
    /// A replay without repetition has ended.
    #[error("{device}: the replay ended after {pictures} pictures")]
    Ended {
        /// Name of the source.
        device: String,
        /// Pictures in the replay.
        pictures: usize,
    },
    /// A source outside of Linux's camera drivers failed: the scene, or a user's own.
    #[error("{device}: {source}")]
    Source {
        /// Name of the source.
        device: String,
        /// The error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Any other failure of the operating system.
    #[error("{device}: {doing}: {source}")]
    Io {
        /// Device or file.
        device: String,
        /// The operation that failed.
        doing: &'static str,
        /// The operating system's error.
        source: io::Error,
    },
}

impl CameraError {
    /// Whether the source still works and the error concerns only one image or a short gap. The age of the newest good
    /// image then decides.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Silent { .. }) || self.is_of_an_image()
    }

    /// Whether an image arrived, but could not be used.
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
