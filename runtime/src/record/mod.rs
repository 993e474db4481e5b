//! Recordings of runs: MCAP files that Foxglove and Rerun play, and from which `fathom replay` repeats the inferences.

use std::path::PathBuf;

mod damage;
mod folder;
mod image;
mod mcap;
mod note;
mod protobuf;
mod read;
mod replay;
mod ring;
mod schema;
mod sync;
#[cfg(test)]
mod tests;
mod writer;

pub use damage::{Cause, Causes, Incomplete};
pub use read::{Moment, Recording};
pub use replay::{Difference, Replay, ReplayError, Replayed, Stages, stages_of};
pub use schema::{Ack, Chunk, Inference, Log, Observation, RunNote, State, View};
pub use writer::RecordingWriter;

/// Errors of recordings.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It cannot be written or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The error.
        source: std::io::Error,
    },
    /// It is not a recording of Fathom's.
    #[error("{}: expected a recording of fathom run, found {problem}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// The actual content.
        problem: String,
    },
    /// It cannot be read at all.
    #[error("expected a recording of fathom run, found {0}")]
    Unreadable(String),
    /// The numbers in its folder are used up.
    #[error("{}: expected a name whose number another can follow, found the highest: rename or delete it", path.display())]
    Numbers {
        /// The file of the highest number.
        path: PathBuf,
    },
    /// It was made with another model.
    #[error("{}: the run's model has the fingerprint {expected}, {} has {found}", path.display(), model.display())]
    Model {
        /// The recording.
        path: PathBuf,
        /// The present model.
        model: PathBuf,
        /// The run's.
        expected: String,
        /// The model's.
        found: String,
    },
}

impl RecordError {
    /// Whether there is no space left.
    pub(crate) fn is_full(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self, RecordError::Io { source, .. } if matches!(source.kind(), StorageFull | QuotaExceeded))
    }
}

/// CLOCK_REALTIME minus CLOCK_MONOTONIC, in nanoseconds. It may be negative if the wall clock was never set.
fn clock_offset_ns() -> i128 {
    i128::from(crate::wall::wall_ns()) - i128::from(crate::clock::kernel_ns())
}

/// Converts a time of CLOCK_MONOTONIC to the time base of a file's messages.
fn wall_ns(at_ns: u64, realtime_offset_ns: u64) -> u64 {
    at_ns.saturating_add(realtime_offset_ns)
}
