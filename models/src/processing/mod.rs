//! Observations to a policy's inputs, and its outputs to actions.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::checkpoint::{UnverifiedWeights, Weights};
use crate::error::{ConfigError, ModelError};
use crate::nets::depthvla::Model;
use normalize::Normalization;

pub mod guidance;
pub mod normalize;
pub mod observation;
pub mod prompt;
pub mod tokenizer;

/// A policy: ready for inference with [`Weights`], not yet with [`UnverifiedWeights`].
#[derive(Debug)]
pub struct Loaded<W = Weights> {
    /// Name of the family that the checkpoint is of.
    pub family: &'static str,
    /// Configuration and parameters.
    pub model: Model,
    /// Its tensors, mapped.
    pub weights: W,
    /// Of state and actions.
    pub normalization: Normalization,
    /// Lengths the robot's own state may have; the model's is padded with zeros. One length where it is known.
    pub state_dims: RangeInclusive<usize>,
    /// Length of the robot's own action; the model's may be longer.
    pub action_dim: usize,
    /// Views that the checkpoint has and the robot lacks: their tokens are left out.
    pub skipped_views: Vec<String>,
    /// Views that have the robot's names of its cameras, by these names: the checkpoint's.
    pub cameras: BTreeMap<String, String>,
}

impl Loaded<UnverifiedWeights> {
    /// Verifies the weights.
    ///
    /// # Errors
    /// As [`UnverifiedWeights::verify`].
    pub fn verify(self) -> Result<Loaded, ModelError> {
        let (loaded, weights) = self.replace_weights(());
        Ok(loaded.replace_weights(weights.verify()?).0)
    }
}

impl<W> Loaded<W> {
    /// The policy with these weights, and those that it had.
    pub fn replace_weights<V>(self, weights: V) -> (Loaded<V>, W) {
        let Loaded { family, model, weights: old, normalization, state_dims, action_dim, skipped_views, cameras } =
            self;
        (Loaded { family, model, weights, normalization, state_dims, action_dim, skipped_views, cameras }, old)
    }

    /// Drops views, which is equivalent to masking them. The depth branch keeps those of its views that remain.
    ///
    /// # Errors
    /// [`ModelError::Config`] for an unknown view, or when the model or its depth branch would have no view left.
    pub fn skip_views(&mut self, views: &[String]) -> Result<(), ModelError> {
        let config = &mut self.model.config;
        if let Some(unknown) = views.iter().find(|v| !config.views.contains(v)) {
            let expected = format!("some of {:?}", config.views);
            return Err(ConfigError::new("skipped views", expected, unknown).into());
        }
        let depth = config.depth.iter_mut().map(|d| &mut d.views);
        for list in std::iter::once(&mut config.views).chain(depth) {
            list.retain(|v| !views.contains(v));
        }
        config.validate()?;
        self.skipped_views.extend_from_slice(views);
        Ok(())
    }
}
