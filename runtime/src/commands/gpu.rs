use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use fathom::bounds;
use fathom::engine::{Kernels, Wanted};
use fathom::gpu::{Gpu, GpuError, GpuOptions, cache_folder};
use fathom::within;
use fathom_models::graph::precision::Float;

/// GPU and its settings.
#[derive(Args)]
pub(crate) struct GpuArguments {
    /// Allow a software driver.
    #[arg(long)]
    software: bool,
    /// Part of the adapter's name. Default: any hardware adapter.
    #[arg(long)]
    adapter: Option<String>,
    /// Enable bounds checks in shaders and driver.
    #[arg(long)]
    checked: bool,
    /// Time limit of one submission, in seconds. Default: 10 on a GPU, 600 on a software driver.
    #[arg(long, value_parser = within!(bounds::TIMEOUT_S))]
    timeout: Option<u64>,
    /// Folder for compiled pipelines, which the next start reuses. Default: fathom in the user's cache folder.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Kernel family; overrides the automatic choice: tiled, coop16, coop8, dot8 or lanes.
    #[arg(long)]
    kernels: Option<Kernels>,
    #[command(flatten)]
    precision: PrecisionArguments,
}

/// Precision of tensors between kernels.
#[derive(Args, Clone, Copy)]
pub(crate) struct PrecisionArguments {
    /// Precision of keys and values: f16 or f32. Default: f16 for kernels with matrix units, otherwise f32.
    #[arg(long, value_name = "FORMAT")]
    kv: Option<Float>,
    /// Precision of activations between kernels (the residual stream stays f32): f16 or f32. Default: chosen with the kernels.
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
    /// The requested kernels and formats.
    pub(crate) fn wanted(&self) -> Wanted {
        self.precision.wanted(self.kernels)
    }

    /// Opens the adapter and prints it. With `timestamps`, submissions return GPU times if the adapter supports them.
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
