//! A camera of one's own on the simulated arm: implement `Camera`, and hand it to the builder.
//!
//! ```sh
//! cargo run --release --example custom_camera -- DIR
//! ```
//!
//! DIR is a checkpoint with the views `base` and `wrist`, such as `fathom init --output DIR` makes. `FATHOM_SOFTWARE=1` allows a
//! software driver.

use std::env;
use std::error::Error;
use std::thread;
use std::time::{Duration, Instant};

use fathom::camera::{Camera, CameraError, Image, PixelFormat, StampSource};
use fathom::clock::monotonic_ns;
use fathom::config::RobotConfig;
use fathom::control::{Robot, RunOptions};

/// A bar that moves over the image, ten times a second.
struct MovingBar {
    next: Instant,
    count: u64,
}

impl Camera for MovingBar {
    fn describe(&self) -> String {
        "a moving bar, 224 × 224".to_owned()
    }

    fn capture(&mut self, into: &mut Image, _timeout: Duration) -> Result<(), CameraError> {
        thread::sleep(self.next.saturating_duration_since(Instant::now()));
        self.next = Instant::now() + Duration::from_millis(100);
        into.reshape(PixelFormat::Rgb24, 224, 224);
        // The loop holds the arm when images are old: stamp them when they are taken.
        into.stamp_ns = monotonic_ns();
        into.stamp = StampSource::Host;
        into.dequeued_ns = into.stamp_ns;
        into.sequence = self.count;
        let bar = (self.count % 224) as usize;
        for (index, pixel) in into.data.chunks_exact_mut(3).enumerate() {
            pixel.fill(if index % 224 == bar { 255 } else { 64 });
        }
        self.count += 1;
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::args().nth(1).ok_or("usage: custom_camera DIR")?;
    let mut config = RobotConfig::new(directory);
    config.model.prompt = Some("reach for the red block".to_owned());
    config.gpu.software = env::var_os("FATHOM_SOFTWARE").is_some();
    config.control.max_image_age_ms = 1000;
    let camera = || MovingBar { next: Instant::now(), count: 0 };
    let robot = Robot::builder(config).camera("base", camera()).camera("wrist", camera()).open()?;
    let outcome = robot.run(&RunOptions { seconds: Some(10.0), ..RunOptions::default() })?;
    println!("{} chunks executed", outcome.chunks);
    Ok(())
}
