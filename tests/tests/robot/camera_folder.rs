//! Replay of folders of pictures, and what an image must be.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::path::Path;
use std::time::Duration;

use fathom::camera::{Camera, CameraError, FolderCamera, FolderConfig, Image, PixelFormat, StampSource};

use crate::picture::{check_picture, shim_folder};

const SECOND: Duration = Duration::from_secs(1);

/// Writes a PNG of one colour type.
fn write_png(path: &Path, width: u32, height: u32, color: png::ColorType, data: &[u8]) {
    let mut encoder = png::Encoder::new(std::fs::File::create(path).unwrap(), width, height);
    encoder.set_color(color);
    encoder.write_header().unwrap().write_image_data(data).unwrap();
}

fn folder(path: &Path, repeat: bool) -> FolderCamera {
    let config = FolderConfig { folder: path.to_owned(), rate_hz: 0.0, repeat };
    FolderCamera::open(&config).unwrap()
}

#[test]
fn a_folder_is_replayed_in_the_order_of_its_numbers() {
    let pictures = tempfile::tempdir().unwrap();
    let at = |name: &str| pictures.path().join(name);
    write_png(&at("image-10.png"), 2, 1, png::ColorType::Rgb, &[1, 2, 3, 4, 5, 6]);
    write_png(&at("image-9.PNG"), 1, 2, png::ColorType::Grayscale, &[7, 8]);
    write_png(&at("image-11.png"), 1, 1, png::ColorType::Rgba, &[9, 10, 11, 128]);
    write_png(&at("image-12.png"), 1, 1, png::ColorType::GrayscaleAlpha, &[12, 0]);
    std::fs::copy(shim_folder().join("picture.jpg"), at("image-100.jpg")).unwrap();
    std::fs::write(at("notes.txt"), "not a picture").unwrap();
    let mut camera = folder(pictures.path(), true);
    let names: Vec<_> = camera.pictures().iter().map(|path| path.file_name().unwrap()).collect();
    let expected = ["image-9.PNG", "image-10.png", "image-11.png", "image-12.png", "image-100.jpg"];
    assert_eq!(names, expected);
    let mut image = Image::default();
    let expected: [(u32, u32, &[u8]); 4] =
        [(1, 2, &[7, 7, 7, 8, 8, 8]), (2, 1, &[1, 2, 3, 4, 5, 6]), (1, 1, &[9, 10, 11]), (1, 1, &[12, 12, 12])];
    for round in 0..2 {
        for (index, (width, height, data)) in expected.into_iter().enumerate() {
            camera.capture(&mut image, SECOND).unwrap();
            assert_eq!((image.width, image.height, image.stride), (width, height, width * 3));
            assert_eq!((image.format, image.data.as_slice()), (PixelFormat::Rgb24, data));
            assert_eq!(image.sequence, round * 5 + index as u64);
            assert_eq!(image.stamp, StampSource::Host);
            assert!(image.stamp_ns <= image.dequeued_ns);
            image.check("replay").unwrap();
        }
        camera.capture(&mut image, SECOND).unwrap();
        check_picture(&image.data);
    }
}

#[test]
fn a_replay_ends_or_keeps_its_rate() {
    fathom_contention::timed!();
    let pictures = tempfile::tempdir().unwrap();
    for name in ["1.png", "2.png"] {
        write_png(&pictures.path().join(name), 1, 1, png::ColorType::Grayscale, &[0]);
    }
    let mut image = Image::default();
    let mut once = folder(pictures.path(), false);
    once.capture(&mut image, SECOND).unwrap();
    once.capture(&mut image, SECOND).unwrap();
    let error = once.capture(&mut image, SECOND).unwrap_err();
    assert!(matches!(error, CameraError::Ended { pictures: 2, .. }), "{error}");

    let folder = pictures.path().to_owned();
    let mut paced = FolderCamera::open(&FolderConfig { folder, rate_hz: 5.0, repeat: true }).unwrap();
    paced.capture(&mut image, SECOND).unwrap();
    let error = paced.capture(&mut image, Duration::from_millis(5)).unwrap_err();
    assert!(matches!(error, CameraError::Silent { .. }), "{error}");
    std::thread::sleep(Duration::from_millis(450));
    paced.capture(&mut image, SECOND).unwrap();
    assert!(image.sequence >= 2, "late callers miss pictures");
}

#[test]
fn bad_folders_and_pictures_are_errors_that_name_them() {
    let pictures = tempfile::tempdir().unwrap();
    let open = |path: &Path| {
        let config = FolderConfig { folder: path.to_owned(), rate_hz: 0.0, repeat: true };
        FolderCamera::open(&config).map(|_| ()).unwrap_err()
    };
    let error = open(pictures.path());
    assert!(matches!(error, CameraError::NoPictures { .. }), "{error}");
    assert!(error.to_string().contains(pictures.path().to_str().unwrap()), "{error}");
    let error = open(&pictures.path().join("nowhere"));
    assert!(matches!(error, CameraError::Absent { .. }), "{error}");

    let good = pictures.path().join("good.png");
    write_png(&good, 1, 1, png::ColorType::Rgb, &[1, 2, 3]);
    let png = std::fs::read(&good).unwrap();
    let jpeg = std::fs::read(shim_folder().join("picture.jpg")).unwrap();
    let mut empty = png.clone();
    empty[16..24].fill(0);
    let mut damaged = png.clone();
    damaged[50] ^= 0xff;
    let mut flat = jpeg.clone();
    let size = flat.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap() + 5;
    flat[size..size + 4].fill(0);
    let bad: [(&str, &[u8]); 7] = [
        ("0-empty.png", &empty),
        ("1-damaged.png", &damaged),
        ("2-cut.png", &png[..30]),
        ("3-empty.jpg", &flat),
        ("4-cut.jpg", &jpeg[..jpeg.len() / 2]),
        ("5-text.jpg", b"hello"),
        ("6-nothing.png", b""),
    ];
    for (name, data) in bad {
        std::fs::write(pictures.path().join(name), data).unwrap();
    }
    let mut camera = folder(pictures.path(), false);
    let mut image = Image::default();
    for (name, _) in bad {
        let error = camera.capture(&mut image, SECOND).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
        match name {
            "0-empty.png" | "3-empty.jpg" => {
                assert!(matches!(error, CameraError::EmptyImage { .. }), "{error:?}");
            }
            _ => assert!(matches!(error, CameraError::Decode { .. }), "{error:?}"),
        }
    }
    camera.capture(&mut image, SECOND).unwrap();
    assert_eq!(image.data, [1, 2, 3], "the replay goes on after bad pictures");
}

#[test]
fn an_image_without_its_pixels_does_not_pass() {
    let mut image = Image::default();
    let error = image.check("view").unwrap_err();
    assert_eq!(error.to_string(), "view: empty image of 0×0 pixels");
    image.reshape(PixelFormat::Nv12, 5, 3);
    assert_eq!((image.stride, image.data.len()), (5, 25));
    image.check("view").unwrap();
    image.data.pop();
    let error = image.check("view").unwrap_err();
    assert!(matches!(error, CameraError::Incomplete { expected: 25, received: 24, .. }));
}
