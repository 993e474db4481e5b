//! Compiled pipelines on disk, and weights in memory that the processor shares.

use std::fs;
use std::path::{Path, PathBuf};

use fathom::gpu::{Counts, Download, Gpu, GpuOptions};

use crate::{BYTES, commands};

/// Prepares the chain's kernel with a cache in `folder`.
fn start(folder: &Path) -> Counts {
    let cache = Some(folder.to_owned());
    let mut gpu = Gpu::open(&GpuOptions { allow_software: true, cache, ..GpuOptions::default() }).expect("an adapter");
    let weights = gpu.create_buffer("weights", BYTES).expect("weights");
    let arena = gpu.create_buffer("arena", 4 * BYTES).expect("arena");
    gpu.prepare(&commands(arena, weights)).expect("prepare");
    gpu.save_pipelines();
    gpu.counts()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).map_or(Vec::new(), |all| all.map(|e| e.expect("an entry").path()).collect())
}

#[test]
fn a_second_start_takes_its_pipelines_from_the_cache() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cache = folder.path().join("made/by/itself");
    assert_eq!((start(&cache).pipelines, start(&cache).pipelines), (1, 1));
    assert_eq!(files(&cache).len(), 1, "one file, and no half one");
    assert_eq!(start(&cache).cached_pipelines, 1);
}

#[test]
fn a_cache_that_cannot_be_used_is_made_anew() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    assert_eq!(start(folder.path()).cached_pipelines, 0, "there is none");
    let file = files(folder.path()).pop().expect("it was written");
    let whole = fs::read(&file).expect("the cache");
    let text = String::from_utf8_lossy(&whole);
    let other_driver = text.find("driver").expect("it names the driver") + 8;
    let flipped = |at: usize| whole.iter().enumerate().map(|(i, b)| b ^ u8::from(i == at)).collect::<Vec<u8>>();
    for (what, bytes) in [
        ("nothing", Vec::new()),
        ("something else", vec![7; 5000]),
        ("half of it", whole[..whole.len() / 2].to_vec()),
        ("another bit in the data", flipped(whole.len() - 1)),
        ("another driver's", flipped(other_driver)),
    ] {
        fs::write(&file, bytes).expect("the file is written");
        let counts = start(folder.path());
        assert_eq!((counts.pipelines, counts.cached_pipelines), (1, 0), "{what}");
        assert_eq!(start(folder.path()).cached_pipelines, 1, "{what}: it was made anew");
    }
    assert_eq!(files(folder.path()).len(), 1, "one file all the time");
}

#[test]
fn a_cache_that_cannot_be_written_is_no_error() {
    let counts = start(Path::new("/dev/null/cache"));
    assert_eq!((counts.pipelines, counts.cached_pipelines), (1, 0));
}

/// Weights arrive whole, mapped or staged, at any offset and length, and what was not written is zero.
#[test]
fn weights_arrive_whole() {
    let mut gpu = crate::open(false);
    let bytes: Vec<u8> = (0..20_000_003u32).map(|i| (i ^ (i >> 7)) as u8).collect();
    let buffer = gpu.create_weights("weights", bytes.len() as u64 + 100).expect("buffer");
    let (first, second) = bytes.split_at(9_000_000);
    gpu.upload(buffer, 12, first).expect("upload");
    gpu.upload(buffer, 12 + first.len() as u64, second).expect("upload");
    gpu.flush().expect("flush");
    gpu.upload(buffer, 0, &[1, 2, 3]).expect("afterwards it is a buffer like any other");
    let mut back = vec![0; bytes.len() + 100];
    gpu.submit(&[], &[], &mut [Download { buffer, offset: 0, into: &mut back }]).expect("download");
    assert!(back[..4] == [1, 2, 3, 0] && back[4..12] == [0; 8] && back[12..][..bytes.len()] == bytes, "as it was");
    assert!(back[12 + bytes.len()..].iter().all(|b| *b == 0), "zeros behind");
}
