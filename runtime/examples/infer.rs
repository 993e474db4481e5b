//! A checkpoint and pictures in, actions out.
//!
//! ```sh
//! cargo run --release --example infer -- DIR "reach for the red block" base=base.png wrist=wrist.png
//! ```
//!
//! The joints are at zero. `FATHOM_SOFTWARE=1` allows a software driver.

use std::env;
use std::error::Error;
use std::path::Path;

use fathom::camera::{Image, read_picture};
use fathom::gpu::GpuOptions;
use fathom::policy::{Observation, Policy, PolicyOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(directory), Some(task)) = (arguments.next(), arguments.next()) else {
        return Err("usage: infer DIR TASK VIEW=PICTURE…".into());
    };
    let mut pictures: Vec<(String, Image)> = Vec::new();
    for argument in arguments {
        let (view, path) =
            argument.split_once('=').ok_or_else(|| format!("expected VIEW=PICTURE, found {argument}"))?;
        pictures.push((view.to_owned(), read_picture(Path::new(path))?));
    }
    let gpu = GpuOptions { allow_software: env::var_os("FATHOM_SOFTWARE").is_some(), ..GpuOptions::default() };
    let mut policy = Policy::open_with(directory, PolicyOptions { gpu, ..PolicyOptions::default() })?;
    let state = vec![0.0; policy.action_dim()];
    let mut observation = Observation::new(&task).state(&state);
    for (view, picture) in &pictures {
        observation = observation.image(view, picture);
    }
    let output = policy.infer(&observation)?;
    for step in output.steps() {
        println!("{step:?}");
    }
    Ok(())
}
