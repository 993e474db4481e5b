//! `meta/stats.json`: what a training normalises by.

use serde_json::{Map, Value, json};

/// Quantiles by name, as shares.
const QUANTILES: [(&str, f64); 5] = [("q01", 0.01), ("q10", 0.10), ("q50", 0.50), ("q90", 0.90), ("q99", 0.99)];

/// Counts of a picture's values, channel by channel. Exact: nothing is sampled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PictureCounts {
    channels: Vec<Vec<u64>>,
}

impl PictureCounts {
    /// Counts of values below `levels` in `channels` channels.
    #[must_use]
    pub(crate) fn new(channels: usize, levels: usize) -> Self {
        Self { channels: vec![vec![0; levels]; channels] }
    }

    /// Counts the values of a picture, its channels side by side.
    pub(crate) fn add<T: Copy + Into<usize>>(&mut self, values: &[T]) {
        let channels = self.channels.len().max(1);
        for pixel in values.chunks(channels) {
            for (counts, value) in self.channels.iter_mut().zip(pixel) {
                if let Some(count) = counts.get_mut((*value).into()) {
                    *count += 1;
                }
            }
        }
    }

    /// Adds the counts of other pictures.
    pub(crate) fn merge(&mut self, other: &Self) {
        for (to, from) in self.channels.iter_mut().zip(&other.channels) {
            to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
        }
    }

    /// The statistics, each `(channels, 1, 1)`, of values times `scale`; `frames` pictures were counted.
    #[must_use]
    pub(crate) fn statistics(&self, scale: f64, frames: usize) -> Value {
        let of = |each: &dyn Fn(&[u64]) -> f64| -> Value {
            self.channels.iter().map(|counts| json!([[each(counts) * scale]])).collect()
        };
        let mut stats = Map::new();
        stats.insert("min".into(), of(&|counts| counts.iter().position(|count| *count > 0).unwrap_or(0) as f64));
        stats.insert("max".into(), of(&|counts| counts.iter().rposition(|count| *count > 0).unwrap_or(0) as f64));
        stats.insert("mean".into(), of(&|counts| moments(counts).0));
        stats.insert("std".into(), of(&|counts| moments(counts).1));
        stats.insert("count".into(), json!([frames]));
        for (name, share) in QUANTILES {
            stats.insert(name.into(), of(&|counts| quantile_of_counts(counts, share)));
        }
        Value::Object(stats)
    }
}

fn moments(counts: &[u64]) -> (f64, f64) {
    let weighted = |power: i32| {
        let terms = counts.iter().enumerate().map(|(value, count)| (value as f64).powi(power) * *count as f64);
        terms.sum::<f64>()
    };
    let total = weighted(0).max(1.0);
    let mean = weighted(1) / total;
    (mean, (weighted(2) / total - mean * mean).max(0.0).sqrt())
}

fn quantile_of_counts(counts: &[u64], share: f64) -> f64 {
    let total: u64 = counts.iter().sum();
    let wanted = share * total.saturating_sub(1) as f64;
    let mut below = 0.0;
    for (value, count) in counts.iter().enumerate() {
        below += *count as f64;
        if below > wanted {
            return value as f64;
        }
    }
    0.0
}

/// The statistics of numbers, `(rows, columns)` in `values`, each of the shape `shape`.
#[must_use]
pub(crate) fn of_numbers(values: &[f64], shape: &[usize]) -> Value {
    let columns: usize = shape.iter().product::<usize>().max(1);
    let rows = values.len() / columns;
    let mut sorted: Vec<Vec<f64>> =
        (0..columns).map(|column| values.iter().skip(column).step_by(columns).copied().collect::<Vec<f64>>()).collect();
    sorted.iter_mut().for_each(|column| column.sort_by(f64::total_cmp));
    let of = |each: &dyn Fn(&[f64]) -> f64| -> Value {
        let flat: Vec<f64> = sorted.iter().map(|column| each(column)).collect();
        shaped(&flat, shape)
    };
    let mean = |column: &[f64]| column.iter().sum::<f64>() / column.len().max(1) as f64;
    let deviation = |column: &[f64]| {
        let middle = mean(column);
        let squares: f64 = column.iter().map(|value| (value - middle).powi(2)).sum();
        (squares / column.len().max(1) as f64).sqrt()
    };
    let mut stats = Map::new();
    stats.insert("min".into(), of(&|column| column.first().copied().unwrap_or(0.0)));
    stats.insert("max".into(), of(&|column| column.last().copied().unwrap_or(0.0)));
    stats.insert("mean".into(), of(&mean));
    stats.insert("std".into(), of(&deviation));
    stats.insert("count".into(), json!([rows]));
    for (name, share) in QUANTILES {
        stats.insert(name.into(), of(&|column| quantile(column, share)));
    }
    Value::Object(stats)
}

/// The quantile of sorted numbers, between the two next to it, as numpy's.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let at = share * sorted.len().saturating_sub(1) as f64;
    let low = sorted.get(at.floor() as usize).copied().unwrap_or(0.0);
    let high = sorted.get(at.ceil() as usize).copied().unwrap_or(low);
    low + (high - low) * at.fract()
}

/// Numbers as nested arrays of a shape.
fn shaped(flat: &[f64], shape: &[usize]) -> Value {
    match shape {
        [] | [_] => flat.iter().map(|value| json!(value)).collect(),
        [_, rest @ ..] => {
            let block: usize = rest.iter().product::<usize>().max(1);
            flat.chunks(block).map(|part| shaped(part, rest)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_are_numpys() {
        let stats = of_numbers(&[1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 4.0, 40.0], &[2]);
        assert_eq!(stats["mean"], json!([2.5, 25.0]));
        assert_eq!(stats["count"], json!([4]));
        assert_eq!(stats["q50"], json!([2.5, 25.0]));
        assert!((stats["q01"][0].as_f64().unwrap() - 1.03).abs() < 1e-12);
        assert!((stats["std"][0].as_f64().unwrap() - 1.25_f64.sqrt()).abs() < 1e-12);
        let nested = of_numbers(&[1.0, 2.0, 3.0, 4.0], &[2, 2]);
        assert_eq!(nested["min"], json!([[1.0, 2.0], [3.0, 4.0]]));
    }

    #[test]
    fn pictures_are_counted_by_channel() {
        let mut counts = PictureCounts::new(3, 256);
        counts.add(&[0_u8, 255, 51, 255, 255, 51]);
        let stats = counts.statistics(1.0 / 255.0, 1);
        assert_eq!(stats["max"], json!([[[1.0]], [[1.0]], [[51.0 / 255.0]]]));
        assert_eq!(stats["mean"], json!([[[0.5]], [[1.0]], [[51.0 / 255.0]]]));
        let mut more = PictureCounts::new(1, 4000);
        more.add(&[700_u16, 900]);
        let other = more.clone();
        more.merge(&other);
        assert_eq!(more.statistics(1.0, 2)["q50"], json!([[[700.0]]]));
    }
}
