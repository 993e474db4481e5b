use super::super::event::{Kind, Track};
use super::*;

fn event(n: u64) -> Event {
    Event { kind: Kind::Span, track: Track::Gpu, name: (n % 2) as u16, chunk: n as u32, begin_ns: n, value: 3 * n }
}

#[test]
fn a_reader_gets_what_was_written_and_counts_what_it_was_too_slow_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fathom-1.ring");
    let mut writer = RingWriter::create_at(&path, r#"{"a": 1}"#, 8).unwrap();
    assert_eq!((writer.name("vision tower"), writer.name(&"ü".repeat(40))), (0, 1));
    let mut reader = RingReader::open(&path).unwrap();
    assert_eq!((reader.meta().as_str(), reader.pid()), (r#"{"a": 1}"#, std::process::id()));
    (0..5).for_each(|n| writer.push(&event(n)));
    let mut found = Vec::new();
    reader.read(&mut found);
    assert_eq!(found, (0..5).map(event).collect::<Vec<_>>());
    assert_eq!((reader.name(0), reader.name(1), reader.name(2)), ("vision tower", "ü".repeat(31).as_str(), ""));
    (5..25).for_each(|n| writer.push(&event(n)));
    found.clear();
    reader.read(&mut found);
    assert_eq!(found, (17..25).map(event).collect::<Vec<_>>(), "the last eight");
    assert_eq!(reader.lost(), 12);
}

#[test]
fn a_reader_beside_a_fast_writer_never_gets_a_mixed_event() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring");
    let mut writer = RingWriter::create_at(&path, "{}", 4).unwrap();
    let mut reader = RingReader::open(&path).unwrap();
    let (mut found, total) = (Vec::new(), 300_000);
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| (0..total).for_each(|n| writer.push(&event(n))));
        while !thread.is_finished() {
            reader.read(&mut found);
        }
        reader.read(&mut found);
    });
    assert!(found.iter().all(|e| *e == event(e.begin_ns)), "an event that was never written");
    assert!(found.windows(2).all(|w| w[0].begin_ns < w[1].begin_ns), "in order");
    assert_eq!(found.len() as u64 + reader.lost(), total, "each was read or counted");
}

#[test]
fn a_ring_of_another_version_and_a_file_that_is_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ring");
    let writer = RingWriter::create_at(&path, "{}", 4).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[8] = 9;
    let other = folder.path().join("other");
    std::fs::write(&other, &bytes).unwrap();
    let error = RingReader::open(&other).unwrap_err();
    assert!(matches!(error, RingError::Version { found: 9, .. }), "{error}");
    bytes[8] = 1;
    std::fs::write(&other, &bytes[..bytes.len() - 8]).unwrap();
    assert!(matches!(RingReader::open(&other), Err(RingError::Form { .. })), "one slot is short");
    std::fs::write(&other, [0; 9]).unwrap();
    assert!(matches!(RingReader::open(&other), Err(RingError::Form { .. })));
    drop(writer);
    assert!(matches!(RingReader::open(&path), Err(RingError::Io { .. })), "the writer removes it");
}

#[test]
fn a_daemon_is_found_by_its_lock() {
    let folder = tempfile::tempdir().unwrap();
    let attach = |pid| RingReader::attach_in(folder.path(), pid);
    let path = |pid: u32| folder.path().join(format!("fathom-{pid}.ring"));
    assert!(matches!(attach(None), Err(RingError::NoDaemon { stale: 0, .. })));
    let first = RingWriter::create_at(&path(1), "{}", 4).unwrap();
    // A killed daemon leaves the file without its lock.
    std::fs::copy(path(1), path(2)).unwrap();
    assert!(attach(None).unwrap().is_live());
    let _second = RingWriter::create_at(&path(3), "{}", 4).unwrap();
    assert!(matches!(attach(None), Err(RingError::Several { found }) if found == [1, 3]));
    assert!(attach(Some(3)).is_ok());
    let error = attach(Some(2)).unwrap_err().to_string();
    assert!(error.starts_with("no running fathom daemon (1 stale ring in "), "{error}");
    let reader = attach(Some(1)).unwrap();
    drop(first);
    assert!(!reader.is_live());
}
