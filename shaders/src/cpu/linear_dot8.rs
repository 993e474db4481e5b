use super::linear::{LinearIn, linear};
use crate::params::Linear;

/// The function of [`linear`] for an x whose rows are rounded to 127ths of their largest magnitude.
pub fn linear_dot8(p: &Linear, i: LinearIn<'_>, y: &mut [f32], side: &mut [f32]) {
    let mut x = i.x.to_vec();
    for r in 0..p.m as usize {
        let row = &mut x[p.x_offset as usize + r * p.x_stride as usize..][..p.k as usize];
        let top = row.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        if top > 0.0 {
            row.iter_mut().for_each(|v| *v = (*v / top * 127.0).round_ties_even() * (top / 127.0));
        }
    }
    linear(p, LinearIn { x: &x, ..i }, y, side);
}
