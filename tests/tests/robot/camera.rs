//! The V4L2 camera on a played device.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::picture::{check_picture, shim_folder};

/// The library that plays a V4L2 device, compiled once for all tests.
fn shim() -> &'static Path {
    static SHIM: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, library) = SHIM.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libv4lshim.so");
        let status = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o"])
            .arg(&library)
            .arg(shim_folder().join("v4l.c"))
            .arg("-ldl")
            .status()
            .expect("a C compiler named cc");
        assert!(status.success(), "the shim does not compile");
        (folder, library)
    });
    library
}

/// Runs the capture program on a played device; returns the lines that it printed.
fn capture(device: &[(&str, &str)], arguments: &[&str]) -> Vec<Value> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_capture"));
    command.env("LD_PRELOAD", shim()).args(arguments);
    for (name, value) in device {
        command.env(format!("FATHOM_SHIM_{name}"), value);
    }
    let output = command.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {errors}", output.status);
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The kinds of error in the lines; "" for an image.
fn kinds(lines: &[Value]) -> Vec<&str> {
    lines.iter().map(|line| line["error"].as_str().unwrap_or_default()).collect()
}

fn number(line: &Value, key: &str) -> u64 {
    line[key].as_u64().unwrap_or_else(|| panic!("no number {key} in {line}"))
}

/// The only line, which must be an error of this kind; returns its message.
fn only_error(lines: &[Value], kind: &str) -> String {
    assert_eq!(kinds(lines), [kind], "{lines:?}");
    lines[0]["message"].as_str().unwrap().to_owned()
}

#[test]
fn images_arrive_with_content_and_stamp_without_allocating() {
    let folder = tempfile::tempdir().unwrap();
    let save = format!("save={}", folder.path().display());
    let lines = capture(&[("STAMP", "soe")], &["count=4", "width=64", "height=48", &save]);
    assert_eq!(kinds(&lines), [""; 5], "{lines:?}");
    let opened = lines[0]["opened"].as_str().unwrap();
    assert_eq!(opened, "/dev/video0 (Shim camera): YUYV 64×48, stride 128 at 100.0000 Hz");
    for (index, line) in lines[1..].iter().enumerate() {
        assert_eq!(line["format"], "YUYV");
        assert_eq!((number(line, "width"), number(line, "height")), (64, 48));
        assert_eq!(number(line, "bytes"), 64 * 48 * 2);
        assert_eq!(line["stamp"], "driver, start of exposure");
        let (stamp, dequeued) = (number(line, "stamp_ns"), number(line, "dequeued_ns"));
        assert!(stamp <= dequeued && dequeued <= number(line, "returned_ns"));
        assert!(dequeued - stamp < 1_000_000_000, "the stamp is of the same clock: {line}");
        if index > 0 {
            assert_eq!(number(line, "allocations"), 0, "memory is reused");
        }
        let n = number(line, "sequence");
        let data = std::fs::read(folder.path().join(format!("{index}.raw"))).unwrap();
        for y in 0..48_u64 {
            for x in 0..64_u64 {
                let at = ((y * 64 + x) * 2) as usize;
                let chroma = if x % 2 == 0 { n } else { x - 1 + n };
                let expected = [(x + y + 3 * n) as u8, chroma as u8];
                assert_eq!(data[at..at + 2], expected, "pixel ({x}, {y}) of image {n}");
            }
        }
    }
    let numbers: Vec<u64> = lines[1..].iter().map(|line| number(line, "sequence")).collect();
    assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
}

#[test]
fn stamps_name_their_event() {
    let line = &capture(&[("STAMP", "eof")], &["count=1"])[1];
    assert_eq!(line["stamp"], "driver, end of image");
    let line = &capture(&[("STAMP", "unknown")], &["count=1"])[1];
    assert_eq!(line["stamp"], "dequeued");
    assert_eq!(line["stamp_ns"], line["dequeued_ns"]);
}

#[test]
fn the_stride_of_the_driver_is_honoured() {
    let folder = tempfile::tempdir().unwrap();
    let save = format!("save={}", folder.path().display());
    for (format, name, rows, row) in
        [("RGB3", "RGB24", 10, 30_usize), ("NV12", "NV12", 15, 10), ("YUYV", "YUYV", 10, 20)]
    {
        let device = [("PAD", "24"), ("FORMATS", format)];
        let lines = capture(&device, &["count=1", "width=10", "height=10", &save]);
        let line = &lines[1];
        assert_eq!(line["format"], name);
        assert_eq!(number(line, "stride"), row as u64 + 24);
        let data = std::fs::read(folder.path().join("0.raw")).unwrap();
        assert_eq!(data.len(), rows * (row + 24));
        let n = number(line, "sequence") as u8;
        for (y, pixels) in data.chunks(row + 24).enumerate() {
            assert!(pixels[row..].iter().all(|padding| *padding == 0xee), "row {y} of {name}");
            let first = match (name, y) {
                ("RGB24", _) => [0, y as u8, n],
                // U, V and the next U.
                ("NV12", 10..) => [n, n, n],
                ("NV12", _) => [0, 1, 2].map(|x| x + y as u8 + 3 * n),
                _ => [y as u8 + 3 * n, n, 1 + y as u8 + 3 * n],
            };
            assert_eq!(pixels[..3], first, "row {y} of {name}");
        }
    }
}

#[test]
fn a_different_size_is_accepted_and_reported() {
    let lines = capture(&[("SIZE", "320x240")], &["count=1", "width=640", "height=480"]);
    assert_eq!((number(&lines[1], "width"), number(&lines[1], "height")), (320, 240));
    assert_eq!(number(&lines[1], "stride"), 640);
    let opened = lines[0]["opened"].as_str().unwrap();
    assert!(opened.contains("320×240 (asked for 640×480)"), "{opened}");
}

/// The middle one of the milliseconds between two times of each line; a loaded machine may make
/// single ones late.
fn typical_ms(lines: &[Value], from: &str, to: &str) -> u64 {
    let between = |line| number(line, to).saturating_sub(number(line, from)) / 1_000_000;
    let mut all: Vec<u64> = lines.iter().map(between).collect();
    all.sort_unstable();
    all[all.len() / 2]
}

#[test]
fn a_slow_caller_gets_a_fresh_image() {
    fathom_contention::timed!();
    // 100 images a second and 4 buffers: after 150 ms the buffers hold images of 110 ms ago.
    let lines = capture(&[], &["count=8", "pause_ms=150"]);
    assert_eq!(kinds(&lines), [""; 9]);
    let age_ms = typical_ms(&lines[2..], "stamp_ns", "dequeued_ns");
    assert!(age_ms < 60, "images {age_ms} ms old");
    let skipped = number(&lines[2], "sequence") - number(&lines[1], "sequence");
    assert!(skipped > 10, "150 ms are 15 images, not {skipped}");
}

#[test]
fn a_little_late_caller_gets_the_latest_of_the_queue() {
    fathom_contention::timed!();
    // 5 images a second: after 500 ms two are waiting, and the second is the newest there is.
    let second = |_| capture(&[("RATE", "5")], &["count=2", "pause_ms=500"]).remove(2);
    let lines: Vec<Value> = (0..3).map(second).collect();
    let waited_ms = typical_ms(&lines, "called_ns", "dequeued_ns");
    let age_ms = typical_ms(&lines, "stamp_ns", "dequeued_ns");
    assert!(waited_ms < 50, "waited {waited_ms} ms with images at hand");
    assert!(age_ms < 180, "images {age_ms} ms old");
}

#[test]
fn a_silent_camera_is_an_error_and_is_started_again() {
    fathom_contention::timed!();
    let lines = capture(&[("STALL_AFTER", "2")], &["count=5", "timeout_ms=150"]);
    assert_eq!(kinds(&lines), ["", "", "", "Silent", "", ""], "{lines:?}");
    let message = lines[3]["message"].as_str().unwrap();
    assert_eq!(message, "/dev/video0: no image within 150ms");
    assert!(number(&lines[4], "sequence") > number(&lines[2], "sequence"));
}

#[test]
fn an_unplugged_camera_is_an_error_and_comes_back() {
    fathom_contention::timed!();
    let device = [("UNPLUG_AFTER", "2"), ("REPLUG_MS", "250")];
    let lines = capture(&device, &["count=12", "timeout_ms=200", "pause_ms=50"]);
    let kinds = kinds(&lines);
    let gone = kinds.iter().position(|kind| *kind == "Unplugged").expect("it was unplugged");
    assert_eq!(lines[gone]["message"], "/dev/video0: the camera was unplugged");
    let after = &kinds[gone + 1..];
    let back = after.iter().position(|kind| kind.is_empty()).expect("it is back");
    assert!(back > 0 && after[..back].iter().all(|kind| *kind == "Absent"), "{kinds:?}");
    assert!(after[back..].iter().all(|kind| kind.is_empty()), "{kinds:?}");
}

#[test]
fn an_absent_camera_is_an_error() {
    let message = only_error(&capture(&[], &["device=/dev/video77"]), "Absent");
    assert!(message.starts_with("/dev/video77: no such camera"), "{message}");
}

#[test]
fn a_busy_camera_is_an_error() {
    for stage in ["open", "format"] {
        let message = only_error(&capture(&[("BUSY", stage)], &[]), "Busy");
        assert_eq!(message, "/dev/video0: the camera is in use by another program");
    }
    let lines = capture(&[("BUSY", "buffers")], &["count=2"]);
    assert_eq!(kinds(&lines), ["", "Busy", "Busy"]);
}

#[test]
fn what_is_no_camera_is_an_error() {
    let message = only_error(&capture(&[("METADATA", "1")], &[]), "NotCapture");
    assert!(message.contains("Shim camera") && message.contains("metadata"), "{message}");
    only_error(&capture(&[], &["device=/dev/null"]), "NotCapture");
}

#[test]
fn an_unsupported_format_lists_what_is_offered() {
    let device = [("FORMATS", "GREY,YUYV"), ("SIZE", "640x480")];
    let message = only_error(&capture(&device, &["format=NV12"]), "Format");
    assert_eq!(message, "/dev/video0: asked for NV12 64×48, the camera offers GREY (640×480), YUYV (640×480)");
    let message = only_error(&capture(&[("FORMATS", "GREY")], &[]), "Format");
    assert_eq!(
        message,
        "/dev/video0: asked for one of YUYV, NV12, RGB24, MJPEG at 64×48, \
         the camera offers GREY (2×2 to 1920×1080)"
    );
}

#[test]
fn an_empty_image_is_an_error() {
    let message = only_error(&capture(&[("SIZE", "0x0")], &[]), "EmptyImage");
    assert_eq!(message, "/dev/video0: empty image of 0×0 pixels");
}

#[test]
fn an_answer_that_the_crate_cannot_read_is_an_error() {
    let message = only_error(&capture(&[("ODD", "1")], &[]), "Io");
    assert!(message.contains("setting the format"), "{message}");
}

#[test]
fn damaged_and_short_images_are_skipped() {
    let lines = capture(&[("ERROR_EVERY", "2")], &["count=5"]);
    assert_eq!(kinds(&lines), [""; 6]);
    assert!(lines[1..].iter().all(|line| number(line, "sequence").is_multiple_of(2)), "{lines:?}");
    let lines = capture(&[("SHORT_AFTER", "0")], &["count=1"]);
    let message = only_error(&lines[1..], "Incomplete");
    assert_eq!(message, "/dev/video0: incomplete image: 3072 bytes of 6144");
}

/// Lines of images, then of errors of one kind alone; returns how many images there were, and the first message.
fn images_then(lines: &[Value], kind: &str) -> (usize, String) {
    let kinds = kinds(lines);
    let images = kinds.iter().take_while(|kind| kind.is_empty()).count();
    assert!(images < kinds.len() && kinds[images..].iter().all(|found| *found == kind), "{kinds:?}");
    (images, lines[images]["message"].as_str().unwrap().to_owned())
}

/// The device of a format: with the picture that Motion-JPEG is.
fn device_of<'a>(format: &'a str, picture: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![("FORMATS", format), ("JPEG", picture), ("RATE", "30")]
}

#[test]
fn a_buffer_without_bytes_is_no_image_whatever_the_format() {
    let picture = shim_folder().join("picture.jpg");
    for format in ["YUYV", "NV12", "RGB3", "MJPG"] {
        let mut device = device_of(format, picture.to_str().unwrap());
        device.push(("EMPTY_AFTER", "3"));
        let lines = capture(&device, &["count=7", "width=48", "height=32"]);
        let (images, message) = images_then(&lines[1..], "NoBytes");
        assert!((1..=3).contains(&images), "{images} images of {format}");
        assert!(message.starts_with("/dev/video0: the driver returned an empty buffer"), "{message}");
        // From the first image on: nothing is made of zeros.
        let mut device = device_of(format, picture.to_str().unwrap());
        device.push(("EMPTY_AFTER", "0"));
        let lines = capture(&device, &["count=2", "width=48", "height=32"]);
        assert_eq!(images_then(&lines[1..], "NoBytes").0, 0, "{format}");
        // Every other one: the next is waited for.
        let mut device = device_of(format, picture.to_str().unwrap());
        device.push(("EMPTY_EVERY", "2"));
        let lines = capture(&device, &["count=4", "width=48", "height=32", "timeout_ms=2000"]);
        assert_eq!(kinds(&lines), [""; 5], "{format}");
        assert!(lines[1..].iter().all(|line| number(line, "sequence").is_multiple_of(2)), "{lines:?}");
    }
}

#[test]
fn an_image_that_comes_again_is_no_new_one() {
    let (images, message) = images_then(&capture(&[("FREEZE_AFTER", "3")], &["count=7"])[1..], "Repeated");
    assert!((1..=3).contains(&images), "{images}");
    assert!(message.starts_with("/dev/video0: the driver gave the same image again, number"), "{message}");
    // Without a stamp the number tells, without a number the stamp does, and without both nothing tells of a new image.
    assert_eq!(kinds(&capture(&[("STAMP", "none")], &["count=4"])), [""; 5]);
    assert_eq!(kinds(&capture(&[("COUNT", "0")], &["count=4"])), [""; 5]);
    let lines = capture(&[("STAMP", "none"), ("COUNT", "0")], &["count=3"]);
    assert_eq!(images_then(&lines[1..], "Repeated").0, 1, "{lines:?}");
}

#[test]
fn an_image_that_the_driver_flags_is_named() {
    let message = only_error(&capture(&[("ERROR_EVERY", "1")], &["count=1"])[1..], "Damaged");
    assert_eq!(message, "/dev/video0: the driver flags the image as damaged");
}

#[test]
fn motion_jpeg_with_data_missing_is_no_image() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cut.jpg");
    let whole = std::fs::read(shim_folder().join("picture.jpg")).unwrap();
    let name = file.to_str().unwrap().to_owned();
    let device = [("FORMATS", "MJPG"), ("JPEG", name.as_str())];
    // Half of the scan is missing, and its end is marked.
    let scan = whole.windows(2).position(|pair| pair == [0xff, 0xda]).unwrap() + 14;
    let half = scan + (whole.len() - scan) / 2;
    std::fs::write(&file, [&whole[..half], &[0xff, 0xd9]].concat()).unwrap();
    let lines = capture(&device, &["count=2", "width=48", "height=32"]);
    let (images, message) = images_then(&lines[1..], "Decode");
    assert!(images == 0 && message.contains("the data end after"), "{message}");
    // Zeros that fill the buffer after the end are no data; in place of the rest of the picture they are none either.
    let tail = [device.as_slice(), &[("TAIL", "4000")]].concat();
    std::fs::write(&file, &whole).unwrap();
    assert_eq!(kinds(&capture(&tail, &["count=2", "width=48", "height=32"])), [""; 3]);
    std::fs::write(&file, &whole[..half]).unwrap();
    let lines = capture(&tail, &["count=2", "width=48", "height=32"]);
    assert_eq!(images_then(&lines[1..], "Decode").0, 0);
}

#[test]
fn a_cameras_motion_jpeg_stays_as_the_sensor_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("turned.jpg");
    let whole = std::fs::read(shim_folder().join("picture.jpg")).unwrap();
    let exif = b"\xff\xe1\x00\x22Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    std::fs::write(&file, [&whole[..2], exif, &whole[2..]].concat()).unwrap();
    let turned = fathom::camera::read_picture(&file).unwrap();
    assert_eq!((turned.width, turned.height), (32, 48), "as a file it is turned upright");
    let device = [("FORMATS", "MJPG"), ("JPEG", file.to_str().unwrap())];
    let lines = capture(&device, &["count=1", "width=48", "height=32"]);
    assert_eq!((number(&lines[1], "width"), number(&lines[1], "height")), (48, 32));
}

#[test]
fn a_stream_that_does_not_stop_neither_panics_nor_stays() {
    let device = [("STALL_AFTER", "1"), ("STOP_FAILS", "1")];
    let lines = capture(&device, &["count=3", "timeout_ms=150"]);
    assert_eq!(kinds(&lines), ["", "", "Io", ""], "{lines:?}");
}

#[test]
fn motion_jpeg_is_decoded_with_and_without_huffman_tables() {
    let folder = tempfile::tempdir().unwrap();
    let save = format!("save={}", folder.path().display());
    let picture = shim_folder().join("picture.jpg");
    let jpeg = std::fs::read(&picture).unwrap();
    let bare = folder.path().join("bare.jpg");
    std::fs::write(&bare, without_huffman_tables(&jpeg)).unwrap();
    let mut decoded = Vec::new();
    for path in [&picture, &bare] {
        let device = [("FORMATS", "MJPG"), ("JPEG", path.to_str().unwrap())];
        let lines = capture(&device, &["count=2", "width=48", "height=32", &save]);
        assert_eq!(kinds(&lines), [""; 3], "{lines:?}");
        assert_eq!(lines[2]["format"], "RGB24");
        assert_eq!((number(&lines[2], "width"), number(&lines[2], "height")), (48, 32));
        assert_eq!(number(&lines[2], "stride"), 48 * 3);
        decoded.push(std::fs::read(folder.path().join("0.raw")).unwrap());
    }
    assert_eq!(decoded[0], decoded[1]);
    check_picture(&decoded[0]);
    // Only the first half of a picture, for as long as one waits.
    let half = folder.path().join("half.jpg");
    std::fs::write(&half, &jpeg[..jpeg.len() / 2]).unwrap();
    let device = [("FORMATS", "MJPG"), ("JPEG", half.to_str().unwrap())];
    let lines = capture(&device, &["count=1", "width=48", "height=32"]);
    let message = only_error(&lines[1..], "Decode");
    assert!(message.starts_with("/dev/video0: cannot decode the JPEG picture"), "{message}");
}

/// Cuts the tables out of a JPEG picture, as many cameras do.
fn without_huffman_tables(jpeg: &[u8]) -> Vec<u8> {
    let (mut bare, mut at) = (jpeg[..2].to_vec(), 2);
    while jpeg[at + 1] != 0xda {
        let end = at + 2 + usize::from(jpeg[at + 2]) * 256 + usize::from(jpeg[at + 3]);
        if jpeg[at + 1] != 0xc4 {
            bare.extend(&jpeg[at..end]);
        }
        at = end;
    }
    bare.extend(&jpeg[at..]);
    assert!(bare.len() < jpeg.len(), "there were tables to cut out");
    bare
}
