//! A DepthVLA from a pi0 or a PaliGemma and a depth model's encoder, as the paper initialises its own: the VLM (and a pi0's
//! action expert) from the one, the DINOv2 encoder from Depth Anything V2, the rest from a seed. Such a model is not trained.

use std::fs;
use std::path::Path;

use crate::checkpoint::float_format;
use crate::config::{Depth, DepthHead, ModelConfig, NormalizationMode, PosInterpolation, Vit};
use crate::depthvla::Model;
use crate::error::{ModelError, TensorProblem};
use crate::families::Loaded;
use crate::normalize::Affine;
use crate::params::{Param, ParamId, Role};
use crate::save::{Saved, Values, write_model};
use crate::weights::{Checkpoint, WeightFormat};

/// Where each part of a composed model came from, in tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    /// From the pi0 or the PaliGemma.
    pub pi0: usize,
    /// From the depth model.
    pub encoder: usize,
    /// From the seed.
    pub random: usize,
}

/// Writes the directory `output`.
///
/// `pi0` may be a PaliGemma of [`load_base`](crate::families::load_base), whose action expert then comes from the seed.
/// `encoder` is a Hugging Face `Dinov2Model` or `DepthAnythingForDepthEstimation` checkpoint; `views` are those of the
/// pi0's views that the depth branch looks at. The depth expert has the action expert's sizes.
///
/// # Errors
/// [`ModelError::Config`] when the pi0 has a depth branch already, statistics step by step, or a view is not its, [`ModelError::Tensors`] for an
/// encoder that is none, [`ModelError::Io`].
pub fn compose(
    pi0: &Loaded,
    encoder: &Checkpoint,
    views: &[String],
    seed: u64,
    output: &Path,
) -> Result<Origins, ModelError> {
    let base = &pi0.model.config;
    if !pi0.normalization.steps.is_empty() {
        let field = "use_stepwise_action_norm".to_owned();
        let (expected, found) = ("false: norm_stats.json has one list for all steps".to_owned(), "true".to_owned());
        return Err(crate::ConfigError { field, expected, found }.into());
    }
    let depth = depth_branch(base, encoder, views)?;
    let (mean, std) = (&pi0.normalization.state, &pi0.normalization.action);
    // The pi0's statistics are written as they act: offset and scale, without an eps of their own.
    let config = ModelConfig {
        depth: Some(depth),
        normalization: NormalizationMode::Zscore { eps: 0.0 },
        relative_actions: pi0.normalization.relative.clone(),
        ..base.clone()
    };
    let model = Model::new(config)?;
    let mut origins = Origins::default();
    let (mut tensors, mut problems) = (Vec::new(), Vec::new());
    for param in &model.params.params {
        let mut save = |values| tensors.push(Saved::of(param, values));
        let own = pi0.model.params.params.iter().position(|p| p.name == param.name);
        let own = own.map(|i| ParamId(i as u32));
        if let Some((format, bytes, _)) = own.and_then(|id| pi0.weights.encoded(id).ok()) {
            origins.pi0 += 1;
            match own.filter(|_| !format.is_float()) {
                Some(id) => {
                    let values = pi0.weights.host(id)?;
                    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
                    save(Values::Given(WeightFormat::F32, bytes.into()));
                }
                None => save(Values::Given(format, bytes.into())),
            }
        } else if let Some(bare) = param.name.strip_prefix("depth_encoder.") {
            match encoder_tensor(encoder, bare, param) {
                Ok(Some((format, bytes))) => {
                    origins.encoder += 1;
                    save(Values::Given(format, bytes.into()));
                }
                Ok(None) => {}
                Err(problem) => problems.push(problem),
            }
        } else if param.role != Role::Unused {
            origins.random += 1;
            save(Values::Random(param, seed));
        }
    }
    if !problems.is_empty() {
        return Err(ModelError::Tensors { path: encoder.path().to_owned(), problems });
    }
    write_model(output, &model.config, &tensors)?;
    if pi0.normalization.source.is_some() {
        let list = |a: &Affine| serde_json::json!({ "mean": a.offset, "std": a.scale });
        let stats = serde_json::json!({ "norm_stats": { "state": list(mean), "actions": list(std) } });
        write(output.join("norm_stats.json"), &stats)?;
        // A scale of 0 is a constant element, which its files allowed.
        if mean.scale.iter().chain(&std.scale).any(|s| *s == 0.0) {
            write(output.join("fathom.json"), &serde_json::json!({ "allow_constant": true }))?;
        }
    }
    Ok(origins)
}

fn write(path: std::path::PathBuf, json: &serde_json::Value) -> Result<(), ModelError> {
    fs::write(&path, format!("{json:#}\n")).map_err(|source| ModelError::Io { path, source })
}

/// The encoder's tensor for `param`, whose name there is `bare` or begins with `backbone.`; `None` for one that may be left
/// out and is.
fn encoder_tensor<'a>(
    encoder: &'a Checkpoint,
    bare: &str,
    param: &Param,
) -> Result<Option<(WeightFormat, &'a [u8])>, TensorProblem> {
    let names = [format!("backbone.{bare}"), bare.to_owned(), param.name.clone()];
    let found = names.iter().find_map(|name| Some((name, encoder.shape(name)?, encoder.tensor(name)?)));
    let Some((name, shape, (dtype, bytes))) = found else {
        let (name, shape) = (bare.to_owned(), param.shape.clone());
        return if param.role == Role::Unused { Ok(None) } else { Err(TensorProblem::Missing { name, shape }) };
    };
    let name = name.clone();
    if shape != param.shape {
        return Err(TensorProblem::Misshapen { name, expected: param.shape.clone(), found: shape.to_vec() });
    }
    let format = float_format(dtype).ok_or(TensorProblem::Dtype { name, found: format!("{dtype:?}") })?;
    Ok(Some((format, bytes)))
}

/// The depth branch whose encoder has the sizes of the checkpoint's tensors.
fn depth_branch(base: &ModelConfig, encoder: &Checkpoint, views: &[String]) -> Result<Depth, ModelError> {
    if base.depth.is_some() {
        let (expected, found) = ("a pi0".to_owned(), "a model with a depth branch".to_owned());
        return Err(crate::ConfigError { field: "depth".to_owned(), expected, found }.into());
    }
    let root = if encoder.shape("backbone.embeddings.cls_token").is_some() { "backbone." } else { "" };
    let shape = |part: &str, dimensions: usize| {
        let name = format!("{root}{part}");
        match encoder.shape(&name) {
            Some(shape) if shape.len() == dimensions => Ok(shape.to_vec()),
            found => {
                let expected = vec![0; dimensions];
                let problem = match found {
                    Some(found) => TensorProblem::Misshapen { name, expected, found: found.to_vec() },
                    None => TensorProblem::Missing { name, shape: expected },
                };
                Err(ModelError::Tensors { path: encoder.path().to_owned(), problems: vec![problem] })
            }
        }
    };
    let projection = shape("embeddings.patch_embeddings.projection.weight", 4)?;
    let positions = shape("embeddings.position_embeddings", 3)?;
    let fc1 = shape("encoder.layer.0.mlp.fc1.weight", 2)?;
    let (width, patch) = (projection[0], projection[3]);
    let has = |i: usize| encoder.shape(&format!("{root}encoder.layer.{i}.norm1.weight")).is_some();
    let layers = (0..).take_while(|i| has(*i)).count();
    // DINOv2's heads are 64 wide at every size.
    let heads = (width / 64).max(1);
    let image_size = base.vision.grid() * patch;
    Ok(Depth {
        views: views.to_vec(),
        encoder: Vit { image_size, patch, width, layers, heads, mlp: fc1[0], eps: 1e-6 },
        pos_grid: (positions[1].max(1) - 1).isqrt(),
        pos_interpolation: PosInterpolation::Size,
        expert: base.action,
        in_proj: width != base.action.width,
        scale_input: 1.0,
        pos_base: 0,
        proprio_sees_depth: true,
        head: DepthHead::Log,
    })
}
