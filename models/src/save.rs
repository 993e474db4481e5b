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

/// One tensor to write, under the parameter's own name.
#[derive(Debug)]
pub struct Saved<'a> {
    /// Its name and shape.
    pub param: &'a Param,
    /// Its values.
    pub values: Values<'a>,
}

/// What is written for a tensor.
#[derive(Debug)]
pub enum Values<'a> {
    /// Row-major, little-endian, of this number format.
    Given(WeightFormat, &'a [u8]),
    /// Random bf16 of this seed and the name, made when they are written: a whole model never lies in memory.
    Random(u64),
}

impl View for &Saved<'_> {
    fn dtype(&self) -> Dtype {
        match self.values {
            Values::Given(WeightFormat::F32, _) => Dtype::F32,
            Values::Given(WeightFormat::F16, _) => Dtype::F16,
            Values::Given(WeightFormat::Bf16, _) | Values::Random(_) => Dtype::BF16,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.param.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self.values {
            Values::Given(_, bytes) => Cow::Borrowed(bytes),
            Values::Random(seed) => Cow::Owned(random::values(self.param, seed)),
        }
    }

    fn data_len(&self) -> usize {
        match self.values {
            Values::Given(_, bytes) => bytes.len(),
            Values::Random(_) => self.param.shape.iter().product::<usize>() * WeightFormat::Bf16.bytes(),
        }
    }
}

/// Writes `config.json` and `model.safetensors` into `dir`, which is made. The weights appear whole or not at all.
///
/// # Errors
/// [`ModelError::Io`] when the directory cannot be written, [`ModelError::Safetensors`] for bytes that do not fit a shape.
pub fn write_model(dir: &Path, config: &ModelConfig, tensors: &[Saved<'_>]) -> Result<(), ModelError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| ModelError::Io { path, source }
    };
    fs::create_dir_all(dir).map_err(io(dir))?;
    let path = dir.join("model.safetensors");
    let part = dir.join("model.safetensors.part");
    let views = tensors.iter().map(|t| (&t.param.name, t));
    safetensors::serialize_to_file(views, None, &part)
        .map_err(|source| ModelError::Safetensors { path: path.clone(), source })?;
    fs::rename(&part, &path).map_err(io(&path))?;
    let path = dir.join("config.json");
    let json = |source| ModelError::Json { path: path.clone(), source };
    let mut config = serde_json::to_value(config).map_err(json)?;
    if let Some(object) = config.as_object_mut() {
        object.insert("model_type".to_owned(), "depthvla".into());
    }
    let text = serde_json::to_string_pretty(&config).map_err(json)?;
    fs::write(&path, text).map_err(io(&path))
}
