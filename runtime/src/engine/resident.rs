//! The weights on the GPU: matrices in the checkpoint's own format, vectors as f32.

use fathom_models::ModelError;
use fathom_models::params::{ParamId, ParamTable, Role};
use fathom_models::weights::{WeightFormat, Weights};

use super::EngineError;
use super::arena::ALIGN;
use crate::gpu::{BufferId, Gpu, Slot};

/// A parameter's place on the GPU.
#[derive(Clone, Copy, Debug)]
pub(super) struct Placed {
    pub(super) slot: Slot,
    pub(super) format: WeightFormat,
}

/// Where each parameter lies, by [`ParamId`]; `None` for those that stay on the host.
#[derive(Debug)]
pub struct Resident {
    placed: Vec<Option<Placed>>,
    bytes: u64,
}

impl Resident {
    /// Uploads every matrix and vector, straight from the memory map, into as few buffers as the adapter's limit allows.
    ///
    /// # Errors
    /// [`EngineError::Gpu`] when they do not fit or the device is lost.
    pub fn upload(gpu: &mut Gpu, table: &ParamTable, weights: &Weights) -> Result<Resident, EngineError> {
        let params = &table.params;
        let mut plan = Vec::new(); // (parameter, buffer's index, offset)
        let mut sizes: Vec<u64> = Vec::new();
        for (i, param) in params.iter().enumerate() {
            let id = ParamId(i as u32);
            let bytes = match param.role {
                Role::Matrix => weights.bytes(id)?.1.len() as u64,
                Role::Vector => param.shape.iter().product::<usize>() as u64 * 4,
                Role::Host | Role::Unused => continue,
            };
            let span = bytes.next_multiple_of(ALIGN);
            match sizes.last_mut() {
                Some(size) if *size + span <= gpu.info().max_buffer_bytes => {
                    plan.push((i, sizes.len() - 1, bytes, sizes[sizes.len() - 1]));
                    if let Some(size) = sizes.last_mut() {
                        *size += span;
                    }
                }
                _ => {
                    plan.push((i, sizes.len(), bytes, 0));
                    sizes.push(span);
                }
            }
        }
        let buffers: Vec<BufferId> = sizes
            .iter()
            .enumerate()
            .map(|(n, bytes)| gpu.create_buffer(&format!("weights {n}"), *bytes))
            .collect::<Result<_, _>>()?;
        let mut placed = vec![None; params.len()];
        for (i, n, bytes, offset) in plan {
            let (Some(buffer), Some(param), Some(place)) = (buffers.get(n), params.get(i), placed.get_mut(i)) else {
                continue;
            };
            let id = ParamId(i as u32);
            let format = if param.role == Role::Vector {
                gpu.upload(*buffer, offset, bytemuck::cast_slice(&weights.host(id)?))?;
                WeightFormat::F32
            } else {
                let (format, data) = weights.bytes(id)?;
                gpu.upload(*buffer, offset, data)?;
                format
            };
            weights.release(id);
            *place = Some(Placed { slot: Slot { buffer: *buffer, offset, bytes }, format });
        }
        gpu.flush()?;
        Ok(Resident { placed, bytes: sizes.iter().sum() })
    }

    /// Bytes on the GPU.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The place of a matrix or vector.
    pub(super) fn get(&self, id: ParamId) -> Result<Placed, EngineError> {
        self.placed.get(id.0 as usize).copied().flatten().ok_or_else(|| {
            let detail = format!("parameter {} is not on the GPU", id.0);
            EngineError::Model(ModelError::Shape { op: "weights", detail })
        })
    }

    /// A slot that a kernel may bind and not read: small, since the parameter may pass the binding limit.
    pub(super) fn any(&self) -> Result<Slot, EngineError> {
        let first = self.placed.iter().flatten().next();
        let detail = "no weights on the GPU".to_owned();
        first
            .map(|p| Slot { bytes: p.slot.bytes.min(ALIGN), ..p.slot })
            .ok_or(EngineError::Model(ModelError::Shape { op: "weights", detail }))
    }
}
