//! The mean of all chunks that contain a step.

use std::collections::VecDeque;

/// Largest number of kept chunks.
const CHUNKS: usize = 64;

/// Chunks by the count of their step 0, oldest first.
#[derive(Debug)]
pub(super) struct Ensemble {
    joints: usize,
    decay: f32,
    chunks: VecDeque<(u64, Vec<f32>)>,
}

impl Ensemble {
    pub(super) fn new(joints: usize, decay: f32) -> Ensemble {
        Ensemble { joints, decay, chunks: VecDeque::new() }
    }

    pub(super) fn forget(&mut self) {
        self.chunks.clear();
    }

    /// Adds a chunk `(_, joints)` whose step 0 has the count `base`. Returns the means of its first `steps` steps.
    pub(super) fn mean(&mut self, base: u64, actions: &[f32], steps: usize) -> Vec<f32> {
        if self.chunks.len() == CHUNKS {
            self.chunks.pop_front();
        }
        self.chunks.push_back((base, actions.to_vec()));
        let joints = self.joints.max(1);
        self.chunks.retain(|(from, chunk)| from + (chunk.len() / joints) as u64 > base);
        let mut means = Vec::with_capacity(steps * joints);
        for count in base..base + steps as u64 {
            let rows = self.chunks.iter().filter_map(|(from, chunk)| {
                let at = count.checked_sub(*from)? as usize * joints;
                chunk.get(at..at + joints)
            });
            let (mut sum, mut total) = (vec![0.0_f64; joints], 0.0);
            for (n, row) in rows.enumerate() {
                let weight = (-f64::from(self.decay) * n as f64).exp();
                total += weight;
                sum.iter_mut().zip(row).for_each(|(sum, value)| *sum += weight * f64::from(*value));
            }
            means.extend(sum.iter().map(|sum| (sum / total) as f32));
        }
        means
    }
}
