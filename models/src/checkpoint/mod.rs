//! Safetensors files by memory map: nothing is copied until it goes to the GPU.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use fathom_shaders::format::WeightFormat;
use memmap2::{Mmap, UncheckedAdvice};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::error::{ModelError, ShardProblem};
use crate::io::json::read_json;
use crate::io::{self, Content, NotSafetensors, is_there};

pub mod fold;
pub(crate) mod foreign;
pub mod manifest;
pub mod random;
pub mod save;
pub mod stack;
mod verify;
mod weights;

pub use verify::UnverifiedWeights;
pub use weights::{Weights, scales_of};
pub(crate) use weights::{finite, pair};

/// The format of a safetensors dtype that is a float of 16 or 32 bits.
pub fn float_format(dtype: Dtype) -> Option<WeightFormat> {
    match dtype {
        Dtype::F32 => Some(WeightFormat::F32),
        Dtype::F16 => Some(WeightFormat::F16),
        Dtype::BF16 => Some(WeightFormat::Bf16),
        _ => None,
    }
}

/// One tensor of a checkpoint.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<usize>,
    pub(crate) place: Place,
}

/// Where a tensor's bytes lie: the file, and the bytes in it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Place {
    file: usize,
    range: Range<usize>,
}

/// One safetensors file or several, mapped; every tensor's place is known and lies within its file. Without files by default.
#[derive(Debug, Default)]
pub struct Checkpoint {
    path: PathBuf,
    files: Vec<Mapped>,
    entries: BTreeMap<String, Entry>,
    /// Names in the file by their names without the levels of [`WRAPPERS`], if they differ.
    wrapped: BTreeMap<String, String>,
    /// The names level by level from the last on, once an error needs them.
    backwards: OnceLock<BTreeSet<String>>,
    metadata: BTreeMap<String, String>,
}

/// A mapped file.
#[derive(Debug)]
pub(crate) struct Mapped {
    name: String,
    map: Mmap,
    /// As a manifest lists it.
    listed: Option<manifest::Hashed>,
}

impl Mapped {
    /// Advises the kernel to drop these pages; they are read again on access.
    fn release(&self, range: Range<usize>) {
        // SAFETY: the map is of a file and nothing ever writes to it, so a page that is dropped comes back as it was.
        let advised = unsafe { self.map.unchecked_advise_range(UncheckedAdvice::DontNeed, range.start, range.len()) };
        // It is advice: a kernel that does not take it keeps the pages.
        drop(advised);
    }
}

/// Levels that PyTorch itself puts into names when it wraps a module to compile it, or to train it in parts. The names are
/// reserved for that, and the weights below them are the module's own: a name means the same without them.
const WRAPPERS: [&str; 3] = ["_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"];

/// A name without the levels of [`WRAPPERS`].
pub(crate) fn unwrapped(name: &str) -> Cow<'_, str> {
    if !WRAPPERS.iter().any(|wrapper| name.contains(wrapper)) {
        return Cow::Borrowed(name);
    }
    let kept: Vec<&str> = name.split('.').filter(|level| !WRAPPERS.contains(level)).collect();
    Cow::Owned(kept.join("."))
}

/// `model.safetensors.index.json`
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Maps `path` and reads its header.
    ///
    /// # Errors
    /// [`ModelError::File`], or [`ModelError::Safetensors`] for a file that is truncated or no safetensors file.
    pub fn open(path: &Path) -> Result<Checkpoint, ModelError> {
        let mut checkpoint = Checkpoint::map(path)?;
        checkpoint.complete();
        Ok(checkpoint)
    }

    fn map(path: &Path) -> Result<Checkpoint, ModelError> {
        let refused = ModelError::io(path);
        let file = io::open(path)?;
        if file.metadata().map_err(refused)?.len() == 0 {
            let source = NotSafetensors::Content(Content::Empty);
            return Err(ModelError::Safetensors { path: path.to_owned(), source });
        }
        // SAFETY: the map is read-only; a file that another process changes meanwhile gives other weights, but the bytes
        // are plain numbers, for which every value is valid.
        let map = unsafe { Mmap::map(&file) }.map_err(refused)?;
        let invalid = |reason| {
            let source = NotSafetensors::of(&map, &reason);
            ModelError::Safetensors { path: path.to_owned(), source }
        };
        let (_, header) = SafeTensors::read_metadata(&map).map_err(invalid)?;
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        let tensors = SafeTensors::deserialize(&map).map_err(invalid)?;
        let start = map.as_ptr() as usize;
        let entries = tensors
            .iter()
            .map(|(name, view)| {
                let at = view.data().as_ptr() as usize - start;
                let place = Place { file: 0, range: at..at + view.data().len() };
                (name.to_owned(), Entry { dtype: view.dtype(), shape: view.shape().to_vec(), place })
            })
            .collect();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let files = vec![Mapped { name, map, listed: None }];
        Ok(Checkpoint { path: path.to_owned(), files, entries, metadata, ..Checkpoint::default() })
    }

    /// Derives shapes and names that depend on all names.
    fn complete(&mut self) {
        self.unpack_shapes();
        for name in self.entries.keys() {
            if let Cow::Owned(plain) = unwrapped(name) {
                // Of two names that would be one the first has it; the other is a tensor that no model knows.
                self.wrapped.entry(plain).or_insert_with(|| name.clone());
            }
        }
    }

    /// Two nibbles are a byte: the last dimension of packed weights becomes that of the numbers.
    fn unpack_shapes(&mut self) {
        let scaled = |name: &String| self.entries.contains_key(&scales_of(name));
        let packed = self.entries.iter().filter(|(name, e)| e.dtype == Dtype::U8 && scaled(name));
        let packed: Vec<String> = packed.map(|(name, _)| name.clone()).collect();
        for name in packed {
            if let Some(columns) = self.entries.get_mut(&name).and_then(|e| e.shape.last_mut()) {
                *columns = columns.saturating_mul(2);
            }
        }
    }

    /// What `read` makes of the model in `dir`: of `model.safetensors`, or of the files that `model.safetensors.index.json`
    /// names. Where `fathom-pack` wrote the directory, the mapped files have the sizes and the others the content that it
    /// wrote; the content of the mapped ones is left to [`UnverifiedWeights`], unless `read` fails.
    ///
    /// # Errors
    /// As [`open`](Self::open), [`ModelError::File`], [`ModelError::Format`] for a checkpoint of another format,
    /// [`ModelError::Shards`] with all that contradicts the index, and those of `read`; in place of each
    /// [`ModelError::Altered`] with all files that are not as the manifest says, if there are any.
    pub(crate) fn open_model<T>(
        dir: &Path,
        read: impl FnOnce(Checkpoint) -> Result<T, ModelError>,
    ) -> Result<T, ModelError> {
        let listed = manifest::listed(dir)?;
        let opened = Checkpoint::map_model(dir).and_then(|mut checkpoint| {
            for file in &mut checkpoint.files {
                file.listed = listed.get(&file.name).filter(|listed| listed.bytes == file.map.len() as u64).cloned();
            }
            let later = |name: &String| checkpoint.files.iter().any(|f| f.name == *name && f.listed.is_some());
            manifest::verify(dir, listed.iter().filter(|(name, _)| !later(name)))?;
            Ok(checkpoint)
        });
        opened.and_then(read).map_err(|problem| manifest::verify(dir, listed.iter()).err().unwrap_or(problem))
    }

    fn map_model(dir: &Path) -> Result<Checkpoint, ModelError> {
        let whole = dir.join("model.safetensors");
        let index = dir.join("model.safetensors.index.json");
        match (is_there(&whole), is_there(&index)) {
            (false, true) => Checkpoint::open_shards(dir, index),
            (false, false) => match other_format(dir) {
                Some(found) => Err(ModelError::Format { path: dir.to_owned(), found }),
                None => Checkpoint::open(&whole),
            },
            (true, _) => Checkpoint::open(&whole),
        }
    }

    fn open_shards(dir: &Path, path: PathBuf) -> Result<Checkpoint, ModelError> {
        let Index { weight_map } = read_json(&path)?;
        let files: BTreeSet<&String> = weight_map.values().collect();
        let mut all = Checkpoint { path, ..Checkpoint::default() };
        let mut problems = Vec::new();
        let mut holders: BTreeMap<String, &String> = BTreeMap::new();
        for file in files {
            // A plain name: an index never reaches out of its directory.
            let plain = Path::new(file).file_name().is_some_and(|name| name == file.as_str());
            if !plain || !is_there(&dir.join(file)) {
                problems.push(ShardProblem::NoFile { file: file.clone() });
                continue;
            }
            let shard = match Checkpoint::map(&dir.join(file)) {
                Ok(shard) => shard,
                Err(ModelError::Safetensors { source, .. }) => {
                    problems.push(ShardProblem::Unreadable { file: file.clone(), reason: source.to_string() });
                    continue;
                }
                Err(error) => return Err(error),
            };
            for (name, mut entry) in shard.entries {
                entry.place.file = all.files.len();
                if let Some(first) = holders.insert(name.clone(), file) {
                    problems.push(ShardProblem::Twice { name: name.clone(), files: [first.clone(), file.clone()] });
                }
                all.entries.insert(name, entry);
            }
            all.files.extend(shard.files);
            all.metadata.extend(shard.metadata);
        }
        let lost = |file: &String| {
            problems.iter().any(|p| match p {
                ShardProblem::NoFile { file: lost } | ShardProblem::Unreadable { file: lost, .. } => lost == file,
                ShardProblem::Absent { .. } | ShardProblem::Twice { .. } => false,
            })
        };
        let absent = weight_map.iter().filter(|(name, file)| !lost(file) && holders.get(*name) != Some(file));
        let absent: Vec<_> =
            absent.map(|(name, file)| ShardProblem::Absent { name: name.clone(), file: file.clone() }).collect();
        problems.extend(absent);
        all.complete();
        if problems.is_empty() { Ok(all) } else { Err(ModelError::Shards { path: all.path, problems }) }
    }

    /// The files of the model in `dir` that hold tensors, and their index if there is one.
    ///
    /// # Errors
    /// [`ModelError::File`] of the index.
    pub fn files(dir: &Path) -> Result<BTreeSet<PathBuf>, ModelError> {
        let (whole, index) = (dir.join("model.safetensors"), dir.join("model.safetensors.index.json"));
        if is_there(&whole) || !is_there(&index) {
            return Ok(std::iter::once(whole).collect());
        }
        let Index { weight_map } = read_json(&index)?;
        Ok(weight_map.values().map(|file| dir.join(file)).chain([index]).collect())
    }

    /// The file, or the index of the files.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Free-form metadata of the file.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Names of the tensors, as the file has them.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// The name that a tensor has in the file, and the tensor. Levels that PyTorch's wrappers add to names may be missing
    /// from `name`.
    pub(crate) fn find(&self, name: &str) -> Option<(&String, &Entry)> {
        let stored = || self.entries.get_key_value(self.wrapped.get(name)?);
        self.entries.get_key_value(name).or_else(stored)
    }

    /// Of some names for a tensor that is not there the one that has most levels in common with another tensor's name, from
    /// the outside and from the inside.
    pub(crate) fn likeliest(&self, candidates: &[String]) -> Option<String> {
        let common = |a: &str, b: &str| a.split('.').zip(b.split('.')).take_while(|(a, b)| a == b).count();
        // Where every name is in the same wrapper, so is the one that is missing.
        let outermost = WRAPPERS.iter().map(|wrapper| format!("{wrapper}."));
        let outermost = outermost.into_iter().find(|w| self.entries.keys().all(|name| name.starts_with(w)));
        let outermost = outermost.filter(|_| !self.entries.is_empty()).unwrap_or_default();
        let candidates: Vec<String> = candidates.iter().map(|name| format!("{outermost}{name}")).collect();
        let backwards = self.backwards.get_or_init(|| self.entries.keys().map(|name| backwards_levels(name)).collect());
        let alike = |candidate: &&String| {
            let before = self.entries.range::<String, _>(..*candidate).next_back();
            let after = self.entries.range::<String, _>(*candidate..).next();
            let outside = before.into_iter().chain(after).map(|(name, _)| common(name, candidate)).max();
            let turned = backwards_levels(candidate);
            let before = backwards.range::<String, _>(..&turned).next_back();
            let after = backwards.range::<String, _>(&turned..).next();
            let inside = before.into_iter().chain(after).map(|name| common(name, &turned)).max();
            outside.unwrap_or_default() + inside.unwrap_or_default()
        };
        // Of equals the first.
        candidates.iter().rev().max_by_key(alike).cloned()
    }

    /// Shape of a tensor; of a packed one that of its numbers.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.find(name).map(|(_, entry)| entry.shape.as_slice())
    }

    /// Dtype and bytes of a tensor.
    pub fn tensor(&self, name: &str) -> Option<(Dtype, &[u8])> {
        let (_, entry) = self.find(name)?;
        Some((entry.dtype, self.at(&entry.place)?))
    }

    /// A tensor's values, if its dtype is a float of 16, 32 or 64 bits.
    pub fn f32(&self, name: &str) -> Option<Vec<f32>> {
        let (dtype, bytes) = self.tensor(name)?;
        if dtype == Dtype::F64 {
            return Some(bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b) as f32).collect());
        }
        Some(float_format(dtype)?.decode(bytes, &[]))
    }

    /// Bytes of a place; none of an empty one.
    pub(crate) fn at(&self, place: &Place) -> Option<&[u8]> {
        if place.range.is_empty() {
            return Some(&[]);
        }
        self.files.get(place.file)?.map.get(place.range.clone())
    }

    /// Advises the kernel to drop a tensor's pages; they are read again on access. Without it a model that was
    /// copied to the GPU would lie in memory a second time.
    pub(crate) fn release(&self, place: &Place) {
        self.release_part(place, 0..place.range.len());
    }

    /// As [`release`](Self::release), of some of a tensor's bytes.
    pub(crate) fn release_part(&self, place: &Place, bytes: Range<usize>) {
        if let Some(file) = self.files.get(place.file) {
            file.release(place.range.start + bytes.start..place.range.start + bytes.end);
        }
    }

    pub(crate) fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }
}

/// A name with its levels in the other order.
fn backwards_levels(name: &str) -> String {
    name.rsplit('.').collect::<Vec<_>>().join(".")
}

/// The other format in a directory without safetensors.
fn other_format(dir: &Path) -> Option<String> {
    if dir.is_file() {
        return Some("a file where the model's folder should be".to_owned());
    }
    if ["_METADATA", "params/_METADATA"].iter().any(|file| dir.join(file).exists()) {
        return Some(
            "openpi's JAX checkpoint: its examples/convert_jax_model_to_pytorch.py writes safetensors".to_owned(),
        );
    }
    let files =
        std::fs::read_dir(dir).ok()?.filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()));
    let mut files: Vec<String> = files.collect();
    files.sort();
    let advice = |file: &String| match file.rsplit_once('.')? {
        ("adapter_model", "safetensors") => {
            Some("an adapter without its base: merge the two (PEFT's merge_and_unload)")
        }
        (name, "safetensors") if name.contains("-of-") => {
            Some("a part of the weights without model.safetensors.index.json: download that, too")
        }
        (_, "pt" | "pth" | "bin" | "ckpt") => {
            Some("PyTorch's own format, which can hold programs: save its state dictionary as safetensors")
        }
        (_, "gguf" | "onnx" | "engine" | "msgpack" | "npz" | "h5") => Some("which Fathom does not read"),
        (_, "incomplete" | "part" | "partial" | "crdownload" | "download" | "aria2" | "tmp") => {
            Some("a download that did not end: download it again")
        }
        (_, "zip" | "gz" | "xz" | "zst" | "bz2" | "tar" | "tgz" | "7z") => Some("an archive: unpack it"),
        _ => None,
    };
    files.iter().find_map(|file| Some(format!("{file}: {}", advice(file)?)))
}

/// First element of floats that is NaN or infinite: one with all bits of its exponent.
pub(crate) fn not_finite(format: WeightFormat, bytes: &[u8]) -> Option<usize> {
    match format {
        WeightFormat::F32 => first(bytes.as_chunks().0, |b| u32::from_le_bytes(*b) & 0x7f80_0000 == 0x7f80_0000),
        WeightFormat::F16 => first(bytes.as_chunks().0, |b| u16::from_le_bytes(*b) & 0x7c00 == 0x7c00),
        WeightFormat::Bf16 => first(bytes.as_chunks().0, |b| u16::from_le_bytes(*b) & 0x7f80 == 0x7f80),
        WeightFormat::W8 | WeightFormat::W4 { .. } => None,
    }
}

/// Index of the first number that is such a one. A block of numbers is tested without a branch between them, by vector
/// instructions.
fn first<const N: usize>(numbers: &[[u8; N]], is: impl Fn(&[u8; N]) -> bool) -> Option<usize> {
    const BLOCK: usize = 2048;
    let block = numbers.chunks(BLOCK).position(|block| block.iter().fold(false, |any, number| any | is(number)))?;
    let begin = block * BLOCK;
    numbers.get(begin..)?.iter().position(is).map(|i| begin + i)
}
