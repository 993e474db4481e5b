use clap::Args;
use fathom::gpu::{Gpu, GpuError, GpuOptions};

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
}

impl GpuArguments {
    /// Opens it, and says which it is.
    pub(crate) fn open(self) -> Result<Gpu, GpuError> {
        let options = GpuOptions {
            adapter: self.adapter,
            allow_software: self.software,
            checked: self.checked,
            ..GpuOptions::default()
        };
        let gpu = Gpu::open(&options)?;
        tracing::info!(adapter = %gpu.info(), "GPU");
        Ok(gpu)
    }
}
