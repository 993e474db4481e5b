//! The comparison in numbers, without model, GPU or files.

use std::collections::BTreeMap;

use serde::Serialize;

/// Version of the JSON.
const SCHEMA: u32 = 1;

/// The compared models.
pub(crate) struct Given {
    pub(crate) observations: Vec<String>,
    pub(crate) seeds: u64,
    /// Names of the action's elements; none for a depth model.
    pub(crate) joints: Vec<String>,
    pub(crate) horizon: usize,
    pub(crate) scheme: String,
    pub(crate) threshold: f64,
    pub(crate) max_error: Option<f64>,
}

/// One of the two models.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Model {
    pub(crate) directory: String,
    pub(crate) family: String,
    pub(crate) weight_bytes: u64,
    pub(crate) kernels: String,
}

/// Similarity of two lists of numbers: |a − b| / |a| is the relative error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Nearness {
    pub(crate) cosine: f64,
    pub(crate) relative_error: f64,
}

impl Nearness {
    pub(crate) fn of(expected: &[f32], found: &[f32]) -> Nearness {
        if expected.len() != found.len() {
            return Nearness { cosine: f64::NAN, relative_error: f64::INFINITY };
        }
        let (mut ab, mut aa, mut bb, mut dd) = (0.0, 0.0, 0.0, 0.0);
        for (a, b) in expected.iter().zip(found) {
            let (a, b) = (f64::from(*a), f64::from(*b));
            (ab, aa, bb, dd) = (ab + a * b, aa + a * a, bb + b * b, dd + (a - b) * (a - b));
        }
        if dd == 0.0 {
            return Nearness { cosine: 1.0, relative_error: 0.0 };
        }
        Nearness { cosine: ab / (aa * bb).sqrt(), relative_error: (dd / aa).sqrt() }
    }
}

/// One stage over all observations.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) cosine_worst: f64,
    pub(crate) cosine_mean: f64,
    pub(crate) relative_error_worst: f64,
    pub(crate) relative_error_mean: f64,
}

/// Errors of some actions.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Errors {
    pub(crate) rms: f64,
    pub(crate) largest: f64,
}

impl Errors {
    fn of(errors: impl Iterator<Item = f64>) -> Errors {
        let (mut count, mut sum, mut largest) = (0.0, 0.0, 0.0_f64);
        for error in errors {
            (count, sum, largest) = (count + 1.0, sum + error * error, largest.max(error.abs()));
        }
        Errors { rms: if count > 0.0 { f64::sqrt(sum / count) } else { 0.0 }, largest }
    }
}

/// One element of the robot's own action, in its own unit.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Joint {
    pub(crate) name: String,
    /// Least and largest value of the reference.
    pub(crate) reference: [f64; 2],
    #[serde(flatten)]
    pub(crate) all: Errors,
    /// 95th percentile of the errors.
    pub(crate) p95: f64,
    /// By step of the horizon.
    pub(crate) steps: Vec<Errors>,
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Run {
    pub(crate) observation: String,
    pub(crate) seed: u64,
    #[serde(flatten)]
    pub(crate) actions: Nearness,
    /// Largest error of a joint, in its own unit.
    pub(crate) largest: f64,
}

/// The whole comparison.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) schema: u32,
    pub(crate) passed: bool,
    /// Least accepted cosine of the actions in any run, the least cosine found, and its run.
    pub(crate) threshold: f64,
    pub(crate) worst: f64,
    pub(crate) max_error: Option<f64>,
    pub(crate) scheme: String,
    pub(crate) reference: Model,
    pub(crate) packed: Model,
    pub(crate) adapter: String,
    pub(crate) software: bool,
    pub(crate) observations: Vec<String>,
    pub(crate) seeds: u64,
    /// In the order of the data flow.
    pub(crate) stages: Vec<Stage>,
    pub(crate) joints: Vec<Joint>,
    /// By step of the horizon, over all joints, normalised.
    pub(crate) steps: Vec<Errors>,
    pub(crate) runs: Vec<Run>,
}

/// Sums up runs.
pub(crate) struct Collector {
    given: Given,
    reference: Model,
    packed: Model,
    adapter: String,
    software: bool,
    order: Vec<String>,
    stages: BTreeMap<String, Vec<Nearness>>,
    runs: Vec<Run>,
    /// Pairs of (expected, found) by joint and step, in the joint's own unit.
    own: Vec<Vec<Vec<(f64, f64)>>>,
    /// Errors by step, normalised.
    normalized: Vec<Vec<f64>>,
}

impl Collector {
    pub(crate) fn new(given: Given, reference: Model, packed: Model, adapter: String, software: bool) -> Collector {
        let own = vec![vec![Vec::new(); given.horizon]; given.joints.len()];
        let normalized = vec![Vec::new(); given.horizon];
        let (order, stages, runs) = (Vec::new(), BTreeMap::new(), Vec::new());
        Collector { given, reference, packed, adapter, software, order, stages, runs, own, normalized }
    }

    /// Adds the `i`-th run: normalised actions, and actions in the robot's units, expected and found.
    pub(crate) fn run(&mut self, i: usize, normalized: [&[f32]; 2], own: [&[f32]; 2]) {
        let (observation, seed) = (i as u64 / self.given.seeds, i as u64 % self.given.seeds);
        let pairs = |[a, b]: [&[f32]; 2]| -> Vec<(f64, f64)> {
            a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b))).collect()
        };
        let width = normalized[0].len() / self.given.horizon.max(1);
        for (row, errors) in pairs(normalized).chunks(width.max(1)).zip(&mut self.normalized) {
            errors.extend(row.iter().take(self.given.joints.len()).map(|(a, b)| b - a));
        }
        let own = pairs(own);
        for (step, row) in own.chunks(self.given.joints.len().max(1)).enumerate() {
            for (pair, joint) in row.iter().zip(&mut self.own) {
                joint.get_mut(step).into_iter().for_each(|pairs| pairs.push(*pair));
            }
        }
        self.runs.push(Run {
            observation: self.given.observations.get(observation as usize).cloned().unwrap_or_default(),
            seed,
            actions: Nearness::of(normalized[0], normalized[1]),
            largest: Errors::of(own.iter().map(|(a, b)| b - a)).largest,
        });
    }

    pub(crate) fn stage(&mut self, name: &str, expected: &[f32], found: &[f32]) {
        if !self.stages.contains_key(name) {
            self.order.push(name.to_owned());
        }
        self.stages.entry(name.to_owned()).or_default().push(Nearness::of(expected, found));
    }

    pub(crate) fn finish(self) -> Report {
        let mean = |values: &[Nearness], of: fn(&Nearness) -> f64| {
            values.iter().map(of).sum::<f64>() / values.len().max(1) as f64
        };
        let stage = |name: &String| {
            let all = self.stages.get(name).map_or(&[][..], Vec::as_slice);
            Stage {
                name: name.clone(),
                cosine_worst: worst(all.iter().map(|n| n.cosine)),
                cosine_mean: mean(all, |n| n.cosine),
                relative_error_worst: all.iter().map(|n| n.relative_error).fold(0.0, f64::max),
                relative_error_mean: mean(all, |n| n.relative_error),
            }
        };
        let joint = |(name, steps): (&String, &Vec<Vec<(f64, f64)>>)| {
            let all = || steps.iter().flatten();
            let mut errors: Vec<f64> = all().map(|(a, b)| (b - a).abs()).collect();
            errors.sort_by(f64::total_cmp);
            let bound = |from: f64, choose: fn(f64, f64) -> f64| all().map(|(a, _)| *a).fold(from, choose);
            Joint {
                name: name.clone(),
                reference: [bound(f64::INFINITY, f64::min), bound(f64::NEG_INFINITY, f64::max)],
                all: Errors::of(all().map(|(a, b)| b - a)),
                p95: errors.get((errors.len() * 19).div_ceil(20).saturating_sub(1)).copied().unwrap_or(0.0),
                steps: steps.iter().map(|step| Errors::of(step.iter().map(|(a, b)| b - a))).collect(),
            }
        };
        let least = worst(self.runs.iter().map(|run| run.actions.cosine));
        let largest = self.runs.iter().map(|run| run.largest).fold(0.0, f64::max);
        Report {
            schema: SCHEMA,
            passed: least >= self.given.threshold && self.given.max_error.is_none_or(|most| largest <= most),
            threshold: self.given.threshold,
            worst: least,
            max_error: self.given.max_error,
            scheme: self.given.scheme,
            reference: self.reference,
            packed: self.packed,
            adapter: self.adapter,
            software: self.software,
            observations: self.given.observations,
            seeds: self.given.seeds,
            stages: self.order.iter().map(stage).collect(),
            joints: self.given.joints.iter().zip(&self.own).map(joint).collect(),
            steps: self.normalized.iter().map(|step| Errors::of(step.iter().copied())).collect(),
            runs: self.runs,
        }
    }
}

/// The smallest value; NaN if there is one.
fn worst(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(f64::INFINITY, |least, v| if v < least || v.is_nan() { v } else { least })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collector(threshold: f64, max_error: Option<f64>) -> Collector {
        let given = Given {
            observations: vec!["a".to_owned()],
            seeds: 2,
            joints: vec!["elbow".to_owned(), "hand".to_owned()],
            horizon: 2,
            scheme: "w8".to_owned(),
            threshold,
            max_error,
        };
        let model = Model { directory: String::new(), family: String::new(), weight_bytes: 1, kernels: String::new() };
        Collector::new(given, model.clone(), model, String::new(), true)
    }

    /// Errors by hand: of joints in their own unit, of steps normalised, without the model's padding.
    #[test]
    fn errors_go_to_their_joint_and_step() {
        let mut c = collector(0.9, None);
        // Three normalised values a step, of which the robot has two.
        c.run(
            0,
            [&[1.0, 0.0, 0.0, 0.0, 1.0, 0.0], &[1.0, 0.5, 9.0, 0.0, 1.0, 0.0]],
            [&[1.0, 2.0, 3.0, 4.0], &[1.5, 2.0, 3.0, 2.0]],
        );
        c.run(1, [&[1.0; 6], &[1.0; 6]], [&[5.0; 4], &[5.0; 4]]);
        c.stage("vision", &[3.0, 4.0], &[3.0, 4.0]);
        c.stage("vision", &[3.0, 4.0], &[4.0, 3.0]);
        let r = c.finish();
        assert_eq!((r.joints[0].all.largest, r.joints[1].all.largest), (0.5, 2.0));
        assert_eq!((r.joints[0].steps[0].largest, r.joints[0].steps[1].largest), (0.5, 0.0));
        assert_eq!(r.joints[1].reference, [2.0, 5.0]);
        assert!((r.joints[0].all.rms - 0.25).abs() < 1e-12, "0.5 once in four");
        assert_eq!((r.steps[0].largest, r.steps[1].largest), (0.5, 0.0), "padding does not count");
        assert_eq!((r.runs[1].actions.cosine, r.runs[1].seed, r.runs[0].largest), (1.0, 1, 2.0));
        assert!((r.stages[0].cosine_worst - 0.96).abs() < 1e-12);
        assert!((r.stages[0].cosine_mean - 0.98).abs() < 1e-12);
        assert!((r.stages[0].relative_error_worst - 2.0_f64.sqrt() / 5.0).abs() < 1e-12);
        assert!(!r.passed && r.worst < 0.2, "{}", r.worst);
    }

    #[test]
    fn both_bounds_count() {
        let run = |mut c: Collector, found: f32| {
            c.run(0, [&[1.0; 4], &[1.0; 4]], [&[1.0; 4], &[found; 4]]);
            c.finish().passed
        };
        assert!(run(collector(1.0, None), 3.0) && run(collector(1.0, Some(2.0)), 3.0));
        assert!(!run(collector(1.0, Some(1.9)), 3.0) && !run(collector(1.1, None), 1.0));
        let mut c = collector(0.0, None);
        c.run(0, [&[1.0; 4], &[f32::NAN; 4]], [&[1.0; 4], &[1.0; 4]]);
        assert!(!c.finish().passed, "NaN never passes");
    }
}
