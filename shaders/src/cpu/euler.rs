use crate::params::Euler;

/// `x += dt · (v − gain · (goal − (x + ahead · v)))`, in place; the gain is the row's.
pub fn euler(p: &Euler, velocity: &[f32], goal: &[f32], gains: &[f32], x: &mut [f32]) {
    for (i, x) in x.iter_mut().enumerate().take(p.count as usize) {
        let v = velocity[i];
        let missed = goal[i] - (*x + p.ahead * v);
        let gain = gains[p.gain_offset as usize + i / p.cols as usize];
        *x += p.dt * (v - gain * missed);
    }
}
