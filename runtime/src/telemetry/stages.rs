//! Durations by stage, in fixed memory.

use std::fmt;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Statistics of one stage, in nanoseconds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Its name. The prefix `= ` marks a sum of stages or a whole path.
    pub name: String,
    /// Samples.
    pub count: u64,
    /// Their mean.
    pub mean_ns: u64,
    /// Median.
    pub p50_ns: u64,
    /// 90th percentile.
    pub p90_ns: u64,
    /// 99th percentile.
    pub p99_ns: u64,
    /// 99.9th percentile.
    pub p999_ns: u64,
    /// The longest.
    pub max_ns: u64,
}

impl Stage {
    /// The statistics of `histogram`.
    pub fn of(name: &str, histogram: &Histogram<u64>) -> Stage {
        Stage {
            name: name.to_owned(),
            count: histogram.len(),
            mean_ns: histogram.mean() as u64,
            p50_ns: histogram.value_at_quantile(0.5),
            p90_ns: histogram.value_at_quantile(0.9),
            p99_ns: histogram.value_at_quantile(0.99),
            p999_ns: histogram.value_at_quantile(0.999),
            max_ns: histogram.max(),
        }
    }
}

/// Durations by stage, in the order of their first samples.
#[derive(Clone, Debug, Default)]
pub struct StageTable {
    stages: Vec<(String, Histogram<u64>)>,
}

/// Upper limit of a recorded duration: ten minutes.
pub(super) const MAX_NS: u64 = 600_000_000_000;

impl StageTable {
    /// Adds a duration of a stage. Allocates when the stage's name is new.
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
        self.stages.iter().map(|(name, h)| Stage::of(name, h)).collect()
    }

    /// The stages' names and histograms.
    pub fn histograms(&self) -> impl Iterator<Item = (&str, &Histogram<u64>)> {
        self.stages.iter().map(|(name, h)| (name.as_str(), h))
    }

    /// Clears the durations, and keeps names and memory.
    pub fn clear(&mut self) {
        self.stages.iter_mut().for_each(|(_, h)| h.reset());
    }

    /// Sorts the stages by `names`; other stages follow in their order.
    pub fn sort_by_names(&mut self, names: &[&str]) {
        self.stages.sort_by_key(|(name, _)| names.iter().position(|n| n == name).unwrap_or(names.len()));
    }
}

impl fmt::Display for StageTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&table(&self.stages()))
    }
}

/// Statistics as a text table, one line per stage, in milliseconds.
pub fn table(stages: &[Stage]) -> String {
    let width = stages.iter().map(|s| s.name.chars().count()).max().unwrap_or(0).max(5);
    let mut text = format!("{:width$}  {:>6}", "stage", "count");
    ["p50", "p90", "p99", "p99.9", "max"].iter().for_each(|p| text += &format!("  {:>9}", format!("{p} ms")));
    for s in stages {
        let pad = width - s.name.chars().count();
        text += &format!("\n{}{:pad$}  {:>6}", s.name, "", s.count);
        for ns in [s.p50_ns, s.p90_ns, s.p99_ns, s.p999_ns, s.max_ns] {
            text += &format!("  {:>9.3}", ns as f64 / 1e6);
        }
    }
    text
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
        let a = &stages[0];
        let found = [a.p50_ns, a.p90_ns, a.p99_ns, a.p999_ns, a.max_ns];
        assert!(found.iter().zip([500, 900, 990, 999, 1000]).all(|(f, ms)| near(*f, ms)), "{a:?}");
        assert_eq!((a.count, stages[1].count), (1000, 1));
        assert!(table.to_string().contains("stage"), "a table is printed");
    }
}
