use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fathom::engine::Kernels;
use fathom::gpu::{Gpu, GpuError, GpuOptions, cache_folder};

/// Which GPU, and how.
#[derive(Args)]
pub(crate) struct GpuArguments {
    /// Allow a software driver.
    #[arg(long)]
    software: bool,
    /// Part of the adapter's name.
    #[arg(long)]
    adapter: Option<String>,
    /// Let shaders and driver check their bounds.
    #[arg(long)]
    checked: bool,
    /// Seconds that one submission may take; 10 on a GPU and 600 on a software driver if not given.
    #[arg(long)]
    timeout: Option<u64>,
    /// Folder for compiled pipelines, so that the next start need not compile them; fathom's in the user's cache folder if
    /// not given.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Kernels to take instead of those that suit the adapter: tiled, coop16, coop8, dot8 or lanes.
    #[arg(long)]
    pub(crate) kernels: Option<Kernels>,
}

impl GpuArguments {
    /// Opens it, and says which it is. With `timestamps`, submissions return GPU times, where the adapter can.
    pub(crate) fn open(self, timestamps: bool) -> Result<Gpu, GpuError> {
        let gpu = Gpu::open(&self.options(timestamps))?;
        tracing::info!(adapter = %gpu.info(), "GPU");
        Ok(gpu)
    }

    pub(crate) fn options(&self, timestamps: bool) -> GpuOptions {
        GpuOptions {
            adapter: self.adapter.clone(),
            allow_software: self.software,
            checked: self.checked,
            timestamps,
            cache: self.cache.clone().or_else(cache_folder),
            timeout: self.timeout.map(Duration::from_secs),
        }
    }
}
