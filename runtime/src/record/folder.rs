//! The folder of recordings: the names of its files, their order, and the right to delete them.
//!
//! The order comes from increasing numbers, never from a clock: a computer without a battery has the same time at each
//! start. A file is only made under an unused name, and its run holds a lock on it while the run lives, so that several
//! programs can record into one folder. A crash leaves no lock.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::OFlags;

use super::RecordError;

/// Upper bound, in total, on the time for which another program holds a new file to test whether it is in use.
const LOCK_TRIES: u32 = 200;
const LOCK_RETRY: Duration = Duration::from_millis(5);

/// The run that made a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Run {
    /// Of an earlier version: seconds since 1970 by the computer's clock.
    Clock(u64),
    /// Counted in the folder.
    Count(u64),
}

/// A recording's name: `fathom-run000012-000003.mcap`, in earlier versions `fathom-1700000000-00003.mcap`. Other names
/// belong to people, and those files are never deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) run: Run,
    /// Number of the file in the run.
    pub(super) file: u64,
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.run {
            Run::Clock(s) => write!(f, "fathom-{s:010}-{:05}.mcap", self.file),
            Run::Count(n) => write!(f, "fathom-run{n:06}-{:06}.mcap", self.file),
        }
    }
}

impl Name {
    /// `None` unless the name matches exactly.
    pub(super) fn of(path: &Path) -> Option<Name> {
        let text = path.file_name()?.to_str()?;
        let (run, file) = text.strip_prefix("fathom-")?.strip_suffix(".mcap")?.split_once('-')?;
        let run = match run.strip_prefix("run") {
            Some(count) => Run::Count(count.parse().ok()?),
            None => Run::Clock(run.parse().ok()?),
        };
        let name = Name { run, file: file.parse().ok()? };
        (name.to_string() == text).then_some(name)
    }
}

/// The folder's entries with a recording's name, in order.
pub(super) fn named(folder: &Path) -> io::Result<Vec<(Name, PathBuf)>> {
    let mut files: Vec<(Name, PathBuf)> = std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter_map(|path| Some((Name::of(&path)?, path)))
        .collect();
    files.sort();
    Ok(files)
}

/// All `.mcap` files of the folder: recordings in order, then files with other names.
pub(super) fn recordings(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files: Vec<(bool, Option<Name>, PathBuf)> = std::fs::read_dir(folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "mcap"))
        .map(|path| (Name::of(&path).is_none(), Name::of(&path), path))
        .collect();
    files.sort();
    Ok(files.into_iter().map(|(_, _, path)| path).collect())
}

/// Makes the first file of a new run, with a number higher than all in the folder.
///
/// # Errors
/// [`RecordError::Io`], and [`RecordError::Numbers`] if there is no higher number.
pub(super) fn begin(folder: &Path) -> Result<(Name, File), RecordError> {
    let failed = |source| RecordError::Io { path: folder.to_owned(), source };
    let highest = named(folder).map_err(failed)?.into_iter().rev().find_map(|(name, path)| match name.run {
        Run::Count(number) => Some((number, path)),
        Run::Clock(_) => None,
    });
    let mut number = highest.as_ref().map_or(Some(1), |(number, _)| number.checked_add(1));
    while let Some(count) = number {
        let name = Name { run: Run::Count(count), file: 0 };
        if let Some(file) = create(&folder.join(name.to_string())).map_err(failed)? {
            return Ok((name, file));
        }
        // Another program was faster.
        number = count.checked_add(1);
    }
    Err(RecordError::Numbers { path: highest.map_or(folder.to_owned(), |(_, path)| path) })
}

/// Makes the next file of a run.
///
/// # Errors
/// As [`begin`].
pub(super) fn next(folder: &Path, last: Name) -> Result<(Name, File), RecordError> {
    let failed = |source| RecordError::Io { path: folder.to_owned(), source };
    let mut name = last;
    while let Some(file) = name.file.checked_add(1) {
        name.file = file;
        if let Some(file) = create(&folder.join(name.to_string())).map_err(failed)? {
            return Ok((name, file));
        }
    }
    Err(RecordError::Numbers { path: folder.join(last.to_string()) })
}

/// Makes a file and locks it; `None` if the name is in use.
fn create(path: &Path) -> io::Result<Option<File>> {
    let file = match OpenOptions::new().write(true).create_new(true).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
        Err(error) => return Err(error),
    };
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            // Another program may have found and deleted it before the lock.
            Ok(()) => return Ok((!is_deleted(&file, path)).then_some(file)),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_RETRY),
            // File systems without locks: only one program may use the folder.
            Err(TryLockError::Error(error)) => {
                tracing::debug!(path = %path.display(), %error, "not locked");
                return Ok(Some(file));
            }
        }
    }
    Ok(None)
}

/// Whether a file that was at this path was deleted. A moved file was not.
pub(super) fn is_deleted(file: &File, path: &Path) -> bool {
    let Ok(file) = file.metadata() else { return false };
    // On file systems without link counts, the path decides.
    let there = std::fs::symlink_metadata(path);
    file.nlink() == 0 && !there.is_ok_and(|there| (file.dev(), file.ino()) == (there.dev(), there.ino()))
}

/// A recording of a finished run, locked until it is dropped.
#[derive(Debug)]
pub(super) struct Ended {
    path: PathBuf,
    file: File,
    /// Bytes.
    pub(super) size: u64,
}

impl Ended {
    /// `None` if its run is still running, or if it is not a regular file.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub(super) fn lock(path: PathBuf) -> io::Result<Option<Ended>> {
        let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits();
        if !std::fs::symlink_metadata(&path)?.is_file() {
            return Ok(None);
        }
        let file = OpenOptions::new().read(true).custom_flags(flags.cast_signed()).open(&path)?;
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            return Ok(None);
        }
        let size = file.metadata()?.len();
        Ok(Some(Ended { path, file, size }))
    }

    /// Deletes it.
    ///
    /// # Errors
    /// File system errors; a missing file is no error.
    pub(super) fn delete(self) -> io::Result<()> {
        // A new file of this name, made meanwhile, is kept.
        if is_deleted(&self.file, &self.path) {
            return Ok(());
        }
        gone(std::fs::remove_file(&self.path))
    }
}

/// A file that no longer exists counts as deleted.
pub(super) fn gone(deleted: io::Result<()>) -> io::Result<()> {
    deleted.or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(folder: &Path, names: &[&str]) {
        names.iter().for_each(|name| std::fs::write(folder.join(name), "x").unwrap());
    }

    fn names(paths: &[PathBuf]) -> Vec<String> {
        paths.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn order_is_that_of_the_numbers_and_earlier_versions_come_first() {
        let folder = tempfile::tempdir().unwrap();
        let sorted = [
            "fathom-0000000012-00000.mcap",
            "fathom-1700000000-00009.mcap",
            "fathom-1700000000-100000.mcap",
            "fathom-run000002-000000.mcap",
            "fathom-run000002-999999.mcap",
            "fathom-run000002-1000000.mcap",
            "fathom-run1000000-000000.mcap",
            "another.mcap",
            "fathom-good one \u{fc}.mcap",
        ];
        touch(folder.path(), &sorted);
        touch(folder.path(), &["fathom.txt", "fathom-run000001-000000.mcap.bak", ".mcap"]);
        assert_eq!(names(&recordings(folder.path()).unwrap()), sorted);
        let named: Vec<PathBuf> = named(folder.path()).unwrap().into_iter().map(|(_, path)| path).collect();
        assert_eq!(names(&named), sorted[..7]);
    }

    #[test]
    fn names_of_others_are_not_a_recordings() {
        for name in [
            "fathom-run1-000000.mcap",
            "fathom-run+00001-000000.mcap",
            "fathom-run000001-000000 (copy).mcap",
            "fathom-run000001.mcap",
            "fathom-run000001-000000-1.mcap",
            "fathom-run99999999999999999999-000000.mcap",
            "fathom-run000001-000000.MCAP",
            "Fathom-run000001-000000.mcap",
            "fathom-.mcap",
            "fathom-1700000000-1.mcap",
        ] {
            assert_eq!(Name::of(Path::new(name)), None, "{name}");
        }
        let odd = std::os::unix::ffi::OsStrExt::from_bytes(&b"fathom-run000001-\xff.mcap"[..]);
        assert_eq!(Name::of(Path::new::<std::ffi::OsStr>(odd)), None);
    }

    #[test]
    fn a_run_has_the_number_after_the_highest() {
        let folder = tempfile::tempdir().unwrap();
        let number = || {
            let (name, _) = begin(folder.path()).unwrap();
            name.to_string()
        };
        assert_eq!(number(), "fathom-run000001-000000.mcap");
        // A clock that is far ahead, a folder with a recording's name, and a person's file.
        touch(folder.path(), &["fathom-9999999999-00000.mcap", "fathom-run-9.mcap"]);
        std::fs::create_dir(folder.path().join("fathom-run000007-000000.mcap")).unwrap();
        assert_eq!(number(), "fathom-run000008-000000.mcap");
        touch(folder.path(), &["fathom-run18446744073709551614-000003.mcap"]);
        assert_eq!(number(), format!("fathom-run{}-000000.mcap", u64::MAX));
        let said = begin(folder.path()).unwrap_err().to_string();
        assert!(said.contains(&u64::MAX.to_string()) && said.contains("rename"), "{said}");
    }

    /// Many at once, each with its own file.
    #[test]
    fn runs_that_begin_at_once_have_files_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        let begun: Vec<Name> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..16).map(|_| scope.spawn(|| begin(path).unwrap())).collect();
            // The files stay open until all threads have started, so that none is deleted.
            let files: Vec<(Name, File)> = threads.into_iter().map(|t| t.join().unwrap()).collect();
            files.iter().map(|(name, _)| *name).collect()
        });
        let distinct: std::collections::BTreeSet<Name> = begun.iter().copied().collect();
        assert_eq!((distinct.len(), named(path).unwrap().len()), (16, 16));
    }

    #[test]
    fn a_file_that_is_there_is_never_opened() {
        let folder = tempfile::tempdir().unwrap();
        let (first, _held) = begin(folder.path()).unwrap();
        touch(folder.path(), &["fathom-run000001-000001.mcap"]);
        std::os::unix::fs::symlink("elsewhere", folder.path().join("fathom-run000001-000002.mcap")).unwrap();
        let (name, _) = next(folder.path(), first).unwrap();
        assert_eq!(name.file, 3);
        assert_eq!(std::fs::read(folder.path().join("fathom-run000001-000001.mcap")).unwrap(), b"x");
        assert!(!folder.path().join("elsewhere").exists());
        let last = Name { file: u64::MAX, ..first };
        assert!(matches!(next(folder.path(), last), Err(RecordError::Numbers { .. })));
    }

    #[test]
    fn a_file_of_an_active_run_cannot_be_locked() {
        let folder = tempfile::tempdir().unwrap();
        let (name, held) = begin(folder.path()).unwrap();
        let path = folder.path().join(name.to_string());
        assert!(Ended::lock(path.clone()).unwrap().is_none());
        drop(held);
        let ended = Ended::lock(path.clone()).unwrap().unwrap();
        // Replaced meanwhile: the new file is kept.
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another").unwrap();
        ended.delete().unwrap();
        assert!(path.exists());
        Ended::lock(path.clone()).unwrap().unwrap().delete().unwrap();
        assert!(!path.exists());
        let pipe = folder.path().join("fathom-run000009-000000.mcap");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(Ended::lock(pipe).unwrap().is_none(), "a pipe is not waited for");
    }
}
