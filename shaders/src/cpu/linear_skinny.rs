use super::linear::{Epilogue, Weights, linear};
use crate::params::Linear;

/// The same function as [`linear`]: the kernels differ in how they share the work among threads.
pub fn linear_skinny(p: &Linear, x: &[f32], w: Weights<'_>, e: Epilogue<'_>, y: &mut [f32]) {
    linear(p, x, w, e, y);
}
