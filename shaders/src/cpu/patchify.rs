use crate::params::Patchify;

/// The image `(height, width, 3)` as normalised rows of patches `(height / patch · width / patch, 3 · patch²)`, each in the order (channel, y, x).
pub fn patchify(p: &Patchify, square: &[f32], patches: &mut [f32]) {
    let [width, height, patch] = [p.width as usize, p.height as usize, p.patch_side as usize];
    let (grid, area) = (width / patch, patch * patch);
    let mean = [p.mean_r, p.mean_g, p.mean_b];
    let deviation = [p.std_r, p.std_g, p.std_b];
    for t in 0..height / patch * grid {
        for i in 0..3 * area {
            let channel = i / area;
            let y = (t / grid) * patch + (i / patch) % patch;
            let x = (t % grid) * patch + i % patch;
            patches[p.y_offset as usize + t * 3 * area + i] =
                (square[(y * width + x) * 3 + channel] - mean[channel]) / deviation[channel];
        }
    }
}
