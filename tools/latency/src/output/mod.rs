//! A result as text for a terminal, as Markdown, as a page, and as JSON.

use std::path::{Path, PathBuf};

use clap::Args;
use fathom_models::io::output_file;
use fathom_models::outln;

use crate::Failure;
use crate::result::Measured;

mod html;
mod markdown;
pub(crate) mod perfetto;
mod picture;
mod text;

pub(crate) use markdown::comparison as comparison_markdown;
pub(crate) use text::text;

/// Output files in addition to the terminal.
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
    /// Checks, before a long measurement, that the output files can be written.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        [&self.json, &self.html, &self.markdown].into_iter().flatten().try_for_each(|path| output_file::check(path))?;
        Ok(())
    }

    /// Writes the output files.
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

/// Prints; a reader that has ended is no error.
pub(crate) fn print(text: &str) {
    outln!("{text}");
}

/// Writes a file completely or not at all. A special file, such as a pipe, is written directly.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Failure> {
    Ok(output_file::write(path, text)?)
}
