//! The GPU layer: the only place in Fathom that knows wgpu.
//!
//! The rest of the runtime passes plain data: buffers are [`BufferId`]s, the work of an inference is a [`Commands`]
//! list. [`Gpu::prepare`] checks it once and makes a [`CommandList`], and [`Gpu::submit`] replays any sequence of
//! command lists in one submission.
//!
//! Invariants:
//! * Once a sequence of command lists was submitted, submitting it again creates no buffer, bind
//!   group, pipeline or query set; [`Gpu::counts`] shows it.
//! * Nothing here panics on a GPU fault. A lost device stays lost: every later call returns
//!   [`GpuError::DeviceLost`].
//! * By default the Vulkan device has robust buffer access off and shaders carry no bounds
//!   checks, so every slot is checked against its buffer in `prepare`, and a kernel must stay
//!   inside its slots. [`GpuOptions::checked`] turns all checks on.

mod adapter;
mod buffer;
mod cache;
mod clock;
mod command_list;
mod context;
mod device;
mod error;
mod kernel;
mod submit;
mod times;

pub use adapter::{AdapterInfo, AdapterKind};
pub use buffer::BufferId;
pub use cache::cache_folder;
pub use command_list::{CommandList, Commands, Dispatch, Slot, Work};
pub use context::{Counts, Gpu, GpuOptions};
pub use error::GpuError;
pub use submit::{Download, Upload};
pub use times::{GpuTimes, HostTimes, KernelTime, Origin, StageTime};
