//! Safetensors files by memory map: nothing is copied until it goes to the GPU.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use fathom_shaders::format::WeightFormat;
use memmap2::{Mmap, UncheckedAdvice};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

use crate::error::{ModelError, ShardProblem};
use crate::families::read_json;
use crate::manifest;
use crate::weights::scales_of;

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
    maps: Vec<Mmap>,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
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
    /// [`ModelError::Io`], or [`ModelError::Safetensors`] for a file that is truncated or no safetensors file.
    pub fn open(path: &Path) -> Result<Checkpoint, ModelError> {
        let mut checkpoint = Checkpoint::map(path)?;
        checkpoint.unpack_shapes();
        Ok(checkpoint)
    }

    fn map(path: &Path) -> Result<Checkpoint, ModelError> {
        let io = |source| ModelError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(io)?;
        // SAFETY: the map is read-only; a file that another process changes meanwhile gives other weights, but the bytes
        // are plain numbers, for which every value is valid.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let invalid = |source| ModelError::Safetensors { path: path.to_owned(), source };
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
        Ok(Checkpoint { path: path.to_owned(), maps: vec![map], entries, metadata })
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

    /// The model in `dir`: `model.safetensors`, or the files that `model.safetensors.index.json` names. Where `fathom-pack`
    /// wrote the directory, its files are as it wrote them.
    ///
    /// # Errors
    /// As [`open`](Self::open), [`ModelError::Json`], [`ModelError::Format`] for a checkpoint of another format,
    /// [`ModelError::Shards`] with all that contradicts the index, and [`ModelError::Altered`] with all files that are not as
    /// the manifest says.
    pub fn open_model(dir: &Path) -> Result<Checkpoint, ModelError> {
        manifest::verify(dir)?;
        let whole = dir.join("model.safetensors");
        let index = dir.join("model.safetensors.index.json");
        match (whole.exists(), index.exists()) {
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
        let mut all = Checkpoint { path, maps: Vec::new(), entries: BTreeMap::new(), metadata: BTreeMap::new() };
        let mut problems = Vec::new();
        let mut holders: BTreeMap<String, &String> = BTreeMap::new();
        for file in files {
            // A plain name: an index never reaches out of its directory.
            let plain = Path::new(file).file_name().is_some_and(|name| name == file.as_str());
            if !plain || !dir.join(file).exists() {
                problems.push(ShardProblem::NoFile { file: file.clone() });
                continue;
            }
            let shard = Checkpoint::map(&dir.join(file))?;
            for (name, mut entry) in shard.entries {
                entry.place.file = all.maps.len();
                if let Some(first) = holders.insert(name.clone(), file) {
                    problems.push(ShardProblem::Twice { name: name.clone(), files: [first.clone(), file.clone()] });
                }
                all.entries.insert(name, entry);
            }
            all.maps.extend(shard.maps);
            all.metadata.extend(shard.metadata);
        }
        let lost = |file: &String| problems.contains(&ShardProblem::NoFile { file: file.clone() });
        let absent = weight_map.iter().filter(|(name, file)| !lost(file) && holders.get(*name) != Some(file));
        let absent: Vec<_> =
            absent.map(|(name, file)| ShardProblem::Absent { name: name.clone(), file: file.clone() }).collect();
        problems.extend(absent);
        all.unpack_shapes();
        if problems.is_empty() { Ok(all) } else { Err(ModelError::Shards { path: all.path, problems }) }
    }

    /// The files of the model in `dir` that hold tensors, and their index where there is one.
    ///
    /// # Errors
    /// [`ModelError::Io`] and [`ModelError::Json`] of the index.
    pub fn files(dir: &Path) -> Result<BTreeSet<PathBuf>, ModelError> {
        let (whole, index) = (dir.join("model.safetensors"), dir.join("model.safetensors.index.json"));
        if whole.exists() || !index.exists() {
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

    /// Names of the tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Of some names for a tensor that is not there the one that begins most as another tensor's name does.
    pub(crate) fn likeliest(&self, candidates: &[String]) -> Option<String> {
        let common = |a: &str, b: &str| a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
        let longest = |candidate: &&String| {
            let before = self.entries.range::<String, _>(..*candidate).next_back();
            let after = self.entries.range::<String, _>(*candidate..).next();
            before.into_iter().chain(after).map(|(name, _)| common(name, candidate)).max()
        };
        // Of equals the first.
        candidates.iter().rev().max_by_key(longest).cloned()
    }

    /// Shape of a tensor; of a packed one that of its numbers.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|e| e.shape.as_slice())
    }

    /// Dtype and bytes of a tensor.
    pub fn tensor(&self, name: &str) -> Option<(Dtype, &[u8])> {
        let entry = self.entries.get(name)?;
        Some((entry.dtype, self.at(&entry.place)?))
    }

    /// A tensor's values, where its dtype is a float of 16 or 32 bits.
    pub fn f32(&self, name: &str) -> Option<Vec<f32>> {
        let (dtype, bytes) = self.tensor(name)?;
        Some(float_format(dtype)?.decode(bytes, &[]))
    }

    /// Bytes of a place; none of an empty one.
    pub(crate) fn at(&self, place: &Place) -> Option<&[u8]> {
        if place.range.is_empty() {
            return Some(&[]);
        }
        self.maps.get(place.file)?.get(place.range.clone())
    }

    /// Tells the kernel that a tensor's pages may go; they are read again when somebody looks. Without it a model that was
    /// copied to the GPU would lie in memory a second time.
    pub(crate) fn release(&self, place: &Place) {
        self.release_part(place, 0..place.range.len());
    }

    /// As [`release`](Self::release), of some of a tensor's bytes.
    pub(crate) fn release_part(&self, place: &Place, bytes: Range<usize>) {
        let Some(map) = self.maps.get(place.file) else { return };
        // SAFETY: the map is of a file and nothing ever writes to it, so a page that is dropped comes back as it was.
        let advised = unsafe {
            map.unchecked_advise_range(UncheckedAdvice::DontNeed, place.range.start + bytes.start, bytes.len())
        };
        // It is advice: a kernel that does not take it keeps the pages.
        drop(advised);
    }

    pub(crate) fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }
}

/// What a directory without safetensors holds instead.
fn other_format(dir: &Path) -> Option<String> {
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
        (_, "pt" | "pth" | "bin" | "ckpt") => {
            Some("PyTorch's own format, which can hold programs: save its state dictionary as safetensors")
        }
        (_, "gguf" | "onnx" | "engine" | "msgpack" | "npz") => Some("which Fathom does not read"),
        _ => None,
    };
    files.iter().find_map(|file| Some(format!("{file}: {}", advice(file)?)))
}

/// First element of floats that is NaN or infinite.
pub(crate) fn not_finite(format: WeightFormat, bytes: &[u8]) -> Option<usize> {
    match format {
        WeightFormat::F32 => {
            bytes.as_chunks().0.iter().position(|b| u32::from_le_bytes(*b) & 0x7f80_0000 == 0x7f80_0000)
        }
        WeightFormat::F16 => bytes.as_chunks().0.iter().position(|b| u16::from_le_bytes(*b) & 0x7c00 == 0x7c00),
        WeightFormat::Bf16 => bytes.as_chunks().0.iter().position(|b| u16::from_le_bytes(*b) & 0x7f80 == 0x7f80),
        WeightFormat::W8 | WeightFormat::W4 { .. } => None,
    }
}
