use std::time::Duration;

use clap::Args;
use fathom::bounds;
use fathom::gpu::{Gpu, GpuError, GpuOptions};
use fathom::within;

/// The GPU.
#[derive(Args)]
pub(crate) struct GpuArguments {
    /// Allow a software driver.
    #[arg(long)]
    pub(crate) software: bool,
    /// Part of the adapter's name.
    #[arg(long)]
    pub(crate) adapter: Option<String>,
    /// Time limit of one submission, in seconds. Default: 10 on a GPU, 600 on a software driver.
    #[arg(long, value_parser = within!(bounds::TIMEOUT_S))]
    pub(crate) timeout: Option<u64>,
}

impl GpuArguments {
    /// Opens the GPU.
    pub(crate) fn open(&self) -> Result<Gpu, GpuError> {
        Gpu::open(&GpuOptions {
            adapter: self.adapter.clone(),
            allow_software: self.software,
            timeout: self.timeout.map(Duration::from_secs),
            ..GpuOptions::default()
        })
    }
}
