//! Captures from a V4L2 camera and prints what came, one JSON object a line.
//!
//! The camera tests run it with a library preloaded that plays the device.

use std::path::PathBuf;
use std::time::Duration;

use fathom::camera::{Camera, CameraError, Image, PixelFormat, V4lCamera, V4lConfig};
use fathom::clock::monotonic_ns;
use serde_json::{Value, json};

#[path = "../counting.rs"]
mod counting;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// What to do; each is one argument `name=value`.
struct Request {
    config: V4lConfig,
    /// Captures to try, failed ones included.
    count: usize,
    timeout: Duration,
    /// Pause before each capture but the first.
    pause: Duration,
    /// Where the images' bytes are put, as `0.raw` and so on.
    save: Option<PathBuf>,
}

impl Request {
    fn from_arguments(arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut request = Self {
            config: V4lConfig {
                device: PathBuf::from("/dev/video0"),
                width: 64,
                height: 48,
                format: None,
                rate_hz: None,
            },
            count: 3,
            timeout: Duration::from_millis(300),
            pause: Duration::ZERO,
            save: None,
        };
        for argument in arguments {
            let wrong = || format!("{argument}: not understood");
            let (name, value) = argument.split_once('=').ok_or_else(wrong)?;
            let ms = || value.parse().map(Duration::from_millis).map_err(|_| wrong());
            match name {
                "device" => request.config.device = PathBuf::from(value),
                "width" => request.config.width = value.parse().map_err(|_| wrong())?,
                "height" => request.config.height = value.parse().map_err(|_| wrong())?,
                "rate" => request.config.rate_hz = Some(value.parse().map_err(|_| wrong())?),
                "format" => {
                    let mut formats = PixelFormat::ALL.into_iter();
                    let format = formats.find(|format| format.to_string() == value);
                    request.config.format = Some(format.ok_or_else(wrong)?);
                }
                "count" => request.count = value.parse().map_err(|_| wrong())?,
                "timeout_ms" => request.timeout = ms()?,
                "pause_ms" => request.pause = ms()?,
                "save" => request.save = Some(PathBuf::from(value)),
                _ => return Err(wrong()),
            }
        }
        Ok(request)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let request = Request::from_arguments(std::env::args().skip(1))?;
    let mut camera = match V4lCamera::open(request.config) {
        Ok(camera) => camera,
        Err(error) => {
            println!("{}", failure(&error));
            return Ok(());
        }
    };
    println!("{}", json!({ "opened": camera.describe() }));
    let mut image = Image::default();
    for number in 0..request.count {
        if number > 0 {
            std::thread::sleep(request.pause);
        }
        let called_ns = monotonic_ns();
        let mut captured = Ok(());
        let allocations = counting::allocations(|| {
            captured = camera.capture(&mut image, request.timeout);
        });
        match captured {
            Ok(()) => {
                println!("{}", report(&image, called_ns, allocations));
                if let Some(folder) = &request.save {
                    std::fs::write(folder.join(format!("{number}.raw")), &image.data)?;
                }
            }
            Err(error) => println!("{}", failure(&error)),
        }
    }
    Ok(())
}

fn report(image: &Image, called_ns: u64, allocations: u64) -> Value {
    json!({
        "format": image.format.to_string(),
        "width": image.width,
        "height": image.height,
        "stride": image.stride,
        "bytes": image.data.len(),
        "stamp": image.stamp.to_string(),
        "stamp_ns": image.stamp_ns,
        "dequeued_ns": image.dequeued_ns,
        "called_ns": called_ns,
        "returned_ns": monotonic_ns(),
        "sequence": image.sequence,
        "allocations": allocations,
    })
}

fn failure(error: &CameraError) -> Value {
    let debug = format!("{error:?}");
    let kind = debug.split([' ', '{']).next();
    json!({ "error": kind, "message": error.to_string() })
}
