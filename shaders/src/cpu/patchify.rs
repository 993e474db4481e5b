use crate::params::Patchify;

/// The square `(side, side, 3)` as normalised rows of patches `(grid², 3 · patch²)`, each in the order (channel, y, x).
pub fn patchify(p: &Patchify, square: &[f32], patches: &mut [f32]) {
    let (side, patch) = (p.side as usize, p.patch_side as usize);
    let (grid, area) = (side / patch, patch * patch);
    let mean = [p.mean_r, p.mean_g, p.mean_b];
    let deviation = [p.std_r, p.std_g, p.std_b];
    for t in 0..grid * grid {
        for i in 0..3 * area {
            let channel = i / area;
            let y = (t / grid) * patch + (i / patch) % patch;
            let x = (t % grid) * patch + i % patch;
            patches[p.y_offset as usize + t * 3 * area + i] =
                (square[(y * side + x) * 3 + channel] - mean[channel]) / deviation[channel];
        }
    }
}
