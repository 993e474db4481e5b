//! Durations by stage, in fixed memory.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::gpu::AdapterInfo;

/// Statistics of one stage, in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Stage {
    /// Its name.
    pub name: String,
    /// Samples.
    pub count: u64,
    /// Half are at most this long.
    pub p50_ns: u64,
    /// 99 of 100 are at most this long.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

/// What a table was measured on.
#[derive(Clone, Debug, Serialize)]
pub struct Header {
    /// Adapter's name.
    pub adapter: String,
    /// `discrete`, `integrated`, `virtual`, `other`, or `software`.
    pub adapter_type: String,
    /// Driver and version.
    pub driver: String,
    /// What ran.
    pub model: String,
    /// Dispatches of an inference.
    pub dispatches: usize,
}

impl Header {
    /// The header for what ran on `adapter`.
    pub fn new(adapter: &AdapterInfo, model: String, dispatches: usize) -> Header {
        Header {
            adapter: adapter.name.clone(),
            adapter_type: adapter.kind.to_string(),
            driver: adapter.driver.clone(),
            model,
            dispatches,
        }
    }
}

impl fmt::Display for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "adapter: {} ({}, {})", self.adapter, self.adapter_type, self.driver)?;
        write!(f, "model: {}, {} dispatches an inference", self.model, self.dispatches)?;
        if self.adapter_type == "software" {
            write!(f, "\nA SOFTWARE DRIVER ran this on the CPU: these are not a GPU's times.")?;
        }
        Ok(())
    }
}

/// Durations by stage, in the order in which the stages first came.
#[derive(Debug, Default)]
pub struct StageTable {
    stages: Vec<(String, Histogram<u64>)>,
}

/// Longest duration that is told from longer ones: ten minutes.
const MAX_NS: u64 = 600_000_000_000;

impl StageTable {
    /// Adds a duration of a stage.
    pub fn record(&mut self, name: &str, ns: u64) {
        let index = match self.stages.iter().position(|(n, _)| n == name) {
            Some(index) => index,
            None => {
                // Bounds and digits are constants that the histogram accepts.
                let Ok(histogram) = Histogram::new_with_bounds(1, MAX_NS, 3) else { return };
                self.stages.push((name.to_owned(), histogram));
                self.stages.len() - 1
            }
        };
        if let Some((_, histogram)) = self.stages.get_mut(index) {
            histogram.saturating_record(ns.clamp(1, MAX_NS));
        }
    }

    /// Statistics of every stage.
    pub fn stages(&self) -> Vec<Stage> {
        self.stages
            .iter()
            .map(|(name, h)| Stage {
                name: name.clone(),
                count: h.len(),
                p50_ns: h.value_at_quantile(0.5),
                p99_ns: h.value_at_quantile(0.99),
                max_ns: h.max(),
            })
            .collect()
    }
}

impl fmt::Display for StageTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stages = self.stages();
        let width = stages.iter().map(|s| s.name.chars().count()).max().unwrap_or(0).max(5);
        write!(f, "{:width$}  {:>6}  {:>9}  {:>9}  {:>9}", "stage", "count", "p50 ms", "p99 ms", "max ms")?;
        for s in &stages {
            let ms = |ns: u64| ns as f64 / 1e6;
            let pad = width - s.name.chars().count();
            write!(f, "\n{}{:pad$}  {:>6}", s.name, "", s.count)?;
            write!(f, "  {:>9.3}  {:>9.3}  {:>9.3}", ms(s.p50_ns), ms(s.p99_ns), ms(s.max_ns))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_those_of_the_samples() {
        let mut table = StageTable::default();
        (1..=1000).for_each(|ms| table.record("a", ms * 1_000_000));
        table.record("b", u64::MAX);
        let stages = table.stages();
        let near = |found: u64, ms: u64| (found as f64 / (ms as f64 * 1e6) - 1.0).abs() < 2e-3;
        assert!(
            near(stages[0].p50_ns, 500) && near(stages[0].p99_ns, 990) && near(stages[0].max_ns, 1000),
            "{stages:?}"
        );
        assert_eq!((stages[0].count, stages[1].count), (1000, 1));
        assert!(table.to_string().contains("stage"), "a table is printed");
    }
}
