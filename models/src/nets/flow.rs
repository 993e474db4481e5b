//! Flow matching: the times of the Euler steps and their sinusoidal embedding, on the host in f64.
//! (The arguments reach 1571 rad; `sin` of such arguments is not accurate in WGSL.)

use crate::nets::config::{Flow, FlowDirection, TimeEmbedding};

/// Flow time of each step, rounded to f32 as the origins hold it (their embeddings are of the rounded time), and the
/// step's `dt`.
pub fn times(flow: &Flow) -> (Vec<f64>, f64) {
    let n = flow.steps as f64;
    let at = |k: usize| match flow.direction {
        FlowDirection::NoiseAtOne => 1.0 - k as f64 / n,
        FlowDirection::NoiseAtZero => k as f64 / n,
    };
    let dt = match flow.direction {
        FlowDirection::NoiseAtOne => -1.0 / n,
        FlowDirection::NoiseAtZero => 1.0 / n,
    };
    ((0..flow.steps).map(|k| f64::from(at(k) as f32)).collect(), dt)
}

/// Flow time from `time` to the actions, with the sign of a step.
pub fn ahead(flow: &Flow, time: f64) -> f64 {
    match flow.direction {
        FlowDirection::NoiseAtOne => -time,
        FlowDirection::NoiseAtZero => 1.0 - time,
    }
}

/// `[sin ∥ cos]` of the flow time `t`, `width` values (openpi `posemb_sincos`; open-pi-zero `SinusoidalPosEmb`).
pub fn embed_time(kind: &TimeEmbedding, t: f64, width: usize) -> Vec<f32> {
    let half = width / 2;
    let last = (half.max(2) - 1) as f64;
    let angle = |i: usize| match *kind {
        TimeEmbedding::Openpi { min_period, max_period } => {
            let period = min_period * (max_period / min_period).powf(i as f64 / last);
            std::f64::consts::TAU * t / period
        }
        TimeEmbedding::OpenPiZero { max_period } => t * (-(i as f64) * max_period.ln() / last).exp(),
    };
    (0..half).map(|i| angle(i).sin() as f32).chain((0..half).map(|i| angle(i).cos() as f32)).collect()
}

/// Name of the graph's stage of flow step `step`, counted from 0.
#[must_use]
pub fn stage(step: usize) -> String {
    format!("{STAGE}{}", step + 1)
}

/// Whether a stage of this name is a flow step.
#[must_use]
pub fn is_stage(name: &str) -> bool {
    name.starts_with(STAGE)
}

const STAGE: &str = "flow step ";

#[cfg(test)]
mod tests {
    use super::*;

    /// MODEL check values of openpi's embedding (f64, width 1024), and both directions' ends.
    #[test]
    fn openpi_check_values() {
        let kind = TimeEmbedding::Openpi { min_period: 4e-3, max_period: 4.0 };
        for (t, expected) in [
            (1.0, [(1, -0.783_218_97), (255, -0.252_885_68), (511, 1.0), (512, 1.0), (1023, 0.0)]),
            (0.9, [(1, -0.132_245_53), (255, 0.855_513_37), (511, 0.987_688_34), (512, 1.0), (1023, 0.156_434_47)]),
            (0.1, [(1, -0.858_563_07), (255, -0.958_645_24), (511, 0.156_434_47), (512, 1.0), (1023, 0.987_688_34)]),
        ] {
            let tau = embed_time(&kind, t, 1024);
            for (i, v) in expected {
                assert!((f64::from(tau[i]) - v).abs() < 1e-6, "t = {t}, τ[{i}] = {}, expected {v}", tau[i]);
            }
        }
        let flow = |direction| Flow { steps: 4, direction, clip: None, sig_min: None };
        assert_eq!(times(&flow(FlowDirection::NoiseAtOne)), (vec![1.0, 0.75, 0.5, 0.25], -0.25));
        assert_eq!(times(&flow(FlowDirection::NoiseAtZero)), (vec![0.0, 0.25, 0.5, 0.75], 0.25));
    }
}
