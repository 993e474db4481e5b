use crate::params::Rope;

/// Turns the pairs `(i, i + head_dim/2)` of each head by the angle of their row's position, in place.
/// `table` is `(positions, head_dim / 2, [cos, sin])`.
pub fn rope(p: &Rope, table: &[f32], x: &mut [f32]) {
    let half = p.head_dim as usize / 2;
    for row in 0..p.rows as usize {
        for head in 0..p.heads as usize {
            for pair in 0..half {
                let at = p.x_offset as usize + row * p.x_stride as usize + head * p.head_dim as usize + pair;
                let angle = p.table_offset as usize + (row * half + pair) * 2;
                let (c, s) = (table[angle], table[angle + 1]);
                let (a, b) = (x[at], x[at + half]);
                x[at] = a * c - b * s;
                x[at + half] = b * c + a * s;
            }
        }
    }
}
