//! Files are written through to the disk beside the recording, which never waits for it.

use std::fs::File;
use std::io;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

/// Files that wait at most; on a slower disk some are left out, and come again.
const WAITING: usize = 4;

/// A thread that has files written to the disk.
pub(super) struct Syncer {
    files: Option<SyncSender<File>>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there is none to be had.
    pub(super) fn start() -> io::Result<Syncer> {
        let (files, inbox) = sync_channel::<File>(WAITING);
        let work = move || {
            let mut told = false;
            for file in inbox {
                if let Err(error) = file.sync_all()
                    && !std::mem::replace(&mut told, true)
                {
                    tracing::warn!(%error, "the recording is not safe from a power cut");
                }
            }
        };
        let thread = thread::Builder::new().name("record-sync".into()).spawn(work)?;
        Ok(Syncer { files: Some(files), thread: Some(thread) })
    }

    /// Has a file, or a folder's entries, written to the disk; not waited for.
    pub(super) fn sync(&self, file: File) {
        if let Some(files) = &self.files {
            // Full: the disk is busy with the ones before.
            let _ = files.try_send(file);
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.files = None;
        if let Some(thread) = self.thread.take() {
            // A panic was already printed.
            let _ = thread.join();
        }
    }
}
