//! Writes files of tensors.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Metadata, TensorInfo};
use safetensors::{Dtype, View};

use super::{WeightFormat, random};
use crate::error::ModelError;
use crate::graph::params::Param;
use crate::io::NotSafetensors;
use crate::io::output_file::OutputFile;

/// One tensor to write.
#[derive(Debug)]
pub struct Saved<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its shape, as stored.
    pub shape: &'a [usize],
    /// Its values.
    pub values: Values<'a>,
}

/// The values to write for a tensor.
#[derive(Debug)]
pub enum Values<'a> {
    /// Row-major, little-endian, of this number format.
    Given(WeightFormat, Cow<'a, [u8]>),
    /// Random values of this parameter and seed, made when they are written: a whole model never lies in memory.
    Random(&'a Param, u64),
}

impl<'a> Saved<'a> {
    /// A parameter under its own name, in its own shape.
    pub fn of(param: &'a Param, values: Values<'a>) -> Saved<'a> {
        Saved { name: &param.name, shape: &param.shape, values }
    }
}

impl View for &Saved<'_> {
    fn dtype(&self) -> Dtype {
        match self.values {
            Values::Given(format, _) => dtype(format),
            Values::Random(..) => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match &self.values {
            Values::Given(_, bytes) => Cow::Borrowed(bytes),
            Values::Random(param, seed) => Cow::Owned(random::values(param, *seed)),
        }
    }

    fn data_len(&self) -> usize {
        match &self.values {
            Values::Given(_, bytes) => bytes.len(),
            Values::Random(..) => WeightFormat::Bf16.row_bytes(self.shape.iter().product()),
        }
    }
}

/// Writes the safetensors file `path`, whole or not at all.
///
/// # Errors
/// [`ModelError::File`] when it cannot be written, [`ModelError::Safetensors`] for bytes that do not fit a shape.
pub fn write_tensors(path: &Path, tensors: &[Saved<'_>]) -> Result<(), ModelError> {
    write_safetensors(path, tensors.iter().map(|t| (t.name, t)), None)
}

/// Writes the safetensors file `path`, whole or not at all, tensor by tensor, with these notes in its header.
///
/// # Errors
/// As [`write_tensors`].
pub fn write_safetensors<N: AsRef<str>, V: View>(
    path: &Path,
    tensors: impl IntoIterator<Item = (N, V)>,
    notes: Option<HashMap<String, String>>,
) -> Result<(), ModelError> {
    let mut tensors: Vec<(N, V)> = tensors.into_iter().collect();
    // Wide numbers first: then every tensor begins at a multiple of its numbers' size.
    tensors.sort_by(|(a, x), (b, y)| y.dtype().cmp(&x.dtype()).then_with(|| a.as_ref().cmp(b.as_ref())));
    let mut end = 0;
    let infos = tensors.iter().map(|(name, view)| {
        let start = end;
        end += view.data_len();
        let info = TensorInfo { dtype: view.dtype(), shape: view.shape().to_vec(), data_offsets: (start, end) };
        (name.as_ref().to_owned(), info)
    });
    let header = Metadata::new(notes, infos.collect()).map_err(|e| ModelError::Safetensors {
        path: path.to_owned(),
        source: NotSafetensors::Header(e.to_string()),
    })?;
    let mut header = serde_json::to_vec(&header).map_err(ModelError::json(path))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = OutputFile::create(path)?;
    let mut write = || {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        tensors.iter().try_for_each(|(_, view)| file.write_all(&view.data()))
    };
    write().map_err(|source| file.failed(source))?;
    Ok(file.commit()?)
}

/// Dtype of a weight's numbers.
pub fn dtype(format: WeightFormat) -> Dtype {
    match format {
        WeightFormat::F32 => Dtype::F32,
        WeightFormat::F16 => Dtype::F16,
        WeightFormat::Bf16 => Dtype::BF16,
        WeightFormat::W8 => Dtype::I8,
        WeightFormat::W4 { .. } => Dtype::U8,
    }
}

/// A safetensors file whose tensors are written in any order, by any thread, in pieces.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    /// Where each tensor begins, in the order in which they were given.
    starts: Vec<u64>,
}

/// Name, dtype, shape and bytes of a tensor in a [`TensorFile`].
pub type TensorLayout = (String, Dtype, Vec<usize>, u64);

impl TensorFile {
    /// Makes the file, with its header.
    ///
    /// # Errors
    /// [`ModelError::File`].
    pub fn create(
        path: &Path,
        tensors: &[TensorLayout],
        metadata: &BTreeMap<String, String>,
    ) -> Result<TensorFile, ModelError> {
        // Wide numbers first: then every tensor begins at a multiple of its numbers' size.
        let mut order: Vec<usize> = (0..tensors.len()).collect();
        order.sort_by_key(|i| tensors.get(*i).map(|t| std::cmp::Reverse(t.1.bitsize())));
        let mut header = serde_json::Map::new();
        header.insert("__metadata__".to_owned(), serde_json::json!(metadata));
        let (mut starts, mut end) = (vec![0; tensors.len()], 0);
        for i in order {
            let (Some((name, dtype, shape, bytes)), Some(start)) = (tensors.get(i), starts.get_mut(i)) else {
                continue;
            };
            (*start, end) = (end, end + bytes);
            let entry = serde_json::json!({ "dtype": dtype, "shape": shape, "data_offsets": [*start, end] });
            header.insert(name.clone(), entry);
        }
        let json = ModelError::json(path);
        let mut text = serde_json::to_vec(&header).map_err(json)?;
        text.resize(text.len().next_multiple_of(8), b' ');
        let first = 8 + text.len() as u64;
        starts.iter_mut().for_each(|start| *start += first);
        let write = || {
            let mut file = File::create_new(path)?;
            file.write_all(&(text.len() as u64).to_le_bytes())?;
            file.write_all(&text)?;
            file.set_len(first + end)?;
            Ok(file)
        };
        Ok(TensorFile { path: path.to_owned(), file: write().map_err(ModelError::io(path))?, starts })
    }

    /// Writes `bytes` at `offset` of a tensor.
    ///
    /// # Errors
    /// [`ModelError::File`].
    pub fn write(&self, tensor: usize, offset: u64, bytes: &[u8]) -> Result<(), ModelError> {
        let start = self.starts.get(tensor).copied().unwrap_or_default();
        self.file.write_all_at(bytes, start + offset).map_err(ModelError::io(&self.path))
    }

    /// Waits until all of it is on the disk.
    ///
    /// # Errors
    /// [`ModelError::File`].
    pub fn finish(self) -> Result<(), ModelError> {
        self.file.sync_all().map_err(ModelError::io(&self.path))
    }
}
