//! Opens the GPU with default options and says what came of it, for tests that must choose the
//! environment of a whole process.

use std::process::ExitCode;

use fathom::gpu::{Gpu, GpuOptions};

fn main() -> ExitCode {
    match Gpu::open(&GpuOptions::default()) {
        Ok(gpu) => {
            println!("{}", gpu.info());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
