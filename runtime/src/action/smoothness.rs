//! Smoothness of the joins between chunks, from the executed steps.

/// Largest values over all joints and joins, in the joints' units, per second for rates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Smoothness {
    /// Joins.
    pub joins: usize,
    /// Distance at a join between the newer and the older chunk's value for the same step.
    pub jump: f32,
    /// Third difference of the steps around a join.
    pub jerk: f32,
    /// The same within chunks: the model's own jerk.
    pub inner_jerk: f32,
}

/// The executed steps in order.
#[derive(Debug)]
pub struct Joins {
    period_s: f32,
    /// The last steps: number of their chunk, and positions.
    steps: Vec<(u32, Vec<f32>)>,
    found: Smoothness,
}

impl Joins {
    /// For steps `period_s` apart.
    pub fn new(period_s: f32) -> Joins {
        Joins { period_s, steps: Vec::new(), found: Smoothness::default() }
    }

    /// The next step is executed. `instead` is the previous chunk's value for it, if it is the first of its chunk.
    pub fn step(&mut self, chunk: u32, positions: &[f32], instead: Option<&[f32]>) {
        if let Some(instead) = instead {
            self.found.joins += 1;
            let apart = positions.iter().zip(instead).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            self.found.jump = self.found.jump.max(apart);
        }
        self.steps.push((chunk, positions.to_vec()));
        if let [.., (first, a), (_, b), (_, c), (last, d)] = self.steps.as_slice() {
            let third = |((a, b), (c, d)): ((&f32, &f32), (&f32, &f32))| (d - 3.0 * c + 3.0 * b - a).abs();
            let largest = a.iter().zip(b).zip(c.iter().zip(d)).map(third).fold(0.0, f32::max);
            let jerk = largest / self.period_s.powi(3);
            let place = if first == last { &mut self.found.inner_jerk } else { &mut self.found.jerk };
            *place = place.max(jerk);
        }
        if self.steps.len() > 4 {
            self.steps.remove(0);
        }
    }

    /// A newer chunk replaces the step in progress; `instead` is the replaced value.
    pub fn replace(&mut self, chunk: u32, positions: &[f32], instead: &[f32]) {
        self.steps.pop();
        self.step(chunk, positions, Some(instead));
    }

    /// No chunk is in progress: the next chunk makes no join.
    pub fn rest(&mut self) {
        self.steps.clear();
    }

    /// The measured values up to now.
    pub fn found(&self) -> Smoothness {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_at_a_join_is_distinguished_from_motion_within_chunks() {
        let mut joins = Joins::new(0.1);
        for step in 0..6 {
            joins.step(1, &[step as f32 * 0.2, 0.0], None);
        }
        assert!(joins.found().inner_jerk < 1e-3, "a steady speed has no jerk: {:?}", joins.found());
        joins.step(2, &[1.2, 0.5], Some(&[1.2, 0.0]));
        let found = joins.found();
        assert_eq!((found.joins, found.jump), (1, 0.5));
        assert!((found.jerk - 500.0).abs() < 0.1, "{found:?}");
        joins.rest();
        joins.step(3, &[9.0, 9.0], None);
        assert_eq!(joins.found(), found, "after a rest there is no join");
    }
}
