//! The crate's error. The problems that one room alone finds are in a file with its name.

use std::error::Error;
use std::path::{Path, PathBuf};

use crate::io::output_file::OutputError;
use crate::io::{FileError, JsonError, NotSafetensors};

mod checkpoint;

pub use checkpoint::{FileProblem, ShardProblem, TensorProblem};
use checkpoint::{count, list, tensors};

/// Why a model, a checkpoint or an observation cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file cannot be read, or is not the JSON that it should be.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file cannot be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// A file is not valid safetensors.
    #[error("{}: not a complete safetensors file: {source}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Its kind, if it is another, or how it is damaged.
        source: NotSafetensors,
    },
    /// A directory with a checkpoint of another format.
    #[error("{}: expected model.safetensors or model.safetensors.index.json, found {found}", path.display())]
    Format {
        /// The directory.
        path: PathBuf,
        /// Its format, and how to convert it to safetensors.
        found: String,
    },
    /// A configuration that no model can have.
    #[error("configuration: {0}")]
    Config(#[from] ConfigError),
    /// The checkpoint's tensors are not the model's; all that is wrong, in one list.
    #[error("{}: {} tensor(s) do not fit the model:\n{}", path.display(), count(problems), tensors(problems))]
    Tensors {
        /// The checkpoint.
        path: PathBuf,
        /// One entry a tensor.
        problems: Vec<TensorProblem>,
    },
    /// As `problem`, and the family that the tensors' names fit best: another one, or the same with changes to the names.
    #[error("{problem}\nnearest known family: {nearest}")]
    OtherFamily {
        /// The error of the family that it was read as.
        problem: Box<ModelError>,
        /// That family, and how many of the tensors have its names.
        nearest: String,
    },
    /// The files of a checkpoint contradict their index; all that is wrong, in one list.
    #[error("{}: {} contradiction(s) between the index and its files:\n{}", path.display(), problems.len(), list(problems))]
    Shards {
        /// The index.
        path: PathBuf,
        /// The contradictions.
        problems: Vec<ShardProblem>,
    },
    /// A packed directory's files are not as they were written; all that differ, in one list.
    #[error(
        "{}: {} file(s) are not as fathom-pack wrote them (pack again, or remove the manifest to load them all the same):\n{}",
        path.display(), problems.len(), list(problems)
    )]
    Altered {
        /// The manifest.
        path: PathBuf,
        /// The differences.
        problems: Vec<FileProblem>,
    },
    /// The forward definition was given shapes that do not fit each other.
    #[error("{op}: {detail}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// Expected and found.
        detail: String,
    },
    /// An observation lacks a part or has it in the wrong form.
    #[error("observation: {name}: expected {expected}, found {found}")]
    Observation {
        /// The part.
        name: String,
        /// Expected form.
        expected: String,
        /// Found form.
        found: String,
    },
    /// A checkpoint of a known family that gives no actions.
    #[error("{}: a {family} checkpoint is no action model: it is {purpose}", path.display())]
    NoActions {
        /// Its directory.
        path: PathBuf,
        /// Name of its family.
        family: &'static str,
        /// Its purpose.
        purpose: &'static str,
    },
    /// The prompt cannot become tokens.
    #[error("prompt: {0}")]
    Prompt(String),
    /// The normalisation statistics do not fit the model.
    #[error("{}: {detail}", path.display())]
    Statistics {
        /// The file.
        path: PathBuf,
        /// Expected and found.
        detail: String,
    },
}

impl ConfigError {
    /// The error of `field`.
    pub(crate) fn new(field: impl Into<String>, expected: impl Into<String>, found: impl Into<String>) -> ConfigError {
        ConfigError { field: field.into(), expected: expected.into(), found: found.into() }
    }
}

impl ModelError {
    /// The error of the system at the file `path`.
    pub(crate) fn io(path: &Path) -> impl Fn(std::io::Error) -> ModelError + Copy {
        move |source| FileError::io(path)(source).into()
    }

    /// The error of the statistics in the file `path`.
    pub(crate) fn statistics(path: &Path, detail: impl Into<String>) -> ModelError {
        ModelError::Statistics { path: path.to_owned(), detail: detail.into() }
    }

    /// The error of the JSON file `path`.
    pub(crate) fn json<E: Into<JsonError>>(path: &Path) -> impl Fn(E) -> ModelError + Copy {
        move |source| FileError::Json { path: path.to_owned(), source: source.into() }.into()
    }
}

/// A configuration field with a value that no model can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: expected {expected}, found {found}")]
pub struct ConfigError {
    /// Path of the field.
    pub field: String,
    /// The allowed values.
    pub expected: String,
    /// The value found.
    pub found: String,
}

/// The error's message, then those of its causes whose text the one before does not already contain.
#[must_use]
pub fn messages(error: &dyn Error) -> Vec<String> {
    let mut lines = vec![error.to_string()];
    let (mut cause, mut said) = (error.source(), error.to_string());
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !said.contains(&text) {
            lines.push(text.clone());
        }
        said = text;
        cause = inner.source();
    }
    lines
}
