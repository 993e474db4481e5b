//! Values, times and counts of what is uploaded, run and downloaded.

use fathom::clock::monotonic_ns;
use fathom::gpu::{BufferId, Download, Slot, Upload};

use crate::{BYTES, N, chain, commands, floats, open};

#[test]
fn values_are_right_checked_and_unchecked() {
    let a = floats(1.25);
    let expected: Vec<f32> = a.iter().zip(floats(0.5)).map(|(a, w)| (a + 2.0 * w) + 3.0 * w).collect();
    for checked in [false, true] {
        assert_eq!(chain(checked).run(&a).expect("run"), expected, "checked: {checked}");
    }
}

#[test]
fn replays_make_nothing_and_repeat_to_the_bit() {
    let mut chain = chain(false);
    let first = chain.run(&floats(0.1)).expect("first");
    let counts = chain.gpu.counts();
    assert_eq!((counts.pipelines, counts.bind_groups), (1, 2), "two dispatches of one kernel");
    for _ in 0..3 {
        assert_eq!(chain.run(&floats(0.1)).expect("again"), first);
    }
    assert_eq!(chain.gpu.counts(), counts);
}

#[test]
fn command_lists_of_one_submission_run_in_order() {
    let mut chain = chain(false);
    let slot = |index: u64| Slot { buffer: chain.arena, offset: index * BYTES, bytes: BYTES };
    let mut accumulate = commands(chain.arena, BufferId::new(0));
    accumulate.dispatches.truncate(1);
    accumulate.dispatches[0].slots[1..].copy_from_slice(&[slot(2), slot(2)]);
    let accumulate = chain.gpu.prepare(&accumulate).expect("in place");
    let mut c = vec![0f32; N];
    let into = bytemuck::cast_slice_mut(&mut c);
    let lists = [&chain.list, &accumulate, &accumulate];
    let download = Download { buffer: chain.arena, offset: 2 * BYTES, into };
    chain.gpu.submit(&lists, &[], &mut [download]).expect("submit");
    let expected: Vec<f32> = floats(0.5).iter().map(|w| 9.0 * w).collect();
    assert_eq!(c, expected, "a is zero: 2 + 3 + 2 + 2");
}

#[test]
fn odd_lengths_arrive_and_leave_neighbours_alone() {
    let mut gpu = open(false);
    let buffer = gpu.create_buffer("bytes", 64).expect("buffer");
    gpu.upload(buffer, 0, &[9; 16]).expect("fill");
    gpu.upload(buffer, 4, &[1, 2, 3, 4, 5, 6]).expect("upload");
    let mut bytes = [0; 13];
    let upload = Upload { buffer, offset: 0, bytes: &[7] };
    let download = Download { buffer, offset: 0, into: &mut bytes };
    gpu.submit(&[], &[upload], &mut [download]).expect("submit");
    assert_eq!(bytes, [7, 0, 0, 0, 1, 2, 3, 4, 5, 6, 0, 0, 9]);
}

#[test]
fn large_uploads_arrive_whole() {
    let mut gpu = open(false);
    let bytes: Vec<u8> = (0..50_000_003u32).map(|i| (i ^ (i >> 8)) as u8).collect();
    let buffer = gpu.create_buffer("large", bytes.len() as u64).expect("buffer");
    gpu.upload(buffer, 0, &bytes).expect("upload");
    gpu.flush().expect("flush");
    let mut back = vec![0; bytes.len()];
    gpu.submit(&[], &[], &mut [Download { buffer, offset: 0, into: &mut back }]).expect("download");
    assert!(bytes == back, "50 MB come back as they were");
}

/// The GPU's stages lie on the host's clock between asking for them and having their outputs.
#[test]
fn stages_are_placed_on_the_hosts_clock() {
    for checked in [false, true] {
        let mut chain = chain(checked);
        let before_ns = monotonic_ns();
        let times = chain.gpu.submit(&[&chain.list], &[], &mut []).expect("submit");
        let after_ns = monotonic_ns();
        let h = times.host;
        let parts = [before_ns, h.began_ns, h.filled_ns, h.submitted_ns, h.done_ns, h.read_ns, after_ns];
        assert!(parts.is_sorted(), "{parts:?}");
        let Some(last) = times.stages.last() else { continue };
        let (begin_ns, end_ns) = (times.origin.ns, times.origin.ns + last.start_ns + last.ns);
        let error_ns = times.origin.error_ns;
        println!("the GPU's clock is known within {error_ns} ns (checked: {checked})");
        assert!(begin_ns + error_ns >= h.filled_ns && end_ns <= h.done_ns + error_ns, "{times:?}");
    }
}

#[test]
fn times_follow_each_other() {
    let mut chain = chain(false);
    let times = chain.gpu.submit(&[&chain.list], &[], &mut []).expect("submit");
    let profile = chain.gpu.profile(&[&chain.list], &[], &mut []).expect("profile");
    if !chain.gpu.info().timestamps {
        assert!(times.stages.is_empty() && profile.kernels.is_empty());
        return;
    }
    let names: Vec<_> = times.stages.iter().map(|s| &*s.stage).collect();
    assert_eq!(names, ["first", "second"]);
    assert!(times.kernels.is_empty(), "one pass per stage");
    assert_eq!(times.stages[0].start_ns, 0);
    assert!(times.stages.iter().all(|s| s.ns > 0), "{times:?}");
    assert!(times.stages[1].start_ns >= times.stages[0].ns, "{times:?}");
    assert_eq!(profile.stages.len(), 2);
    let kernels: Vec<_> = profile.kernels.iter().map(|k| (k.kernel, &*k.stage)).collect();
    assert_eq!(kernels, [("test_add", "first"), ("test_add", "second")]);
    assert!(profile.kernels[1].start_ns >= profile.kernels[0].ns, "{profile:?}");
}
