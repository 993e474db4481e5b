//! What can go wrong on the GPU, and where faults that arrive out of band are kept.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// An error of the GPU layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// The machine offers no Vulkan adapter.
    #[error(
        "no Vulkan adapter found; install a Vulkan driver{}",
        .driver_files.as_ref().map(|f| format!(", or correct VK_DRIVER_FILES, which is {f:?}")).unwrap_or_default()
    )]
    NoAdapter {
        /// Value of `VK_DRIVER_FILES`, which restricts the drivers that the Vulkan loader looks at.
        driver_files: Option<String>,
    },
    /// Adapters exist, but none carries the name that was asked for.
    #[error("no adapter's name contains {asked:?}; found: {}", .found.join(", "))]
    AdapterNotFound {
        /// The name asked for.
        asked: String,
        /// The adapters that exist, as name and kind.
        found: Vec<String>,
    },
    /// Only a software adapter fits, and the configuration does not allow one.
    #[error("{name} is a software adapter; allow it with --software, or with `gpu.software = true` in robot.toml")]
    SoftwareRefused {
        /// Name of the adapter.
        name: String,
    },
    /// The adapter's driver did not give a device.
    #[error("cannot open {adapter}: {message}")]
    Open {
        /// Name of the adapter.
        adapter: String,
        /// What the driver or wgpu said.
        message: String,
    },
    /// The device is gone; open a new [`Gpu`](super::Gpu).
    #[error("GPU device lost: {reason}")]
    DeviceLost {
        /// What the driver said.
        reason: String,
    },
    /// The GPU did not finish within the time allowed. The device counts as lost afterwards.
    #[error("the GPU did not finish within {waited:?}")]
    Timeout {
        /// How long it was waited for.
        waited: Duration,
    },
    /// An allocation failed.
    #[error("out of GPU memory: {what} needs {bytes} bytes")]
    OutOfMemory {
        /// What was being allocated.
        what: String,
        /// Its size.
        bytes: u64,
    },
    /// A request passes a limit of the adapter.
    #[error("{what} is {asked}, the adapter's limit is {limit}")]
    Limit {
        /// What was asked for.
        what: String,
        /// How much of it.
        asked: u64,
        /// What the adapter allows.
        limit: u64,
    },
    /// A range does not lie inside its buffer, or is empty.
    #[error("{what}: bytes {offset}..{offset}+{bytes} do not lie in a buffer of {size} bytes")]
    OutOfBuffer {
        /// Who asked for the range.
        what: String,
        /// First byte.
        offset: u64,
        /// Length of the range in bytes.
        bytes: u64,
        /// Size of the buffer in bytes.
        size: u64,
    },
    /// An offset is not aligned as the adapter demands.
    #[error("{what}: offset {offset} is not a multiple of {align}")]
    Misaligned {
        /// Whose offset.
        what: String,
        /// The offset in bytes.
        offset: u64,
        /// The alignment in bytes.
        align: u64,
    },
    /// A [`BufferId`](super::BufferId) that this GPU never gave out.
    #[error("{what}: there is no buffer {index}")]
    UnknownBuffer {
        /// Who named it.
        what: String,
        /// Its index.
        index: u32,
    },
    /// A dispatch names a stage that its command list does not have.
    #[error("{what}: stage {stage} of {stages}")]
    UnknownStage {
        /// The dispatch.
        what: String,
        /// The stage's index.
        stage: u16,
        /// How many stages the list has.
        stages: usize,
    },
    /// A command list is submitted to another [`Gpu`](super::Gpu) than the one that prepared it.
    #[error("command list {label} was prepared on another GPU")]
    ForeignCommandList {
        /// Label of the command list.
        label: String,
    },
    /// A dispatch gives another number of slots than its kernel has storage bindings.
    #[error("{kernel}: {found} slots given, the kernel has {expected} storage bindings")]
    Bindings {
        /// Name of the kernel.
        kernel: String,
        /// Number of storage bindings of the kernel.
        expected: usize,
        /// Number of slots given.
        found: usize,
    },
    /// A dispatch binds one buffer for reading only and for writing, which wgpu does not allow.
    #[error("{kernel}: binding {binding} mixes read and read_write use of buffer {buffer}")]
    MixedAccess {
        /// Name of the kernel.
        kernel: String,
        /// The later of the two bindings.
        binding: usize,
        /// Label of the buffer.
        buffer: String,
    },
    /// A kernel was not accepted by wgpu or by the driver.
    #[error("kernel {kernel}: {message}")]
    Pipeline {
        /// Name of the kernel.
        kernel: String,
        /// What wgpu said, with the place in the WGSL where it knows it.
        message: String,
    },
    /// wgpu refused a call.
    #[error("{label}: {message}")]
    Validation {
        /// What was being done.
        label: String,
        /// What wgpu said.
        message: String,
    },
}

/// Faults that wgpu reports by callback, kept until the next call looks at them.
#[derive(Debug, Default)]
pub(super) struct Faults {
    lost: Mutex<Option<String>>,
    uncaptured: Mutex<Option<String>>,
}

impl Faults {
    /// Notes that the device is lost; the first reason stays.
    pub(super) fn lose(&self, reason: String) {
        lock(&self.lost).get_or_insert(reason);
    }

    /// Notes an error that no error scope caught; the first one stays.
    pub(super) fn record(&self, message: String) {
        lock(&self.uncaptured).get_or_insert(message);
    }

    /// The fault to report now, if any. A lost device is reported for ever, others once.
    pub(super) fn check(&self) -> Result<(), GpuError> {
        if let Some(reason) = lock(&self.lost).clone() {
            return Err(GpuError::DeviceLost { reason });
        }
        match lock(&self.uncaptured).take() {
            Some(message) => Err(GpuError::Validation { label: "outside of any call".into(), message }),
            None => Ok(()),
        }
    }
}

/// Locks through poisoning: what is kept here is valid after any panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
