//! One opened V4L2 device and its stream, with the traps of the `v4l` crate kept inside.

use std::io;
use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use ::v4l::buffer::{Metadata, Type};
use ::v4l::capability::Flags as Capability;
use ::v4l::device::Handle;
use ::v4l::framesize::FrameSizeEnum;
use ::v4l::io::traits::{CaptureStream, Stream as _};
use ::v4l::prelude::MmapStream;
use ::v4l::video::Capture;
use ::v4l::video::capture::Parameters;
use ::v4l::{Format, FourCC, v4l2};

use rustix::io::Errno;

use super::{V4lConfig, failure};
use crate::camera::{CameraError, PixelFormat};
use crate::clock::monotonic_ns;

/// Buffers shared with the driver: one that is read, two on the way, one to spare.
const BUFFERS: u32 = 4;

/// `POLLIN` of poll(2).
const POLL_IN: i16 = 1;

/// The settings that the driver chose.
#[derive(Debug, Clone)]
pub(super) struct Geometry {
    pub(super) format: PixelFormat,
    pub(super) width: u32,
    pub(super) height: u32,
    /// Bytes from row to row of the first plane; for MJPEG meaningless.
    pub(super) stride: u32,
    /// The device's name as the driver reports it.
    pub(super) card: String,
    /// Images per second, if the driver reports it.
    pub(super) rate: Option<f32>,
}

/// Why there is no image.
#[derive(Debug)]
pub(super) enum Wait {
    /// The deadline passed; the stream is stopped.
    TimedOut,
    /// The stream had to be stopped for a passing reason: try again.
    Restarted,
    /// A call failed; the stream is stopped.
    Failed { doing: &'static str, source: io::Error },
}

/// An open device.
pub(super) struct Device {
    /// `None` only after [`Device::abandon`].
    device: Option<::v4l::Device>,
    handle: Arc<Handle>,
    geometry: Geometry,
    /// The running stream. It shares the handle, so its lifetime parameter restricts nothing.
    stream: Option<MmapStream<'static>>,
}

impl Device {
    /// Opens the device and settles format, size and rate.
    pub(super) fn open(config: &V4lConfig, name: &str) -> Result<Self, CameraError> {
        let failed = |doing| move |source| failure(name, doing, source);
        let device = guarded(|| ::v4l::Device::with_path(&config.device)).map_err(failed("opening the camera"))?;
        let caps = guarded(|| device.query_caps()).map_err(|source| match source.raw_os_error() {
            // Not a video device at all.
            Some(code) if code == Errno::NOTTY.raw_os_error() => {
                CameraError::NotCapture { device: name.to_owned(), card: "not a camera".to_owned() }
            }
            _ => failure(name, "querying the device", source),
        })?;
        if !caps.capabilities.contains(Capability::VIDEO_CAPTURE | Capability::STREAMING) {
            return Err(CameraError::NotCapture { device: name.to_owned(), card: caps.card });
        }
        let wrong = || CameraError::Format { device: name.to_owned(), asked: asked(config), offered: offered(&device) };
        let code = choose(&fourccs(&device), config.format).ok_or_else(wrong)?;
        // `Format::new` leaves stride and size at zero, so that the driver computes them.
        let format = Format::new(config.width, config.height, FourCC::new(&code));
        let got = guarded(|| device.set_format(&format)).map_err(failed("setting the format"))?;
        let format = PixelFormat::from_fourcc(got.fourcc.repr).filter(|_| got.fourcc.repr == code).ok_or_else(wrong)?;
        let (width, height) = (got.width, got.height);
        if width == 0 || height == 0 {
            return Err(CameraError::EmptyImage { device: name.to_owned(), width, height });
        }
        let params = match config.rate_hz {
            Some(rate) if rate > 0 => device.set_params(&Parameters::with_fps(rate)),
            _ => device.params(),
        };
        // A driver may have a fixed rate. The rate that it reports counts.
        let rate = params
            .map(|params| params.interval)
            .ok()
            .filter(|interval| interval.numerator > 0 && interval.denominator > 0)
            .map(|interval| interval.denominator as f32 / interval.numerator as f32);
        // Some drivers leave the stride at zero where it follows from the width.
        let stride = got.stride.max(format.row_bytes(width));
        let geometry = Geometry { format, width, height, stride, card: caps.card, rate };
        Ok(Self { handle: device.handle(), device: Some(device), geometry, stream: None })
    }

    pub(super) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Hands the newest image's buffer to `take`, waiting until `deadline_ns` (CLOCK_MONOTONIC).
    pub(super) fn newest<R>(&mut self, deadline_ns: u64, take: impl FnOnce(&[u8], &Metadata) -> R) -> Result<R, Wait> {
        let result = match &mut self.stream {
            Some(stream) => newest_of(stream, &self.handle, deadline_ns, take),
            None => {
                self.map_buffers().and_then(|stream| next(stream, deadline_ns)).map(|(buffer, meta)| take(buffer, meta))
            }
        };
        match result {
            Ok(taken) => Ok(taken),
            // Without STREAMOFF the crate would queue a queued buffer for ever (EINVAL).
            Err(wait) => Err(match self.stop() {
                Err(source) if !matches!(wait, Wait::Failed { .. }) => {
                    Wait::Failed { doing: "stopping the stream", source }
                }
                _ => wait,
            }),
        }
    }

    fn map_buffers(&mut self) -> Result<&mut MmapStream<'static>, Wait> {
        let gone = || io::Error::from(Errno::NODEV);
        let stream = self
            .device
            .as_ref()
            .ok_or_else(gone)
            .and_then(|device| MmapStream::with_buffers(device, Type::VideoCapture, BUFFERS))
            .map_err(|source| Wait::Failed { doing: "mapping the buffers", source })?;
        Ok(self.stream.insert(stream))
    }

    /// Stops the stream and gives its buffers back.
    ///
    /// The crate's own drop panics, and may do so twice, when the driver refuses to stop. Such a
    /// stream is abandoned instead.
    fn stop(&mut self) -> io::Result<()> {
        let Some(mut stream) = self.stream.take() else {
            return Ok(());
        };
        let stopped = stream.stop();
        match &stopped {
            Err(error) if Errno::from_io_error(error) != Some(Errno::NODEV) => self.abandon(stream),
            // It may still panic once, when the driver refuses to free the buffers.
            _ => drop(catch_unwind(AssertUnwindSafe(|| drop(stream)))),
        }
        stopped
    }

    /// Closes the descriptor under a stream that does not stop, which lets the kernel clean up.
    /// The mapping stays for the life of the process.
    fn abandon(&mut self, stream: MmapStream<'static>) {
        forget(stream);
        if let Some(device) = self.device.take() {
            forget(device);
            forget(Arc::clone(&self.handle));
            // The crate would unwrap the result of a second close: the counts held above by
            // `forget` keep its handle from ever being dropped.
            let _ = v4l2::close(self.handle.fd());
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // `stop` has handled a refusal; drop cannot return an error.
        let _ = self.stop();
    }
}

/// The newest image of a running stream, whose latest image's buffer is still held while the
/// driver has the others.
fn newest_of<R>(
    stream: &mut MmapStream<'static>,
    handle: &Handle,
    deadline_ns: u64,
    take: impl FnOnce(&[u8], &Metadata) -> R,
) -> Result<R, Wait> {
    if ready(handle, monotonic_ns())? {
        // Images have queued since the last call. If the driver still had a free buffer, the latest filled one is the
        // newest image. If all were filled, the driver dropped images since, and the next one is the newest.
        for skipped in 1..BUFFERS {
            let (buffer, meta) = next(stream, deadline_ns)?;
            if skipped < BUFFERS - 1 && !ready(handle, monotonic_ns())? {
                return Ok(take(buffer, meta));
            }
        }
    }
    if !ready(handle, deadline_ns)? {
        return Err(Wait::TimedOut);
    }
    next(stream, deadline_ns).map(|(buffer, meta)| take(buffer, meta))
}

/// Gives the held buffer back to the driver and takes the next filled one; starts the stream
/// where it does not run.
fn next<'a>(stream: &'a mut MmapStream<'static>, deadline_ns: u64) -> Result<(&'a [u8], &'a Metadata), Wait> {
    // Without a time-out the crate waits for ever.
    stream.set_timeout(Duration::from_millis(u64::from(remaining_ms(deadline_ns).unsigned_abs())));
    CaptureStream::next(stream).map_err(|source| match source.kind() {
        io::ErrorKind::TimedOut => Wait::TimedOut,
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => Wait::Restarted,
        _ => Wait::Failed { doing: "taking an image", source },
    })
}

/// Whether the driver has a filled buffer; waits for one until `deadline_ns`. Errors of the stream count as filled:
/// dequeuing the buffer reports them.
fn ready(handle: &Handle, deadline_ns: u64) -> Result<bool, Wait> {
    loop {
        match handle.poll(POLL_IN, remaining_ms(deadline_ns)) {
            Ok(ready) => return Ok(ready > 0),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(Wait::Failed { doing: "waiting for an image", source });
            }
        }
    }
}

/// Milliseconds from the present to `deadline_ns`, rounded up; 0 when it has passed.
fn remaining_ms(deadline_ns: u64) -> i32 {
    let ms = deadline_ns.saturating_sub(monotonic_ns()).div_ceil(1_000_000);
    i32::try_from(ms).unwrap_or(i32::MAX)
}

/// Runs a call of the `v4l` crate, which panics on answers of a driver that it has no name for
/// (colour spaces, descriptions that are not UTF-8).
fn guarded<T>(call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(io::Error::new(io::ErrorKind::InvalidData, "the v4l crate cannot read the answer")))
}

/// The codes of the formats that the device offers, in its order.
fn fourccs(device: &::v4l::Device) -> Vec<[u8; 4]> {
    let formats = guarded(|| device.enum_formats()).unwrap_or_default();
    formats.iter().map(|format| format.fourcc.repr).collect()
}

/// The code to ask for: of the wanted format, or of the best one that Fathom reads.
fn choose(offered: &[[u8; 4]], wanted: Option<PixelFormat>) -> Option<[u8; 4]> {
    let formats = PixelFormat::ALL.into_iter().filter(|f| wanted.is_none_or(|wanted| wanted == *f));
    formats.filter_map(|f| offered.iter().find(|code| PixelFormat::from_fourcc(**code) == Some(f))).copied().next()
}

/// The requested format as text.
fn asked(config: &V4lConfig) -> String {
    let (width, height) = (config.width, config.height);
    match config.format {
        Some(format) => format!("{format} {width}×{height}"),
        None => {
            let names = PixelFormat::ALL.map(|format| format.to_string());
            format!("one of {} at {width}×{height}", names.join(", "))
        }
    }
}

/// The formats that the device offers as text, with their sizes if the driver lists them.
fn offered(device: &::v4l::Device) -> String {
    let list: Vec<String> = fourccs(device)
        .into_iter()
        .map(|code| {
            let name = String::from_utf8_lossy(&code).trim_end().to_owned();
            let sizes = guarded(|| device.enum_framesizes(FourCC::new(&code))).unwrap_or_default();
            let sizes: Vec<String> = sizes
                .iter()
                .map(|size| match &size.size {
                    FrameSizeEnum::Discrete(size) => format!("{}×{}", size.width, size.height),
                    FrameSizeEnum::Stepwise(size) => {
                        format!("{}×{} to {}×{}", size.min_width, size.min_height, size.max_width, size.max_height)
                    }
                })
                .collect();
            if sizes.is_empty() { name } else { format!("{name} ({})", sizes.join(", ")) }
        })
        .collect();
    if list.is_empty() { "no format".to_owned() } else { list.join(", ") }
}
