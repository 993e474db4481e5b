//! Pictures from files are turned upright as their EXIF or XMP says, as `ImageOps.exif_transpose` of Pillow does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests fail as tests do")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use fathom::camera::{Camera, FolderCamera, FolderConfig, Image, PixelFormat, read_picture};

/// EXIF with an orientation, in one of the two byte orders, after an entry of another kind.
fn exif(little: bool, orientation: u16) -> Vec<u8> {
    let two = |v: u16| if little { v.to_le_bytes() } else { v.to_be_bytes() };
    let four = |v: u32| if little { v.to_le_bytes() } else { v.to_be_bytes() };
    let mut bytes = if little { b"II".to_vec() } else { b"MM".to_vec() };
    bytes.extend([two(42).as_slice(), &four(8), &two(2)].concat());
    bytes.extend([two(0x010f).as_slice(), &two(2), &four(4), b"Cam\0"].concat());
    bytes.extend([two(0x0112).as_slice(), &two(3), &four(1), &two(orientation), &two(0), &four(0)].concat());
    bytes
}

/// How Pillow reads a picture of this orientation: for each pixel of the turned picture the one of the file.
fn source(orientation: u16, width: usize, height: usize, x: usize, y: usize) -> (usize, usize) {
    match orientation {
        2 => (width - 1 - x, y),
        3 => (width - 1 - x, height - 1 - y),
        4 => (x, height - 1 - y),
        5 => (y, x),
        6 => (y, height - 1 - x),
        7 => (width - 1 - y, height - 1 - x),
        8 => (width - 1 - y, x),
        _ => (x, y),
    }
}

/// That `found` is `file` turned.
fn check(found: &Image, file: &Image, orientation: u16, what: &str) {
    let (width, height) = (file.width as usize, file.height as usize);
    let turned = (5..=8).contains(&orientation);
    let (wide, high) = if turned { (height, width) } else { (width, height) };
    assert_eq!((found.width as usize, found.height as usize), (wide, high), "{what}");
    assert_eq!((found.format, found.stride as usize), (PixelFormat::Rgb24, wide * 3), "{what}");
    found.check(what).unwrap();
    for (index, pixel) in found.data.chunks(3).enumerate() {
        let (x, y) = source(orientation, width, height, index % wide, index / wide);
        let at = (y * width + x) * 3;
        assert_eq!(pixel, &file.data[at..at + 3], "{what}, pixel ({}, {})", index % wide, index / wide);
    }
}

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Files {
        Files(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, data: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, data).unwrap();
        path
    }

    fn read(&self, name: &str, data: &[u8]) -> Image {
        read_picture(&self.write(name, data)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }
}

fn jpeg() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("jpeg/baseline_422.jpg")).unwrap()
}

/// The picture with an APP1 segment after its first segment.
fn with_app1(jpeg: &[u8], body: &[u8]) -> Vec<u8> {
    let first = 4 + usize::from(jpeg[4]) * 256 + usize::from(jpeg[5]);
    let length = (body.len() as u16 + 2).to_be_bytes();
    [&jpeg[..first], &[0xff, 0xe1], &length, body, &jpeg[first..]].concat()
}

/// A PNG of 5×3 pixels, no two alike.
fn png() -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 5, 3);
    encoder.set_color(png::ColorType::Rgb);
    let pixels: Vec<u8> = (0..5 * 3 * 3).map(|byte| byte as u8 * 5).collect();
    encoder.write_header().unwrap().write_image_data(&pixels).unwrap();
    bytes
}

/// The PNG with a chunk before its pixels, or after them.
fn with_chunk(png: &[u8], before: bool, kind: &[u8; 4], body: &[u8]) -> Vec<u8> {
    let typed = [kind.as_slice(), body].concat();
    let mut sum = u32::MAX;
    for byte in &typed {
        sum ^= u32::from(*byte);
        for _ in 0..8 {
            sum = (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg());
        }
    }
    let chunk = [&(body.len() as u32).to_be_bytes(), typed.as_slice(), &(!sum).to_be_bytes()].concat();
    // The header's chunk ends at byte 33, the end's has 12 bytes.
    let at = if before { 33 } else { png.len() - 12 };
    [&png[..at], &chunk, &png[at..]].concat()
}

/// A zlib stream that stores its data as they are.
fn stored(data: &[u8]) -> Vec<u8> {
    let length = data.len() as u16;
    let (mut a, mut b) = (1_u32, 0_u32);
    for byte in data {
        a = (a + u32::from(*byte)) % 65521;
        b = (b + a) % 65521;
    }
    let sum = (b << 16 | a).to_be_bytes();
    [&[0x78, 0x01, 0x01], &length.to_le_bytes()[..], &(!length).to_le_bytes(), data, &sum].concat()
}

#[test]
fn all_orientations_of_jpeg_are_turned_in_both_byte_orders() {
    let files = Files::new();
    let plain = files.read("plain.jpg", &jpeg());
    for orientation in 0..=9 {
        for little in [false, true] {
            let body = [b"Exif\0\0".as_slice(), &exif(little, orientation)].concat();
            let found = files.read("turned.jpg", &with_app1(&jpeg(), &body));
            check(&found, &plain, orientation, &format!("JPEG, orientation {orientation}, little endian: {little}"));
        }
        let xmp = format!("http://ns.adobe.com/xap/1.0/\0<x:xmpmeta><rdf tiff:Orientation=\"{orientation}\"/>");
        let found = files.read("turned.jpg", &with_app1(&jpeg(), xmp.as_bytes()));
        check(&found, &plain, orientation, &format!("JPEG, orientation {orientation} in XMP"));
    }
}

#[test]
fn all_orientations_of_png_are_turned_wherever_they_stand() {
    let files = Files::new();
    let plain = files.read("plain.png", &png());
    for orientation in 0..=9 {
        let check = |kind: &[u8; 4], body: &[u8], what: &str| {
            for before in [true, false] {
                let found = files.read("turned.png", &with_chunk(&png(), before, kind, body));
                check(&found, &plain, orientation, &format!("PNG, {what} {orientation}, before the pixels: {before}"));
            }
        };
        check(b"eXIf", &exif(false, orientation), "EXIF");
        check(b"eXIf", &exif(true, orientation), "EXIF of the other byte order");
        let bytes = [b"Exif\0\0".as_slice(), &exif(false, orientation)].concat();
        let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let profile = format!("\nexif\n{:8}\n{}\n{}\n", bytes.len(), &digits[..72], &digits[72..]);
        check(b"tEXt", format!("Raw profile type exif\0{profile}").as_bytes(), "profile");
        let packed = [b"Raw profile type exif\0\0".as_slice(), &stored(profile.as_bytes())].concat();
        check(b"zTXt", &packed, "packed profile");
        let xmp = format!("XML:com.adobe.xmp\0\0\0\0\0<tiff:Orientation>{orientation}</tiff:Orientation>");
        check(b"iTXt", xmp.as_bytes(), "XMP");
    }
}

#[test]
fn a_folder_is_replayed_upright() {
    let files = Files::new();
    let plain = files.read("plain.jpg", &jpeg());
    std::fs::remove_file(files.0.path().join("plain.jpg")).unwrap();
    for orientation in 1..=8 {
        let body = [b"Exif\0\0".as_slice(), &exif(true, orientation)].concat();
        files.write(&format!("{orientation}.jpg"), &with_app1(&jpeg(), &body));
    }
    let config = FolderConfig { folder: files.0.path().to_owned(), rate_hz: 0.0, repeat: false };
    let mut camera = FolderCamera::open(&config).unwrap();
    let mut image = Image::default();
    for orientation in 1..=8 {
        camera.capture(&mut image, Duration::from_secs(1)).unwrap();
        check(&image, &plain, orientation, &format!("picture {orientation} of a folder"));
    }
}

#[test]
fn exif_that_cannot_be_read_leaves_the_picture_as_it_is() {
    let files = Files::new();
    let plain_jpeg = files.read("plain.jpg", &jpeg());
    let plain_png = files.read("plain.png", &png());
    let good = exif(true, 6);
    let mut bad: Vec<Vec<u8>> = (0..33).map(|length| good[..length].to_vec()).collect();
    let with = |at: usize, bytes: &[u8]| {
        let mut bad = good.clone();
        bad[at..at + bytes.len()].copy_from_slice(bytes);
        bad
    };
    // Offsets past the end, into the header and to themselves; kinds that are no whole numbers; counts.
    for offset in [0, 4, 26, 0x7fff_ffff, 0xffff_fff0, u32::MAX] {
        bad.push(with(4, &offset.to_le_bytes()));
    }
    for kind in [0_u16, 1, 2, 5, 7, 10, 12, 13, 16, 0xffff] {
        bad.push(with(24, &kind.to_le_bytes()));
    }
    for count in [0, 0x7fff_ffff, u32::MAX] {
        bad.push(with(26, &count.to_le_bytes()));
    }
    for value in [0_u16, 9, 0x600, 0xffff] {
        bad.push(with(30, &value.to_le_bytes()));
    }
    for (number, exif) in bad.iter().enumerate() {
        let body = [b"Exif\0\0".as_slice(), exif].concat();
        check(&files.read("bad.jpg", &with_app1(&jpeg(), &body)), &plain_jpeg, 1, &format!("JPEG {number}"));
        check(
            &files.read("bad.png", &with_chunk(&png(), true, b"eXIf", exif)),
            &plain_png,
            1,
            &format!("PNG {number}"),
        );
    }
    // The same with the good one is turned.
    check(&files.read("good.png", &with_chunk(&png(), true, b"eXIf", &good)), &plain_png, 6, "good");
}
