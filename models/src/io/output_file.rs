//! Files that programs write: whole or not at all.
//!
//! A regular file is written beside its place under a name of its own, and then takes the place; a reader finds the old
//! file or the new one. It has the mode of the file that it replaces, else the one that the process's mask gives. Devices,
//! pipes and sockets are written to and stay what they are. Symbolic links are followed.

use std::fmt;
use std::fs::{self, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, fchown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Links that are followed, as the kernel does.
const LINKS: usize = 40;
/// Names that are tried for a temporary file.
const NAMES: usize = 64;
/// Bits of a mode that a file hands on to the one that replaces it.
const MODE: u32 = 0o777;

/// Why a file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// There is a directory of this name.
    #[error("{}: expected a file to write, found a directory", path.display())]
    Directory {
        /// The path, as it was given.
        path: PathBuf,
    },
    /// The system refuses it.
    #[error("{}: cannot be {step}: {source}", path.display())]
    Io {
        /// The path, as it was given.
        path: PathBuf,
        /// How far it came.
        step: Step,
        /// Why.
        source: io::Error,
    },
}

/// A step of writing a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Its path is resolved.
    Find,
    /// It is opened for writing.
    Open,
    /// A new file is made in this folder.
    Create(PathBuf),
    /// It is written.
    Write,
    /// The new file takes its place.
    Replace,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Step::Find => f.write_str("found"),
            Step::Open => f.write_str("opened"),
            Step::Create(folder) => write!(f, "created in {}", folder.display()),
            Step::Write => f.write_str("written"),
            Step::Replace => f.write_str("replaced"),
        }
    }
}

/// Writes `bytes` as the file `path`.
///
/// # Errors
/// [`OutputError`]; the previous file is then still there.
pub fn write(path: &Path, bytes: impl AsRef<[u8]>) -> Result<(), OutputError> {
    let mut file = OutputFile::create(path)?;
    file.write_all(bytes.as_ref()).map_err(|source| file.failed(source))?;
    file.commit()
}

/// Checks that `path` can be written, for programs that run for long before they do. Changes nothing.
///
/// # Errors
/// [`OutputError`].
pub fn check(path: &Path) -> Result<(), OutputError> {
    match place(path)? {
        Place::Regular { target, before } => Temporary::create(path, target, before.as_ref()).map(drop),
        // A pipe that is opened waits for its reader.
        Place::Stream { .. } => Ok(()),
    }
}

/// A file under construction. Without [`commit`](Self::commit) nothing of it is left.
#[derive(Debug)]
pub struct OutputFile {
    path: PathBuf,
    to: BufWriter<To>,
}

/// Where bytes go.
#[derive(Debug)]
enum To {
    Temporary(Temporary),
    File(File),
    Socket(UnixStream),
}

impl Write for To {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            To::Temporary(temporary) => temporary.file.write(bytes),
            To::File(file) => file.write(bytes),
            To::Socket(socket) => socket.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.to.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

impl OutputFile {
    /// Begins the file `path`.
    ///
    /// # Errors
    /// [`OutputError`] for a directory, a folder that is missing or must not be written, a file that must not be written.
    pub fn create(path: &Path) -> Result<OutputFile, OutputError> {
        let to = match place(path)? {
            Place::Regular { target, before } => To::Temporary(Temporary::create(path, target, before.as_ref())?),
            Place::Stream { socket: true, .. } => {
                To::Socket(UnixStream::connect(path).map_err(failed(path, Step::Open))?)
            }
            Place::Stream { append, .. } => {
                let opened = File::options().write(true).append(append).open(path);
                To::File(opened.map_err(failed(path, Step::Open))?)
            }
        };
        Ok(OutputFile { path: path.to_owned(), to: BufWriter::with_capacity(1 << 16, to) })
    }

    /// The error of a write that failed.
    pub fn failed(&self, source: io::Error) -> OutputError {
        OutputError::Io { path: self.path.clone(), step: Step::Write, source }
    }

    /// Ends the file and puts it into its place, on the disk.
    ///
    /// # Errors
    /// [`OutputError`]; the previous file is then still there.
    pub fn commit(self) -> Result<(), OutputError> {
        self.place(true)
    }

    /// As [`commit`](Self::commit), without waiting for the disk: for files that their reader checks, and can do without.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub fn commit_unsynced(self) -> Result<(), OutputError> {
        self.place(false)
    }

    fn place(self, sync: bool) -> Result<(), OutputError> {
        let OutputFile { path, to } = self;
        let to = to.into_inner().map_err(|error| failed(&path, Step::Write)(error.into_error()))?;
        match to {
            To::Temporary(temporary) => temporary.place(&path, sync),
            To::File(_) | To::Socket(_) => Ok(()),
        }
    }
}

/// A file beside its place. It is removed when it is dropped, unless it took that.
#[derive(Debug)]
struct Temporary {
    target: PathBuf,
    path: PathBuf,
    file: File,
    placed: bool,
}

impl Temporary {
    fn create(path: &Path, target: PathBuf, before: Option<&fs::Metadata>) -> Result<Temporary, OutputError> {
        if before.is_some() {
            // Write protection is respected.
            File::options().write(true).open(&target).map_err(failed(path, Step::Open))?;
        }
        let folder = folder_of(&target).to_owned();
        let create = || failed(path, Step::Create(folder.clone()));
        let (temporary, file) = unique(&folder).map_err(create())?;
        let new = Temporary { target, path: temporary, file, placed: false };
        if let Some(before) = before {
            let now = new.file.metadata().map_err(create())?;
            if (now.uid(), now.gid()) != (before.uid(), before.gid()) {
                // Only root may give files away; from others the file is theirs from now on.
                let _ = fchown(&new.file, Some(before.uid()), Some(before.gid()));
            }
            let mode = fs::Permissions::from_mode(before.permissions().mode() & MODE);
            new.file.set_permissions(mode).map_err(create())?;
        }
        Ok(new)
    }

    fn place(mut self, path: &Path, sync: bool) -> Result<(), OutputError> {
        if sync {
            self.file.sync_all().map_err(failed(path, Step::Write))?;
        }
        fs::rename(&self.path, &self.target).map_err(failed(path, Step::Replace))?;
        self.placed = true;
        if sync && let Ok(folder) = File::open(folder_of(&self.target)) {
            // Not every file system can; the file is there all the same.
            let _ = folder.sync_all();
        }
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.placed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Makes a file in `folder` under a name that nothing had.
fn unique(folder: &Path) -> io::Result<(PathBuf, File)> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let mut last = ErrorKind::AlreadyExists.into();
    for _ in 0..NAMES {
        // Not from the pid alone: other computers may share the folder.
        let random = RandomState::new().hash_one(0) as u32;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".fathom-{}-{count}-{random:08x}.part", std::process::id()));
        match File::create_new(&path) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// The kind of file at a path.
enum Place {
    /// A regular file, or none.
    Regular { target: PathBuf, before: Option<fs::Metadata> },
    /// Something that is written to.
    Stream { append: bool, socket: bool },
}

fn place(path: &Path) -> Result<Place, OutputError> {
    let find = || failed(path, Step::Find);
    let directory = || OutputError::Directory { path: path.to_owned() };
    if path.as_os_str().as_bytes().ends_with(b"/") {
        return Err(directory());
    }
    let before = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(directory()),
        Ok(found) if !found.is_file() => {
            return Ok(Place::Stream { append: false, socket: found.file_type().is_socket() });
        }
        Ok(found) => Some(found),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(find()(error)),
    };
    Ok(match follow(path).map_err(find())? {
        Some(target) => Place::Regular { target, before },
        None => Place::Stream { append: true, socket: false },
    })
}

/// Where the links of `path` lead; `None` for a file that a process holds open (`/dev/stdout`): its place is that process.
fn follow(path: &Path) -> io::Result<Option<PathBuf>> {
    let mut at = path.to_owned();
    for _ in 0..LINKS {
        match fs::symlink_metadata(&at) {
            Ok(found) if found.is_symlink() => {
                let folder = folder_of(&at);
                if fs::canonicalize(folder)?.starts_with("/proc") {
                    return Ok(None);
                }
                at = folder.join(fs::read_link(&at)?);
            }
            Ok(_) => return Ok(Some(at)),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Some(at)),
            Err(error) => return Err(error),
        }
    }
    Err(rustix::io::Errno::LOOP.into())
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn failed(path: &Path, step: Step) -> impl FnOnce(io::Error) -> OutputError {
    move |source| OutputError::Io { path: path.to_owned(), step, source }
}

#[cfg(test)]
#[path = "output_file_tests.rs"]
mod tests;
