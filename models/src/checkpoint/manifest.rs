//! The manifest of a packed directory: its scheme, its source, and the SHA-256 of every file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::verify::{cores, parallel};
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

/// The files that the manifest of `dir` lists; none without a manifest.
///
/// # Errors
/// As [`Manifest::read`].
pub(super) fn listed(dir: &Path) -> Result<BTreeMap<String, Hashed>, ModelError> {
    Ok(Manifest::<IgnoredAny>::read(dir)?.map(|manifest| manifest.files).unwrap_or_default())
}

/// Checks these files of `dir` on all cores.
///
/// # Errors
/// [`ModelError::Altered`] with all that differ.
pub(super) fn verify<'a>(dir: &Path, listed: impl Iterator<Item = (&'a String, &'a Hashed)>) -> Result<(), ModelError> {
    let mut problems = Vec::new();
    let mut intact = Vec::new();
    for (file, hashed) in listed {
        match fs::metadata(dir.join(file)) {
            Ok(found) if found.len() == hashed.bytes => intact.push((file, hashed)),
            Ok(found) => {
                problems.push(FileProblem::Size { file: file.clone(), expected: hashed.bytes, found: found.len() });
            }
            Err(error) => {
                problems.push(FileProblem::Unreadable { file: file.clone(), reason: error.to_string() });
            }
        }
    }
    let paths: Vec<_> = intact.iter().map(|(file, _)| dir.join(file)).collect();
    for ((file, expected), found) in intact.into_iter().zip(hash(&paths)) {
        let (file, expected) = (file.clone(), expected.sha256.clone());
        match found {
            Ok(found) if found.sha256 == expected => {}
            Ok(found) => problems.push(FileProblem::Hash { file, expected, found: found.sha256 }),
            Err(error) => problems.push(FileProblem::Unreadable { file, reason: error.to_string() }),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ModelError::Altered { path: dir.join(FILE), problems }) }
}

/// Size and hash of each file, on all cores.
pub fn hash<P: AsRef<Path> + Sync>(files: &[P]) -> Vec<io::Result<Hashed>> {
    parallel(cores(), files, |file| {
        let (mut file, mut hash, mut bytes) = (File::open(file)?, Sha256::new(), 0);
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(Hashed { bytes, sha256: hexadecimal(hash) }),
                Ok(count) => {
                    bytes += count as u64;
                    hash.update(buffer.get(..count).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    })
}

/// A hash in hexadecimal digits.
pub(super) fn hexadecimal(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of FIPS 180-4, in the hexadecimal digits of a manifest.
    #[test]
    fn the_standards_examples() {
        let hash = |data: &[u8]| hexadecimal(Sha256::new_with_prefix(data));
        for (message, expected) in [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            ),
        ] {
            assert_eq!(hash(message.as_bytes()), expected);
        }
        let long = vec![b'a'; 1_000_000];
        assert_eq!(hash(&long), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    }
}
