//! A model's parameters in its checkpoint: found by name, complete, and checked.

use std::borrow::Cow;

pub use crate::checkpoint::{Checkpoint, WeightFormat, to_f32};
use crate::checkpoint::{Entry, Place, not_finite};
use crate::error::{ModelError, TensorProblem};
use crate::params::{Param, ParamId, ParamTable, Role};

/// The model's parameters in their checkpoint, complete and checked.
#[derive(Debug)]
pub struct Weights {
    checkpoint: Checkpoint,
    /// By [`ParamId`]; `None` for a parameter that is not used and not there.
    slots: Vec<Option<(WeightFormat, Place)>>,
    names: Vec<String>,
    skipped: Vec<String>,
}

impl Weights {
    /// Finds every parameter in `checkpoint`. `names` gives the names a parameter may have there, most likely first;
    /// `ignored` says of a name that no parameter has whether it may be there.
    ///
    /// # Errors
    /// [`ModelError::Tensors`] with all that are missing, unexpected, misshapen, of a wrong dtype or not finite.
    pub fn resolve(
        checkpoint: Checkpoint,
        table: &ParamTable,
        names: impl Fn(&Param) -> Vec<String>,
        ignored: impl Fn(&str) -> bool,
    ) -> Result<Weights, ModelError> {
        let mut problems = Vec::new();
        let mut known = std::collections::BTreeSet::new();
        let mut slots = Vec::new();
        let mut skipped: std::collections::BTreeSet<String> = checkpoint.entries().keys().cloned().collect();
        for param in &table.params {
            let candidates = names(param);
            let found = candidates.iter().find(|n| checkpoint.entries().contains_key(*n));
            known.extend(candidates.iter().cloned());
            match found.and_then(|name| Some((name, checkpoint.entries().get(name)?))) {
                Some((name, entry)) => {
                    if param.role != Role::Unused {
                        skipped.remove(name);
                    }
                    slots.push(check(param, name, entry, &checkpoint, &mut problems));
                }
                None => {
                    slots.push(None);
                    if param.role != Role::Unused {
                        let name = candidates.into_iter().next().unwrap_or_else(|| param.name.clone());
                        problems.push(TensorProblem::Missing { name, shape: param.shape.clone() });
                    }
                }
            }
        }
        for (name, entry) in checkpoint.entries() {
            if !known.contains(name) && !ignored(name) {
                problems.push(TensorProblem::Unexpected { name: name.clone(), shape: entry.shape.clone() });
            }
        }
        if !problems.is_empty() {
            return Err(ModelError::Tensors { path: checkpoint.path().to_owned(), problems });
        }
        let names = table.params.iter().map(|p| p.name.clone()).collect();
        Ok(Weights { checkpoint, slots, names, skipped: skipped.into_iter().collect() })
    }

    /// The checkpoint's tensors that inference does not read.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Format and bytes of a parameter, row-major.
    ///
    /// # Errors
    /// [`ModelError::Tensors`] for a parameter that the checkpoint may leave out and does.
    pub fn bytes(&self, id: ParamId) -> Result<(WeightFormat, &[u8]), ModelError> {
        let slot = self.slots.get(id.0 as usize).and_then(Option::as_ref);
        slot.and_then(|(format, place)| Some((*format, self.checkpoint.at(place)?))).ok_or_else(|| {
            let name = self.names.get(id.0 as usize).cloned().unwrap_or_else(|| format!("parameter {}", id.0));
            ModelError::Tensors {
                path: self.checkpoint.path().to_owned(),
                problems: vec![TensorProblem::Missing { name, shape: Vec::new() }],
            }
        })
    }

    /// Says that a parameter's bytes will not be looked at soon: their pages may leave memory.
    pub fn release(&self, id: ParamId) {
        if let Some((_, place)) = self.slots.get(id.0 as usize).and_then(Option::as_ref) {
            self.checkpoint.release(place);
        }
    }

    /// Values of a parameter.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn host(&self, id: ParamId) -> Result<Cow<'_, [f32]>, ModelError> {
        let (format, bytes) = self.bytes(id)?;
        Ok(match (format, bytemuck::try_cast_slice(bytes)) {
            (WeightFormat::F32, Ok(values)) => Cow::Borrowed(values),
            _ => Cow::Owned(to_f32(format, bytes)),
        })
    }

    /// Rows `indices` of a `(rows, cols)` parameter, one after another.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes); [`ModelError::Prompt`] for an index beyond the table.
    pub fn rows(&self, id: ParamId, cols: usize, indices: &[i32]) -> Result<Vec<f32>, ModelError> {
        let (format, bytes) = self.bytes(id)?;
        let width = cols * format.bytes();
        let mut out = Vec::with_capacity(indices.len() * cols);
        for index in indices {
            let row = usize::try_from(*index).ok().and_then(|i| bytes.get(i * width..(i + 1) * width));
            let row = row.ok_or_else(|| {
                ModelError::Prompt(format!(
                    "token {index}: expected 0 to {} (the vocabulary)",
                    bytes.len() / width.max(1) - 1
                ))
            })?;
            out.extend(to_f32(format, row));
        }
        Ok(out)
    }
}

fn check(
    param: &Param,
    name: &str,
    entry: &Entry,
    checkpoint: &Checkpoint,
    problems: &mut Vec<TensorProblem>,
) -> Option<(WeightFormat, Place)> {
    let name = name.to_owned();
    if param.role != Role::Unused && entry.shape != param.shape {
        problems.push(TensorProblem::Misshapen { name, expected: param.shape.clone(), found: entry.shape.clone() });
        return None;
    }
    let Some(format) = WeightFormat::of(entry.dtype) else {
        problems.push(TensorProblem::Dtype { name, found: format!("{:?}", entry.dtype) });
        return None;
    };
    let bytes = checkpoint.at(&entry.place).unwrap_or_default();
    let first = not_finite(format, bytes);
    checkpoint.release(&entry.place);
    if let Some(index) = first {
        let element = bytes.get(index * format.bytes()..(index + 1) * format.bytes()).unwrap_or_default();
        let value = to_f32(format, element).first().copied().unwrap_or(f32::NAN);
        problems.push(TensorProblem::NotFinite { name, index, value });
        return None;
    }
    Some((format, entry.place.clone()))
}
