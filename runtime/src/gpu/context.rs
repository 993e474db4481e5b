//! Opens the GPU; state that all calls share.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use wgpu::Features;

use super::adapter::{AdapterInfo, AdapterKind, choose};
use super::buffer::Staging;
use super::cache::PipelineCache;
use super::clock::Calibration;
use super::device;
use super::error::{Faults, GpuError};
use super::kernel::Kernel;
use super::times::Queries;

/// Time limit of a submission on hardware; [`GpuOptions::timeout`] overrides it.
const HARDWARE_TIMEOUT: Duration = Duration::from_secs(10);
/// The same on a software adapter, where a full-size model takes minutes.
const SOFTWARE_TIMEOUT: Duration = Duration::from_secs(600);

/// Number of GPUs opened in this process.
static OPENED: AtomicU64 = AtomicU64::new(0);

/// The adapter to open, and its options.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GpuOptions {
    /// Part of the adapter's name, in any case; default: any adapter.
    pub adapter: Option<String>,
    /// Whether to open a software adapter if no hardware matches.
    pub allow_software: bool,
    /// Whether shaders and buffers are bounds-checked: slower, for tests and for finding faults.
    pub checked: bool,
    /// Whether submissions return GPU times, if the adapter supports them.
    pub timestamps: bool,
    /// Folder of the cache of compiled pipelines; default, and on adapters without such a cache: none.
    pub cache: Option<PathBuf>,
    /// Time limit of one submission; default: 10 s on hardware and 10 min in software.
    pub timeout: Option<Duration>,
}

/// Numbers of wgpu objects made since the GPU was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Buffers: for weights, activations and parameters, and for staging.
    pub buffers: u64,
    /// Bind groups.
    pub bind_groups: u64,
    /// Compute pipelines.
    pub pipelines: u64,
    /// Compute pipelines that the cache on disk had.
    pub cached_pipelines: u64,
    /// Sets of timestamp queries.
    pub query_sets: u64,
}

/// An open device, its buffers and its kernels.
///
/// Dropping it frees all memory created on it.
#[derive(Debug)]
pub struct Gpu {
    pub(super) info: AdapterInfo,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) limits: wgpu::Limits,
    pub(super) counts: Counts,
    pub(super) buffers: Vec<(String, wgpu::Buffer)>,
    pub(super) kernels: HashMap<&'static str, Kernel>,
    pub(super) staging: Staging,
    pub(super) cache: Option<PipelineCache>,
    /// Bytes of the existing buffers.
    pub(super) held: u64,
    pub(super) queries: Queries,
    pub(super) calibration: Option<Calibration>,
    /// Identifies the GPU that made a command list.
    pub(super) id: u64,
    /// Kernels that do nothing, by a part of their names.
    pub(super) broken: Option<String>,
    faults: Arc<Faults>,
    timeout: Duration,
}

impl Gpu {
    /// Opens the adapter that `options` select.
    ///
    /// Only Vulkan adapters count. Hardware is preferred, discrete before integrated.
    ///
    /// # Errors
    /// [`GpuError::NoAdapter`], [`GpuError::AdapterNotFound`] and [`GpuError::SoftwareRefused`] if no adapter matches,
    /// [`GpuError::Open`] if the driver gives no device.
    pub fn open(options: &GpuOptions) -> Result<Self, GpuError> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::VULKAN,
            flags: wgpu::InstanceFlags::empty(),
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::VULKAN));
        let found: Vec<_> = adapters
            .iter()
            .map(|adapter| adapter.get_info())
            .map(|info| (info.name, AdapterKind::from(info.device_type)))
            .collect();
        let adapter = adapters.swap_remove(choose(&found, options)?);

        let mut features = Features::SHADER_F16
            | Features::SHADER_I16
            | Features::SUBGROUP
            | Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        features.set(Features::TIMESTAMP_QUERY, options.timestamps);
        let kind = AdapterKind::from(adapter.get_info().device_type);
        let unified = matches!(kind, AdapterKind::Integrated | AdapterKind::Software);
        features.set(Features::MAPPABLE_PRIMARY_BUFFERS, unified);
        features.set(Features::PIPELINE_CACHE, options.cache.is_some());
        let features = features & adapter.features();
        let (device, queue) = device::open(&adapter, features, options.checked)?;
        let info = AdapterInfo::new(&adapter, features, options.checked);

        // wgpu's own handler panics.
        let faults = Arc::new(Faults::default());
        let (uncaptured, lost) = (Arc::clone(&faults), Arc::clone(&faults));
        device.on_uncaptured_error(Arc::new(move |e: wgpu::Error| uncaptured.record(e.to_string())));
        device.set_device_lost_callback(move |reason, message| {
            lost.lose(format!("{reason:?}: {message}"));
        });

        let name = wgpu::util::pipeline_cache_key(&adapter.get_info());
        let folder = options.cache.as_deref().filter(|_| features.contains(Features::PIPELINE_CACHE));
        let cache = folder.zip(name).map(|(folder, name)| PipelineCache::open(&device, &name, &info, folder));

        let software = info.kind == AdapterKind::Software;
        let timeout = if software { SOFTWARE_TIMEOUT } else { HARDWARE_TIMEOUT };
        Ok(Self {
            limits: device.limits(),
            queries: Queries::new(queue.get_timestamp_period()),
            calibration: if options.checked { None } else { Calibration::of(&adapter, &device) },
            staging: Staging::default(),
            held: 0,
            cache,
            counts: Counts::default(),
            buffers: Vec::new(),
            kernels: HashMap::new(),
            broken: None,
            timeout: options.timeout.unwrap_or(timeout),
            info,
            device,
            queue,
            faults,
            id: OPENED.fetch_add(1, Ordering::Relaxed),
        })
    }

    /// The opened adapter and its capabilities.
    #[must_use]
    pub fn info(&self) -> &AdapterInfo {
        &self.info
    }

    /// Numbers of wgpu objects made.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// Gives the device up: every later call returns [`GpuError::DeviceLost`] with `reason`.
    ///
    /// For tests of a failing GPU, and for callers that want to start afresh.
    pub fn lose(&mut self, reason: &str) {
        self.faults.lose(reason.to_owned());
        self.device.destroy();
    }

    /// Whether submissions return GPU times from now on, if the device has them.
    pub fn set_times(&mut self, on: bool) {
        self.info.timestamps = on && self.device.features().contains(Features::TIMESTAMP_QUERY);
    }

    /// Limits a binding to `bytes` from now on, if the adapter allows more.
    ///
    /// For tests of split weights that need no gigabytes.
    pub fn limit_bindings(&mut self, bytes: u64) {
        self.info.max_binding_bytes = self.info.max_binding_bytes.min(bytes & !255);
    }

    /// Makes kernels whose names contain `part` do nothing, unless they were made before.
    ///
    /// For tests of a driver that compiles a kernel wrongly.
    pub fn break_kernels(&mut self, part: &str) {
        self.broken = Some(part.to_owned());
    }

    /// Limits the memory to `bytes` from now on, if the adapter has more.
    ///
    /// For tests of low memory.
    pub fn limit_memory(&mut self, bytes: u64) {
        self.info.memory_bytes = self.info.memory_bytes.min(bytes);
    }

    /// Reports no cooperative matrices from now on.
    ///
    /// For tests of adapters without matrix units.
    pub fn hide_matrices(&mut self) {
        self.info.matrices.clear();
    }

    /// The error that wgpu has reported since the last call, if any.
    pub(super) fn check(&self) -> Result<(), GpuError> {
        self.faults.check()
    }

    /// Runs `make`, and returns the first error that wgpu reports for it through `error`.
    ///
    /// Fails before running `make` if the device is already lost.
    pub(super) fn scoped<T>(
        &self,
        make: impl FnOnce(&wgpu::Device) -> T,
        error: impl FnOnce(wgpu::Error) -> GpuError,
    ) -> Result<T, GpuError> {
        self.check()?;
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let made = make(&self.device);
        let caught = [validation, internal, memory].map(|scope| pollster::block_on(scope.pop()));
        self.check()?;
        match caught.into_iter().flatten().next() {
            Some(caught) => Err(error(caught)),
            None => Ok(made),
        }
    }

    /// Waits until `submission` has finished and its mappings have called back.
    pub(super) fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<(), GpuError> {
        let wait = wgpu::PollType::Wait { submission_index: Some(submission), timeout: Some(self.timeout) };
        // wgpu 30 panics in `poll` if the driver reports a lost device, after it has called the device-lost callback
        // and released its locks.
        let polled = catch_unwind(AssertUnwindSafe(|| self.device.poll(wait)));
        self.check()?;
        match polled {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(wgpu::PollError::Timeout)) => {
                let waited = self.timeout;
                self.faults.lose(format!("a submission did not finish within {waited:?}"));
                Err(GpuError::Timeout { waited })
            }
            Ok(Err(e)) => Err(GpuError::Validation { label: "wait".into(), message: e.to_string() }),
            Err(_) => {
                let reason = "wgpu could not wait for the device".to_owned();
                self.faults.lose(reason.clone());
                Err(GpuError::DeviceLost { reason })
            }
        }
    }
}
