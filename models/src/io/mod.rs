//! Files and streams: console output, files that appear whole or not at all, JSON, and file types by their first bytes.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

pub mod console;
pub(crate) mod content;
pub(crate) mod json;
pub mod output_file;

pub use content::{Content, NotSafetensors};
pub use json::JsonError;

/// Why a file cannot be read, or be written as JSON.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The system refuses it.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A JSON file does not have the expected form.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The cause, with the path of the key, or line and column.
        source: JsonError,
    },
}

impl FileError {
    /// The error of the system at the file `path`.
    pub(crate) fn io(path: &Path) -> impl Fn(io::Error) -> FileError + Copy {
        move |source| FileError::Io { path: path.to_owned(), source }
    }
}

/// Whether a file, or a link, has this name. A link whose target is missing counts: the file is missing, not unnecessary.
pub(crate) fn is_there(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok()
}

/// Opens a file.
///
/// # Errors
/// [`FileError::Io`], which names the missing target of a link.
pub(crate) fn open(path: &Path) -> Result<File, FileError> {
    File::open(path).map_err(|source| {
        let target = fs::read_link(path).ok().filter(|_| source.kind() == io::ErrorKind::NotFound);
        let source = match target {
            Some(target) => {
                let detail = format!(
                    "a link to {}, which is not there: copy the file itself (`cp -L`), or download it again",
                    target.display()
                );
                io::Error::new(io::ErrorKind::NotFound, detail)
            }
            None => source,
        };
        FileError::io(path)(source)
    })
}

/// Reads a whole file.
///
/// # Errors
/// As [`open`].
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let mut bytes = Vec::new();
    open(path)?.read_to_end(&mut bytes).map_err(FileError::io(path))?;
    Ok(bytes)
}
