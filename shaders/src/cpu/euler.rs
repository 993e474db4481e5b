use crate::params::Euler;

/// `x += dt · velocity`, in place.
pub fn euler(p: &Euler, velocity: &[f32], x: &mut [f32]) {
    for (x, v) in x.iter_mut().zip(velocity).take(p.count as usize) {
        *x += p.dt * v;
    }
}
