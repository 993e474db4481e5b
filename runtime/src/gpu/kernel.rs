//! wgpu's side of a kernel: one pipeline and its binding layout per shader.

use std::time::Instant;

use fathom_shaders::{BindingKind, Shader};

use super::context::Gpu;
use super::error::GpuError;

/// A shader with its pipeline.
#[derive(Debug)]
pub(super) struct Kernel {
    wgsl: &'static str,
    pub(super) pipeline: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
}

impl Gpu {
    /// Makes the pipeline of `shader` as [`prepare`](Self::prepare) does, so that the driver compiles it.
    ///
    /// # Errors
    /// [`GpuError::Pipeline`] for a rejected kernel, [`GpuError::Limit`] beyond the adapter's limits.
    pub fn compile(&mut self, shader: &'static Shader) -> Result<(), GpuError> {
        self.make_kernel(shader)
    }

    /// Makes the pipeline of `shader` unless it exists. Names identify shaders.
    pub(super) fn make_kernel(&mut self, shader: &'static Shader) -> Result<(), GpuError> {
        match self.kernels.get(shader.name) {
            Some(kernel) if kernel.wgsl == shader.wgsl => return Ok(()),
            Some(_) => {
                let message = "another shader has the same name".to_owned();
                return Err(GpuError::Pipeline { kernel: shader.name.to_owned(), message });
            }
            None => {}
        }
        self.check_shader(shader)?;
        let broken = self.broken.as_ref().is_some_and(|part| shader.name.contains(part.as_str()));
        let wgsl = if broken { "@compute @workgroup_size(1) fn main() {}" } else { shader.wgsl };
        let begin = Instant::now();
        let cached = self.cache.as_mut().is_some_and(|cache| cache.knows(shader.name));
        let cache = self.cache.as_ref().map(|cache| &cache.raw);
        let kernel = self.scoped(
            |device| build(device, shader, wgsl, self.info.checked, cache),
            |e| GpuError::Pipeline { kernel: shader.name.to_owned(), message: e.to_string() },
        )?;
        self.counts.pipelines += 1;
        self.counts.cached_pipelines += u64::from(cached);
        tracing::debug!(kernel = shader.name, cached, milliseconds = begin.elapsed().as_secs_f64() * 1e3, "pipeline");
        self.kernels.insert(shader.name, kernel);
        Ok(())
    }

    /// Writes new pipelines to the cache on disk, if there is one.
    pub fn save_pipelines(&mut self) {
        if let Some(cache) = &mut self.cache {
            cache.save();
        }
    }

    /// Checks a kernel's requirements against the adapter.
    fn check_shader(&self, shader: &Shader) -> Result<(), GpuError> {
        if !matches!(shader.bindings, [BindingKind::Uniform, rest @ ..] if rest.iter().all(is_storage)) {
            let message = "binding 0 must be the uniform, and the only one".to_owned();
            return Err(GpuError::Pipeline { kernel: shader.name.to_owned(), message });
        }
        let [x, y, z] = shader.workgroup_size;
        let limits = &self.limits;
        let storage = shader.bindings.len() as u64 - 1;
        let invocations = [x, y, z].iter().map(|n| u64::from(*n)).product();
        for (what, asked, limit) in [
            ("workgroup size x", x.into(), limits.max_compute_workgroup_size_x),
            ("workgroup size y", y.into(), limits.max_compute_workgroup_size_y),
            ("workgroup size z", z.into(), limits.max_compute_workgroup_size_z),
            ("workgroup size", invocations, limits.max_compute_invocations_per_workgroup),
            ("number of storage bindings", storage, limits.max_storage_buffers_per_shader_stage),
        ] {
            check_limit(|| format!("{what} of kernel {}", shader.name), asked, limit.into())?;
        }
        Ok(())
    }
}

/// Whether a binding is a storage buffer.
fn is_storage(kind: &BindingKind) -> bool {
    !matches!(kind, BindingKind::Uniform)
}

/// Fails where `asked` is more than `limit`.
pub(super) fn check_limit(what: impl FnOnce() -> String, asked: u64, limit: u64) -> Result<(), GpuError> {
    if asked > limit {
        return Err(GpuError::Limit { what: what(), asked, limit });
    }
    Ok(())
}

/// The pipeline of `shader`, whose WGSL is `wgsl`.
fn build(
    device: &wgpu::Device,
    shader: &'static Shader,
    wgsl: &'static str,
    checked: bool,
    cache: Option<&wgpu::PipelineCache>,
) -> Kernel {
    let source =
        wgpu::ShaderModuleDescriptor { label: Some(shader.name), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
    let module = if checked {
        device.create_shader_module(source)
    } else {
        let checks = wgpu::ShaderRuntimeChecks::unchecked();
        // SAFETY: kernels are Fathom's own and stay inside slots of the sizes that their parameters give; `prepare`
        // checks that every slot is within its buffer, and the tests run the same kernels with all checks on.
        unsafe { device.create_shader_module_trusted(source, checks) }
    };
    let entries: Vec<_> = (0..)
        .zip(shader.bindings)
        .map(|(binding, kind)| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty: match kind {
                    BindingKind::Uniform => wgpu::BufferBindingType::Uniform,
                    BindingKind::Read => wgpu::BufferBindingType::Storage { read_only: true },
                    BindingKind::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
                },
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        })
        .collect();
    let layout = device
        .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(shader.name), entries: &entries });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(shader.name),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(shader.name),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &[],
            zero_initialize_workgroup_memory: checked,
        },
        cache,
    });
    Kernel { wgsl: shader.wgsl, pipeline, layout }
}
