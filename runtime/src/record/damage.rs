//! Missing parts of a recording, and their causes.

use std::fmt;
use std::path::PathBuf;

/// Number of kept causes of a file; the rest are counted.
const KEPT: usize = 4;

/// The reason why part of a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// A folder or a device.
    #[error("expected a file, found {0}")]
    NoFile(&'static str),
    /// It has no bytes.
    #[error("an empty file")]
    Empty,
    /// It is a pointer to a Git LFS file that was not fetched.
    #[error("a Git LFS pointer instead of the recording (git lfs pull fetches it)")]
    LfsPointer,
    /// A web page returned instead of the file.
    #[error("a web page instead of the recording")]
    WebPage,
    /// It has only zeros, as after a power cut.
    #[error("only zeros, as after a power cut")]
    Zeros,
    /// It is not an MCAP file.
    #[error("not an MCAP file")]
    NotMcap,
    /// It was written by another program.
    #[error("it has compressed chunks, which fathom run does not write")]
    Compressed,
    /// It has no run note.
    #[error("it has no run note (/fathom/run)")]
    NoRun,
    /// A chunk is damaged.
    #[error("the chunk at byte {at} has a wrong checksum and was skipped")]
    Checksum {
        /// Its first byte.
        at: u64,
    },
    /// A record is damaged.
    #[error("the record at byte {at} is damaged; reading continued at the next whole chunk")]
    Record {
        /// Its first byte.
        at: u64,
    },
    /// The file ends within a record, or is unreadable from there on.
    #[error("truncated or damaged from byte {at} of {of}")]
    Cut {
        /// End of the last whole record.
        at: u64,
        /// Bytes of the file.
        of: u64,
    },
    /// Its run is still writing it, or crashed.
    #[error("unfinished: it has no index; its run is still running or has crashed")]
    Unfinished,
    /// The part after the messages.
    #[error("its index is damaged or truncated; all messages were read")]
    Index,
    /// There are damaged bytes between the chunks.
    #[error("bytes outside of its chunks are damaged (checksum of the whole file)")]
    Outside,
    /// A message has an undeclared channel.
    #[error("messages of the undeclared channel {id}")]
    Channel {
        /// Its number.
        id: u16,
    },
    /// A topic of the run is not declared.
    #[error("no channel for {topic}")]
    NoTopic {
        /// The topic.
        topic: String,
    },
    /// A message does not match its topic.
    #[error("a message of {topic} was skipped: {problem}")]
    Message {
        /// The topic.
        topic: String,
        /// The mismatch.
        problem: String,
    },
    /// Observations whose images are missing.
    #[error("an observation was skipped: its image of {view} is missing")]
    NoImage {
        /// The view.
        view: String,
    },
    /// The run's model is not available, or rejects an observation.
    #[error("not replayed: {0}")]
    Model(String),
}

impl Cause {
    /// Identifies a file that does not begin as a recording does.
    pub(super) fn of_start(start: &[u8]) -> Cause {
        let text = String::from_utf8_lossy(start).trim_start().to_ascii_lowercase();
        match start {
            [] => Cause::Empty,
            _ if start.iter().all(|byte| *byte == 0) => Cause::Zeros,
            _ if text.starts_with("version https://git-lfs") => Cause::LfsPointer,
            _ if text.starts_with("<!doctype html") || text.starts_with("<html") => Cause::WebPage,
            _ => Cause::NotMcap,
        }
    }

    /// Whether it already identifies the whole file.
    pub(super) fn identifies_the_file(&self) -> bool {
        use Cause::{Compressed, Empty, Io, LfsPointer, NoFile, NotMcap, WebPage, Zeros};
        matches!(self, Io(_) | NoFile(_) | Empty | LfsPointer | WebPage | Zeros | NotMcap | Compressed)
    }
}

/// Causes: the first ones, and the number of all.
#[derive(Debug, Default)]
pub struct Causes {
    kept: Vec<Cause>,
    more: u64,
}

impl Causes {
    pub(super) fn add(&mut self, cause: Cause) {
        if self.kept.len() < KEPT { self.kept.push(cause) } else { self.more += 1 }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The first ones.
    pub fn first(&self) -> &[Cause] {
        &self.kept
    }
}

impl From<Cause> for Causes {
    fn from(cause: Cause) -> Self {
        Causes { kept: vec![cause], more: 0 }
    }
}

impl fmt::Display for Causes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, cause) in self.kept.iter().enumerate() {
            write!(f, "{}{cause}", if n > 0 { "; " } else { "" })?;
        }
        if self.more > 0 {
            write!(f, "; and {} more", self.more)?;
        }
        Ok(())
    }
}

/// A file that was not read completely.
#[derive(Debug)]
pub struct Incomplete {
    /// The file.
    pub path: PathBuf,
    /// The causes.
    pub causes: Causes,
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.causes)
    }
}

/// Files that were not read completely, in order.
pub(super) fn list(incomplete: &[Incomplete]) -> String {
    incomplete.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
