//! V4L2 cameras: memory-mapped streaming through the `v4l` crate.
//!
//! Single-planar capture devices, which USB (UVC) cameras are. The sensors on a Jetson's CSI
//! connector give raw Bayer data through V4L2 and are not supported.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ::v4l::buffer::{Flags, Metadata};
use serde::Deserialize;

use self::device::{Device, Geometry, Wait};
use super::jpeg::JpegReader;
use super::refused::Refused;
use super::{Camera, CameraError, Image, PixelFormat, StampSource};
use crate::clock::{NS_PER_S, duration_ns, monotonic_ns};

mod device;

/// The camera to open and the settings to request.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct V4lConfig {
    /// Device node, as `/dev/video0`; better a stable link under `/dev/v4l/by-id`.
    pub device: PathBuf,
    /// Width to ask for, in pixels. The camera may answer with another size, which is taken.
    pub width: u32,
    /// Height to ask for, in pixels.
    pub height: u32,
    /// Format to ask for, which is insisted on; without one, the first of
    /// [`PixelFormat::ALL`] that the camera offers.
    #[serde(default)]
    pub format: Option<PixelFormat>,
    /// Images per second to ask for; without it, the camera's own choice.
    #[serde(default)]
    pub rate_hz: Option<u32>,
}

/// A V4L2 camera.
///
/// * An empty or short buffer, a buffer that the driver flags as damaged, a repeated image and an incomplete JPEG do not
///   count as images: the source counts them, logs them, and waits for the next image.
/// * EXIF in a camera's Motion-JPEG is ignored: the pixels stay as the sensor delivers them.
/// * Images that queued between calls are skipped. If they filled all of the driver's buffers, the driver dropped later
///   ones and even the newest is old: the source waits for the next image.
/// * After a time-out the stream is stopped, and the next capture starts it again.
/// * After [`CameraError::Unplugged`] each capture tries to open the device anew, and returns
///   [`CameraError::Absent`] at once until it is back.
pub struct V4lCamera {
    config: V4lConfig,
    /// The device's path, for messages.
    name: String,
    /// `None` from an unplugging to the next successful opening.
    device: Option<Device>,
    /// The settings of the last opening of the device.
    geometry: Geometry,
    sequence: SequenceCounter,
    /// Number and stamp that the driver gave the latest image. A stream that is started again may begin with that image.
    latest: Option<Identity>,
    jpeg: JpegReader,
    refused: Refused,
}

impl V4lCamera {
    /// Opens the device and settles format, size and rate; streaming starts at the first capture.
    ///
    /// # Errors
    /// [`CameraError::Absent`], [`CameraError::Busy`], [`CameraError::NotCapture`],
    /// [`CameraError::Format`], [`CameraError::EmptyImage`], [`CameraError::Io`].
    pub fn open(config: V4lConfig) -> Result<Self, CameraError> {
        let name = config.device.display().to_string();
        let device = Device::open(&config, &name)?;
        let geometry = device.geometry().clone();
        let refused = Refused::new(name.clone());
        Ok(Self {
            config,
            name,
            device: Some(device),
            geometry,
            sequence: SequenceCounter::default(),
            latest: None,
            jpeg: JpegReader::default(),
            refused,
        })
    }

    /// Moves one buffer's content into the pixels of `into`.
    fn take(
        name: &str,
        geometry: &Geometry,
        jpeg: &mut JpegReader,
        buffer: &[u8],
        meta: &Metadata,
        into: &mut Image,
    ) -> Result<(), CameraError> {
        if meta.flags.contains(Flags::ERROR) {
            return Err(CameraError::Damaged { device: name.to_owned() });
        }
        // The rest of the buffer holds older images or zeros.
        let used = usize::try_from(meta.bytesused).unwrap_or(usize::MAX);
        let used = buffer.get(..used).unwrap_or(buffer);
        if used.is_empty() {
            return Err(CameraError::NoBytes { device: name.to_owned() });
        }
        if geometry.format == PixelFormat::Mjpeg {
            return jpeg.read(used, name, None, into);
        }
        let expected = geometry.format.image_bytes(geometry.stride, geometry.height);
        // The padding after the last row need not be there.
        let padding = geometry.stride.saturating_sub(geometry.format.row_bytes(geometry.width));
        let least = expected.saturating_sub(usize::try_from(padding).unwrap_or(0));
        if used.len() < least {
            let device = name.to_owned();
            return Err(CameraError::Incomplete { device, expected: least, received: used.len() });
        }
        into.format = geometry.format;
        into.width = geometry.width;
        into.height = geometry.height;
        into.stride = geometry.stride;
        into.data.resize(expected, 0);
        let length = used.len().min(expected);
        if let (Some(to), Some(from)) = (into.data.get_mut(..length), used.get(..length)) {
            to.copy_from_slice(from);
        }
        Ok(())
    }
}

impl Camera for V4lCamera {
    fn describe(&self) -> String {
        let Geometry { format, width, height, stride, card, rate } = &self.geometry;
        let (asked_width, asked_height) = (self.config.width, self.config.height);
        let asked = if (*width, *height) == (asked_width, asked_height) {
            String::new()
        } else {
            format!(" (asked for {asked_width}×{asked_height})")
        };
        let rate = rate.map(|rate| format!(" at {rate:.4} Hz")).unwrap_or_default();
        format!("{} ({card}): {format} {width}×{height}{asked}, stride {stride}{rate}", self.name)
    }

    fn capture(&mut self, into: &mut Image, timeout: Duration) -> Result<(), CameraError> {
        let deadline_ns = monotonic_ns().saturating_add(duration_ns(timeout));
        let device = match &mut self.device {
            Some(device) => device,
            None => {
                let device = Device::open(&self.config, &self.name)?;
                self.geometry = device.geometry().clone();
                self.device.insert(device)
            }
        };
        // The failure of the latest image that came but could not be used.
        let mut unusable = None;
        loop {
            let (name, geometry, jpeg) = (&self.name, &self.geometry, &mut self.jpeg);
            let (sequence, latest) = (&mut self.sequence, &mut self.latest);
            let taken = device.newest(deadline_ns, |buffer, meta| {
                let dequeued_ns = monotonic_ns();
                let identity = Identity::of(meta);
                if latest.is_some_and(|latest| identity.repeats(latest)) {
                    return Err(CameraError::Repeated { device: name.clone(), number: meta.sequence });
                }
                Self::take(name, geometry, jpeg, buffer, meta, into)?;
                *latest = Some(identity);
                into.dequeued_ns = dequeued_ns;
                (into.stamp_ns, into.stamp) = stamp(meta, dequeued_ns);
                into.sequence = sequence.next(meta.sequence);
                Ok(())
            });
            let wait = match taken {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) => {
                    let now_ns = monotonic_ns();
                    self.refused.note(&error, now_ns);
                    // A driver that has always another one at hand does not hold the caller.
                    if now_ns >= deadline_ns {
                        return Err(error);
                    }
                    unusable = Some(error);
                    continue;
                }
                Err(wait) => wait,
            };
            // The stream is stopped: the next begins to count anew.
            self.sequence.restart();
            match wait {
                Wait::Restarted if monotonic_ns() < deadline_ns => {}
                Wait::Restarted | Wait::TimedOut => {
                    let silent = CameraError::Silent { device: self.name.clone(), timeout };
                    return Err(unusable.unwrap_or(silent));
                }
                Wait::Failed { doing, source } => {
                    // Whatever it was, a fresh start is the best that can be done.
                    self.device = None;
                    return Err(match failure(&self.name, doing, source) {
                        CameraError::Absent { device } => CameraError::Unplugged { device },
                        other => other,
                    });
                }
            }
        }
    }

    fn refused(&self) -> u64 {
        self.refused.count()
    }
}

/// The error for a failed call to the system, by its number.
fn failure(name: &str, doing: &'static str, source: io::Error) -> CameraError {
    use rustix::io::Errno;
    let device = name.to_owned();
    match Errno::from_io_error(&source) {
        Some(Errno::NODEV | Errno::NXIO | Errno::NOENT) => CameraError::Absent { device },
        Some(Errno::BUSY) => CameraError::Busy { device },
        _ => CameraError::Io { device, doing, source },
    }
}

/// The time of an image in nanoseconds of CLOCK_MONOTONIC, and the event that it marks.
fn stamp(meta: &Metadata, dequeued_ns: u64) -> (u64, StampSource) {
    let seconds = u64::try_from(meta.timestamp.sec).unwrap_or(0);
    let micros = u64::try_from(meta.timestamp.usec).unwrap_or(0);
    let stamp_ns = seconds.saturating_mul(NS_PER_S).saturating_add(micros.saturating_mul(1000));
    let flags = meta.flags.bits();
    let monotonic = flags & Flags::TIMESTAMP_MASK.bits() == Flags::TIMESTAMP_MONOTONIC.bits();
    if !monotonic || stamp_ns == 0 || stamp_ns > dequeued_ns {
        return (dequeued_ns, StampSource::Dequeued);
    }
    if flags & Flags::TSTAMP_SRC_MASK.bits() == Flags::TSTAMP_SRC_SOE.bits() {
        (stamp_ns, StampSource::DriverStartOfExposure)
    } else {
        (stamp_ns, StampSource::DriverEndOfImage)
    }
}

/// The property by which a driver distinguishes images.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Identity {
    number: u32,
    /// Seconds and microseconds of the driver's clock, whichever that is.
    stamp: (i64, i64),
}

impl Identity {
    fn of(meta: &Metadata) -> Identity {
        Identity { number: meta.sequence, stamp: (meta.timestamp.sec, meta.timestamp.usec) }
    }

    /// Whether this is the image `before` once more: no two are taken in one microsecond. A driver that gives no stamp
    /// gives a number.
    fn repeats(self, before: Identity) -> bool {
        self.stamp == before.stamp && (self.stamp != (0, 0) || self.number == before.number)
    }
}

/// Makes one ever-growing count of the driver's 32-bit one, which begins anew with each stream.
#[derive(Debug, Default)]
struct SequenceCounter {
    /// The driver's number of the latest image of this stream.
    driver: Option<u32>,
    /// The count handed out for the next image, less the driver's step.
    count: u64,
}

impl SequenceCounter {
    fn next(&mut self, driver: u32) -> u64 {
        match self.driver.replace(driver) {
            Some(before) => self.count += u64::from(driver.wrapping_sub(before).max(1)),
            None if self.count == 0 => self.count = u64::from(driver),
            None => self.count += 1,
        }
        self.count
    }

    /// The stream was stopped: the driver's numbers no longer count missed images.
    fn restart(&mut self) {
        self.driver = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::v4l::Timestamp;

    #[test]
    fn the_sequence_survives_the_wrap_and_a_restart() {
        let mut sequence = SequenceCounter::default();
        assert_eq!(sequence.next(u32::MAX - 1), u64::from(u32::MAX) - 1);
        assert_eq!(sequence.next(1), u64::from(u32::MAX) + 2);
        sequence.restart();
        assert_eq!(sequence.next(0), u64::from(u32::MAX) + 3);
    }

    #[test]
    fn an_image_is_the_one_before_by_its_stamp_or_without_one_by_its_number() {
        let repeats = |before: (u32, i64), now: (u32, i64)| {
            let identity = |(number, sec)| Identity { number, stamp: (sec, 0) };
            identity(now).repeats(identity(before))
        };
        assert!(repeats((7, 5), (7, 5)));
        assert!(repeats((7, 5), (8, 5)), "a number alone makes no image new");
        assert!(!repeats((7, 5), (7, 6)), "a driver that does not count");
        assert!(!repeats((7, 0), (8, 0)), "a driver without stamps");
        assert!(repeats((7, 0), (7, 0)));
    }

    #[test]
    fn only_a_past_monotonic_stamp_is_the_drivers() {
        let meta = |flags, sec, usec| Metadata {
            flags: Flags::from(flags),
            timestamp: Timestamp::new(sec, usec),
            ..Metadata::default()
        };
        let now_ns = 9_000_000_000;
        let soe = 0x2000 | 0x1_0000;
        let start = StampSource::DriverStartOfExposure;
        assert_eq!(stamp(&meta(soe, 8, 5), now_ns), (8_000_005_000, start));
        assert_eq!(stamp(&meta(0x2000, 8, 5), now_ns), (8_000_005_000, StampSource::DriverEndOfImage));
        let fallback = (now_ns, StampSource::Dequeued);
        for unusable in [meta(0, 8, 5), meta(0x4000, 8, 5), meta(soe, 0, 0), meta(soe, 9, 1)] {
            assert_eq!(stamp(&unusable, now_ns), fallback);
        }
        assert_eq!(stamp(&meta(soe, -1, -1), now_ns), fallback);
    }
}
