//! All that is wrong with a checkpoint whose shapes do not give the model's sizes: by names and dtypes alone.

use std::collections::BTreeSet;

use super::Family;
use super::description::Form;
use crate::checkpoint::{Checkpoint, Entry, float_format, foreign, scales_of, unwrapped};
use crate::error::{ModelError, TensorProblem};
use crate::graph::params::Role;
use crate::nets::config::ModelConfig;
use crate::nets::depthvla::Model;

/// Most layers that names are taken to have.
const MAX_LAYERS: usize = 256;

/// Whether to survey a checkpoint before its sizes are looked at: another quantiser's tensors have other shapes.
pub(super) fn is_due(family: &Family, checkpoint: &Checkpoint) -> bool {
    !family.sizes_in_config && foreign::present(checkpoint, family.ignored)
}

/// The tensors that a family's model lacks or has no place for, and those whose numbers are no weight's. Sizes are unknown.
///
/// # Errors
/// [`ModelError::Config`] for layers in a number that no model has.
pub(super) fn survey(family: &Family, checkpoint: &Checkpoint) -> Result<Vec<TensorProblem>, ModelError> {
    let params = Model::new(skeleton(family, checkpoint))?.params.params;
    let (mut problems, mut known) = (Vec::new(), BTreeSet::new());
    for param in &params {
        let needed = param.role != Role::Unused && (family.has)(&param.name);
        let candidates = (family.names)(&param.name);
        known.extend(candidates.iter().cloned());
        match candidates.iter().find_map(|name| checkpoint.find(name)) {
            Some((name, entry)) => {
                known.extend([name.clone(), scales_of(name)]);
                let float = float_format(entry.dtype).is_some();
                if !float && !checkpoint.entries().contains_key(&scales_of(name)) {
                    problems.push(TensorProblem::Dtype { name: name.clone(), found: format!("{:?}", entry.dtype) });
                }
            }
            None if needed => {
                let name = checkpoint.likeliest(&candidates).unwrap_or_else(|| param.name.clone());
                problems.push(TensorProblem::Missing { name, shape: vec![0; param.shape.len()] });
            }
            None => {}
        }
    }
    let known = |name: &str| known.contains(name) || (family.ignored)(&unwrapped(name));
    let unexpected = |(name, _): &(&String, &Entry)| !known(name);
    problems.extend(
        checkpoint
            .entries()
            .iter()
            .filter(unexpected)
            .map(|(name, entry)| TensorProblem::Unexpected { name: name.clone(), shape: entry.shape.clone() }),
    );
    Ok(foreign::explained(checkpoint, problems, known))
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
