//! Writes a Fathom model directory, and files of tensors.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, View};

use crate::config::ModelConfig;
use crate::content::NotSafetensors;
use crate::error::ModelError;
use crate::params::Param;
use crate::random;
use crate::weights::WeightFormat;

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

/// What is written for a tensor.
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

/// Writes `config.json` and `model.safetensors` into `dir`, which is made. The weights appear whole or not at all.
///
/// # Errors
/// [`ModelError::Io`] when the directory cannot be written, [`ModelError::Safetensors`] for bytes that do not fit a shape.
pub fn write_model(dir: &Path, config: &ModelConfig, tensors: &[Saved<'_>]) -> Result<(), ModelError> {
    fs::create_dir_all(dir).map_err(io(dir))?;
    write_tensors(&dir.join("model.safetensors"), tensors)?;
    let path = dir.join("config.json");
    let json = |source: serde_json::Error| ModelError::Json { path: path.clone(), source: source.into() };
    let mut config = serde_json::to_value(config).map_err(json)?;
    if let Some(object) = config.as_object_mut() {
        object.insert("model_type".to_owned(), "depthvla".into());
    }
    let text = serde_json::to_string_pretty(&config).map_err(json)?;
    fs::write(&path, text).map_err(io(&path))
}

/// Writes the safetensors file `path`, whole or not at all.
///
/// # Errors
/// As [`write_model`].
pub fn write_tensors(path: &Path, tensors: &[Saved<'_>]) -> Result<(), ModelError> {
    let part = path.with_extension("safetensors.part");
    let views = tensors.iter().map(|t| (t.name, t));
    safetensors::serialize_to_file(views, None, &part).map_err(|e| ModelError::Safetensors {
        path: path.to_owned(),
        source: NotSafetensors::Header(e.to_string()),
    })?;
    fs::rename(&part, path).map_err(io(path))
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
pub struct Blank {
    path: PathBuf,
    file: File,
    /// Where each tensor begins, in the order in which they were given.
    starts: Vec<u64>,
}

/// Name, dtype, shape and bytes of a tensor in a [`Blank`].
pub type Space = (String, Dtype, Vec<usize>, u64);

impl Blank {
    /// Makes the file, with its header.
    ///
    /// # Errors
    /// [`ModelError::Io`] and [`ModelError::Json`].
    pub fn create(path: &Path, tensors: &[Space], metadata: &BTreeMap<String, String>) -> Result<Blank, ModelError> {
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
        let json = |source: serde_json::Error| ModelError::Json { path: path.to_owned(), source: source.into() };
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
        Ok(Blank { path: path.to_owned(), file: write().map_err(io(path))?, starts })
    }

    /// Writes `bytes` at `offset` of a tensor.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn write(&self, tensor: usize, offset: u64, bytes: &[u8]) -> Result<(), ModelError> {
        let start = self.starts.get(tensor).copied().unwrap_or_default();
        self.file.write_all_at(bytes, start + offset).map_err(io(&self.path))
    }

    /// Waits until all of it is on the disk.
    ///
    /// # Errors
    /// [`ModelError::Io`].
    pub fn finish(self) -> Result<(), ModelError> {
        self.file.sync_all().map_err(io(&self.path))
    }
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> ModelError {
    let path = path.to_owned();
    move |source| ModelError::Io { path: path.clone(), source }
}
