//! The simulated arm and its scene, driven by a policy; prints what happens in the loop.
//!
//! ```sh
//! cargo run --release --example drive_simulated -- DIR
//! ```
//!
//! DIR is a checkpoint with the views `base` and `wrist`, such as `fathom init --output DIR` makes. `FATHOM_SOFTWARE=1` allows a
//! software driver.

use std::env;
use std::error::Error;
use std::sync::mpsc;
use std::thread;

use fathom::config::{CameraSection, CameraSource, RobotConfig, SceneCameraConfig};
use fathom::control::{Robot, RunOptions};
use fathom::events::{Events, LoopEvent};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = env::args().nth(1).ok_or("usage: drive_simulated DIR")?;
    let mut config = RobotConfig::new(directory);
    config.model.prompt = Some("reach for the red block".to_owned());
    config.gpu.software = env::var_os("FATHOM_SOFTWARE").is_some();
    config.control.max_image_age_ms = 1000;
    for view in ["base", "wrist"] {
        let source = CameraSource::Scene(SceneCameraConfig { camera: None, rate_hz: 10.0 });
        config.cameras.push(CameraSection { view: view.to_owned(), source });
    }

    let (sender, events) = mpsc::channel();
    let robot = Robot::builder(config).events(Events::to(sender)).open()?;
    let printer = thread::spawn(move || {
        for (_, event) in events {
            match event {
                LoopEvent::Mode { from, to, .. } => println!("{from} → {to}"),
                LoopEvent::Refused { number, reason, .. } => println!("chunk {number} refused: {reason:?}"),
                _ => {}
            }
        }
    });
    let outcome = robot.run(&RunOptions { seconds: Some(10.0), ..RunOptions::default() })?;
    printer.join().map_err(|_| "the printer ended")?;
    println!("{} chunks executed, the tool moved {:?} m", outcome.chunks, outcome.travelled);
    Ok(())
}
