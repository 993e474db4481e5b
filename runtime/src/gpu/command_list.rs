//! The work of one inference as plain data, and its checked, replayable form.

use std::ops::AddAssign;
use std::sync::Arc;

use fathom_shaders::{BindingKind, Shader};

use super::buffer::{BufferId, creation_error};
use super::context::Gpu;
use super::error::GpuError;
use super::kernel::check_limit;

/// Parameters of each dispatch start at a multiple of this, the largest alignment of all adapters.
const PARAMS_ALIGN: u64 = 256;
/// Sizes of uniforms are rounded up to this, as WGSL does.
const UNIFORM_ALIGN: u64 = 16;

/// A range of a buffer that a dispatch reads or writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// The buffer.
    pub buffer: BufferId,
    /// First byte, a multiple of [`AdapterInfo::slot_alignment`](super::AdapterInfo::slot_alignment);
    /// 256 is a multiple of it everywhere.
    pub offset: u64,
    /// Length in bytes, at most [`AdapterInfo::max_binding_bytes`](super::AdapterInfo::max_binding_bytes).
    pub bytes: u64,
}

/// Operations and bytes of one or several dispatches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Operations of matrix products, attention and convolutions: two for each multiplication with its addition.
    pub flops: u64,
    /// Bytes of weights that are read, each once a dispatch.
    pub weight_bytes: u64,
    /// Bytes of everything else that is read or written, each once a dispatch.
    pub activation_bytes: u64,
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Work) {
        self.flops += other.flops;
        self.weight_bytes += other.weight_bytes;
        self.activation_bytes += other.activation_bytes;
    }
}

/// One run of a kernel.
#[derive(Clone)]
pub struct Dispatch {
    /// The kernel.
    pub shader: &'static Shader,
    /// Its parameters, with the layout of its WGSL uniform.
    pub params: Vec<u8>,
    /// One range for each of its storage bindings, in their order.
    pub slots: Vec<Slot>,
    /// Number of workgroups in x, y and z.
    pub workgroups: [u32; 3],
    /// Index into [`Commands::stages`].
    pub stage: u16,
    /// Its work, for reports.
    pub work: Work,
}

/// A list of dispatches, executed in order; each sees all writes of the ones before.
///
/// Consecutive dispatches of one stage form one compute pass, the unit of
/// [`StageTime`](super::StageTime).
#[derive(Clone, Default)]
pub struct Commands {
    /// Name of the list, for messages.
    pub label: String,
    /// Names of the stages.
    pub stages: Vec<String>,
    /// The dispatches.
    pub dispatches: Vec<Dispatch>,
}

/// One dispatch with all of its wgpu objects.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) kernel: &'static str,
    pub(super) stage: u16,
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) bind_group: wgpu::BindGroup,
    pub(super) workgroups: [u32; 3],
}

/// A checked [`Commands`] list with its bind groups and parameters, ready to be replayed on the
/// [`Gpu`] that prepared it.
#[derive(Debug)]
pub struct CommandList {
    /// [`Gpu::id`] of the GPU that made the bind groups.
    pub(super) gpu: u64,
    pub(super) label: String,
    pub(super) stages: Vec<Arc<str>>,
    pub(super) steps: Vec<Step>,
}

impl CommandList {
    /// Number of dispatches.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether there are no dispatches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Groups of consecutive dispatches of one stage.
    pub(super) fn passes(&self) -> impl Iterator<Item = &[Step]> {
        self.steps.chunk_by(|a, b| a.stage == b.stage)
    }

    /// Name of the stage of a pass.
    pub(super) fn stage_of(&self, pass: &[Step]) -> Arc<str> {
        let stage = pass.first().and_then(|step| self.stages.get(usize::from(step.stage)));
        stage.map_or_else(|| "".into(), Arc::clone)
    }
}

impl Gpu {
    /// Checks every dispatch of `commands` and makes all objects for its replay: pipelines, one buffer with all
    /// parameters, bind groups.
    ///
    /// [`GpuError::Bindings`], [`GpuError::MixedAccess`], [`GpuError::UnknownBuffer`], [`GpuError::UnknownStage`],
    /// [`GpuError::OutOfBuffer`], [`GpuError::Misaligned`] and [`GpuError::Limit`] for a dispatch that does not match
    /// its kernel, its buffers or the adapter; [`GpuError::Pipeline`] for a kernel that the driver rejects;
    /// [`GpuError::Validation`] for errors that only wgpu finds, such as too short parameters.
    pub fn prepare(&mut self, commands: &Commands) -> Result<CommandList, GpuError> {
        self.check()?;
        for (index, dispatch) in commands.dispatches.iter().enumerate() {
            let what = format!("{} dispatch {index} ({})", commands.label, dispatch.shader.name);
            self.check_dispatch(&what, dispatch)?;
            if usize::from(dispatch.stage) >= commands.stages.len() {
                let (stage, stages) = (dispatch.stage, commands.stages.len());
                return Err(GpuError::UnknownStage { what, stage, stages });
            }
        }
        for dispatch in &commands.dispatches {
            self.make_kernel(dispatch.shader)?;
        }
        let params = self.params_buffer(commands)?;
        let mut at = 0;
        let mut steps = Vec::with_capacity(commands.dispatches.len());
        for dispatch in &commands.dispatches {
            let bytes = uniform_bytes(dispatch);
            let uniform = binding(&params, at, bytes);
            at += bytes.next_multiple_of(PARAMS_ALIGN);
            steps.push(self.bind(dispatch, uniform)?);
        }
        let stages = commands.stages.iter().map(|name| name.as_str().into()).collect();
        let list = CommandList { gpu: self.id, label: commands.label.clone(), stages, steps };
        self.rehearse(&list)?;
        Ok(list)
    }

    /// Checks a dispatch against its kernel, its buffers and the adapter.
    fn check_dispatch(&self, what: &str, dispatch: &Dispatch) -> Result<(), GpuError> {
        let kinds = dispatch.shader.bindings.get(1..).unwrap_or_default();
        if kinds.len() != dispatch.slots.len() {
            let (expected, found) = (kinds.len(), dispatch.slots.len());
            return Err(GpuError::Bindings { kernel: what.to_owned(), expected, found });
        }
        for (axis, count) in ["x", "y", "z"].iter().zip(dispatch.workgroups) {
            let limit = self.info.max_workgroups.into();
            check_limit(|| format!("{what}: number of workgroups in {axis}"), count.into(), limit)?;
        }
        let limit = self.limits.max_uniform_buffer_binding_size;
        check_limit(|| format!("{what}: bytes of parameters"), uniform_bytes(dispatch), limit)?;
        for (binding, slot) in (1..).zip(&dispatch.slots) {
            let place = format!("{what} binding {binding}");
            let limit = self.info.max_binding_bytes;
            check_limit(|| format!("{place}: bytes bound"), slot.bytes, limit)?;
            let align = self.info.slot_alignment;
            self.check_range(&place, slot.buffer, slot.offset, slot.bytes, align)?;
            let (label, buffer) = self.buffer(&place, slot.buffer)?;
            if slot.bytes == 0 {
                let (offset, bytes, size) = (slot.offset, 0, buffer.size());
                return Err(GpuError::OutOfBuffer { what: place, offset, bytes, size });
            }
            let written = |kind: &BindingKind| matches!(kind, BindingKind::ReadWrite);
            let mine = kinds.get(binding - 1).is_some_and(written);
            let earlier = dispatch.slots.iter().zip(kinds).take(binding - 1);
            if earlier.into_iter().any(|(s, k)| s.buffer == slot.buffer && written(k) != mine) {
                let (kernel, buffer) = (what.to_owned(), label.to_owned());
                return Err(GpuError::MixedAccess { kernel, binding, buffer });
            }
        }
        Ok(())
    }

    /// One buffer with the parameters of all dispatches, each at a multiple of [`PARAMS_ALIGN`].
    fn params_buffer(&mut self, commands: &Commands) -> Result<wgpu::Buffer, GpuError> {
        let mut bytes = Vec::new();
        for dispatch in &commands.dispatches {
            bytes.extend_from_slice(&dispatch.params);
            let whole = dispatch.params.len().max(1).next_multiple_of(PARAMS_ALIGN as usize);
            bytes.resize(bytes.len() + whole - dispatch.params.len(), 0);
        }
        let label = format!("parameters of {}", commands.label);
        let usage = wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST;
        let buffer = self.raw_buffer(&label, bytes.len() as u64, usage, false)?;
        if !bytes.is_empty() {
            self.scoped(
                |_| self.queue.write_buffer(&buffer, 0, &bytes),
                |e| creation_error(&label, bytes.len() as u64, e),
            )?;
        }
        Ok(buffer)
    }

    /// The bind group of a dispatch, with its pipeline.
    fn bind(&mut self, dispatch: &Dispatch, uniform: wgpu::BindingResource<'_>) -> Result<Step, GpuError> {
        let name = dispatch.shader.name;
        let mut resources = vec![uniform];
        for slot in &dispatch.slots {
            let (_, buffer) = self.buffer(name, slot.buffer)?;
            resources.push(binding(buffer, slot.offset, slot.bytes.next_multiple_of(4)));
        }
        let entries: Vec<_> =
            (0..).zip(resources).map(|(binding, resource)| wgpu::BindGroupEntry { binding, resource }).collect();
        let Some(kernel) = self.kernels.get(name) else {
            let message = "not prepared".to_owned();
            return Err(GpuError::Pipeline { kernel: name.to_owned(), message });
        };
        let descriptor = wgpu::BindGroupDescriptor { label: Some(name), layout: &kernel.layout, entries: &entries };
        let bind_group = self.scoped(
            |device| device.create_bind_group(&descriptor),
            |e| creation_error(&format!("bindings of {name}"), 0, e),
        )?;
        self.counts.bind_groups += 1;
        let (stage, workgroups) = (dispatch.stage, dispatch.workgroups);
        Ok(Step { kernel: name, stage, pipeline: kernel.pipeline.clone(), bind_group, workgroups })
    }
}

/// Bytes of the uniform of `dispatch`.
fn uniform_bytes(dispatch: &Dispatch) -> u64 {
    (dispatch.params.len() as u64).max(1).next_multiple_of(UNIFORM_ALIGN)
}

fn binding(buffer: &wgpu::Buffer, offset: u64, bytes: u64) -> wgpu::BindingResource<'_> {
    wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: std::num::NonZeroU64::new(bytes) })
}
