use crate::params::GatedAdd;

/// `x[r, c] += gate[c] · f[r, c]`, in place.
pub fn gated_add(p: &GatedAdd, f: &[f32], gate: &[f32], x: &mut [f32]) {
    for r in 0..p.rows as usize {
        for c in 0..p.cols as usize {
            x[p.x_offset as usize + r * p.x_stride as usize + c] +=
                gate[p.gate_offset as usize + c] * f[p.f_offset as usize + r * p.f_stride as usize + c];
        }
    }
}
