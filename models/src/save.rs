//! Writes a Fathom model directory.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::weights::WeightFormat;

/// One tensor to write.
#[derive(Debug)]
pub struct Saved<'a> {
    /// Fathom's name.
    pub name: &'a str,
    /// Number format of `bytes`.
    pub format: WeightFormat,
    /// Shape.
    pub shape: &'a [usize],
    /// Row-major, little-endian.
    pub bytes: Cow<'a, [u8]>,
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
    let invalid = |source| ModelError::Safetensors { path: path.clone(), source };
    let views = tensors
        .iter()
        .map(|t| {
            let dtype = match t.format {
                WeightFormat::F32 => Dtype::F32,
                WeightFormat::F16 => Dtype::F16,
                WeightFormat::Bf16 => Dtype::BF16,
                WeightFormat::W8 => Dtype::I8,
                WeightFormat::W4 { .. } => Dtype::U8,
            };
            Ok((t.name, TensorView::new(dtype, t.shape.to_vec(), &t.bytes)?))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(invalid)?;
    safetensors::serialize_to_file(views, None, &part).map_err(invalid)?;
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
