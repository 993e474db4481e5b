//! What does not fit is refused, and a GPU that fails is an error.

use std::time::Duration;

use fathom::gpu::{BufferId, Commands, Dispatch, Download, Gpu, GpuError, GpuOptions, Slot, Upload, Work};
use fathom_shaders::{BindingKind, Shader};

use crate::{BYTES, N, chain, commands, floats, open};

/// Keeps the GPU busy for some milliseconds.
static SPIN: Shader = Shader {
    name: "test_spin",
    wgsl: "
        @group(0) @binding(1) var<storage, read_write> y: array<u32>;
        @compute @workgroup_size(64)
        fn main(@builtin(global_invocation_id) id: vec3<u32>) {
            var x = id.x;
            for (var i = 0u; i < 1000000u; i++) { x = x * 1664525u + 1013904223u; }
            y[id.x] = x;
        }",
    workgroup_size: [64, 1, 1],
    bindings: &[BindingKind::Uniform, BindingKind::ReadWrite],
};

/// A shader that is no WGSL.
static BROKEN: Shader = Shader {
    name: "test_broken",
    wgsl: "fn main() { nonsense }",
    workgroup_size: [1, 1, 1],
    bindings: &[BindingKind::Uniform],
};

/// An edit of a command list, and what it does to the error of `prepare`.
type Case = (&'static str, fn(&mut Commands), fn(&GpuError) -> bool);

#[test]
fn misfitting_dispatches_are_refused_with_their_reason() {
    let mut chain = chain(false);
    let cases: &[Case] = &[
        (
            "slot behind its buffer",
            |c| c.dispatches[1].slots[2].offset = 4 * BYTES,
            |e| matches!(e, GpuError::OutOfBuffer { offset, .. } if *offset == 4 * BYTES),
        ),
        (
            "slot past the end",
            |c| c.dispatches[1].slots[2].bytes = 4 * BYTES,
            |e| matches!(e, GpuError::OutOfBuffer { .. }),
        ),
        (
            "slot that overflows",
            |c| c.dispatches[1].slots[2].offset = u64::MAX - 255,
            |e| matches!(e, GpuError::OutOfBuffer { .. }),
        ),
        ("empty slot", |c| c.dispatches[1].slots[2].bytes = 0, |e| matches!(e, GpuError::OutOfBuffer { .. })),
        ("binding too large", |c| c.dispatches[0].slots[0].bytes = u64::MAX, |e| matches!(e, GpuError::Limit { .. })),
        ("odd offset", |c| c.dispatches[0].slots[1].offset = 4, |e| matches!(e, GpuError::Misaligned { .. })),
        (
            "missing slot",
            |c| c.dispatches[0].slots.truncate(2),
            |e| matches!(e, GpuError::Bindings { expected: 3, found: 2, .. }),
        ),
        (
            "read and written",
            |c| c.dispatches[0].slots[0].buffer = BufferId::new(1),
            |e| matches!(e, GpuError::MixedAccess { .. }),
        ),
        (
            "unknown buffer",
            |c| c.dispatches[0].slots[0].buffer = BufferId::new(9),
            |e| matches!(e, GpuError::UnknownBuffer { index: 9, .. }),
        ),
        ("unknown stage", |c| c.dispatches[0].stage = 2, |e| matches!(e, GpuError::UnknownStage { .. })),
        ("too many workgroups", |c| c.dispatches[0].workgroups[1] = u32::MAX, |e| matches!(e, GpuError::Limit { .. })),
        (
            "broken shader",
            |c| (c.dispatches[0].shader, c.dispatches[0].slots) = (&BROKEN, vec![]),
            |e| matches!(e, GpuError::Pipeline { kernel, .. } if kernel == "test_broken"),
        ),
    ];
    for (name, edit, expected) in cases {
        let mut commands = commands(chain.arena, BufferId::new(0));
        edit(&mut commands);
        let error = chain.gpu.prepare(&commands).expect_err(name);
        assert!(expected(&error), "{name}: {error:?}");
    }
    let upload = Upload { buffer: chain.arena, offset: 4 * BYTES - 4, bytes: &[0; 5] };
    let error = chain.gpu.submit(&[], &[upload], &mut []).expect_err("upload");
    assert!(matches!(error, GpuError::OutOfBuffer { .. }), "{error:?}");
    chain.run(&floats(1.0)).expect("and the GPU still works");
}

#[test]
fn too_large_a_buffer_is_refused() {
    let mut gpu = open(false);
    for bytes in [gpu.info().max_buffer_bytes + 1, u64::MAX] {
        let error = gpu.create_buffer("huge", bytes).expect_err("refused");
        assert!(matches!(error, GpuError::Limit { asked, .. } if asked == bytes), "{error:?}");
    }
    gpu.create_buffer("small", 16).expect("and the GPU still works");
}

#[test]
fn a_command_list_belongs_to_its_gpu() {
    let (mut one, two) = (chain(false), chain(false));
    let error = one.gpu.submit(&[&two.list], &[], &mut []).expect_err("refused");
    assert_eq!(error, GpuError::ForeignCommandList { label: "chain".into() });
}

#[test]
fn a_gpu_that_does_not_answer_is_given_up() {
    let timeout = Some(Duration::from_nanos(1));
    let options = GpuOptions { allow_software: true, timeout, ..GpuOptions::default() };
    let mut gpu = Gpu::open(&options).expect("adapter");
    let buffer = gpu.create_buffer("counters", BYTES).expect("buffer");
    let slots = vec![Slot { buffer, offset: 0, bytes: BYTES }];
    let dispatch =
        Dispatch { shader: &SPIN, params: vec![], slots, workgroups: [4, 1, 1], stage: 0, work: Work::default() };
    let commands = Commands { label: "spin".into(), stages: vec!["spin".into()], dispatches: vec![dispatch] };
    let list = gpu.prepare(&commands).expect("prepare");
    let error = gpu.submit(&[&list], &[], &mut []).expect_err("too slow");
    assert!(matches!(error, GpuError::Timeout { .. }), "{error:?}");
    let error = gpu.submit(&[&list], &[], &mut []).expect_err("given up");
    assert!(matches!(error, GpuError::DeviceLost { .. }), "{error:?}");
}

#[test]
fn a_lost_device_stays_lost() {
    let mut chain = chain(false);
    chain.run(&floats(1.0)).expect("works");
    chain.gpu.lose("pulled out");
    let lost = GpuError::DeviceLost { reason: "pulled out".into() };
    assert_eq!(chain.run(&floats(1.0)), Err(lost.clone()));
    assert_eq!(chain.gpu.create_buffer("new", 16), Err(lost.clone()));
    assert_eq!(chain.gpu.flush(), Err(lost.clone()));
    assert_eq!(chain.gpu.upload(chain.arena, 0, &[0; 4]), Err(lost), "for ever");
}

#[test]
fn checked_mode_confines_a_kernel_to_its_slots() {
    let mut chain = chain(true);
    let mut commands = commands(chain.arena, BufferId::new(0));
    commands.dispatches.truncate(1);
    commands.dispatches[0].workgroups[0] *= 2;
    let list = chain.gpu.prepare(&commands).expect("prepare");
    let ones = vec![1f32; N];
    let mut after = vec![0f32; N];
    let upload = Upload { buffer: chain.arena, offset: 2 * BYTES, bytes: bytemuck::cast_slice(&ones) };
    let into = bytemuck::cast_slice_mut(&mut after);
    let download = Download { buffer: chain.arena, offset: 2 * BYTES, into };
    chain.gpu.submit(&[&list], &[upload], &mut [download]).expect("submit");
    assert_eq!(after, ones, "the array behind the one written");
}
