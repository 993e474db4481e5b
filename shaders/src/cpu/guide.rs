use crate::params::Guide;

/// `y −= dt · gain · (goal − (x + ahead · v))`, in place, with `v = (y − x) / dt`; the gain is the row's.
pub fn guide(p: &Guide, x: &[f32], goal: &[f32], gains: &[f32], y: &mut [f32]) {
    for (i, y) in y.iter_mut().enumerate().take(p.count as usize) {
        let end = x[i] + p.ahead * ((*y - x[i]) / p.dt);
        let gain = gains[p.gain_offset as usize + i / p.cols as usize];
        *y -= p.dt * gain * (goal[i] - end);
    }
}
