//! The weights on the GPU: matrices in the checkpoint's own format, put together and ordered as linear layers take them,
//! vectors as f32.

use std::collections::BTreeSet;

use fathom_models::ModelError;
use fathom_models::params::{Param, ParamId, ParamTable, Role, Stack, StackId};
use fathom_models::stack::Rows;
use fathom_models::weights::{WeightFormat, Weights};

use super::EngineError;
use super::arena::ALIGN;
use super::choice::Choice;
use super::kernels::Kernels;
use crate::gpu::{BufferId, Gpu, Slot};

/// Most bytes of rows that are put together before they are uploaded.
const CHUNK_BYTES: usize = 4 << 20;

/// A tensor's place on the GPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) slot: Slot,
    pub(super) format: WeightFormat,
    /// Of its scales, where it has any.
    pub(super) scales: Option<Slot>,
    /// Bytes of a row, and of its scales; 0 of what has no rows.
    pub(super) row: [u64; 2],
}

/// Where each parameter and each stack lies; `None` for those that stay on the host.
#[derive(Debug)]
pub struct Resident {
    params: Vec<Option<Placed>>,
    stacks: Vec<Option<Placed>>,
    bytes: u64,
    pub(super) choice: Choice,
}

/// What has a place of its own.
enum Source<'a> {
    Vector(Vec<f32>),
    /// As many numbers of this format.
    Kernel(WeightFormat, usize, &'a [u8]),
    Rows(Rows<'a>),
}

/// A model's parameters as they are to lie on the GPU; `None` for those without a place of their own.
struct Sources<'a> {
    params: Vec<Option<Source<'a>>>,
    stacks: Vec<Option<Source<'a>>>,
}

impl<'a> Sources<'a> {
    fn of(table: &ParamTable, weights: &'a Weights) -> Result<Sources<'a>, EngineError> {
        let stacked: BTreeSet<ParamId> = table.stacks.iter().flat_map(|s| s.parts.iter().copied()).collect();
        let param = |(id, param): (ParamId, &Param)| {
            let source = match param.role {
                Role::Vector if !stacked.contains(&id) => Some(Source::Vector(weights.host(id)?.into_owned())),
                Role::Kernel => {
                    let (format, bytes, _) = weights.encoded(id)?;
                    let (n, k) = weights.rows_and_columns(id);
                    Some(Source::Kernel(format, n * k, bytes))
                }
                _ => None,
            };
            weights.release(id);
            Ok(source)
        };
        let stack = |(id, stack): (StackId, &Stack)| {
            let first = stack.parts.first().and_then(|id| table.params.get(id.index()));
            let source = match first.map(|p| p.role) {
                Some(Role::Vector) => Source::Vector(weights.stacked_vector(id)?),
                _ => Source::Rows(weights.stacked(id)?),
            };
            stack.parts.iter().for_each(|part| weights.release(*part));
            Ok(Some(source))
        };
        let params = (0..).map(ParamId).zip(&table.params).map(param).collect::<Result<_, EngineError>>()?;
        let stacks = (0..).map(StackId).zip(&table.stacks).map(stack).collect::<Result<_, EngineError>>()?;
        Ok(Sources { params, stacks })
    }

    /// Where everything is to lie with buffers of at most `limit` bytes: in buffers of the sizes that come with it,
    /// numbered from 0.
    fn place(&self, choice: Choice, limit: u64) -> (Resident, Vec<u64>) {
        let mut dealer = Dealer { kernels: choice.kernels, limit, sizes: Vec::new() };
        let mut deal = |sources: &[Option<Source<'a>>]| -> Vec<Option<Placed>> {
            sources.iter().map(|source| source.as_ref().map(|s| dealer.place(s))).collect()
        };
        let (params, stacks) = (deal(&self.params), deal(&self.stacks));
        (Resident { params, stacks, bytes: dealer.sizes.iter().sum(), choice }, dealer.sizes)
    }
}

/// Deals places in as few buffers as a limit allows, which are numbered from 0.
struct Dealer {
    kernels: Kernels,
    limit: u64,
    /// Of the buffers.
    sizes: Vec<u64>,
}

impl Dealer {
    fn deal(&mut self, bytes: usize) -> Slot {
        let bytes = bytes as u64;
        let span = bytes.max(1).next_multiple_of(ALIGN);
        let offset = match self.sizes.last_mut() {
            Some(size) if *size + span <= self.limit => {
                *size += span;
                *size - span
            }
            _ => {
                self.sizes.push(span);
                0
            }
        };
        Slot { buffer: BufferId::new(self.sizes.len() as u32 - 1), offset, bytes }
    }

    fn place(&mut self, source: &Source<'_>) -> Placed {
        match source {
            Source::Vector(values) => {
                Placed { slot: self.deal(values.len() * 4), format: WeightFormat::F32, scales: None, row: [0, 0] }
            }
            Source::Kernel(format, count, _) => {
                Placed { slot: self.deal(format.row_bytes(*count)), format: *format, scales: None, row: [0, 0] }
            }
            Source::Rows(rows) => {
                let [row, scale] = [rows.row_bytes(), rows.scale_bytes()];
                let slot = self.deal(rows.n.next_multiple_of(self.kernels.rows_together()) * row);
                let scales = (scale > 0).then(|| self.deal(rows.n * scale));
                Placed { slot, format: rows.format, scales, row: [row as u64, scale as u64] }
            }
        }
    }
}

impl Resident {
    /// Where everything is to lie with buffers of at most `limit` bytes, and their sizes.
    ///
    /// # Errors
    /// [`EngineError::Model`] for a parameter that is not there.
    pub(super) fn place(
        table: &ParamTable,
        weights: &Weights,
        choice: Choice,
        limit: u64,
    ) -> Result<(Resident, Vec<u64>), EngineError> {
        Ok(Sources::of(table, weights)?.place(choice, limit))
    }

    /// Uploads every stack, vector and convolution, streamed from the memory map.
    ///
    /// # Errors
    /// [`EngineError::Gpu`] when they do not fit or the device is lost.
    pub fn upload(
        gpu: &mut Gpu,
        table: &ParamTable,
        weights: &Weights,
        choice: impl Into<Choice>,
    ) -> Result<Resident, EngineError> {
        let choice = choice.into();
        let sources = Sources::of(table, weights)?;
        let (mut resident, sizes) = sources.place(choice, gpu.info().max_buffer_bytes);
        gpu.check_room("weights", resident.bytes)?;
        let buffers: Vec<BufferId> = sizes
            .iter()
            .enumerate()
            .map(|(n, bytes)| gpu.create_weights(&format!("weights {n}"), *bytes))
            .collect::<Result<_, _>>()?;
        let renumber = |slot: &mut Slot| -> Result<(), EngineError> {
            slot.buffer = *buffers.get(slot.buffer.index() as usize).ok_or_else(|| absent("a weight's buffer"))?;
            Ok(())
        };
        for placed in resident.params.iter_mut().chain(&mut resident.stacks).flatten() {
            renumber(&mut placed.slot)?;
            placed.scales.iter_mut().try_for_each(renumber)?;
        }
        for (id, (source, place)) in (0..).map(ParamId).zip(sources.params.iter().zip(&resident.params)) {
            if let (Some(source), Some(place)) = (source, place) {
                fill(gpu, source, place, choice.kernels)?;
                weights.release(id);
            }
        }
        for (stack, (source, place)) in table.stacks.iter().zip(sources.stacks.iter().zip(&resident.stacks)) {
            if let (Some(source), Some(place)) = (source, place) {
                fill(gpu, source, place, choice.kernels)?;
                stack.parts.iter().for_each(|part| weights.release(*part));
            }
        }
        gpu.flush()?;
        Ok(resident)
    }

    /// Bytes on the GPU.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The place of a vector or a convolution.
    pub(super) fn param(&self, id: ParamId) -> Result<Placed, EngineError> {
        self.params.get(id.index()).copied().flatten().ok_or_else(|| absent(&format!("parameter {}", id.0)))
    }

    /// The place of a stack.
    pub(super) fn stack(&self, id: StackId) -> Result<Placed, EngineError> {
        self.stacks.get(id.index()).copied().flatten().ok_or_else(|| absent(&format!("stack {}", id.0)))
    }

    /// A slot that a kernel may bind and not read: small, since the tensor may pass the binding limit.
    pub(super) fn any(&self) -> Result<Slot, EngineError> {
        let first = self.params.iter().chain(&self.stacks).flatten().next();
        first.map(|p| Slot { bytes: p.slot.bytes.min(ALIGN), ..p.slot }).ok_or_else(|| absent("no weight"))
    }
}

fn absent(what: &str) -> EngineError {
    EngineError::Model(ModelError::Shape { op: "weights", detail: format!("{what} is not on the GPU") })
}

/// Uploads `source` to its place.
fn fill(gpu: &mut Gpu, source: &Source<'_>, place: &Placed, kernels: Kernels) -> Result<(), EngineError> {
    let slot = place.slot;
    match source {
        Source::Vector(values) => gpu.upload(slot.buffer, slot.offset, bytemuck::cast_slice(values))?,
        Source::Kernel(_, _, bytes) => gpu.upload(slot.buffer, slot.offset, bytes)?,
        Source::Rows(rows) => match (rows.verbatim(), place.scales, kernels.rows_together()) {
            (Some(bytes), None, 1) => gpu.upload(slot.buffer, slot.offset, bytes)?,
            (_, scales, together) => upload_rows(gpu, rows, slot, scales, together)?,
        },
    }
    Ok(())
}

/// Uploads rows a chunk at a time, `together` of them word by word where that is more than one; every chunk but the last
/// ends at a word.
fn upload_rows(
    gpu: &mut Gpu,
    rows: &Rows<'_>,
    slot: Slot,
    scales: Option<Slot>,
    together: usize,
) -> Result<(), EngineError> {
    let count = (CHUNK_BYTES / rows.row_bytes().max(1)).max(1).next_multiple_of(together.max(4));
    let (mut bytes, mut own) = (Vec::new(), Vec::new());
    let mut at = [slot.offset, scales.map_or(0, |s| s.offset)];
    for first in (0..rows.n).step_by(count) {
        bytes.clear();
        own.clear();
        rows.write(first..(first + count).min(rows.n), &mut bytes, &mut own);
        if together > 1 {
            bytes = interleave(&bytes, rows.row_bytes(), together);
        }
        gpu.upload(slot.buffer, at[0], &bytes)?;
        if let Some(scales) = scales {
            gpu.upload(scales.buffer, at[1], &own)?;
        }
        at = [at[0] + bytes.len() as u64, at[1] + own.len() as u64];
    }
    Ok(())
}

/// The words of `together` rows of `row` bytes: the first of each, the second of each, and so on; missing rows are 0.
pub(super) fn interleave(bytes: &[u8], row: usize, together: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    for block in bytes.chunks(row * together) {
        for word in (0..row).step_by(4) {
            for r in 0..together {
                let at = r * row + word;
                out.extend_from_slice(block.get(at..at + 4).unwrap_or(&[0; 4]));
            }
        }
    }
    out
}
