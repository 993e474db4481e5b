//! JSON files as Python's `json` module writes and reads them.
//!
//! A file becomes a tree, and the tree is read key by key. Only a value that is read can be wrong: `NaN`, `Infinity`, a key
//! that is given twice or a value of another type is an error where the value is needed, with the path of its key, and
//! nothing where no code asks for it. A byte-order mark is skipped. Comments, trailing commas and single quotes are no JSON.

use std::borrow::Cow;
use std::path::Path;

use serde::de::{Deserialize, DeserializeOwned};

use super::FileError;
use super::content::{self, Content};

mod de;
mod parse;

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json<'a> {
    Null,
    Bool(bool),
    /// A number without point and exponent.
    Integer(i128),
    /// Any other number; NaN and infinity as Python writes them.
    Float(f64),
    String(Cow<'a, str>),
    Array(Vec<Json<'a>>),
    /// In the order of the file; a key occurs once.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
    /// A value that cannot be read: its description.
    Unreadable(&'static str),
}

/// How a file is not the JSON that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// It is another kind of file.
    #[error("expected JSON, found {0}")]
    Content(Content),
    /// Its text is not JSON.
    #[error("not JSON: line {line}, column {column}: expected {expected}, found {found}")]
    Syntax {
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// The syntax that JSON has there.
        expected: String,
        /// The text found.
        found: String,
    },
    /// A key has a value of another type, or none.
    #[error("{}expected {expected}, found {found}", at(key))]
    Value {
        /// Path of the key, empty for the whole file.
        key: String,
        /// The expected type or value.
        expected: String,
        /// The value found.
        found: String,
    },
    /// Something else is wrong with a key.
    #[error("{}{detail}", at(key))]
    Key {
        /// Path of the key, empty for the whole file.
        key: String,
        /// The error.
        detail: String,
    },
    /// A value cannot be written as JSON.
    #[error("cannot be written as JSON: {0}")]
    Write(String),
}

fn at(key: &str) -> String {
    if key.is_empty() { String::new() } else { format!("{key}: ") }
}

impl From<serde_json::Error> for JsonError {
    /// Of writing: nothing here reads with `serde_json`.
    fn from(error: serde_json::Error) -> JsonError {
        JsonError::Write(error.to_string())
    }
}

impl Json<'_> {
    /// The value of a key; `None` where this is no object or has no such key.
    pub(crate) fn get(&self, key: &str) -> Option<&Json<'_>> {
        let Json::Object(entries) = self else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    /// A text.
    pub(crate) fn as_str(&self) -> Option<&str> {
        if let Json::String(text) = self { Some(text) } else { None }
    }

    /// Removes a key.
    pub(crate) fn remove(&mut self, key: &str) {
        if let Json::Object(entries) = self {
            entries.retain(|(name, _)| name != key);
        }
    }

    fn into_owned(self) -> Json<'static> {
        let owned = |text: Cow<'_, str>| Cow::Owned(text.into_owned());
        match self {
            Json::Null => Json::Null,
            Json::Bool(value) => Json::Bool(value),
            Json::Integer(value) => Json::Integer(value),
            Json::Float(value) => Json::Float(value),
            Json::String(text) => Json::String(owned(text)),
            Json::Array(items) => Json::Array(items.into_iter().map(Json::into_owned).collect()),
            Json::Object(entries) => {
                Json::Object(entries.into_iter().map(|(key, value)| (owned(key), value.into_owned())).collect())
            }
            Json::Unreadable(what) => Json::Unreadable(what),
        }
    }

    /// For errors.
    fn describe(&self) -> String {
        match self {
            Json::Null => "null".to_owned(),
            Json::Bool(value) => value.to_string(),
            Json::Integer(value) => value.to_string(),
            Json::Float(value) if value.is_nan() => "NaN".to_owned(),
            Json::Float(value) if value.is_infinite() => if *value < 0.0 { "-Infinity" } else { "Infinity" }.to_owned(),
            Json::Float(value) => format!("{value:?}"),
            Json::String(text) => format!("the text {:?}", content::shortened(text, 60)),
            Json::Array(items) => format!("a list of {}", items.len()),
            Json::Object(_) => "an object".to_owned(),
            Json::Unreadable(what) => (*what).to_owned(),
        }
    }
}

/// A value of a file, with the path of its key for errors.
#[derive(Clone, Debug)]
pub(crate) struct At<'t> {
    json: &'t Json<'t>,
    path: String,
}

impl<'t> At<'t> {
    /// The whole file.
    pub(crate) fn root(json: &'t Json<'t>) -> At<'t> {
        At { json, path: String::new() }
    }

    /// The value of a key; `None` where this is no object or has no such key.
    pub(crate) fn get(&self, key: &str) -> Option<At<'t>> {
        let mut path = self.path.clone();
        de::push(&mut path, key);
        Some(At { json: self.json.get(key)?, path })
    }

    /// As [`get`](Self::get); a key with the value null is none.
    pub(crate) fn some(&self, key: &str) -> Option<At<'t>> {
        self.get(key).filter(|value| *value.json != Json::Null)
    }

    /// Reads it as a `T`.
    pub(crate) fn read<T: Deserialize<'t>>(&self) -> Result<T, JsonError> {
        de::read(self.json, self.path.clone())
    }

    /// Whether it is this text.
    pub(crate) fn is_text(&self, text: &str) -> bool {
        self.json.as_str() == Some(text)
    }

    /// Its keys and their values, in the order of the file.
    pub(crate) fn entries(&self) -> Result<Vec<(&'t str, At<'t>)>, JsonError> {
        match self.json {
            Json::Object(entries) => {
                Ok(entries.iter().filter_map(|(key, _)| Some((key.as_ref(), self.get(key)?))).collect())
            }
            _ => Err(self.wrong("an object")),
        }
    }

    /// The elements of a list.
    pub(crate) fn items(&self) -> Result<Vec<At<'t>>, JsonError> {
        match self.json {
            Json::Array(items) => {
                let path = |i: usize| format!("{}[{i}]", self.path);
                Ok(items.iter().enumerate().map(|(i, json)| At { json, path: path(i) }).collect())
            }
            _ => Err(self.wrong("a list")),
        }
    }

    /// The error of a value that is not `expected`.
    pub(crate) fn wrong(&self, expected: impl Into<String>) -> JsonError {
        JsonError::Value { key: self.path.clone(), expected: expected.into(), found: self.json.describe() }
    }
}

/// Reads the file `path` as a `T`.
///
/// # Errors
/// [`FileError::Io`], and [`FileError::Json`] for another kind of file, for text that is no JSON, and for a value that a
/// `T` does not have.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, FileError> {
    with_tree(path, |tree| de::read(tree, String::new()))
}

/// Reads the file `path` as it is.
///
/// # Errors
/// As [`read_json`].
pub(crate) fn read_tree(path: &Path) -> Result<Json<'static>, FileError> {
    with_tree(path, |tree| Ok(tree.clone().into_owned()))
}

/// Reads a value that lies in memory.
pub(crate) fn from_tree<T: DeserializeOwned>(tree: &Json<'_>) -> Result<T, JsonError> {
    de::read(tree, String::new())
}

/// Parses bytes that lie in memory.
pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Json<'_>, JsonError> {
    let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
    let content = Content::of(bytes);
    if content.is_no_text() {
        return Err(JsonError::Content(content));
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            let before = std::str::from_utf8(before).unwrap_or_default();
            return Err(parse::syntax(before, "text in UTF-8", "a byte that is none"));
        }
    };
    match parse::parse(text) {
        // A text that does not even begin as JSON is shown as a whole.
        Err(error) => match content {
            Content::Text { .. } => Err(JsonError::Content(content)),
            _ => Err(error),
        },
        Ok(tree) => match content::server_message(&tree) {
            Some(message) => Err(JsonError::Content(Content::ServerMessage { message })),
            None => Ok(tree),
        },
    }
}

fn with_tree<T>(path: &Path, read: impl FnOnce(&Json<'_>) -> Result<T, JsonError>) -> Result<T, FileError> {
    let bytes = super::read(path)?;
    from_bytes(&bytes).and_then(|tree| read(&tree)).map_err(|source| FileError::Json { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests;
