//! Recordings of runs, and what they are good for: MCAP files that Foxglove and Rerun play, and that `fathom replay` infers
//! again.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

mod image;
mod mcap;
mod note;
mod protobuf;
mod read;
mod replay;
mod schema;
mod tape;

pub use read::{Moment, Recording};
pub use replay::{Difference, Replay, Replayed, Stages, stages_of};
pub use schema::{Ack, Chunk, Inference, Log, Observation, RunNote, State, View};
pub use tape::Tape;

/// What can go wrong with a recording.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It cannot be written or read.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no recording of Fathom's.
    #[error("{}: expected a recording of fathom run, found {problem}", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        problem: String,
    },
    /// It was made with another model.
    #[error("{}: the run's model has the fingerprint {expected}, {} has {found}", path.display(), model.display())]
    Model {
        /// The recording.
        path: PathBuf,
        /// The model at hand.
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

/// CLOCK_REALTIME less CLOCK_MONOTONIC, in nanoseconds.
fn realtime_offset_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    crate::clock::duration_ns(now).saturating_sub(crate::clock::kernel_ns())
}

/// A folder's recordings, or the one file.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, RecordError> {
    let failed = |source| RecordError::Io { path: path.to_owned(), source };
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let files = tape::files(path).map_err(failed)?;
    if files.is_empty() {
        let problem = "a folder without fathom-*.mcap".to_owned();
        return Err(RecordError::Broken { path: path.to_owned(), problem });
    }
    Ok(files)
}
