//! Flushes files to the disk on a thread of its own, so that the recording never waits for it.

use std::fs::File;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// Limit on waiting files; on a slower disk some are skipped, and follow later.
const WAITING: usize = 4;

/// A thread that flushes files to the disk.
pub(super) struct Syncer {
    files: Option<SyncSender<File>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start() -> io::Result<Syncer> {
        let (files, inbox) = sync_channel::<File>(WAITING);
        let work = move || {
            let mut warned = false;
            for file in inbox {
                if let Err(error) = file.sync_all()
                    && !std::mem::replace(&mut warned, true)
                {
                    tracing::warn!(%error, "the recording is not safe from a power cut");
                }
            }
        };
        let thread = thread::Builder::new().name("record-sync".into()).spawn(work)?;
        Ok(Syncer { files: Some(files), thread: Some(thread) })
    }

    /// Requests a flush of a file, or of a folder's entries; does not wait.
    pub(super) fn sync(&self, file: File) {
        if let Some(files) = &self.files {
            // Full: the disk is busy with earlier ones.
            let _ = files.try_send(file);
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.files = None;
        if let Some(thread) = self.thread.take() {
            // A panic has already been printed.
            let _ = thread.join();
        }
    }
}
