//! All that is wrong with a checkpoint whose shapes do not give the model's sizes: by names and dtypes alone.

use super::Family;
use super::description::Form;
use crate::checkpoint::{Checkpoint, float_format, foreign, pair, scales_of};
use crate::error::{ModelError, TensorProblem};
use crate::nets::config::ModelConfig;
use crate::nets::depthvla::Model;

/// Most layers that names are taken to have.
const MAX_LAYERS: usize = 256;

/// Whether to survey a checkpoint before its sizes are read: another quantiser's tensors have other shapes.
pub(super) fn is_due(family: &Family, checkpoint: &Checkpoint) -> bool {
    !family.sizes_in_config && foreign::present(checkpoint, family.ignored)
}

/// The tensors that a family's model lacks or has no place for, and those whose numbers are no weight's. Sizes are unknown.
///
/// # Errors
/// [`ModelError::Config`] for layers in a number that no model has.
pub(super) fn survey(family: &Family, checkpoint: &Checkpoint) -> Result<Vec<TensorProblem>, ModelError> {
    let mut params = family.params(&Model::new(skeleton(family, checkpoint))?).params;
    params.iter_mut().for_each(|param| param.shape.fill(0));
    Ok(pair(
        checkpoint,
        &params,
        |p| (family.names)(&p.name),
        family.ignored,
        |_, _, name, entry| {
            if float_format(entry.dtype).is_some() || checkpoint.entries().contains_key(&scales_of(name)) {
                return Ok(());
            }
            Err(TensorProblem::Dtype { name: name.to_owned(), found: format!("{:?}", entry.dtype) })
        },
    ))
}

/// A model of a family with as many layers as names have.
fn skeleton(family: &Family, checkpoint: &Checkpoint) -> ModelConfig {
    let names: Vec<String> = foreign::plain_names(checkpoint);
    // The highest number after a level `layers` whose name passes `of`.
    let count = |of: &dyn Fn(&str) -> bool| {
        let number = |name: &String| {
            let (outside, inside) = name.split_once(".layers.").filter(|_| of(name))?;
            let number: usize = inside.split('.').next()?.parse().ok()?;
            (!outside.is_empty()).then_some(number)
        };
        names.iter().filter_map(number).max().map_or(1, |last| (last + 1).min(MAX_LAYERS))
    };
    let has = |part: &str| names.iter().any(|name| name.contains(part));
    let vision = |name: &str| name.contains("vision_tower.");
    // A family with several forms has both kinds of pi0.
    let form = match family.forms {
        [] => Form::Pi0,
        [only] => *only,
        _ => {
            if has("time_mlp_in.") {
                Form::Pi05
            } else {
                Form::Pi0
            }
        }
    };
    let mut config = form.config();
    config.layers = count(&|name| !vision(name));
    config.vision.layers = count(&vision);
    config.action_head_layers = if has("action_decoder.proj.0.0.") { 2 } else { 1 };
    config
}
