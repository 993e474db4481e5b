//! A model's parameters in its checkpoint: found by name, complete, and verified.

use std::borrow::Cow;
use std::collections::BTreeSet;

use safetensors::Dtype;

use fathom_shaders::format::SLICE;

use super::stack::{self, Rows};
use super::{Checkpoint, Entry, Place, UnverifiedWeights, WeightFormat, float_format, foreign, not_finite, unwrapped};
use crate::error::{ModelError, TensorProblem};
use crate::graph::params::{Param, ParamId, ParamTable, Role, Stack, StackId};

/// The model's parameters in their checkpoint, complete and verified.
#[derive(Debug)]
pub struct Weights {
    checkpoint: Checkpoint,
    /// By [`ParamId`]; `None` for a parameter that is not used and not there.
    slots: Vec<Option<Found>>,
    params: Vec<Param>,
    stacks: Vec<Stack>,
    skipped: Vec<String>,
}

/// Where a parameter's numbers lie.
#[derive(Clone, Debug)]
struct Found {
    name: String,
    format: WeightFormat,
    place: Place,
    scales: Option<Place>,
}

impl Found {
    /// The numbers that have to be finite: the tensor's own, or its scales.
    fn floats(&self) -> (WeightFormat, &Place) {
        match (&self.scales, self.format) {
            (Some(scales), WeightFormat::W8) => (WeightFormat::F32, scales),
            (Some(scales), _) => (WeightFormat::F16, scales),
            (None, format) => (format, &self.place),
        }
    }

    fn finite(&self, checkpoint: &Checkpoint) -> Result<(), TensorProblem> {
        let (format, place) = self.floats();
        let name = if self.scales.is_some() { scales_of(&self.name) } else { self.name.clone() };
        let checked = finite(&name, format, checkpoint.at(place).unwrap_or_default());
        checkpoint.release(place);
        checked
    }
}

impl Weights {
    /// Finds every parameter in `checkpoint`, by names, shapes and dtypes. `names` gives the names a parameter may have
    /// there, most likely first; `ignored` decides whether a tensor that is no parameter may be there.
    ///
    /// # Errors
    /// [`ModelError::Tensors`] with all that are missing, unexpected, misshapen or of a wrong dtype, with those that are not
    /// finite if there are any of these, and the formats of other programs that they suggest.
    pub fn resolve(
        checkpoint: Checkpoint,
        table: &ParamTable,
        names: impl Fn(&Param) -> Vec<String>,
        ignored: impl Fn(&str) -> bool,
    ) -> Result<UnverifiedWeights, ModelError> {
        let mut slots = vec![None; table.params.len()];
        let mut skipped: BTreeSet<String> = checkpoint.entries().keys().cloned().collect();
        let problems = pair(&checkpoint, &table.params, &names, &ignored, |i, param, name, entry| {
            if param.role != Role::Unused {
                skipped.remove(name);
                skipped.remove(&scales_of(name));
            }
            let found = check(param, name, entry, &checkpoint)?;
            if let Some(slot) = slots.get_mut(i) {
                *slot = Some(found);
            }
            Ok(())
        });
        if !problems.is_empty() {
            // One list has all that is wrong.
            let problems = pair(&checkpoint, &table.params, names, ignored, |_, param, name, entry| {
                check(param, name, entry, &checkpoint)?.finite(&checkpoint)
            });
            return Err(ModelError::Tensors { path: checkpoint.path().to_owned(), problems });
        }
        let (params, stacks) = (table.params.clone(), table.stacks.clone());
        let skipped = skipped.into_iter().collect();
        Ok(UnverifiedWeights::new(Weights { checkpoint, slots, params, stacks, skipped }))
    }

    /// The floats that have to be finite, by the index of their parameter.
    pub(super) fn floats(&self) -> impl Iterator<Item = (usize, WeightFormat, &Place)> {
        self.slots.iter().enumerate().filter_map(|(i, slot)| {
            let (format, place) = slot.as_ref()?.floats();
            Some((i, format, place))
        })
    }

    /// The error of parameters that are not finite.
    pub(super) fn not_finite(&self, params: &BTreeSet<usize>) -> ModelError {
        let found = params.iter().filter_map(|i| self.slots.get(*i)?.as_ref());
        let problems = found.filter_map(|found| found.finite(&self.checkpoint).err()).collect();
        ModelError::Tensors { path: self.checkpoint.path().to_owned(), problems }
    }

    /// Parameters of these formats that are nowhere, for plans: as floats they are zeros, and they have no bytes.
    pub fn planned(table: &ParamTable, format: impl Fn(ParamId, &Param) -> WeightFormat) -> Weights {
        let slot = |(i, p): (usize, &Param)| {
            let (name, place, scales) = (p.name.clone(), Place::default(), None);
            (p.role != Role::Unused).then(|| Found { name, format: format(ParamId(i as u32), p), place, scales })
        };
        let slots = table.params.iter().enumerate().map(slot).collect();
        let (params, stacks) = (table.params.clone(), table.stacks.clone());
        Weights { checkpoint: Checkpoint::default(), slots, params, stacks, skipped: Vec::new() }
    }

    /// The parameters, by [`ParamId`], and the stacks that are made of them.
    pub fn table(&self) -> ParamTable {
        ParamTable { params: self.params.clone(), stacks: self.stacks.clone() }
    }

    /// Where the tensors are.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The name that a parameter has in the checkpoint.
    pub fn name(&self, id: ParamId) -> Option<&str> {
        Some(&self.slots.get(id.0 as usize)?.as_ref()?.name)
    }

    /// The checkpoint's tensors that inference does not read.
    pub fn skipped(&self) -> &[String] {
        &self.skipped
    }

    /// Format, bytes and scales of a parameter, row-major.
    ///
    /// # Errors
    /// [`ModelError::Tensors`] for a parameter that the checkpoint may leave out and does.
    pub fn encoded(&self, id: ParamId) -> Result<(WeightFormat, &[u8], &[u8]), ModelError> {
        let slot = self.slots.get(id.0 as usize).and_then(Option::as_ref);
        let found = slot.and_then(|f| {
            let scales = f.scales.as_ref().map_or(Some(&[][..]), |place| self.checkpoint.at(place))?;
            Some((f.format, self.checkpoint.at(&f.place)?, scales))
        });
        found.ok_or_else(|| {
            let name = self.params.get(id.0 as usize).map(|p| p.name.clone());
            ModelError::Tensors {
                path: self.checkpoint.path().to_owned(),
                problems: vec![TensorProblem::Missing { name: name.unwrap_or_default(), shape: Vec::new() }],
            }
        })
    }

    /// Releases the pages of a parameter's bytes, which will not be read soon.
    pub fn release(&self, id: ParamId) {
        if let Some(found) = self.slots.get(id.0 as usize).and_then(Option::as_ref) {
            [Some(&found.place), found.scales.as_ref()].into_iter().flatten().for_each(|p| self.checkpoint.release(p));
        }
    }

    /// As [`release`](Self::release), of some of a parameter's bytes.
    pub fn release_part(&self, id: ParamId, bytes: std::ops::Range<usize>) {
        if let Some(found) = self.slots.get(id.0 as usize).and_then(Option::as_ref) {
            self.checkpoint.release_part(&found.place, bytes);
        }
    }

    /// Values of a parameter.
    ///
    /// # Errors
    /// As [`encoded`](Self::encoded).
    pub fn host(&self, id: ParamId) -> Result<Cow<'_, [f32]>, ModelError> {
        let (format, bytes, scales) = self.encoded(id)?;
        if let (WeightFormat::F32, Ok(values)) = (format, bytemuck::try_cast_slice(bytes)) {
            return Ok(Cow::Borrowed(values));
        }
        let (n, k) = self.rows_and_columns(id);
        if bytes.is_empty() {
            return Ok(Cow::Owned(vec![0.0; n * k]));
        }
        let (rows, columns) = if format.is_float() { (1, bytes.len()) } else { (n, k) };
        let (row, scale) =
            if format.is_float() { (columns, 0) } else { (format.row_bytes(columns), format.scale_bytes(columns)) };
        let row_of = |r: usize| {
            let bytes = bytes.get(r * row..(r + 1) * row).unwrap_or_default();
            format.decode(bytes, scales.get(r * scale..(r + 1) * scale).unwrap_or_default())
        };
        Ok(Cow::Owned((0..rows).flat_map(row_of).collect()))
    }

    /// A matrix' rows and columns: of a tensor with more dimensions the first, and the product of the others.
    pub fn rows_and_columns(&self, id: ParamId) -> (usize, usize) {
        let shape = self.params.get(id.0 as usize).map_or(&[][..], |p| &p.shape);
        (shape.first().copied().unwrap_or(0), shape.iter().skip(1).product())
    }

    /// The formats of all stacks of matrices.
    ///
    /// # Errors
    /// As [`encoded`](Self::encoded).
    pub fn formats(&self) -> Result<BTreeSet<WeightFormat>, ModelError> {
        let mut formats = BTreeSet::new();
        for stack in &self.stacks {
            let role = stack.parts.first().and_then(|id| self.params.get(id.0 as usize)).map(|p| p.role);
            if role == Some(Role::Matrix) {
                formats.insert(stack::format(self, stack)?);
            }
        }
        Ok(formats)
    }

    /// The matrices of a stack as a linear layer takes them.
    ///
    /// # Errors
    /// As [`encoded`](Self::encoded).
    pub fn stacked(&self, id: StackId) -> Result<Rows<'_>, ModelError> {
        Rows::new(self, self.stack(id))
    }

    /// The vectors of a stack one after another.
    ///
    /// # Errors
    /// As [`encoded`](Self::encoded).
    pub fn stacked_vector(&self, id: StackId) -> Result<Vec<f32>, ModelError> {
        stack::vector(self, self.stack(id))
    }

    fn stack(&self, id: StackId) -> &Stack {
        const NONE: &Stack = &Stack { parts: Vec::new(), columns: 0..0, pair_distance: 0, reader: None };
        self.stacks.get(id.0 as usize).unwrap_or(NONE)
    }

    /// Rows `indices` of a `(rows, cols)` parameter, one after another.
    ///
    /// # Errors
    /// As [`encoded`](Self::encoded); [`ModelError::Prompt`] for an index beyond the table.
    pub fn rows(&self, id: ParamId, cols: usize, indices: &[i32]) -> Result<Vec<f32>, ModelError> {
        let (format, bytes, _) = self.encoded(id)?;
        let width = format.row_bytes(cols);
        let mut out = Vec::with_capacity(indices.len() * cols);
        for index in indices {
            let row = usize::try_from(*index).ok().and_then(|i| bytes.get(i * width..(i + 1) * width));
            let row = row.ok_or_else(|| {
                ModelError::Prompt(format!(
                    "token {index}: expected 0 to {} (the vocabulary)",
                    bytes.len() / width.max(1) - 1
                ))
            })?;
            out.extend(format.decode(row, &[]));
        }
        Ok(out)
    }
}

/// Gives `take` each of `params` that `checkpoint` has, with its index, and lists all problems: errors of `take`, missing
/// tensors, and tensors that are neither parameters nor `ignored`.
pub(crate) fn pair<'c>(
    checkpoint: &'c Checkpoint,
    params: &[Param],
    names: impl Fn(&Param) -> Vec<String>,
    ignored: impl Fn(&str) -> bool,
    mut take: impl FnMut(usize, &Param, &'c str, &'c Entry) -> Result<(), TensorProblem>,
) -> Vec<TensorProblem> {
    let (mut problems, mut known) = (Vec::new(), BTreeSet::new());
    for (i, param) in params.iter().enumerate() {
        let candidates = names(param);
        known.extend(candidates.iter().cloned());
        match candidates.iter().find_map(|name| checkpoint.find(name)) {
            Some((name, entry)) => {
                known.extend([name.clone(), scales_of(name)]);
                problems.extend(take(i, param, name, entry).err());
            }
            None if param.role != Role::Unused => {
                let name = checkpoint.likeliest(&candidates).unwrap_or_else(|| param.name.clone());
                problems.push(TensorProblem::Missing { name, shape: param.shape.clone() });
            }
            None => {}
        }
    }
    let known = |name: &str| known.contains(name) || ignored(&unwrapped(name));
    for (name, entry) in checkpoint.entries().iter().filter(|(name, _)| !known(name)) {
        problems.push(TensorProblem::Unexpected { name: name.clone(), shape: entry.shape.clone() });
    }
    if problems.is_empty() { problems } else { foreign::explained(checkpoint, problems, known) }
}

fn check(param: &Param, name: &str, entry: &Entry, checkpoint: &Checkpoint) -> Result<Found, TensorProblem> {
    let name = name.to_owned();
    let (format, scales) = match quantised(param, &name, entry, checkpoint) {
        Some((format, scales)) => (format, Some(scales)),
        None if param.role != Role::Unused && entry.shape != param.shape => {
            return Err(TensorProblem::Misshapen { name, expected: param.shape.clone(), found: entry.shape.clone() });
        }
        None => match float_format(entry.dtype) {
            Some(format) => (format, None),
            None => return Err(TensorProblem::Dtype { name, found: format!("{:?}", entry.dtype) }),
        },
    };
    Ok(Found { name, format, place: entry.place.clone(), scales: scales.map(|s| s.place.clone()) })
}

/// Checks that all floats of the tensor `name` are finite.
pub(crate) fn finite(name: &str, format: WeightFormat, bytes: &[u8]) -> Result<(), TensorProblem> {
    let Some(index) = not_finite(format, bytes) else { return Ok(()) };
    let element = bytes.get(format.row_bytes(index)..format.row_bytes(index + 1)).unwrap_or_default();
    let value = format.decode(element, &[]).first().copied().unwrap_or(f32::NAN);
    Err(TensorProblem::NotFinite { name: name.to_owned(), index, value })
}

/// The name of the scales of a quantised tensor.
pub fn scales_of(name: &str) -> String {
    format!("{name}.scales")
}

/// Format and scales of a matrix that `fathom-pack` quantised: `I8 (n, k)` with `F32 (n,)`, or `U8 (n, k / 2)` with
/// `F16 (n, groups)` or, where groups have minima, `F16 (n, groups, 2)`.
fn quantised<'a>(
    param: &Param,
    name: &str,
    entry: &Entry,
    checkpoint: &'a Checkpoint,
) -> Option<(WeightFormat, &'a Entry)> {
    let scales = checkpoint.entries().get(&scales_of(name))?;
    let [n, rest @ ..] = param.shape.as_slice() else { return None };
    let k: usize = rest.iter().product();
    match (param.role, entry.dtype, scales.dtype, scales.shape.as_slice()) {
        (Role::Matrix, Dtype::I8, Dtype::F32, [rows]) if rows == n && entry.shape == [*n, k] => {
            Some((WeightFormat::W8, scales))
        }
        (Role::Matrix, Dtype::U8, Dtype::F16, [rows, groups, minima @ ..])
            if rows == n && (minima.is_empty() || minima == [2]) && entry.shape == [*n, k] && *groups > 0 =>
        {
            let group = k / groups;
            let fits = group * groups == k && group.is_power_of_two() && group >= SLICE;
            fits.then_some((WeightFormat::W4 { group: group as u32, minima: !minima.is_empty() }, scales))
        }
        _ => None,
    }
}
