//! Real-time chunking: a chunk is guided towards the remainder of the one that the robot follows, so that the two join.
//!
//! As lerobot's `policies/rtc`: at each flow step, with τ the part of the flow that is done, the velocity becomes
//! `v − w(τ) · W[r] · (goal − x₁)`, where `x₁` is where the flow would end with this velocity, and the sign is that of
//! the flow's direction. lerobot takes no gradient through the model either.

use serde::{Deserialize, Serialize};

use crate::error::ModelError;
use crate::nets::config::{Flow, FlowDirection};
use crate::nets::flow;
use crate::processing::Loaded;

/// How the weight falls from the steps that cannot change any more to the horizon.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// At once.
    Zeros,
    /// Not at all before the horizon.
    Ones,
    /// By a line.
    #[default]
    Linear,
    /// By an exponential.
    Exp,
}

/// Weight of each of `rows` steps: 1 for the first `delay`, 0 from `horizon` on, between them by the schedule.
pub fn weights(schedule: Schedule, delay: usize, horizon: usize, rows: usize) -> Vec<f32> {
    let horizon = horizon.min(rows);
    let delay = delay.min(horizon);
    let between = (horizon - delay) as f32;
    let weight = |row: usize| match schedule {
        Schedule::Ones if row < horizon => 1.0,
        _ if row < delay => 1.0,
        _ if row >= horizon => 0.0,
        Schedule::Zeros | Schedule::Ones => 0.0,
        Schedule::Linear | Schedule::Exp => {
            let line = 1.0 - (row - delay + 1) as f32 / (between + 1.0);
            if schedule == Schedule::Linear { line } else { line * line.exp_m1() / (std::f32::consts::E - 1.0) }
        }
    };
    (0..rows).map(weight).collect()
}

/// The graph's input `gains`, `(steps, rows)`: each flow step's share of each row's weight. `most` bounds it.
pub fn gains(flow: &Flow, weights: &[f32], most: f32) -> Vec<f32> {
    let (times, _) = flow::times(flow);
    let sign = match flow.direction {
        FlowDirection::NoiseAtOne => 1.0,
        FlowDirection::NoiseAtZero => -1.0,
    };
    let step = |time: &f64| {
        let rest = flow::ahead(flow, *time).abs();
        let done = 1.0 - rest;
        let share = (rest / done) * (rest * rest + done * done) / (rest * rest);
        // At the beginning nothing is done, and the share has no bound.
        sign * if share.is_finite() { share.min(f64::from(most)) as f32 } else { most }
    };
    times.iter().map(step).flat_map(|share| weights.iter().map(move |weight| share * weight)).collect()
}

/// The guidance of an inference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Guide {
    /// `(steps, robot's action_dim)`, the robot's own: the remainder of the chunk that it follows. Step 0 belongs to the
    /// instant that the images show.
    pub left: Vec<f32>,
    /// Steps that will be over, or cannot change any more, when the chunk is there.
    pub delay: usize,
    /// From this step on the chunk is free.
    pub horizon: usize,
    /// How the weight falls between the two.
    pub schedule: Schedule,
    /// Bound on a flow step's share.
    pub most: f32,
}

impl Guide {
    /// The graph's inputs `goal (horizon, action_dim)` and `gains (steps, horizon)`. `state` is the robot's own, which
    /// relative actions are relative to.
    ///
    /// # Errors
    /// [`ModelError::Observation`] for no whole number of steps, or values that are not finite.
    pub fn inputs(&self, loaded: &Loaded, state: &[f32]) -> Result<(Vec<f32>, Vec<f32>), ModelError> {
        let config = &loaded.model.config;
        let refuse = |expected: &str, found: String| {
            Err(ModelError::Observation { name: "guide".to_owned(), expected: expected.to_owned(), found })
        };
        if self.left.is_empty() || !self.left.len().is_multiple_of(loaded.action_dim) {
            return refuse("whole steps of the robot's action", format!("{} values", self.left.len()));
        }
        if !self.most.is_finite() || self.most <= 0.0 {
            return refuse("a bound above 0", self.most.to_string());
        }
        let mut goal = vec![0.0; config.horizon * config.action_dim];
        let rows = goal.chunks_exact_mut(config.action_dim).zip(self.left.chunks_exact(loaded.action_dim));
        for (step, (to, left)) in rows.enumerate() {
            let mut row = left.to_vec();
            for ((value, relative), state) in row.iter_mut().zip(&loaded.normalization.relative).zip(state) {
                *value -= if *relative { *state } else { 0.0 };
            }
            loaded.normalization.action_at(step).normalize(&mut row);
            to.iter_mut().zip(row).for_each(|(to, value)| *to = value);
        }
        if let Some(value) = goal.iter().find(|v| !v.is_finite()) {
            return refuse("finite numbers", value.to_string());
        }
        let horizon = self.horizon.min(self.left.len() / loaded.action_dim);
        let weights = weights(self.schedule, self.delay, horizon, config.horizon);
        Ok((goal, gains(&config.flow, &weights, self.most)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// lerobot's `get_prefix_weights(2, 6, 8)` for each schedule, and its corners.
    #[test]
    fn weights_fall_as_lerobots() {
        let near = |found: Vec<f32>, expected: &[f32]| {
            assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?}, {expected:?}");
        };
        near(weights(Schedule::Zeros, 2, 6, 8), &[1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        near(weights(Schedule::Ones, 2, 6, 8), &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
        near(weights(Schedule::Linear, 2, 6, 8), &[1.0, 1.0, 0.8, 0.6, 0.4, 0.2, 0.0, 0.0]);
        let exp = [1.0, 1.0, 0.570_589, 0.287_072_4, 0.114_492_2, 0.025_770_25, 0.0, 0.0];
        near(weights(Schedule::Exp, 2, 6, 8), &exp);
        near(weights(Schedule::Linear, 9, 4, 6), &[1.0, 1.0, 1.0, 1.0, 0.0, 0.0]);
        near(weights(Schedule::Linear, 0, 0, 3), &[0.0; 3]);
    }

    #[test]
    fn the_share_is_bounded_where_nothing_is_done() {
        let flow = |direction| Flow { steps: 4, direction, clip: None, sig_min: None };
        let found = gains(&flow(FlowDirection::NoiseAtOne), &[1.0, 0.5], 10.0);
        let share = |rest: f32| (rest * rest + (1.0 - rest) * (1.0 - rest)) / (rest * (1.0 - rest));
        let expected = [10.0, share(0.75), share(0.5), share(0.25)];
        for (step, expected) in expected.into_iter().enumerate() {
            assert!((found[2 * step] - expected).abs() < 1e-5, "{found:?}");
            assert!((found[2 * step + 1] - expected / 2.0).abs() < 1e-5, "{found:?}");
        }
        let other = gains(&flow(FlowDirection::NoiseAtZero), &[1.0, 0.5], 10.0);
        assert!(other.iter().zip(&found).all(|(a, b)| a + b == 0.0), "the other direction, the other sign");
    }
}
