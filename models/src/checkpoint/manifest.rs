//! The manifest of a packed directory: its scheme, its source, and the SHA-256 of every file.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};

use super::sha256::Sha256;
use crate::error::{FileProblem, ModelError};
use crate::io::{is_there, json};

/// Its name.
pub const FILE: &str = "manifest.json";
/// Version of its form.
pub const VERSION: u32 = 1;

/// `manifest.json`, with a scheme of the type `S`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest<S> {
    /// [`VERSION`].
    pub fathom_pack: u32,
    /// Name and version of the program that wrote it.
    pub program: String,
    /// Which format each weight has.
    pub scheme: S,
    /// Whether the weights were calibrated on observations.
    pub calibrated: bool,
    /// The source.
    pub source: Source,
    /// Every file of the directory but this, by its path there.
    pub files: BTreeMap<String, Hashed>,
}

/// The checkpoint that was packed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// Name of its family.
    pub family: String,
    /// Its files with tensors.
    pub files: BTreeMap<String, Hashed>,
}

/// A file's size and hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashed {
    /// Its size.
    pub bytes: u64,
    /// In hexadecimal digits.
    pub sha256: String,
}

impl<S: DeserializeOwned> Manifest<S> {
    /// That of the directory, if it has one of this form.
    ///
    /// # Errors
    /// [`ModelError::File`].
    pub fn read(dir: &Path) -> Result<Option<Manifest<S>>, ModelError> {
        let path = dir.join(FILE);
        if !is_there(&path) {
            return Ok(None);
        }
        // Another program may write a file of that name.
        let tree = json::read_tree(&path)?;
        if tree.get("fathom_pack").is_none() {
            return Ok(None);
        }
        json::from_tree(&tree).map(Some).map_err(ModelError::json(&path))
    }
}

/// Checks every file that the manifest of `dir` lists, on all cores. A directory without one passes.
///
/// # Errors
/// [`ModelError::Altered`] with all that differ, [`ModelError::File`] of the manifest.
pub fn verify(dir: &Path) -> Result<(), ModelError> {
    let Some(manifest) = Manifest::<IgnoredAny>::read(dir)? else { return Ok(()) };
    let mut problems = Vec::new();
    let mut intact = Vec::new();
    for (file, hashed) in &manifest.files {
        match fs::metadata(dir.join(file)) {
            Ok(found) if found.len() == hashed.bytes => intact.push(file),
            Ok(found) => {
                problems.push(FileProblem::Size { file: file.clone(), expected: hashed.bytes, found: found.len() });
            }
            Err(error) => {
                problems.push(FileProblem::Unreadable { file: file.clone(), reason: error.to_string() });
            }
        }
    }
    for (file, found) in intact.iter().zip(hash(&intact.iter().map(|file| dir.join(file)).collect::<Vec<_>>())) {
        let Some(expected) = manifest.files.get(*file) else { continue };
        match found {
            Ok(found) if found == *expected => {}
            Ok(found) => problems.push(FileProblem::Hash {
                file: (*file).clone(),
                expected: expected.sha256.clone(),
                found: found.sha256,
            }),
            Err(error) => {
                problems.push(FileProblem::Unreadable { file: (*file).clone(), reason: error.to_string() });
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ModelError::Altered { path: dir.join(FILE), problems }) }
}

/// Size and hash of each file, on all cores.
pub fn hash<P: AsRef<Path> + Sync>(files: &[P]) -> Vec<io::Result<Hashed>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = files.get(i) else { return done };
            done.push((i, Sha256::of_file(file.as_ref()).map(|(bytes, sha256)| Hashed { bytes, sha256 })));
        }
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(files.len());
    let mut all: Vec<_> = std::thread::scope(|scope| {
        let others: Vec<_> = (1..cores).map(|_| scope.spawn(work)).collect();
        let mut all = work();
        for other in others {
            all.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    });
    all.sort_by_key(|(i, _)| *i);
    all.into_iter().map(|(_, hashed)| hashed).collect()
}
