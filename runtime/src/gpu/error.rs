//! Errors of the GPU, and the store for errors that arrive by callback.

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
        /// Value of `VK_DRIVER_FILES`, which restricts the Vulkan loader to these drivers.
        driver_files: Option<String>,
    },
    /// Adapters exist, but none has the requested name.
    #[error("no adapter's name contains {asked:?}; found: {}", .found.join(", "))]
    AdapterNotFound {
        /// The requested name.
        asked: String,
        /// The adapters that exist, as name and kind.
        found: Vec<String>,
    },
    /// Only a software adapter matches, and the configuration does not allow one.
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
        /// The message of the driver or of wgpu.
        message: String,
    },
    /// The device is lost; open a new [`Gpu`](super::Gpu).
    #[error("GPU device lost: {reason}")]
    DeviceLost {
        /// The driver's message.
        reason: String,
    },
    /// The GPU did not finish within the time limit. The device then counts as lost.
    #[error("the GPU did not finish within {waited:?}")]
    Timeout {
        /// The time limit.
        waited: Duration,
    },
    /// An allocation failed.
    #[error("out of GPU memory: {what} needs {bytes} bytes")]
    OutOfMemory {
        /// The purpose of the allocation.
        what: String,
        /// Its size.
        bytes: u64,
    },
    /// A request exceeds a limit of the adapter.
    #[error("{what} is {asked}, the adapter's limit is {limit}")]
    Limit {
        /// The requested quantity.
        what: String,
        /// The requested amount.
        asked: u64,
        /// The adapter's limit.
        limit: u64,
    },
    /// A range is outside its buffer, or empty.
    #[error("{what}: bytes {offset}..{offset}+{bytes} are outside a buffer of {size} bytes")]
    OutOfBuffer {
        /// The owner of the range.
        what: String,
        /// First byte.
        offset: u64,
        /// Length of the range in bytes.
        bytes: u64,
        /// Size of the buffer in bytes.
        size: u64,
    },
    /// An offset is not aligned for the adapter.
    #[error("{what}: offset {offset} is not a multiple of {align}")]
    Misaligned {
        /// The owner of the offset.
        what: String,
        /// The offset in bytes.
        offset: u64,
        /// The alignment in bytes.
        align: u64,
    },
    /// A [`BufferId`](super::BufferId) that is not this GPU's.
    #[error("{what}: there is no buffer {index}")]
    UnknownBuffer {
        /// The owner of the reference.
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
        /// The list's number of stages.
        stages: usize,
    },
    /// A command list is submitted to another [`Gpu`](super::Gpu) than the one that prepared it.
    #[error("command list {label} was prepared on another GPU")]
    ForeignCommandList {
        /// Label of the command list.
        label: String,
    },
    /// A dispatch's number of slots differs from its kernel's number of storage bindings.
    #[error("{kernel}: {found} slots given, the kernel has {expected} storage bindings")]
    Bindings {
        /// Name of the kernel.
        kernel: String,
        /// Number of storage bindings of the kernel.
        expected: usize,
        /// Number of slots.
        found: usize,
    },
    /// A dispatch binds one buffer both read-only and for writing, which wgpu does not allow.
    #[error("{kernel}: binding {binding} mixes read and read_write use of buffer {buffer}")]
    MixedAccess {
        /// Name of the kernel.
        kernel: String,
        /// The later of the two bindings.
        binding: usize,
        /// Label of the buffer.
        buffer: String,
    },
    /// wgpu or the driver rejected a kernel.
    #[error("kernel {kernel}: {message}")]
    Pipeline {
        /// Name of the kernel.
        kernel: String,
        /// wgpu's message, with the place in the WGSL if it is known.
        message: String,
    },
    /// wgpu rejected a call.
    #[error("{label}: {message}")]
    Validation {
        /// The failed operation.
        label: String,
        /// wgpu's message.
        message: String,
    },
}

/// Errors that wgpu reports by callback, kept for the next call.
#[derive(Debug, Default)]
pub(super) struct Faults {
    lost: Mutex<Option<String>>,
    uncaptured: Mutex<Option<String>>,
}

impl Faults {
    /// Records that the device is lost; the first reason is kept.
    pub(super) fn lose(&self, reason: String) {
        lock(&self.lost).get_or_insert(reason);
    }

    /// Records an error outside of all error scopes; the first one is kept.
    pub(super) fn record(&self, message: String) {
        lock(&self.uncaptured).get_or_insert(message);
    }

    /// The error to report now, if any. A lost device is reported forever, other errors once.
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

/// Ignores poisoning: the data are valid after any panic.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
