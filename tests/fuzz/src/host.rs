//! The files that the host reads.

use super::models::{folder, golden};

/// One configuration file of a model directory that is whole besides, or a `robot.toml`: the first byte says which.
pub fn config(data: &[u8]) {
    const FILES: [&str; 5] =
        ["config.json", "fathom.json", "policy_preprocessor.json", "policy_postprocessor.json", "tokenizer.json"];
    let Some((which, text)) = data.split_first() else { return };
    let dir = folder().join(format!("config-{:?}", std::thread::current().id()));
    let Some(name) = FILES.get(usize::from(*which) % (FILES.len() + 1)) else {
        std::fs::create_dir_all(&dir).expect("a folder");
        let path = dir.join("robot.toml");
        std::fs::write(&path, text).expect("written");
        let _ = fathom::config::RobotConfig::load(&path);
        return;
    };
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("a folder");
    for entry in std::fs::read_dir(golden("pi0_lerobot")).expect("a golden") {
        let entry = entry.expect("an entry");
        let keep = !["golden.safetensors", "observation.safetensors"].contains(&&*entry.file_name().to_string_lossy());
        if keep && entry.file_name() != *name {
            std::os::unix::fs::symlink(entry.path().canonicalize().expect("there"), dir.join(entry.file_name()))
                .expect("a link");
        }
    }
    std::fs::write(dir.join(name), text).expect("written");
    if *name == "tokenizer.json" {
        if let Ok(tokenizer) = fathom_models::processing::tokenizer::Tokenizer::open(&dir) {
            let _ = tokenizer.prompt("pick up the red block, ünï and 12");
        }
        return;
    }
    let _ = fathom_models::families::load(&dir);
}

/// Where a JPEG picture is cut, two bytes, and the picture: a cut picture that is taken in spite of that shows what the whole
/// one shows.
pub fn jpeg(data: &[u8]) {
    let Some((cut, data)) = data.split_first_chunk::<2>() else { return };
    let path = folder().join(format!("{:?}.jpg", std::thread::current().id()));
    let read = |data: &[u8]| {
        std::fs::write(&path, data).expect("written");
        fathom::camera::read_picture(&path)
    };
    let Ok(image) = read(data) else { return };
    image.check("a picture").expect("what was decoded is a whole image");
    let kept = usize::from(u16::from_le_bytes(*cut)).min(data.len());
    if let Ok(cut) = read(&[&data[..kept], &[0xff, 0xd9]].concat()) {
        assert!(cut.data == image.data, "{kept} bytes of {} show another picture", data.len());
    }
}

/// EXIF of a picture: whatever it says, the pixels are those of the picture, turned.
pub fn exif(data: &[u8]) {
    const PICTURE: &[u8] = include_bytes!("../../jpeg/grey.jpg");
    let exif = &data[..data.len().min(60_000)];
    let length = (exif.len() as u16 + 8).to_be_bytes();
    let parts = [&PICTURE[..2], &[0xff, 0xe1], &length, b"Exif\0\0", exif, &PICTURE[2..]];
    let path = folder().join(format!("{:?}.exif", std::thread::current().id()));
    std::fs::write(&path, parts.concat()).expect("written");
    let image = fathom::camera::read_picture(&path).expect("a picture");
    image.check("a picture").expect("what was decoded is a whole image");
    assert!(matches!((image.width, image.height), (45, 35) | (35, 45)), "{}×{}", image.width, image.height);
}

/// A picture's file: a JPEG as a camera sends it, or a PNG.
pub fn picture(data: &[u8]) {
    let path = folder().join(format!("{:?}.picture", std::thread::current().id()));
    std::fs::write(&path, data).expect("written");
    if let Ok(image) = fathom::camera::read_picture(&path) {
        image.check("a picture").expect("what was decoded is a whole image");
    }
}
