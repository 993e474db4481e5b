//! The committed JPEG picture: 48×32 pixels, the left half red, the right half blue.

use std::path::{Path, PathBuf};

/// Folder of the picture `picture.jpg` and of the played device.
pub(crate) fn shim_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("shim")
}

/// Checks the picture's pixels, RGB24.
pub(crate) fn check_picture(rgb: &[u8]) {
    assert_eq!(rgb.len(), 48 * 32 * 3);
    for (index, pixel) in rgb.chunks(3).enumerate() {
        // Colour has half the resolution, so it runs over the border between the halves.
        let expected = match index % 48 {
            0..22 => [200, 40, 30],
            22..26 => continue,
            _ => [20, 60, 190],
        };
        for (part, expected) in pixel.iter().zip(expected) {
            assert!(part.abs_diff(expected) <= 8, "pixel {index}: {pixel:?}");
        }
    }
}
