//! JPEG pictures as cameras and phones have them: whole ones are read, whatever stands between their parts, and cut ones
//! are refused, wherever the cut is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};

use fathom::camera::{CameraError, Image, read_picture};

const WIDTH: usize = 45;
const HEIGHT: usize = 35;
const END: [u8; 2] = [0xff, 0xd9];

/// Folder of the pictures, which libjpeg-turbo wrote: all show [`colour`].
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("jpeg")
}

/// The pictures' colour at a pixel.
fn colour(x: usize, y: usize) -> [u8; 3] {
    let texture = (x * x + 3 * y) % 17;
    [40 + 4 * x + texture, 40 + 5 * y + texture, 220 + texture - 4 * x].map(|v| v.min(255) as u8)
}

fn picture(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name).with_extension("jpg")).unwrap()
}

/// All pictures that are supported, by name.
fn pictures() -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = std::fs::read_dir(folder())
        .unwrap()
        .map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .filter(|name| name != "scans_420")
        .map(|name| (name.clone(), picture(&name)))
        .collect();
    all.sort();
    assert!(all.len() >= 16);
    all
}

/// Reads pictures from memory.
struct Reader(tempfile::TempDir);

impl Reader {
    fn new() -> Reader {
        // Where there is a file system in memory, that spares the disk.
        let memory = Path::new("/dev/shm");
        Reader(tempfile::tempdir_in(if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }).unwrap())
    }

    fn read(&self, data: &[u8]) -> Result<Image, CameraError> {
        let path = self.0.path().join("picture");
        std::fs::write(&path, data).unwrap();
        read_picture(&path)
    }

    /// Why a picture is refused.
    fn refusal(&self, data: &[u8], what: &str) -> String {
        match self.read(data) {
            Ok(_) => panic!("{what} is accepted"),
            Err(CameraError::Decode { problem, .. }) => problem,
            Err(empty @ CameraError::EmptyImage { .. }) => empty.to_string(),
            Err(other) => panic!("{what}: {other}"),
        }
    }

    /// That a picture has the pixels of another.
    fn is_the_same(&self, data: &[u8], as_this: &[u8], what: &str) {
        let expected = self.read(as_this).unwrap().data;
        let found = self.read(data).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(found.data == expected, "{what}: other pixels");
    }
}

/// A part of a picture: a segment with its marker, or the data of a scan with their restart markers.
#[derive(Clone, Debug)]
enum Part {
    Segment(u8, Vec<u8>),
    Data(Vec<u8>),
}

/// The parts of a picture from its start marker to its end marker.
fn parts(jpeg: &[u8]) -> Vec<Part> {
    let (mut parts, mut at) = (Vec::new(), 2);
    loop {
        let marker = jpeg[at + 1];
        assert_eq!(jpeg[at], 0xff);
        if marker == 0xd9 {
            return parts;
        }
        let end = at + 2 + usize::from(jpeg[at + 2]) * 256 + usize::from(jpeg[at + 3]);
        parts.push(Part::Segment(marker, jpeg[at..end].to_vec()));
        at = end;
        if marker == 0xda {
            let is_end = |pair: &[u8]| pair[0] == 0xff && !matches!(pair[1], 0 | 0xd0..=0xd7);
            at = end + jpeg[end..].windows(2).position(is_end).unwrap();
            parts.push(Part::Data(jpeg[end..at].to_vec()));
        }
    }
}

/// The picture of these parts, with bytes before each marker and after the end.
fn assemble(parts: &[Part], before: &[u8], after: &[u8]) -> Vec<u8> {
    let mut jpeg = vec![0xff, 0xd8];
    for part in parts {
        match part {
            Part::Segment(_, bytes) => {
                jpeg.extend(before);
                jpeg.extend(bytes);
            }
            Part::Data(bytes) => jpeg.extend(bytes),
        }
    }
    jpeg.extend(before);
    jpeg.extend(END);
    jpeg.extend(after);
    jpeg
}

/// Where the restart markers are in a scan's data.
fn restarts(data: &[u8]) -> Vec<usize> {
    (0..data.len() - 1).filter(|at| data[*at] == 0xff && matches!(data[at + 1], 0xd0..=0xd7)).collect()
}

#[test]
fn whole_pictures_of_every_kind_are_read() {
    let reader = Reader::new();
    for (name, jpeg) in pictures() {
        let image = reader.read(&jpeg).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!((image.width as usize, image.height as usize), (WIDTH, HEIGHT), "{name}");
        let (mut sum, mut most) = (0, 0);
        for (index, pixel) in image.data.chunks(3).enumerate() {
            let mut expected = colour(index % WIDTH, index / WIDTH);
            if name.contains("grey") {
                let [red, green, blue] = expected.map(f32::from);
                expected = [(0.299 * red + 0.587 * green + 0.114 * blue).round() as u8; 3];
            }
            for (found, expected) in pixel.iter().zip(expected) {
                let apart = u32::from(found.abs_diff(expected));
                (sum, most) = (sum + apart, most.max(apart));
            }
        }
        let mean = f64::from(sum) / image.data.len() as f64;
        assert!(mean < 5.0 && most < 32, "{name}: {mean:.1} on average, {most} at most");
    }
}

#[test]
fn a_picture_is_refused_wherever_it_is_cut() {
    let reader = Reader::new();
    let mut cuts = 0;
    for (name, jpeg) in pictures() {
        let last = jpeg.len() - END.len();
        for kept in 2..last {
            let cut = &jpeg[..kept];
            reader.refusal(cut, &format!("{name}, {kept} of {last} bytes"));
            let with_end = [cut, &END].concat();
            reader.refusal(&with_end, &format!("{name}, {kept} of {last} bytes with an end"));
            cuts += 1;
        }
        // A driver may leave what was in the buffer before: zeros after a cut are no data.
        for kept in (2..last).step_by(7) {
            let mut padded = jpeg[..kept].to_vec();
            padded.resize(jpeg.len() + 8192, 0);
            reader.refusal(&padded, &format!("{name}, {kept} of {last} bytes and zeros"));
        }
        // A long run of fill bytes is gone over once.
        let mut filled = jpeg[..last - 5].to_vec();
        filled.resize(1 << 20, 0xff);
        reader.refusal(&filled, &format!("{name}, with fill bytes after a cut"));
    }
    assert!(cuts > 10_000, "{cuts}");
}

#[test]
fn a_picture_without_its_end_marker_is_whole() {
    let reader = Reader::new();
    for (name, jpeg) in pictures() {
        reader.is_the_same(&jpeg[..jpeg.len() - 2], &jpeg, &name);
        reader.is_the_same(&jpeg[..jpeg.len() - 1], &jpeg, &name);
    }
}

#[test]
fn restart_markers_that_are_missing_or_in_another_order_are_refused() {
    let reader = Reader::new();
    for name in ["restart_420", "restart_422", "restart_444", "restart_grey", "progressive_restart_420"] {
        let jpeg = picture(name);
        let all = parts(&jpeg);
        for (index, part) in all.iter().enumerate() {
            let Part::Data(data) = part else { continue };
            let markers = restarts(data);
            assert!(!markers.is_empty(), "{name}");
            for (number, at) in markers.iter().enumerate() {
                let with = |data: Vec<u8>| {
                    let mut changed = all.clone();
                    changed[index] = Part::Data(data);
                    assemble(&changed, &[], &[])
                };
                let what = format!("{name}, part {index}, restart {number}");
                let missing = [&data[..*at], &data[at + 2..]].concat();
                reader.refusal(&with(missing), &format!("{what}: missing"));
                for step in 1..8 {
                    let mut other = data.clone();
                    other[at + 1] = 0xd0 + (other[at + 1] - 0xd0 + step) % 8;
                    let problem = reader.refusal(&with(other), &format!("{what}: another number"));
                    assert!(problem.contains("expected restart marker"), "{problem}");
                }
                // A whole interval is lost, with its marker.
                let next = markers.get(number + 1).copied().unwrap_or(data.len());
                let lost = [&data[..*at], &data[next..]].concat();
                reader.refusal(&with(lost), &format!("{what}: lost with its interval"));
            }
        }
    }
}

#[test]
fn stray_bytes_between_segments_are_left_out() {
    let reader = Reader::new();
    for (name, jpeg) in pictures() {
        let all = parts(&jpeg);
        for stray in [&[0_u8][..], &[0, 0], &[0x11], &[1, 2, 3, 4, 5, 6, 7], &[0xff], &[0xff, 0xff, 0xff], &[0xff, 0]] {
            reader.is_the_same(&assemble(&all, stray, &[]), &jpeg, &format!("{name} with {stray:02x?}"));
        }
        let many: Vec<u8> = (0..900).map(|byte| (byte % 250) as u8).collect();
        reader.is_the_same(&assemble(&all, &many, &many), &jpeg, &format!("{name} with 900 bytes"));
    }
}

#[test]
fn what_cameras_send_around_a_picture_is_left_out() {
    let reader = Reader::new();
    for (name, jpeg) in pictures() {
        let all = parts(&jpeg);
        for after in [&[0_u8; 5000][..], &[0xff; 7], &[0xd8; 100], &jpeg] {
            reader.is_the_same(&assemble(&all, &[], after), &jpeg, &format!("{name} and bytes after its end"));
        }
        // A comment, a restart marker and a second end before the first segment and between all others.
        let comment = [0xff, 0xfe, 0, 4, 1, 2, 0xff, 0xd3];
        reader.is_the_same(&assemble(&all, &comment, &[]), &jpeg, &format!("{name} with comments"));
    }
    // A few bytes more than the data have, as some of Logitech's cameras send them, before restart markers, too.
    let jpeg = picture("restart_422");
    let mut all = parts(&jpeg);
    let Some(Part::Data(data)) = all.iter_mut().find(|part| matches!(part, Part::Data(_))) else { panic!("no data") };
    for at in restarts(data).into_iter().rev() {
        data.splice(at..at, [0x5a, 0xff, 0, 0x17]);
    }
    reader.is_the_same(&assemble(&all, &[], &[]), &jpeg, "surplus bytes before restart markers");
    data_of(&mut all).extend([0x5a; 1100]);
    let problem = reader.refusal(&assemble(&all, &[], &[]), "a picture with twice its data");
    assert!(problem.contains("1100 bytes more"), "{problem}");
}

fn data_of(parts: &mut [Part]) -> &mut Vec<u8> {
    let data = parts.iter_mut().find_map(|part| match part {
        Part::Data(data) => Some(data),
        Part::Segment(..) => None,
    });
    data.expect("a scan")
}

#[test]
fn default_tables_are_taken_where_a_picture_leaves_some_out() {
    let reader = Reader::new();
    for name in ["baseline_444", "baseline_422", "baseline_420", "restart_422", "sample_440"] {
        let jpeg = picture(name);
        let all = parts(&jpeg);
        let tables: Vec<usize> = (0..all.len()).filter(|index| matches!(all[*index], Part::Segment(0xc4, _))).collect();
        assert_eq!(tables.len(), 4, "{name}");
        // Each of them, and all.
        for left_out in tables.iter().map(|index| vec![*index]).chain([tables.clone()]) {
            let kept = (0..all.len()).filter(|index| !left_out.contains(index)).map(|index| all[index].clone());
            let kept: Vec<Part> = kept.collect();
            reader.is_the_same(&assemble(&kept, &[], &[]), &jpeg, &format!("{name} without {left_out:?}"));
            let mut cut = kept.clone();
            let data = data_of(&mut cut);
            data.truncate(data.len() - 1);
            reader.refusal(&assemble(&cut, &[], &[]), &format!("{name} without {left_out:?}, cut"));
        }
    }
}

#[test]
fn a_progressive_picture_without_one_of_its_scans_is_refused() {
    let reader = Reader::new();
    for name in ["progressive_444", "progressive_420", "progressive_grey", "progressive_restart_420"] {
        let all = parts(&picture(name));
        let scans: Vec<usize> = (0..all.len()).filter(|index| matches!(all[*index], Part::Data(_))).collect();
        for scan in &scans {
            let rest = all.iter().enumerate().filter(|(index, _)| index != scan && index + 1 != *scan);
            let rest: Vec<Part> = rest.map(|(_, part)| part.clone()).collect();
            reader.refusal(&assemble(&rest, &[], &[]), &format!("{name} without part {scan}"));
        }
    }
}

#[test]
fn a_header_that_claims_more_than_the_data_hold_takes_no_memory() {
    let reader = Reader::new();
    for name in ["baseline_420", "progressive_420", "grey", "progressive_grey"] {
        let mut all = parts(&picture(name));
        for part in &mut all {
            if let Part::Segment(0xc0 | 0xc2, frame) = part {
                frame[5..9].copy_from_slice(&[0xff, 0xdc, 0xff, 0xdc]);
            }
        }
        let problem = reader.refusal(&assemble(&all, &[], &[]), name);
        assert!(problem.contains("blocks, found"), "{problem}");
    }
}

#[test]
fn what_is_not_supported_is_named() {
    let reader = Reader::new();
    // The decoder would put the blocks of its scans where they do not belong.
    let problem = reader.refusal(&picture("scans_420"), "4:2:0 in three scans");
    assert!(problem.contains("a scan of some components, one of them subsampled"), "{problem}");
    let jpeg = picture("baseline_444");
    for (marker, precision, named) in
        [(0xc9, 8, "arithmetic"), (0xc3, 8, "lossless"), (0xc1, 12, "another number of bits")]
    {
        let mut all = parts(&jpeg);
        for part in &mut all {
            if let Part::Segment(0xc0, frame) = part {
                (frame[1], frame[4]) = (marker, precision);
            }
        }
        let problem = reader.refusal(&assemble(&all, &[], &[]), named);
        assert!(problem.contains(named), "{problem}");
    }
}
