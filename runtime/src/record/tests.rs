//! The ring and what is read of it, without a robot: recordings are made of small messages.

use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::folder::{Name, named};
use super::ring::Ring;
use super::writer::Item;
use super::{Incomplete, Moment, Recording, RunNote, schema};
use crate::camera::{Image, PixelFormat};
use crate::events::Events;
use crate::fault::Faults;

const MB: u64 = 1 << 20;
const VIEWS: [&str; 2] = ["base", "wrist ü/1"];

fn note(run: &str) -> RunNote {
    RunNote {
        model: run.to_owned(),
        views: VIEWS.map(str::to_owned).to_vec(),
        joints: vec!["a".to_owned()],
        realtime_offset_ns: 1_000,
        ..RunNote::default()
    }
}

fn ring(folder: &Path, limit: u64, run: &str) -> Ring {
    Ring::begin(folder.to_owned(), limit, note(run), Faults::default(), Events::default()).unwrap()
}

/// Everything of one inference; its number is in all of it. Images have `side`² pixels.
fn items(number: u32, side: u32) -> Vec<Item> {
    let image = |n: u64| {
        let mut image = Image::default();
        image.reshape(PixelFormat::Rgb24, side, side);
        image.data.fill(number as u8);
        image.stamp_ns = u64::from(number) * 1000 + n;
        image
    };
    let images = vec![image(0), image(1)];
    let view = |(view, image): (&&str, &Image)| schema::View {
        view: (*view).to_owned(),
        stamp_ns: image.stamp_ns,
        ..schema::View::default()
    };
    let views = VIEWS.iter().zip(&images).map(view).collect();
    let asked_ns = u64::from(number) * 1000;
    let observation = schema::Observation { number, views, asked_ns, ..schema::Observation::default() };
    vec![
        Item::Observation(Box::new(observation), images),
        Item::Inference(schema::Inference { number, actions: vec![number as f32], ..schema::Inference::default() }),
        Item::State(schema::State { measured: vec![number as f32], commanded: vec![0.0], ..schema::State::default() }),
        Item::Log(format!("number {number}"), asked_ns),
    ]
}

fn write(ring: &mut Ring, numbers: std::ops::Range<u32>, side: u32) {
    for item in numbers.flat_map(|number| items(number, side)) {
        ring.write(&item).unwrap();
    }
}

/// A small finished file of some inferences, in several chunks.
fn small(folder: &Path, count: u32) -> PathBuf {
    let mut ring = ring(folder, 8 * MB, "small");
    for number in 0..count {
        write(&mut ring, number..number + 1, 2);
        ring.tend().unwrap();
    }
    ring.end().unwrap();
    only(folder)
}

fn only(folder: &Path) -> PathBuf {
    let files = Recording::open(folder).unwrap().files().to_vec();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

/// All that is read, in words, and what was not whole.
fn read(path: &Path) -> (Vec<String>, Vec<Incomplete>) {
    let mut seen = Vec::new();
    let mut images: Vec<(String, u8)> = Vec::new();
    let incomplete = Recording::open(path).unwrap().each(|moment| {
        match &moment {
            Moment::File(_) => {}
            Moment::Image { view, image } => {
                assert!(image.data.iter().all(|b| *b == image.data[0]), "pixels of one image");
                images.push((view.clone(), image.data[0]));
            }
            Moment::Observation(observation) => {
                let its: Vec<_> = VIEWS.iter().map(|view| ((*view).to_owned(), observation.number as u8)).collect();
                assert_eq!(std::mem::take(&mut images), its, "the images of observation {}", observation.number);
                seen.push(format!("observation {}", observation.number));
            }
            Moment::Inference(i) => seen.push(format!("inference {} {:?}", i.number, i.actions)),
            other => seen.push(format!("{other:?}")),
        }
        Ok::<_, ()>(true)
    });
    (seen, incomplete.unwrap())
}

/// The runs of which something is read, in order, and the numbers of their observations.
fn runs(path: &Path) -> Vec<(String, Vec<u32>)> {
    let mut runs: Vec<(String, Vec<u32>)> = Vec::new();
    for moment in Recording::open(path).unwrap().moments().unwrap() {
        match moment {
            Moment::Run(note) if runs.last().is_none_or(|(last, _)| *last != note.model) => {
                runs.push((note.model, Vec::new()));
            }
            Moment::Observation(observation) => runs.last_mut().unwrap().1.push(observation.number),
            _ => {}
        }
    }
    runs
}

fn total(folder: &Path) -> u64 {
    named(folder).unwrap().iter().map(|(_, path)| path.metadata().unwrap().len()).sum()
}

#[test]
fn what_is_recorded_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = small(folder.path(), 5);
    let (seen, incomplete) = read(&path);
    assert!(incomplete.is_empty(), "{incomplete:?}");
    let numbers: Vec<&String> = seen.iter().filter(|s| s.starts_with("observation")).collect();
    assert_eq!(numbers.len(), 5, "{seen:?}");
    assert_eq!(seen, read(folder.path()).0, "the folder is its file");
}

/// Cut at any byte, a file gives the beginning of what it gives whole, and says that it was cut.
#[test]
fn a_file_cut_at_any_byte_gives_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let path = small(folder.path(), 4);
    let (whole, _) = read(&path);
    let cut = folder.path().join("cut.mcap");
    let bytes = std::fs::copy(&path, &cut).unwrap();
    let file = File::options().write(true).open(&cut).unwrap();
    let mut lengths = BTreeSet::new();
    for length in (0..bytes).rev() {
        file.set_len(length).unwrap();
        let (seen, incomplete) = read(&cut);
        assert_eq!(seen, whole[..seen.len()], "cut at {length}");
        assert_eq!(incomplete.len(), 1, "cut at {length}: {incomplete:?}");
        lengths.insert(seen.len());
    }
    assert!(lengths.len() > 4 && lengths.first() == Some(&0) && lengths.last() == Some(&whole.len()), "{lengths:?}");
}

/// Whichever byte is another, that is said, and nothing is read that was not written.
#[test]
fn a_file_with_any_byte_changed_gives_only_what_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = small(folder.path(), 4);
    let whole: BTreeSet<String> = read(&path).0.into_iter().collect();
    let bytes = std::fs::read(&path).unwrap();
    let changed = folder.path().join("changed.mcap");
    std::fs::copy(&path, &changed).unwrap();
    let file = File::options().write(true).open(&changed).unwrap();
    for at in 0..bytes.len() {
        file.write_all_at(&[bytes[at] ^ 1 << (at % 8)], at as u64).unwrap();
        let (seen, incomplete) = read(&changed);
        file.write_all_at(&bytes[at..=at], at as u64).unwrap();
        assert_eq!(incomplete.len(), 1, "byte {at} is not noticed");
        if let Some(made_up) = seen.iter().find(|one| !whole.contains(*one)) {
            panic!("byte {at}: {made_up} was never written");
        }
        // Each chunk has the four messages of one inference.
        let lost = whole.iter().filter(|one| !seen.contains(one)).count();
        assert!(lost <= 4, "byte {at}: {lost} are lost, {incomplete:?}");
    }
}

/// What is beside a good recording costs nothing of it, and each is named with its cause.
#[test]
fn whatever_lies_beside_a_good_file_is_named_and_the_good_one_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = small(folder.path(), 3);
    let (good, _) = read(&path);
    let at = |name: &str| folder.path().join(name);
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(at("fathom-run000000-000000.mcap"), "").unwrap();
    std::fs::write(at("fathom-0000000001-00000.mcap"), [0; 5000]).unwrap();
    std::fs::write(at("lfs.mcap"), "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n").unwrap();
    std::fs::write(at("page.mcap"), "<!DOCTYPE html>").unwrap();
    std::fs::write(at("text.mcap"), "hello").unwrap();
    std::fs::create_dir(at("folder.mcap")).unwrap();
    std::os::unix::fs::symlink("nowhere", at("link.mcap")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, at("pipe.mcap"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    std::fs::write(at("notes.txt"), "not looked at").unwrap();
    std::fs::write(at("cut.mcap"), &bytes[..bytes.len() / 2]).unwrap();
    std::fs::write(at("odd \u{1f980}\n'\".mcap"), b"\x89MCAP0\r\n").unwrap();
    let (seen, incomplete) = read(folder.path());
    assert_eq!(seen[..good.len()], good);
    let cause = |name: &str| {
        let found = incomplete.iter().find(|file| file.path == at(name));
        found.unwrap_or_else(|| panic!("{name} is not named: {incomplete:?}")).causes.to_string()
    };
    for (name, expected) in [
        ("fathom-run000000-000000.mcap", "an empty file"),
        ("fathom-0000000001-00000.mcap", "only zeros"),
        ("lfs.mcap", "Git LFS"),
        ("page.mcap", "web page"),
        ("text.mcap", "not an MCAP file"),
        ("folder.mcap", "a folder"),
        ("link.mcap", "No such file"),
        ("pipe.mcap", "a device or pipe"),
        ("cut.mcap", "truncated"),
        ("odd \u{1f980}\n'\".mcap", "no run note"),
    ] {
        assert!(cause(name).contains(expected), "{name}: {}", cause(name));
    }
    assert_eq!(incomplete.len(), 10, "{incomplete:?}");
}

/// A run's file that lost what run it is has that from the file before; a file of another name does not.
#[test]
fn a_file_without_its_run_is_of_the_run_before_or_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut ring = ring(folder.path(), 8 * MB, "run");
    for number in 0..120 {
        write(&mut ring, number..number + 1, 64);
        ring.tend().unwrap();
    }
    ring.end().unwrap();
    let files: Vec<PathBuf> = named(folder.path()).unwrap().into_iter().map(|(_, path)| path).collect();
    assert!(files.len() > 1, "{files:?}");
    let all = runs(folder.path());
    // Both chunks that say what run it is.
    let mut bytes = std::fs::read(&files[1]).unwrap();
    let said = b"\"model\":\"run\"";
    let at: Vec<usize> = (0..bytes.len() - said.len()).filter(|at| bytes[*at..].starts_with(said)).collect();
    assert_eq!(at.len(), 2);
    at.into_iter().for_each(|at| bytes[at] ^= 1);
    std::fs::write(&files[1], &bytes).unwrap();
    let (numbers, left) = (&all[0].1, &runs(folder.path())[0].1);
    let second = Recording::open(&files[1]).unwrap();
    assert!(second.moments().is_err(), "alone it is of no run");
    assert!(left.len() <= numbers.len() && left.len() + 3 > numbers.len(), "{} of {}", left.len(), numbers.len());
    let alone = folder.path().join("alone.mcap");
    std::fs::write(&alone, &bytes).unwrap();
    let (seen, incomplete) = read(&alone);
    assert!(seen.is_empty() && incomplete[0].to_string().contains("no run note"), "{incomplete:?}");
}

/// The order of runs is that in which they began, and the oldest go first: no clock is asked.
#[test]
fn the_newest_run_stays_whatever_lies_in_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    // Files of an earlier version, by a clock that was right, and by one that was not.
    for name in ["fathom-1900000000-00000.mcap", "fathom-0000000007-00000.mcap", "fathom-9999999999-00003.mcap"] {
        std::fs::write(folder.path().join(name), vec![1; 2 * MB as usize]).unwrap();
    }
    let kept = ["keep.mcap", "fathom-good.mcap", "fathom-run000001-000000.mcap.gz"];
    for name in kept {
        std::fs::write(folder.path().join(name), vec![1; 9 * MB as usize]).unwrap();
    }
    for run in ["one", "two", "three"] {
        let mut ring = ring(folder.path(), 8 * MB, run);
        write(&mut ring, 0..150, 100);
        ring.end().unwrap();
        let found: Vec<_> = runs(folder.path()).into_iter().filter(|(_, numbers)| !numbers.is_empty()).collect();
        let (last, numbers) = found.last().unwrap();
        assert_eq!(last, run);
        assert_eq!(numbers.last(), Some(&149));
        assert!(numbers.len() > 100 && numbers.is_sorted(), "{run}: {} of its 150 are left", numbers.len());
        assert!(total(folder.path()) <= 9 * MB, "{run}: {} bytes", total(folder.path()));
    }
    for name in kept {
        assert_eq!(folder.path().join(name).metadata().unwrap().len(), 9 * MB, "{name} is not ours");
    }
}

/// Two programs record into one folder: each keeps what the limit lets it keep, and no file has something of both.
#[test]
fn two_runs_at_once_leave_each_other_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut a, mut b) = (ring(folder.path(), 8 * MB, "a"), ring(folder.path(), 8 * MB, "b"));
    for number in 0..200 {
        write(&mut a, number..number + 1, 100);
        if number < 10 {
            write(&mut b, number..number + 1, 100);
        }
    }
    // One ends, and a third begins: its room is not that of the one that goes on.
    a.end().unwrap();
    let mut c = ring(folder.path(), 8 * MB, "c");
    write(&mut c, 0..200, 100);
    write(&mut b, 10..12, 100);
    b.end().unwrap();
    c.end().unwrap();
    let found = runs(folder.path());
    let of = |run: &str| found.iter().filter(|(name, _)| name == run).flat_map(|(_, n)| n.clone()).collect::<Vec<_>>();
    assert_eq!(of("b"), (0..12).collect::<Vec<_>>(), "none of what is not much is lost");
    assert!(of("c").len() > 100 && of("c").last() == Some(&199), "{}", of("c").len());
    let incomplete = Recording::open(folder.path()).unwrap().each(|_| Ok::<_, ()>(true)).unwrap();
    assert!(incomplete.is_empty(), "{incomplete:?}");
}

/// Thousands of files of earlier runs are no more than some that go.
#[test]
fn thousands_of_files_make_room() {
    let folder = tempfile::tempdir().unwrap();
    for n in 0..3000 {
        std::fs::write(folder.path().join(format!("fathom-run{n:06}-000000.mcap")), vec![0; 8192]).unwrap();
    }
    let mut ring = ring(folder.path(), 8 * MB, "new");
    write(&mut ring, 0..10, 10);
    ring.end().unwrap();
    let files = named(folder.path()).unwrap();
    assert!(total(folder.path()) <= 8 * MB && files.len() > 500, "{} files", files.len());
    assert_eq!(files.last().unwrap().0, Name { run: super::folder::Run::Count(3000), file: 0 });
}

/// Images that are larger than the whole limit: the two newest files stay.
#[test]
fn a_limit_below_one_file_keeps_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let mut ring = ring(folder.path(), 8 * MB, "large");
    write(&mut ring, 0..5, 1500);
    ring.end().unwrap();
    let found = runs(folder.path());
    assert_eq!(found, [("large".to_owned(), vec![4])], "what is in the newest two");
}

/// Somebody deletes the folder, or the file: what comes after is in a new one.
#[test]
fn a_folder_deleted_while_it_is_written_is_made_again() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("runs");
    std::fs::create_dir(&folder).unwrap();
    let mut ring = ring(&folder, 8 * MB, "run");
    write(&mut ring, 0..3, 10);
    std::fs::remove_dir_all(&folder).unwrap();
    ring.tend().unwrap();
    write(&mut ring, 3..6, 10);
    ring.tend().unwrap();
    // A file that a person moves is the person's, and is written to its end.
    let (name, path) = named(&folder).unwrap().pop().unwrap();
    std::fs::rename(&path, folder.join("moved.mcap")).unwrap();
    ring.tend().unwrap();
    write(&mut ring, 6..9, 10);
    ring.end().unwrap();
    assert_eq!((name.file, runs(&folder)), (1, vec![("run".to_owned(), (3..9).collect())]));
}

#[test]
fn what_cannot_be_written_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none");
    assert!(Ring::begin(path.clone(), 8 * MB, note("run"), Faults::default(), Events::default()).is_err());
    assert!(!path.exists());
    std::fs::write(folder.path().join(format!("fathom-run{}-000000.mcap", u64::MAX)), "x").unwrap();
    let said =
        Ring::begin(folder.path().to_owned(), 8 * MB, note("run"), Faults::default(), Events::default()).err().unwrap();
    assert!(said.to_string().contains("found the highest"), "{said}");
    assert_eq!(named(folder.path()).unwrap().len(), 1);
}

/// As a process that is killed leaves it: all but the last second is there, and its number is not used again.
#[test]
fn a_crashed_run_is_read_to_its_last_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let mut crashed = ring(folder.path(), 8 * MB, "crashed");
    write(&mut crashed, 0..3, 10);
    crashed.tend().unwrap();
    write(&mut crashed, 3..5, 10);
    // Neither an index nor what was held back.
    drop(crashed);
    let (seen, incomplete) = read(folder.path());
    let count = seen.iter().filter(|s| s.starts_with("observation")).count();
    assert_eq!((count, incomplete.len()), (3, 1), "{incomplete:?}");
    assert!(incomplete[0].to_string().contains("unfinished"), "{incomplete:?}");
    let mut next = ring(folder.path(), 8 * MB, "next");
    write(&mut next, 0..1, 10);
    next.end().unwrap();
    assert_eq!(runs(folder.path()), [("crashed".to_owned(), vec![0, 1, 2]), ("next".to_owned(), vec![0])]);
}

/// The wall clock goes back by thirty years in the middle: times in the file go on, it is said, and the next run comes after.
#[test]
fn a_wall_clock_that_is_set_back_changes_no_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = ring(folder.path(), 8 * MB, "first");
    write(&mut first, 0..2, 10);
    crate::wall::set_wall(-1_000_000_000_000_000_000);
    first.tend().unwrap();
    write(&mut first, 2..4, 10);
    first.end().unwrap();
    let mut second = ring(folder.path(), 8 * MB, "second");
    write(&mut second, 0..2, 10);
    second.end().unwrap();
    crate::wall::set_wall(1_000_000_000_000_000_000);
    assert_eq!(runs(folder.path()), [("first".to_owned(), vec![0, 1, 2, 3]), ("second".to_owned(), vec![0, 1])]);
    let said = Recording::open(folder.path()).unwrap().moments().unwrap();
    let said = said
        .iter()
        .any(|m| matches!(m, Moment::Log(log) if log.message.contains("the wall clock was set, by -1000000000")));
    assert!(said, "the recording says so");
}

/// An image that is lost is not replaced by the one before it.
#[test]
fn an_observation_never_has_another_ones_image() {
    let folder = tempfile::tempdir().unwrap();
    let mut ring = ring(folder.path(), 8 * MB, "run");
    for number in 0..3 {
        let mut items = items(number, 2);
        if number == 1
            && let Item::Observation(_, images) = &mut items[0]
        {
            // The second camera's is not there.
            images.truncate(1);
        }
        items.iter().for_each(|item| ring.write(item).unwrap());
        ring.tend().unwrap();
    }
    ring.end().unwrap();
    let (seen, incomplete) = read(folder.path());
    let numbers: Vec<_> = seen.iter().filter(|s| s.starts_with("observation")).collect();
    assert_eq!(numbers, ["observation 0", "observation 2"]);
    assert!(incomplete[0].to_string().contains("its image of wrist"), "{incomplete:?}");
}
