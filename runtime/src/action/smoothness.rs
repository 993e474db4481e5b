//! How smoothly chunks join, from the steps that are followed.

/// Largest values of all joints and joins, in the joints' units, per second where they are rates.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Smoothness {
    /// Joins.
    pub joins: usize,
    /// Distance at a join between what the newer chunk has for a step and what the older one had.
    pub jump: f32,
    /// Third difference of the steps, over those around a join.
    pub jerk: f32,
    /// The same within chunks: what the model does by itself.
    pub inner_jerk: f32,
}

/// The steps that are followed, one after the other.
#[derive(Debug)]
pub struct Joins {
    period_s: f32,
    /// The last steps: name of their chunk, and positions.
    steps: Vec<(u32, Vec<f32>)>,
    found: Smoothness,
}

impl Joins {
    /// For steps that are `period_s` apart.
    pub fn new(period_s: f32) -> Joins {
        Joins { period_s, steps: Vec::new(), found: Smoothness::default() }
    }

    /// The next step is followed. `instead` is what the chunk before had for it, where it is the first of its chunk.
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

    /// The step that is followed is another chunk's from now on; `instead` is what it was.
    pub fn replace(&mut self, chunk: u32, positions: &[f32], instead: &[f32]) {
        self.steps.pop();
        self.step(chunk, positions, Some(instead));
    }

    /// Nothing is followed: what comes next joins nothing.
    pub fn rest(&mut self) {
        self.steps.clear();
    }

    /// What was found so far.
    pub fn found(&self) -> Smoothness {
        self.found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_at_a_join_is_told_from_motion_within_chunks() {
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
