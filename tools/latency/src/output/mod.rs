//! A result as text for a terminal, as Markdown, as a page, and as JSON.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::Failure;
use crate::result::Measured;

mod html;
mod markdown;
pub(crate) mod perfetto;
mod picture;
mod text;

pub(crate) use markdown::comparison as comparison_markdown;
pub(crate) use text::text;

/// Where a result goes besides the terminal.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Outputs {
    /// Write the result as JSON (tools/latency/SCHEMA.md).
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Write it as one page of HTML that needs no network.
    #[arg(long)]
    pub(crate) html: Option<PathBuf>,
    /// Write it as Markdown, for a pull request.
    #[arg(long)]
    pub(crate) markdown: Option<PathBuf>,
}

impl Outputs {
    /// Writes the files that are wanted.
    pub(crate) fn write(&self, measured: &Measured) -> Result<(), Failure> {
        if let Some(path) = &self.json {
            write(path, &measured.to_json()?)?;
        }
        if let Some(path) = &self.html {
            write(path, &html::page(measured))?;
        }
        if let Some(path) = &self.markdown {
            write(path, &markdown::markdown(measured))?;
        }
        Ok(())
    }
}

/// Prints what is asked for; whoever reads no more is no error.
pub(crate) fn print(text: &str) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Writes a file whole or not at all: half a result is none. What is no file, such as a pipe, is written as it comes.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if path.exists() && !path.is_file() {
        return Ok(std::fs::write(path, text).map_err(failed)?);
    }
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    // As any new file: readable by others where the user's mask lets them.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(mode).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    Ok(())
}
