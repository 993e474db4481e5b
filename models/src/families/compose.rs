//! A DepthVLA from a pi0 or a PaliGemma and a depth model's encoder, as the paper initialises its own: the VLM (and a pi0's
//! action expert) from the one, the DINOv2 encoder from Depth Anything V2, the rest from a seed. Such a model is not trained.

use std::path::Path;

use super::dinov2::Encoder;
use super::{Loaded, depthvla};
use crate::checkpoint::save::{Saved, Values};
use crate::checkpoint::{Checkpoint, WeightFormat, Weights, finite, float_format};
use crate::error::{ConfigError, ModelError, TensorProblem};
use crate::graph::params::{Param, ParamId, Role};
use crate::io::output_file;
use crate::nets::config::{Depth, DepthHead, ModelConfig, NormalizationMode, PosInterpolation, Vit};
use crate::nets::depthvla::Model;
use crate::processing::normalize::Affine;

/// The sources of a composed model.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// A pi0, or a PaliGemma of [`load_base`](super::load_base): then the action expert is in neither.
    pub base: &'a Loaded,
    /// The depth encoder. The depth expert has the action expert's sizes.
    pub encoder: &'a Encoder,
    /// Tensors that neither has, under Fathom's names. Those missing here come from the seed.
    pub given: Option<&'a Checkpoint>,
    /// Those of the base's views that the depth branch reads.
    pub views: &'a [String],
    /// Seed of tensors that come from none of them.
    pub seed: u64,
}

/// Where each part of a composed model came from, in tensors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TensorCounts {
    /// From the pi0 or the PaliGemma.
    pub pi0: usize,
    /// From the depth model.
    pub encoder: usize,
    /// Given.
    pub given: usize,
    /// From the seed.
    pub random: usize,
}

/// Writes the directory `output`.
///
/// # Errors
/// [`ModelError::Config`] when the base has a depth branch already, statistics step by step, or a view is not its,
/// [`ModelError::Tensors`] for given tensors that have no place or do not fit it, [`ModelError::File`].
pub fn compose(sources: &Sources<'_>, output: &Path) -> Result<TensorCounts, ModelError> {
    let Sources { base: pi0, encoder, given, views, seed } = *sources;
    let base = &pi0.model.config;
    if !pi0.normalization.steps.is_empty() {
        let expected = "false: norm_stats.json has one list for all steps";
        return Err(ConfigError::new("use_stepwise_action_norm", expected, "true").into());
    }
    let depth = depth_branch(base, &encoder.tower, views)?;
    let (mean, std) = (&pi0.normalization.state, &pi0.normalization.action);
    // The pi0's statistics are written as they act: offset and scale, without an eps of their own.
    let config = ModelConfig {
        depth: Some(depth),
        normalization: NormalizationMode::Zscore { eps: 0.0 },
        relative_actions: pi0.normalization.relative.clone(),
        ..base.clone()
    };
    let model = Model::new(config)?;
    let mut counts = TensorCounts::default();
    let (mut tensors, mut problems) = (Vec::new(), Vec::new());
    let mut given_names: Vec<&str> = given.iter().flat_map(|g| g.names()).collect();
    for param in &model.params.params {
        let mut save = |count: &mut usize, values| {
            *count += 1;
            tensors.push(Saved::of(param, values));
        };
        let own = pi0.model.params.params.iter().position(|p| p.name == param.name).map(|i| ParamId(i as u32));
        let of_encoder = param.name.strip_prefix("depth_encoder.");
        if let Some(values) = own.and_then(|id| values(&pi0.weights, id).transpose()) {
            save(&mut counts.pi0, values?);
        } else if let Some(part) = of_encoder {
            // Tensors that inference does not use may be missing.
            if let Some(values) = encoder.id(part).and_then(|id| values(&encoder.weights, id).transpose()) {
                save(&mut counts.encoder, values?);
            }
        } else if let Some((file, at)) = given.zip(given_names.iter().position(|name| *name == param.name)) {
            given_names.swap_remove(at);
            match fitting(file, param) {
                Ok(values) => save(&mut counts.given, values),
                Err(problem) => problems.push(problem),
            }
        } else if param.role != Role::Unused {
            save(&mut counts.random, Values::Random(param, seed));
        }
    }
    if let Some(given) = given {
        let shape = |name: &str| given.shape(name).unwrap_or_default().to_vec();
        let unexpected =
            given_names.iter().map(|n| TensorProblem::Unexpected { name: (*n).to_owned(), shape: shape(n) });
        problems.extend(unexpected);
        if !problems.is_empty() {
            return Err(ModelError::Tensors { path: given.path().to_owned(), problems });
        }
    }
    depthvla::write(output, &model.config, &tensors)?;
    if pi0.normalization.source.is_some() {
        let list = |a: &Affine| serde_json::json!({ "mean": a.offset, "std": a.scale });
        let stats = serde_json::json!({ "norm_stats": { "state": list(mean), "actions": list(std) } });
        write(output.join("norm_stats.json"), &stats)?;
        // A scale of 0 is a constant element, which its files allowed.
        if mean.scale.iter().chain(&std.scale).any(|s| *s == 0.0) {
            write(output.join("fathom.json"), &serde_json::json!({ "allow_constant": true }))?;
        }
    }
    Ok(counts)
}

fn write(path: std::path::PathBuf, json: &serde_json::Value) -> Result<(), ModelError> {
    Ok(output_file::write(&path, format!("{json:#}\n"))?)
}

/// The values of a parameter, those of a quantised one as f32; `None` for one that may be left out and is.
fn values(weights: &Weights, id: ParamId) -> Result<Option<Values<'_>>, ModelError> {
    match weights.encoded(id) {
        Err(_) => Ok(None),
        Ok((format, bytes, _)) if format.is_float() => Ok(Some(Values::Given(format, bytes.into()))),
        Ok(_) => {
            let bytes: Vec<u8> = weights.host(id)?.iter().flat_map(|v| v.to_le_bytes()).collect();
            Ok(Some(Values::Given(WeightFormat::F32, bytes.into())))
        }
    }
}

/// The tensor of `file` that has the name of `param`.
fn fitting<'a>(file: &'a Checkpoint, param: &Param) -> Result<Values<'a>, TensorProblem> {
    let name = param.name.clone();
    let (Some(shape), Some((dtype, bytes))) = (file.shape(&name), file.tensor(&name)) else {
        return Err(TensorProblem::Missing { name, shape: param.shape.clone() });
    };
    if shape != param.shape {
        return Err(TensorProblem::Misshapen { name, expected: param.shape.clone(), found: shape.to_vec() });
    }
    let Some(format) = float_format(dtype) else {
        return Err(TensorProblem::Dtype { name, found: format!("{dtype:?}") });
    };
    finite(&name, format, bytes)?;
    Ok(Values::Given(format, bytes.into()))
}

/// The depth branch of a base, around an encoder.
fn depth_branch(base: &ModelConfig, tower: &Vit, views: &[String]) -> Result<Depth, ModelError> {
    if base.depth.is_some() {
        return Err(ConfigError::new("depth", "a pi0", "a model with a depth branch").into());
    }
    Ok(Depth {
        views: views.to_vec(),
        // One patch of it for each of the vision tower's.
        encoder: Vit { image_size: base.vision.grid() * tower.patch, ..*tower },
        pos_grid: tower.grid(),
        pos_interpolation: PosInterpolation::Size,
        expert: base.action,
        in_proj: tower.width != base.action.width,
        scale_input: 1.0,
        pos_base: 0,
        proprio_sees_depth: true,
        head: DepthHead::Log,
    })
}
