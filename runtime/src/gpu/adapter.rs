//! Selection of the adapter, and its capabilities.

use std::fmt;

use super::context::GpuOptions;
use super::device;
use super::error::GpuError;

/// The kind of an adapter, in order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares the memory of the processor, as on Jetson.
    Integrated,
    /// A GPU passed through by a hypervisor.
    Virtual,
    /// The driver does not report it.
    Other,
    /// The processor, behind a Vulkan interface.
    Software,
}

impl From<wgpu::DeviceType> for AdapterKind {
    fn from(kind: wgpu::DeviceType) -> Self {
        match kind {
            wgpu::DeviceType::DiscreteGpu => Self::Discrete,
            wgpu::DeviceType::IntegratedGpu => Self::Integrated,
            wgpu::DeviceType::VirtualGpu => Self::Virtual,
            wgpu::DeviceType::Cpu => Self::Software,
            wgpu::DeviceType::Other => Self::Other,
        }
    }
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Other => "other",
            Self::Software => "software",
        })
    }
}

/// An adapter and the capabilities of the device opened on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdapterInfo {
    /// Name of the adapter.
    pub name: String,
    /// Name and version of its driver.
    pub driver: String,
    /// The graphics interface, `vulkan`.
    pub backend: &'static str,
    /// The kind of the adapter.
    pub kind: AdapterKind,
    /// Whether shaders and buffers are bounds-checked on this device.
    pub checked: bool,
    /// Largest range that one slot may bind, in bytes; a multiple of 256.
    pub max_binding_bytes: u64,
    /// Largest buffer, in bytes; a multiple of 256.
    pub max_buffer_bytes: u64,
    /// Limit of all buffers together, in bytes: the adapter's largest heap; for a heap in the processor's memory, at
    /// most the memory that was available when it was opened.
    pub memory_bytes: u64,
    /// Whether the processor shares its memory with the GPU: weights are written where they stay.
    pub unified: bool,
    /// Alignment of a slot's offset, in bytes.
    pub slot_alignment: u64,
    /// Most workgroups of a dispatch in one dimension.
    pub max_workgroups: u32,
    /// Most storage bindings of a kernel.
    pub max_storage_bindings: u32,
    /// Memory that the invocations of a workgroup can share, in bytes.
    pub workgroup_bytes: u32,
    /// Whether submissions return GPU times: the adapter has timestamps and they were asked for.
    pub timestamps: bool,
    /// Whether shaders may use `f16`.
    pub f16: bool,
    /// Whether shaders may use `i16` and `u16`.
    pub i16: bool,
    /// Whether shaders may use subgroup operations.
    pub subgroups: bool,
    /// Smallest and largest number of invocations in a subgroup.
    pub subgroup_size: [u32; 2],
    /// Sides of the square cooperative matrices of `f16` that sum up in `f32`, the largest first.
    pub matrices: Vec<u32>,
}

impl AdapterInfo {
    /// The capabilities of a device of `adapter` with `features` and all of the adapter's limits.
    pub(super) fn new(adapter: &wgpu::Adapter, features: wgpu::Features, checked: bool) -> Self {
        let (info, limits) = (adapter.get_info(), adapter.limits());
        let unified = features.contains(wgpu::Features::MAPPABLE_PRIMARY_BUFFERS);
        let memory_bytes = device::heap_bytes(adapter).unwrap_or(u64::MAX);
        Self {
            memory_bytes: memory_bytes.min(if unified { available_bytes() } else { u64::MAX }),
            unified,
            kind: info.device_type.into(),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            name: info.name,
            backend: info.backend.to_str(),
            checked,
            max_binding_bytes: limits.max_storage_buffer_binding_size & !255,
            max_buffer_bytes: limits.max_buffer_size & !255,
            slot_alignment: limits.min_storage_buffer_offset_alignment.into(),
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            max_storage_bindings: limits.max_storage_buffers_per_shader_stage,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            f16: features.contains(wgpu::Features::SHADER_F16),
            i16: features.contains(wgpu::Features::SHADER_I16),
            subgroups: features.contains(wgpu::Features::SUBGROUP),
            subgroup_size: [info.subgroup_min_size, info.subgroup_max_size],
            matrices: matrices(adapter, features),
        }
    }
}

/// Main memory that the kernel has available, in bytes.
fn available_bytes() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    line.and_then(|kib| kib.trim().parse::<u64>().ok()).map_or(u64::MAX, |kib| kib * 1024)
}

fn matrices(adapter: &wgpu::Adapter, features: wgpu::Features) -> Vec<u32> {
    if !features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX) {
        return Vec::new();
    }
    let (half, single) = (wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32);
    let found = adapter
        .cooperative_matrix_properties()
        .into_iter()
        .filter(|p| (p.ab_type, p.cr_type) == (half, single) && p.m_size == p.n_size && p.n_size == p.k_size);
    let mut sides: Vec<u32> = found.map(|p| p.m_size).collect();
    sides.sort_unstable_by(|a, b| b.cmp(a));
    sides.dedup();
    sides
}

impl fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checked = if self.checked { ", checked" } else { "" };
        write!(f, "{} ({}, {}, driver {}{checked})", self.name, self.kind, self.backend, self.driver)
    }
}

/// Index of the adapter to open among `found` (name and kind): the first of the best kind whose name contains the
/// requested one.
pub(super) fn choose(found: &[(String, AdapterKind)], options: &GpuOptions) -> Result<usize, GpuError> {
    if found.is_empty() {
        return Err(GpuError::NoAdapter { driver_files: std::env::var("VK_DRIVER_FILES").ok() });
    }
    let asked = options.adapter.as_deref().unwrap_or_default();
    let fits = |name: &str| name.to_lowercase().contains(&asked.to_lowercase());
    let best = found.iter().enumerate().filter(|(_, (name, _))| fits(name)).min_by_key(|(_, a)| a.1);
    match best {
        None => Err(GpuError::AdapterNotFound {
            asked: asked.to_owned(),
            found: found.iter().map(|(name, kind)| format!("{name} ({kind})")).collect(),
        }),
        Some((_, (name, AdapterKind::Software))) if !options.allow_software => {
            Err(GpuError::SoftwareRefused { name: name.clone() })
        }
        Some((index, _)) => Ok(index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> Vec<(String, AdapterKind)> {
        [
            ("llvmpipe", AdapterKind::Software),
            ("NVIDIA Tegra Orin", AdapterKind::Integrated),
            ("RTX", AdapterKind::Discrete),
        ]
        .map(|(name, kind)| (name.to_owned(), kind))
        .into()
    }

    #[test]
    fn hardware_is_preferred_also_where_software_is_allowed() {
        let options = GpuOptions { allow_software: true, ..GpuOptions::default() };
        assert_eq!(choose(&found(), &options), Ok(2), "discrete first");
        assert_eq!(choose(&found()[..2], &options), Ok(1), "then integrated");
        assert_eq!(choose(&found()[..1], &options), Ok(0), "software last");
    }

    #[test]
    fn a_name_picks_by_part_and_without_case() {
        let named = |name: &str| GpuOptions { adapter: Some(name.to_owned()), ..GpuOptions::default() };
        assert_eq!(choose(&found(), &named("ORIN")), Ok(1));
        let refused = GpuError::SoftwareRefused { name: "llvmpipe".to_owned() };
        assert_eq!(choose(&found(), &named("llvm")), Err(refused), "a name is no permission");
    }
}
