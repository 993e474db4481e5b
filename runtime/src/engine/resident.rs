//! The weights on the GPU: matrices in the checkpoint's own format, put together and ordered as linear layers take them,
//! vectors as f32.

use std::collections::BTreeSet;

use fathom_models::ModelError;
use fathom_models::params::{ParamId, ParamTable, Role, StackId};
use fathom_models::stack::Rows;
use fathom_models::weights::{WeightFormat, Weights};

use super::EngineError;
use super::arena::ALIGN;
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
    pub(super) kernels: Kernels,
}

/// What is to be uploaded.
enum Source<'a> {
    Vector(Vec<f32>),
    Kernel(WeightFormat, &'a [u8]),
    Rows(Rows<'a>),
}

impl Source<'_> {
    /// Bytes of the numbers, and of their scales, for these kernels.
    fn bytes(&self, kernels: Kernels) -> [u64; 2] {
        match self {
            Source::Vector(values) => [values.len() as u64 * 4, 0],
            Source::Kernel(_, bytes) => [bytes.len() as u64, 0],
            Source::Rows(rows) => {
                let padded = rows.n.next_multiple_of(kernels.rows_together());
                [padded * rows.row_bytes(), rows.n * rows.scale_bytes()].map(|bytes| bytes as u64)
            }
        }
    }
}

/// Deals places in as few buffers as the adapter's limit allows.
#[derive(Default)]
struct Dealer {
    sizes: Vec<u64>,
}

impl Dealer {
    /// Index of the buffer, and offset.
    fn deal(&mut self, bytes: u64, limit: u64) -> (usize, u64) {
        let span = bytes.max(1).next_multiple_of(ALIGN);
        let count = self.sizes.len();
        match self.sizes.last_mut() {
            Some(size) if *size + span <= limit => {
                *size += span;
                (count - 1, *size - span)
            }
            _ => {
                self.sizes.push(span);
                (count, 0)
            }
        }
    }
}

impl Resident {
    /// Uploads every stack, vector and convolution, streamed from the memory map.
    ///
    /// # Errors
    /// [`EngineError::Gpu`] when they do not fit or the device is lost.
    pub fn upload(
        gpu: &mut Gpu,
        table: &ParamTable,
        weights: &Weights,
        kernels: Kernels,
    ) -> Result<Resident, EngineError> {
        let role = |id: ParamId| table.params.get(id.0 as usize).map(|p| p.role);
        let vector = |parts: &[ParamId]| parts.first().and_then(|id| role(*id)) == Some(Role::Vector);
        let stacked: BTreeSet<ParamId> = table.stacks.iter().flat_map(|s| s.parts.iter().copied()).collect();
        let param = |i: usize| {
            let id = ParamId(i as u32);
            Ok::<_, EngineError>(match role(id) {
                Some(Role::Vector) if !stacked.contains(&id) => Some(Source::Vector(weights.host(id)?.into_owned())),
                Some(Role::Kernel) => {
                    weights.encoded(id).map(|(format, bytes, _)| Some(Source::Kernel(format, bytes)))?
                }
                _ => None,
            })
        };
        let stack = |i: usize| {
            let id = StackId(i as u32);
            let vector = table.stacks.get(i).is_some_and(|s| vector(&s.parts));
            Ok::<_, EngineError>(Some(match vector {
                true => Source::Vector(weights.stacked_vector(id)?),
                false => Source::Rows(weights.stacked(id)?),
            }))
        };
        let limit = gpu.info().max_buffer_bytes;
        let mut dealer = Dealer::default();
        let mut plan = |source: Option<Source<'_>>| {
            source.map(|s| {
                let [bytes, scales] = s.bytes(kernels);
                let place = dealer.deal(bytes, limit);
                (place, bytes, (scales > 0).then(|| (dealer.deal(scales, limit), scales)))
            })
        };
        let mut planned = Vec::with_capacity(table.params.len() + table.stacks.len());
        for i in 0..table.params.len() {
            planned.push(plan(param(i)?));
        }
        for i in 0..table.stacks.len() {
            planned.push(plan(stack(i)?));
        }
        let buffers: Vec<BufferId> = dealer
            .sizes
            .iter()
            .enumerate()
            .map(|(n, bytes)| gpu.create_buffer(&format!("weights {n}"), *bytes))
            .collect::<Result<_, _>>()?;
        let slot = |((buffer, offset), bytes): ((usize, u64), u64)| {
            buffers.get(buffer).map(|buffer| Slot { buffer: *buffer, offset, bytes })
        };
        let mut placed = Vec::with_capacity(planned.len());
        for (i, place) in planned.into_iter().enumerate() {
            let source = if i < table.params.len() { param(i)? } else { stack(i - table.params.len())? };
            let (Some((place, bytes, scales)), Some(source)) = (place, source) else {
                placed.push(None);
                continue;
            };
            let Some(slot_of_numbers) = slot((place, bytes)) else {
                placed.push(None);
                continue;
            };
            let scales = scales.and_then(slot);
            placed.push(Some(fill(gpu, &source, slot_of_numbers, scales, kernels)?));
            if i < table.params.len() {
                weights.release(ParamId(i as u32));
            }
        }
        gpu.flush()?;
        let stacks = placed.split_off(table.params.len());
        Ok(Resident { params: placed, stacks, bytes: dealer.sizes.iter().sum(), kernels })
    }

    /// Bytes on the GPU.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The place of a vector or a convolution.
    pub(super) fn param(&self, id: ParamId) -> Result<Placed, EngineError> {
        self.params.get(id.0 as usize).copied().flatten().ok_or_else(|| absent(&format!("parameter {}", id.0)))
    }

    /// The place of a stack.
    pub(super) fn stack(&self, id: StackId) -> Result<Placed, EngineError> {
        self.stacks.get(id.0 as usize).copied().flatten().ok_or_else(|| absent(&format!("stack {}", id.0)))
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
fn fill(
    gpu: &mut Gpu,
    source: &Source<'_>,
    slot: Slot,
    scales: Option<Slot>,
    kernels: Kernels,
) -> Result<Placed, EngineError> {
    let (format, row) = match source {
        Source::Vector(values) => {
            gpu.upload(slot.buffer, slot.offset, bytemuck::cast_slice(values))?;
            (WeightFormat::F32, [0, 0])
        }
        Source::Kernel(format, bytes) => {
            gpu.upload(slot.buffer, slot.offset, bytes)?;
            (*format, [0, 0])
        }
        Source::Rows(rows) => {
            match (rows.verbatim(), scales, kernels.rows_together()) {
                (Some(bytes), None, 1) => gpu.upload(slot.buffer, slot.offset, bytes)?,
                (_, _, together) => upload_rows(gpu, rows, slot, scales, together)?,
            }
            (rows.format, [rows.row_bytes(), rows.scale_bytes()].map(|bytes| bytes as u64))
        }
    };
    Ok(Placed { slot, format, scales, row })
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
