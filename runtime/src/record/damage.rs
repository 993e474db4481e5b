//! What is missing of a recording, and why.

use std::fmt;
use std::path::PathBuf;

/// Causes that are kept of a file; the rest are counted.
const KEPT: usize = 4;

/// Why something of a file was not read.
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
    /// It stands for a file of Git LFS that was not fetched.
    #[error("a Git LFS pointer instead of the recording (git lfs pull fetches it)")]
    LfsPointer,
    /// A page that a server gave instead of the file.
    #[error("a web page instead of the recording")]
    WebPage,
    /// As a power cut leaves it.
    #[error("only zeros, as a power cut leaves a file")]
    Zeros,
    /// Something else.
    #[error("something else than MCAP")]
    NotMcap,
    /// Another program's.
    #[error("compressed chunks, which fathom run does not write")]
    Compressed,
    /// Nothing says which run it is.
    #[error("no run of Fathom's in it (/fathom/run)")]
    NoRun,
    /// A chunk is damaged.
    #[error("the chunk at byte {at} has a wrong checksum and is left out")]
    Checksum {
        /// Where it begins.
        at: u64,
    },
    /// A record is damaged.
    #[error("the record at byte {at} is damaged; reading went on at the next whole chunk")]
    Record {
        /// Where it begins.
        at: u64,
    },
    /// The file ends within a record, or nothing after it can be read.
    #[error("cut off or damaged from byte {at} of {of} on")]
    Cut {
        /// Where the last whole record ends.
        at: u64,
        /// Bytes of the file.
        of: u64,
    },
    /// The run that writes it goes on, or ended in a crash.
    #[error("unfinished: it ends without an index, as of a run that goes on or crashed")]
    Unfinished,
    /// What comes after the messages.
    #[error("its index is damaged or cut off; all messages were read")]
    Index,
    /// Bytes between the chunks.
    #[error("bytes outside of its chunks are damaged (checksum of the whole file)")]
    Outside,
    /// A message of a channel that is not declared.
    #[error("messages of channel {id}, which is not declared")]
    Channel {
        /// Its number.
        id: u16,
    },
    /// A topic that the run records is not declared.
    #[error("no channel for {topic}")]
    NoTopic {
        /// The topic.
        topic: String,
    },
    /// A message is not what its topic says.
    #[error("a message of {topic} is left out: {problem}")]
    Message {
        /// The topic.
        topic: String,
        /// What is wrong.
        problem: String,
    },
    /// Observations whose images are missing.
    #[error("an observation without its image of {view} is left out")]
    NoImage {
        /// The view.
        view: String,
    },
    /// The run's model is not at hand, or does not take an observation.
    #[error("not replayed: {0}")]
    Model(String),
}

impl Cause {
    /// What a file is that does not begin as a recording does.
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

    /// Whether it says already what the whole file is.
    pub(super) fn tells_what_it_is(&self) -> bool {
        use Cause::{Compressed, Empty, Io, LfsPointer, NoFile, NotMcap, WebPage, Zeros};
        matches!(self, Io(_) | NoFile(_) | Empty | LfsPointer | WebPage | Zeros | NotMcap | Compressed)
    }
}

/// Several causes; of many the first ones and how many there are.
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

/// A file that was not read whole.
#[derive(Debug)]
pub struct Incomplete {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub causes: Causes,
}

impl fmt::Display for Incomplete {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.causes)
    }
}

/// Files that were not read whole, one after the other.
pub(super) fn list(incomplete: &[Incomplete]) -> String {
    incomplete.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}
