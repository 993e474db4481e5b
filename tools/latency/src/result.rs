//! The result of a measurement, in the form of its JSON file. `SCHEMA.md` documents every key.

use std::path::{Path, PathBuf};

use fathom::telemetry::{Header, Stage};
use serde::{Deserialize, Serialize};

use crate::machine::Machine;

/// Version of the file's format. A change that affects readers increments it.
pub(crate) const SCHEMA: u64 = 2;

/// A whole result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) schema: u64,
    pub(crate) mode: String,
    pub(crate) taken_at: String,
    pub(crate) commit: String,
    pub(crate) header: Header,
    pub(crate) model_hash: String,
    pub(crate) machine: Machine,
    pub(crate) sections: Vec<Section>,
    pub(crate) kernels: Option<Kernels>,
    pub(crate) cost: Option<Cost>,
    pub(crate) notes: Vec<String>,
}

/// One measured path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) headline: String,
    pub(crate) seconds: f64,
    pub(crate) cold: Vec<Stage>,
    pub(crate) stages: Vec<Row>,
    pub(crate) balance: Option<Balance>,
    pub(crate) waterfall: Vec<Bar>,
    pub(crate) age: Vec<(f64, f64)>,
    pub(crate) period: Option<Period>,
    pub(crate) deadlines: Vec<Deadline>,
    pub(crate) starvation: Option<Starvation>,
    pub(crate) clock_error_ns: Option<u64>,
    pub(crate) gpu_clock_error_ns: Option<u64>,
    pub(crate) chunks: u64,
    pub(crate) refused: u64,
    pub(crate) stamps: Vec<String>,
    pub(crate) lost_events: u64,
}

/// A stage with the data for comparisons and pictures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Row {
    #[serde(flatten)]
    pub(crate) stage: Stage,
    /// Medians of the rounds, in nanoseconds.
    pub(crate) rounds_p50_ns: Vec<u64>,
    /// Upper ends of the histogram's bars in nanoseconds, and their numbers of samples.
    pub(crate) histogram: Vec<(u64, u64)>,
}

/// Compares the sum of a path's stages with the path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Balance {
    pub(crate) total: String,
    pub(crate) total_mean_ns: u64,
    pub(crate) sum_mean_ns: u64,
    /// Time that no stage covers.
    pub(crate) unexplained: Stage,
}

/// A stage's average place within its path.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bar {
    pub(crate) name: String,
    pub(crate) track: String,
    pub(crate) begin_ns: i64,
    pub(crate) length_ns: u64,
}

/// Regularity of the chunks.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Period {
    pub(crate) of: String,
    pub(crate) p50_ns: u64,
    /// Change from one period to the next.
    pub(crate) jitter: Stage,
}

/// Missed deadlines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Deadline {
    pub(crate) of: String,
    pub(crate) deadline_ns: u64,
    pub(crate) count: u64,
    pub(crate) misses: u64,
    pub(crate) longest_run: u64,
}

/// Times without a step left in the controller while chunks were sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Starvation {
    pub(crate) samples: u64,
    pub(crate) starved: u64,
    pub(crate) longest_ns: u64,
    /// The controller's own ticks without a step to follow.
    pub(crate) controller_ticks: u64,
}

/// The kernels of an inference, and the adapter's peak rates.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kernels {
    pub(crate) roofs: Vec<Roof>,
    pub(crate) inferences: u64,
    pub(crate) table: Vec<KernelRow>,
}

/// A peak rate reached on this adapter.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Roof {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) per_second: f64,
}

/// All dispatches of one kernel in an inference.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct KernelRow {
    pub(crate) kernel: String,
    pub(crate) stages: Vec<String>,
    pub(crate) calls: u64,
    #[serde(flatten)]
    pub(crate) row: Row,
    pub(crate) flops: u64,
    pub(crate) bytes: u64,
    pub(crate) flops_per_second: f64,
    pub(crate) bytes_per_second: f64,
    /// Time at the roof divided by the measured time, and the name of that roof.
    pub(crate) share_of_roof: f64,
    pub(crate) roof: String,
}

/// The cost of measuring.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) rounds: u64,
    pub(crate) inference_off_ns: u64,
    pub(crate) inference_on_ns: u64,
    /// Slowdown of an inference by time stamps, in percent, and the noise of that figure.
    pub(crate) percent: f64,
    pub(crate) noise_percent: f64,
    /// Writing the events of one inference, and of one control tick.
    pub(crate) events_per_inference: u64,
    pub(crate) inference_events_ns: u64,
    pub(crate) tick_events_ns: u64,
    /// Both in percent of a control tick.
    pub(crate) percent_of_tick: f64,
}

/// Errors of a result's file.
#[derive(Debug)]
pub(crate) enum ResultError {
    Io { path: PathBuf, source: std::io::Error },
    Truncated { path: PathBuf, line: usize, column: usize },
    Form { path: PathBuf, source: serde_json::Error },
    NoSchema { path: PathBuf },
    Schema { path: PathBuf, found: u64 },
}

impl std::fmt::Display for ResultError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ResultError::Io { path, source } => write!(f, "{}: {source}", path.display()),
            ResultError::Truncated { path, line, column } => {
                write!(
                    f,
                    "{}: the file ends at line {line}, column {column}, in the middle: it is truncated",
                    path.display()
                )
            }
            ResultError::Form { path, source } => write!(f, "{}: not a result: {source}", path.display()),
            ResultError::NoSchema { path } => {
                write!(f, "{}: not a result: expected a number \"schema\", found none", path.display())
            }
            ResultError::Schema { path, found } => write!(
                f,
                "{}: expected schema version {SCHEMA}, found {found}: read it with the tool that wrote it, or measure again",
                path.display()
            ),
        }
    }
}

impl std::error::Error for ResultError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            ResultError::Io { source, .. } => Some(source),
            ResultError::Form { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Measured {
    /// Reads a result of this version.
    pub(crate) fn read(path: &Path) -> Result<Measured, ResultError> {
        let io = |source| ResultError::Io { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(io)?;
        let bad = |source: serde_json::Error| match source.is_eof() {
            true => ResultError::Truncated { path: path.to_owned(), line: source.line(), column: source.column() },
            false => ResultError::Form { path: path.to_owned(), source },
        };
        // Check the version first: other versions may have other keys.
        let value: serde_json::Value = serde_json::from_str(&text).map_err(bad)?;
        match value.get("schema").and_then(serde_json::Value::as_u64) {
            None => return Err(ResultError::NoSchema { path: path.to_owned() }),
            Some(SCHEMA) => {}
            Some(found) => return Err(ResultError::Schema { path: path.to_owned(), found }),
        }
        serde_json::from_value(value).map_err(bad)
    }

    /// The text of the file.
    pub(crate) fn to_json(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }

    /// Every timed row: section, name, row. Kernels are the section `kernels`.
    pub(crate) fn rows(&self) -> impl Iterator<Item = (&str, &str, &Row)> {
        let stages =
            self.sections.iter().flat_map(|s| s.stages.iter().map(|r| (s.name.as_str(), r.stage.name.as_str(), r)));
        let kernels = self.kernels.iter().flat_map(|k| &k.table).map(|k| ("kernels", k.kernel.as_str(), &k.row));
        stages.chain(kernels)
    }

    /// The first headline: its section and statistics.
    pub(crate) fn headline(&self) -> Option<(&Section, &Stage)> {
        let find = |s: &'_ Section| s.stages.iter().position(|r| r.stage.name == s.headline);
        let best = self.sections.iter().filter(|s| s.headline.contains("age")).chain(&self.sections);
        best.filter_map(|s| Some((s, &s.stages.get(find(s)?)?.stage))).next()
    }
}

/// Formats nanoseconds as milliseconds with a suitable number of digits.
pub(crate) fn ms(ns: u64) -> String {
    let ms = ns as f64 / 1e6;
    if ms >= 100.0 { format!("{ms:.1}") } else { format!("{ms:.3}") }
}
