//! Writes a Fathom model directory.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use safetensors::{Dtype, View};

use crate::config::ModelConfig;
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
            Values::Given(WeightFormat::F32, _) => Dtype::F32,
            Values::Given(WeightFormat::W8, _) => Dtype::I8,
            Values::Given(WeightFormat::W4 { .. }, _) => Dtype::U8,
            Values::Given(WeightFormat::F16, _) => Dtype::F16,
            Values::Given(WeightFormat::Bf16, _) | Values::Random(..) => Dtype::BF16,
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
    let json = |source| ModelError::Json { path: path.clone(), source };
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
    safetensors::serialize_to_file(views, None, &part)
        .map_err(|source| ModelError::Safetensors { path: path.to_owned(), source })?;
    fs::rename(&part, path).map_err(io(path))
}

fn io(path: &Path) -> impl Fn(std::io::Error) -> ModelError {
    let path = path.to_owned();
    move |source| ModelError::Io { path: path.clone(), source }
}
