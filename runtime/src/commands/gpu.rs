use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fathom::bounds;
use fathom::engine::{Kernels, Wanted};
use fathom::gpu::{Gpu, GpuError, GpuOptions, cache_folder};
use fathom::within;
use fathom_models::graph::precision::Float;

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
    #[arg(long, value_parser = within!(bounds::TIMEOUT_S))]
    timeout: Option<u64>,
    /// Folder for compiled pipelines, so that the next start need not compile them; fathom's in the user's cache folder if
    /// not given.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Kernels to take instead of those that suit the adapter: tiled, coop16, coop8, dot8 or lanes.
    #[arg(long)]
    kernels: Option<Kernels>,
    #[command(flatten)]
    precision: PrecisionArguments,
}

/// What tensors between kernels are stored in.
#[derive(Args, Clone, Copy)]
pub(crate) struct PrecisionArguments {
    /// Store keys and values in f16 or f32; the kernels with matrices have them in f16 if not given, others in f32.
    #[arg(long, value_name = "FORMAT")]
    kv: Option<Float>,
    /// Store what goes from kernel to kernel, but for the residual stream, in f16 or f32; by the kernels, too, if not given.
    #[arg(long, value_name = "FORMAT")]
    activations: Option<Float>,
}

impl PrecisionArguments {
    /// With these kernels.
    pub(crate) fn wanted(self, kernels: Option<Kernels>) -> Wanted {
        Wanted { kernels, kv: self.kv, activations: self.activations }
    }
}

impl GpuArguments {
    /// What to compute with.
    pub(crate) fn wanted(&self) -> Wanted {
        self.precision.wanted(self.kernels)
    }

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
