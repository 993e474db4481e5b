use crate::params::Unpatchify;

/// `map[y, x] = link( tokens[(y / p) · grid + x / p, (y % p) · p + x % p] )`.
pub fn unpatchify(p: &Unpatchify, tokens: &[f32], map: &mut [f32]) {
    let (side, patch) = (p.side as usize, p.patch_side as usize);
    for y in 0..side {
        for x in 0..side {
            let token = (y / patch) * (side / patch) + x / patch;
            let at = p.x_offset as usize + token * p.x_stride as usize + (y % patch) * patch + x % patch;
            map[p.y_offset as usize + y * side + x] = match p.link {
                1 => tokens[at].exp(),
                2 => 1.0 / (1.0 + (-tokens[at]).exp()),
                _ => tokens[at],
            };
        }
    }
}
