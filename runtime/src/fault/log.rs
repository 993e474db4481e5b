//! The reader of the log exits, or hangs.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::pipe::pipe;
use rustix::stdio::{dup2_stderr, stderr};

use super::{Faults, Kind};

/// The standard error of this process while a fault is about it.
#[derive(Debug, Default)]
pub(crate) struct FaultyLog {
    broken: Option<Broken>,
}

/// A pipe in place of the standard error.
#[derive(Debug)]
struct Broken {
    kind: Kind,
    /// The original standard error.
    before: OwnedFd,
    /// The end of a reader that hangs.
    _reader: Option<OwnedFd>,
}

impl FaultyLog {
    /// Applies the faults that are active now, and logs as many lines as they request. Does not wait.
    pub(crate) fn tick(&mut self, faults: &Faults) {
        let now = [Kind::LogGone, Kind::LogStall].into_iter().find_map(|k| Some((k, faults.now(k, None)?)));
        if self.broken.as_ref().map(|broken| broken.kind) != now.map(|(kind, _)| kind) {
            self.mend();
            if let Some((kind, _)) = now {
                match Broken::begin(kind) {
                    Ok(broken) => self.broken = Some(broken),
                    Err(error) => tracing::warn!(%error, "the log's fault cannot be brought about"),
                }
            }
        }
        if let Some((_, lines)) = now {
            (0..lines as u32).for_each(|line| tracing::warn!(line, "a line without a reader"));
        }
    }

    /// Gives the process its standard error back.
    fn mend(&mut self) {
        if let Some(broken) = self.broken.take() {
            // If this fails, the log stays broken.
            let _ = dup2_stderr(&broken.before);
        }
    }
}

impl Drop for FaultyLog {
    fn drop(&mut self) {
        self.mend();
    }
}

impl Broken {
    fn begin(kind: Kind) -> io::Result<Broken> {
        let before = rustix::io::dup(stderr())?;
        let (reader, writer) = pipe()?;
        let reader = (kind == Kind::LogStall).then_some(reader);
        if reader.is_some() {
            fill(&writer)?;
        }
        dup2_stderr(&writer)?;
        Ok(Broken { kind, before, _reader: reader })
    }
}

/// Writes into a pipe until it takes no more; the next write waits.
fn fill(writer: &OwnedFd) -> io::Result<()> {
    let flags = fcntl_getfl(writer)?;
    fcntl_setfl(writer, flags | OFlags::NONBLOCK)?;
    while rustix::io::write(writer, &[b' '; 4096]).is_ok() {}
    Ok(fcntl_setfl(writer, flags)?)
}
