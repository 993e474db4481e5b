//! Cameras, the serial line, firmware in an emulator, chunks, recordings and telemetry: from image to motor, without a model's
//! numbers.

mod camera;
mod camera_folder;
mod chunks;
#[path = "../../src/counting.rs"]
mod counting;
mod firmware;
mod jpeg;
mod link;
mod picture;
mod record;
mod scene;
mod simulator;
mod telemetry;
mod upright;
mod world;

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;
