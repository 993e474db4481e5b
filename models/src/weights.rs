//! A checkpoint's tensors, by memory map: nothing is copied until it goes to the GPU.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use crate::error::{ModelError, TensorProblem};
use crate::params::{Param, ParamId, ParamTable, Role};

/// Number format of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightFormat {
    /// IEEE single.
    F32,
    /// IEEE half.
    F16,
    /// bfloat16.
    Bf16,
}

impl WeightFormat {
    /// Bytes of an element.
    pub fn bytes(self) -> usize {
        match self {
            WeightFormat::F32 => 4,
            WeightFormat::F16 | WeightFormat::Bf16 => 2,
        }
    }

    pub(crate) fn of(dtype: Dtype) -> Option<WeightFormat> {
        match dtype {
            Dtype::F32 => Some(WeightFormat::F32),
            Dtype::F16 => Some(WeightFormat::F16),
            Dtype::BF16 => Some(WeightFormat::Bf16),
            _ => None,
        }
    }
}

/// One tensor of a safetensors file.
#[derive(Clone, Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// A safetensors file, mapped; every tensor's place is known and lies within the file.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    map: Mmap,
    entries: BTreeMap<String, Entry>,
    metadata: BTreeMap<String, String>,
}

impl Checkpoint {
    /// Maps `path` and reads its header.
    ///
    /// # Errors
    /// [`ModelError::Io`], or [`ModelError::Safetensors`] for a file that is truncated or no safetensors file.
    pub fn open(path: &Path) -> Result<Checkpoint, ModelError> {
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
                let range = at..at + view.data().len();
                (name.to_owned(), Entry { dtype: view.dtype(), shape: view.shape().to_vec(), range })
            })
            .collect();
        Ok(Checkpoint { path: path.to_owned(), map, entries, metadata })
    }

    /// The file.
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

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|e| e.shape.as_slice())
    }

    /// Dtype and bytes of a tensor.
    pub fn tensor(&self, name: &str) -> Option<(Dtype, &[u8])> {
        let entry = self.entries.get(name)?;
        Some((entry.dtype, self.map.get(entry.range.clone())?))
    }

    /// A tensor's values, where its dtype is a float of 16 or 32 bits.
    pub fn f32(&self, name: &str) -> Option<Vec<f32>> {
        let (dtype, bytes) = self.tensor(name)?;
        Some(to_f32(WeightFormat::of(dtype)?, bytes))
    }
}

/// Values of little-endian bytes.
pub fn to_f32(format: WeightFormat, bytes: &[u8]) -> Vec<f32> {
    match format {
        WeightFormat::F32 => bytemuck::pod_collect_to_vec(bytes),
        WeightFormat::F16 => bytes.as_chunks().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        WeightFormat::Bf16 => bytes.as_chunks().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
    }
}

/// First element that is NaN or infinite.
fn not_finite(format: WeightFormat, bytes: &[u8]) -> Option<usize> {
    match format {
        WeightFormat::F32 => {
            bytes.as_chunks().0.iter().position(|b| u32::from_le_bytes(*b) & 0x7f80_0000 == 0x7f80_0000)
        }
        WeightFormat::F16 => bytes.as_chunks().0.iter().position(|b| u16::from_le_bytes(*b) & 0x7c00 == 0x7c00),
        WeightFormat::Bf16 => bytes.as_chunks().0.iter().position(|b| u16::from_le_bytes(*b) & 0x7f80 == 0x7f80),
    }
}

/// The model's parameters in their checkpoint, complete and checked.
#[derive(Debug)]
pub struct Weights {
    checkpoint: Checkpoint,
    /// By [`ParamId`]; `None` for a parameter that is not used and not there.
    slots: Vec<Option<(WeightFormat, Range<usize>)>>,
    names: Vec<String>,
}

impl Weights {
    /// Finds every parameter in `checkpoint`. `names` gives the names a parameter may have there, most likely first;
    /// `ignored` says of a name that no parameter has whether it may be there.
    ///
    /// # Errors
    /// [`ModelError::Tensors`] with all that are missing, unexpected, misshapen, of a wrong dtype or not finite.
    pub fn resolve(
        checkpoint: Checkpoint,
        table: &ParamTable,
        names: impl Fn(&Param) -> Vec<String>,
        ignored: impl Fn(&str) -> bool,
    ) -> Result<Weights, ModelError> {
        let mut problems = Vec::new();
        let mut known = std::collections::BTreeSet::new();
        let mut slots = Vec::new();
        for param in &table.params {
            let candidates = names(param);
            let found = candidates.iter().find(|n| checkpoint.entries.contains_key(*n));
            known.extend(candidates.iter().cloned());
            match found.and_then(|name| Some((name, checkpoint.entries.get(name)?))) {
                Some((name, entry)) => slots.push(check(param, name, entry, &checkpoint, &mut problems)),
                None => {
                    slots.push(None);
                    if param.role != Role::Unused {
                        let name = candidates.into_iter().next().unwrap_or_else(|| param.name.clone());
                        problems.push(TensorProblem::Missing { name, shape: param.shape.clone() });
                    }
                }
            }
        }
        for (name, entry) in &checkpoint.entries {
            if !known.contains(name) && !ignored(name) {
                problems.push(TensorProblem::Unexpected { name: name.clone(), shape: entry.shape.clone() });
            }
        }
        if !problems.is_empty() {
            return Err(ModelError::Tensors { path: checkpoint.path, problems });
        }
        let names = table.params.iter().map(|p| p.name.clone()).collect();
        Ok(Weights { checkpoint, slots, names })
    }

    /// Format and bytes of a parameter, row-major.
    ///
    /// # Errors
    /// [`ModelError::Tensors`] for a parameter that the checkpoint may leave out and does.
    pub fn bytes(&self, id: ParamId) -> Result<(WeightFormat, &[u8]), ModelError> {
        let slot = self.slots.get(id.0 as usize).and_then(Option::as_ref);
        slot.and_then(|(format, range)| Some((*format, self.checkpoint.map.get(range.clone())?))).ok_or_else(|| {
            let name = self.names.get(id.0 as usize).cloned().unwrap_or_else(|| format!("parameter {}", id.0));
            ModelError::Tensors {
                path: self.checkpoint.path.clone(),
                problems: vec![TensorProblem::Missing { name, shape: Vec::new() }],
            }
        })
    }

    /// Values of a parameter.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn host(&self, id: ParamId) -> Result<Cow<'_, [f32]>, ModelError> {
        let (format, bytes) = self.bytes(id)?;
        Ok(match (format, bytemuck::try_cast_slice(bytes)) {
            (WeightFormat::F32, Ok(values)) => Cow::Borrowed(values),
            _ => Cow::Owned(to_f32(format, bytes)),
        })
    }

    /// Rows `indices` of a `(rows, cols)` parameter, one after another.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes); [`ModelError::Prompt`] for an index beyond the table.
    pub fn rows(&self, id: ParamId, cols: usize, indices: &[i32]) -> Result<Vec<f32>, ModelError> {
        let (format, bytes) = self.bytes(id)?;
        let width = cols * format.bytes();
        let mut out = Vec::with_capacity(indices.len() * cols);
        for index in indices {
            let row = usize::try_from(*index).ok().and_then(|i| bytes.get(i * width..(i + 1) * width));
            let row = row.ok_or_else(|| {
                ModelError::Prompt(format!(
                    "token {index}: expected 0 to {} (the vocabulary)",
                    bytes.len() / width.max(1) - 1
                ))
            })?;
            out.extend(to_f32(format, row));
        }
        Ok(out)
    }
}

fn check(
    param: &Param,
    name: &str,
    entry: &Entry,
    checkpoint: &Checkpoint,
    problems: &mut Vec<TensorProblem>,
) -> Option<(WeightFormat, Range<usize>)> {
    let name = name.to_owned();
    if param.role != Role::Unused && entry.shape != param.shape {
        problems.push(TensorProblem::Misshapen { name, expected: param.shape.clone(), found: entry.shape.clone() });
        return None;
    }
    let Some(format) = WeightFormat::of(entry.dtype) else {
        problems.push(TensorProblem::Dtype { name, found: format!("{:?}", entry.dtype) });
        return None;
    };
    let bytes = checkpoint.map.get(entry.range.clone()).unwrap_or_default();
    if let Some(index) = not_finite(format, bytes) {
        let element = bytes.get(index * format.bytes()..(index + 1) * format.bytes()).unwrap_or_default();
        let value = to_f32(format, element).first().copied().unwrap_or(f32::NAN);
        problems.push(TensorProblem::NotFinite { name, index, value });
        return None;
    }
    Some((format, entry.range.clone()))
}
