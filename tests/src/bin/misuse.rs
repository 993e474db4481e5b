//! Misuses Vulkan on purpose: `tools/validate` runs it to see that the validation layer is there and reports.
//!
//! `misuse core` records a dispatch without a pipeline, `misuse sync` two writes to one buffer without a barrier between
//! them; neither is submitted. `misuse bounds` dispatches a kernel that writes past its binding, into the buffer that the
//! binding is a part of.

use std::error::Error;

use ash::vk;
use fathom::gpu::{Commands, Dispatch, Gpu, GpuOptions, Slot, Work};
use fathom_shaders::{BindingKind, Shader};

type Outcome = Result<(), Box<dyn Error>>;

/// Writes as many words as it has invocations.
static WRITE: Shader = Shader {
    name: "misuse_write",
    wgsl: "
        struct Params { value: u32 }
        @group(0) @binding(0) var<uniform> params: Params;
        @group(0) @binding(1) var<storage, read_write> y: array<u32>;
        @compute @workgroup_size(64)
        fn main(@builtin(global_invocation_id) id: vec3<u32>) { y[id.x] = params.value; }",
    workgroup_size: [64, 1, 1],
    bindings: &[BindingKind::Uniform, BindingKind::ReadWrite],
};

/// 64 invocations on a binding of 16 words.
fn bounds() -> Outcome {
    let mut gpu = Gpu::open(&GpuOptions { allow_software: true, ..GpuOptions::default() })?;
    let buffer = gpu.create_buffer("more than the binding", 4096)?;
    let dispatch = Dispatch {
        shader: &WRITE,
        params: 7_u32.to_ne_bytes().to_vec(),
        slots: vec![Slot { buffer, offset: 0, bytes: 64 }],
        workgroups: [1, 1, 1],
        stage: 0,
        work: Work::default(),
    };
    let commands = Commands { label: "misuse".into(), stages: vec!["write".into()], dispatches: vec![dispatch] };
    let list = gpu.prepare(&commands)?;
    gpu.submit(&[&list], &[], &mut [])?;
    Ok(())
}

/// A device with what is recorded on it, none of which is submitted.
struct Vulkan {
    _entry: ash::Entry,
    instance: ash::Instance,
    physical: vk::PhysicalDevice,
    device: ash::Device,
    pool: vk::CommandPool,
    commands: vk::CommandBuffer,
}

impl Vulkan {
    fn new() -> Result<Vulkan, Box<dyn Error>> {
        // SAFETY: every handle is used with its own parent, and everything that a structure points to lives until its call
        // returns.
        unsafe {
            let entry = ash::Entry::load()?;
            let application = vk::ApplicationInfo::default().api_version(vk::API_VERSION_1_1);
            let instance =
                entry.create_instance(&vk::InstanceCreateInfo::default().application_info(&application), None)?;
            let physical = instance.enumerate_physical_devices()?.first().copied().ok_or("no Vulkan device")?;
            let queues = [vk::DeviceQueueCreateInfo::default().queue_family_index(0).queue_priorities(&[1.0])];
            let device = vk::DeviceCreateInfo::default().queue_create_infos(&queues);
            let device = instance.create_device(physical, &device, None)?;
            let pool = device.create_command_pool(&vk::CommandPoolCreateInfo::default(), None)?;
            let allocation = vk::CommandBufferAllocateInfo::default().command_pool(pool).command_buffer_count(1);
            let commands = device.allocate_command_buffers(&allocation)?.first().copied().ok_or("no command buffer")?;
            device.begin_command_buffer(commands, &vk::CommandBufferBeginInfo::default())?;
            Ok(Vulkan { _entry: entry, instance, physical, device, pool, commands })
        }
    }

    fn core(&self) {
        // SAFETY: not as Vulkan wants it, which is the purpose. The commands are never executed.
        unsafe { self.device.cmd_dispatch(self.commands, 1, 1, 1) };
    }

    fn sync(&self) -> Outcome {
        // SAFETY: handles of this device. That the two writes are not ordered is the purpose; they are never executed.
        unsafe {
            let info = vk::BufferCreateInfo::default().size(256).usage(vk::BufferUsageFlags::TRANSFER_DST);
            let buffer = self.device.create_buffer(&info, None)?;
            let needs = self.device.get_buffer_memory_requirements(buffer);
            let types = self.instance.get_physical_device_memory_properties(self.physical).memory_type_count;
            let kind = (0..types).find(|kind| needs.memory_type_bits & (1 << kind) != 0).ok_or("no memory")?;
            let info = vk::MemoryAllocateInfo::default().allocation_size(needs.size).memory_type_index(kind);
            let memory = self.device.allocate_memory(&info, None)?;
            self.device.bind_buffer_memory(buffer, memory, 0)?;
            self.device.cmd_fill_buffer(self.commands, buffer, 0, 256, 1);
            self.device.cmd_fill_buffer(self.commands, buffer, 0, 256, 2);
            self.device.reset_command_pool(self.pool, vk::CommandPoolResetFlags::empty())?;
            self.device.destroy_buffer(buffer, None);
            self.device.free_memory(memory, None);
        }
        Ok(())
    }
}

impl Drop for Vulkan {
    fn drop(&mut self) {
        // SAFETY: nothing was submitted, and nothing of the device is used after this.
        unsafe {
            self.device.destroy_command_pool(self.pool, None);
            self.device.destroy_device(None);
            self.instance.destroy_instance(None);
        }
    }
}

fn main() -> Outcome {
    match std::env::args().nth(1).as_deref() {
        Some("core") => Vulkan::new()?.core(),
        Some("sync") => Vulkan::new()?.sync()?,
        Some("bounds") => bounds()?,
        _ => return Err("expected core, sync or bounds".into()),
    }
    Ok(())
}
