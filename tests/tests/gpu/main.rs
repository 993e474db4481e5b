//! The GPU layer and every kernel on a real adapter, be it software.

#![expect(clippy::expect_used, reason = "a set-up that fails is a test that fails")]

mod adapter;
mod cache;
mod faults;
mod kernels;
mod replay;
mod resize;

use fathom::gpu::{BufferId, Commands, Dispatch, Download, Gpu, GpuError, GpuOptions, Recording, Slot, Upload};
use fathom_shaders::{BindingKind, Shader};

/// `y[i] = x[i] + params.scale * w[i]` without a bounds check of its own.
static ADD: Shader = Shader {
    name: "test_add",
    wgsl: "
        struct Params { scale: f32 }
        @group(0) @binding(0) var<uniform> params: Params;
        @group(0) @binding(1) var<storage, read> w: array<f32>;
        @group(0) @binding(2) var<storage, read_write> x: array<f32>;
        @group(0) @binding(3) var<storage, read_write> y: array<f32>;
        @compute @workgroup_size(64)
        fn main(@builtin(global_invocation_id) id: vec3<u32>) {
            let i = id.x;
            y[i] = x[i] + params.scale * w[i];
        }",
    workgroup_size: [64, 1, 1],
    bindings: &[BindingKind::Uniform, BindingKind::Read, BindingKind::ReadWrite, BindingKind::ReadWrite],
    half: None,
};

/// Values per array.
const N: usize = 256;
/// Bytes of one array.
const BYTES: u64 = (N * size_of::<f32>()) as u64;

fn open(checked: bool) -> Gpu {
    let options = GpuOptions { allow_software: true, timestamps: true, checked, ..GpuOptions::default() };
    Gpu::open(&options).expect("an adapter, be it software")
}

fn floats(scale: f32) -> Vec<f32> {
    (0..N).map(|i| i as f32 * scale - 7.0).collect()
}

/// Three arrays in one buffer, computed from each other and from the weights.
struct Chain {
    gpu: Gpu,
    arena: BufferId,
    recording: Recording,
}

/// `b = a + 2 w` and then `c = b + 3 w` in stages of their own.
fn commands(arena: BufferId, weights: BufferId) -> Commands {
    let slot = |buffer, index: u64| Slot { buffer, offset: index * BYTES, bytes: BYTES };
    let dispatch = |stage: u16, scale: f32, from: u64| Dispatch {
        shader: &ADD,
        params: bytemuck::bytes_of(&scale).to_vec(),
        slots: vec![slot(weights, 0), slot(arena, from), slot(arena, from + 1)],
        workgroups: [(N / 64) as u32, 1, 1],
        stage,
    };
    Commands {
        label: "chain".into(),
        stages: vec!["first".into(), "second".into()],
        dispatches: vec![dispatch(0, 2.0, 0), dispatch(1, 3.0, 1)],
    }
}

fn chain(checked: bool) -> Chain {
    let mut gpu = open(checked);
    let weights = gpu.create_buffer("weights", BYTES).expect("weights");
    let arena = gpu.create_buffer("arena", 4 * BYTES).expect("arena");
    gpu.upload(weights, 0, bytemuck::cast_slice(&floats(0.5))).expect("upload");
    let recording = gpu.prepare(&commands(arena, weights)).expect("prepare");
    Chain { gpu, arena, recording }
}

impl Chain {
    /// The third array for a given first one.
    fn run(&mut self, a: &[f32]) -> Result<Vec<f32>, GpuError> {
        let mut c = vec![0f32; N];
        let upload = Upload { buffer: self.arena, offset: 0, bytes: bytemuck::cast_slice(a) };
        let into = bytemuck::cast_slice_mut(&mut c);
        let download = Download { buffer: self.arena, offset: 2 * BYTES, into };
        self.gpu.submit(&[&self.recording], &[upload], &mut [download])?;
        Ok(c)
    }
}
