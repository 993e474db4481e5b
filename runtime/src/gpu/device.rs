//! Opens the device: through wgpu with checks, otherwise through wgpu-hal with robust buffer access off.

use ash::vk;
use wgpu::hal::vulkan as hal;

use super::error::GpuError;

/// A device with all limits of `adapter`, and its queue.
pub(super) fn open(
    adapter: &wgpu::Adapter,
    features: wgpu::Features,
    checked: bool,
) -> Result<(wgpu::Device, wgpu::Queue), GpuError> {
    let failed = |message: String| GpuError::Open { adapter: adapter.get_info().name, message };
    let descriptor = wgpu::DeviceDescriptor {
        label: Some("fathom"),
        required_features: features,
        required_limits: adapter.limits(),
        // SAFETY: experimental features may be faulty: the self-test compares kernels that use them with their CPU
        // twins before their first use (`engine/self_test.rs`).
        experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
        // Few large buffers: small allocations do not need large blocks.
        memory_hints: wgpu::MemoryHints::MemoryUsage,
        trace: wgpu::Trace::Off,
    };
    if checked {
        let device = pollster::block_on(adapter.request_device(&descriptor));
        return device.map_err(|e| failed(e.to_string()));
    }
    let open = open_unchecked(adapter, &descriptor).map_err(failed)?;
    // SAFETY: `open` was made from this adapter, with the features and limits of `descriptor`.
    unsafe { adapter.create_device_from_hal::<hal::Api>(open, &descriptor) }.map_err(|e| failed(e.to_string()))
}

/// Bytes of the adapter's largest heap of its own.
pub(super) fn heap_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the adapter behind the guard is only read from; it is not destroyed.
    let adapter = unsafe { adapter.as_hal::<hal::Api>() }?;
    let instance = adapter.shared_instance().raw_instance();
    // SAFETY: the physical device belongs to this instance, which the adapter keeps alive.
    let memory = unsafe { instance.get_physical_device_memory_properties(adapter.raw_physical_device()) };
    let heaps = memory.memory_heaps.iter().take(memory.memory_heap_count as usize);
    heaps.filter(|h| h.flags.contains(vk::MemoryHeapFlags::DEVICE_LOCAL)).map(|h| h.size).max()
}

/// A Vulkan device as wgpu would open it, but with `robustBufferAccess` and `robustBufferAccess2` off.
///
/// wgpu turns both on without a way to refuse, and the driver then adds a bounds check to every
/// access, which costs several times the cycles of the unchecked kernel on Orin's instruction set.
fn open_unchecked(
    adapter: &wgpu::Adapter,
    descriptor: &wgpu::DeviceDescriptor<'_>,
) -> Result<wgpu::hal::OpenDevice<hal::Api>, String> {
    // SAFETY: the adapter behind the guard is only read from; it is not destroyed.
    let adapter = unsafe { adapter.as_hal::<hal::Api>() }.ok_or("not a Vulkan adapter")?;
    let features = descriptor.required_features;
    let extensions = adapter.required_device_extensions(features);
    let mut names: Vec<_> = extensions.iter().map(|name| name.as_ptr()).collect();
    // wgpu does not request it, and is not affected by it.
    if super::clock::is_offered(&adapter) {
        names.push(super::clock::EXTENSION.as_ptr());
    }
    let mut wanted = adapter.physical_device_features(&extensions, features);
    let core = vk::PhysicalDeviceFeatures { robust_buffer_access: vk::FALSE, ..wanted.get_core() };

    // wgpu-hal 30 itself always uses queue 0 of family 0.
    let (family, queue) = (0, 0);
    let priorities = [1.0];
    let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(family).queue_priorities(&priorities)];
    let info = vk::DeviceCreateInfo::default().queue_create_infos(&queues).enabled_extension_names(&names);
    let info = wanted.add_to_device_create(info).enabled_features(&core);

    let mut next = info.p_next.cast::<vk::BaseOutStructure<'_>>().cast_mut();
    while !next.is_null() {
        // SAFETY: the chain consists of the feature structures inside `wanted`, which wgpu-hal
        // linked through `&mut` references; `wanted` is borrowed mutably for as long as `info`
        // lives, so nothing else refers to them. Every Vulkan structure begins with its type and
        // the next pointer, and the type says which structure it is.
        unsafe {
            if (*next).s_type == vk::StructureType::PHYSICAL_DEVICE_ROBUSTNESS_2_FEATURES_EXT {
                let robustness2 = next.cast::<vk::PhysicalDeviceRobustness2FeaturesEXT<'_>>();
                (*robustness2).robust_buffer_access2 = vk::FALSE;
            }
            next = (*next).p_next;
        }
    }

    let instance = adapter.shared_instance().raw_instance();
    // SAFETY: the physical device belongs to this instance, and everything that `info` points to
    // (queues, names, `core`, `wanted`) lives until the call returns.
    let device = unsafe { instance.create_device(adapter.raw_physical_device(), &info, None) }
        .map_err(|e| format!("vkCreateDevice: {e:?}"))?;
    // SAFETY: `device` was just made from this adapter with these extensions, this queue and
    // these features; switching off robust access takes away no operation wgpu-hal uses. Without
    // a drop callback wgpu-hal owns it.
    unsafe {
        adapter.device_from_raw(
            device,
            None,
            &extensions,
            features,
            &descriptor.required_limits,
            &descriptor.memory_hints,
            family,
            queue,
        )
    }
    .map_err(|e| e.to_string())
}
