//! Errors for models that are too large for the GPU's memory.

use fathom_models::checkpoint::Weights;
use fathom_models::graph::params::ParamTable;
use fathom_models::quantize::scheme::{Named, Scheme};

use super::{Choice, EngineError, Resident, mib};
use crate::gpu::{Gpu, GpuError};

/// Turns an out-of-memory error into one that lists the schemes that would fit; leaves others unchanged. `rest` is the
/// memory that the model needs besides its weights, in bytes.
pub(super) fn explain(
    error: EngineError,
    gpu: &Gpu,
    (table, weights): (&ParamTable, &Weights),
    choice: Choice,
    rest: u64,
) -> EngineError {
    let EngineError::Gpu(GpuError::OutOfMemory { what, bytes: asked }) = error else { return error };
    let info = gpu.info();
    // The refused size exceeds the available memory, whatever the adapter reports.
    let held = info.memory_bytes.saturating_sub(gpu.room());
    let capacity = info.memory_bytes.min((held + asked).saturating_sub(1));
    let size = |named: Named| {
        let assignment = Scheme::from(named).assign(table).ok()?;
        let planned = Weights::planned(table, |id, _| {
            let own = weights.encoded(id).map_or(fathom_models::checkpoint::WeightFormat::F32, |w| w.0);
            assignment.targets.get(id.index()).map_or(own, |target| target.format(own))
        });
        let (resident, _) = Resident::place(table, &planned, choice, info.max_buffer_bytes).ok()?;
        Some((named.name(), resident.bytes() + rest))
    };
    let schemes = Named::ALL.into_iter().filter_map(size).collect();
    EngineError::OutOfMemory { what, asked, adapter: info.name.clone(), capacity, schemes }
}

/// The schemes that fit.
pub(super) fn advice(schemes: &[(&str, u64)], capacity: u64) -> String {
    let named = |(name, bytes): &(&str, u64)| format!("{name} ({})", mib(*bytes));
    let fitting: Vec<String> = schemes.iter().filter(|s| s.1 <= capacity).map(named).collect();
    if !fitting.is_empty() {
        return format!("it would fit packed by fathom-pack --scheme {}", fitting.join(" or "));
    }
    let least = schemes.iter().min_by_key(|s| s.1);
    least.map_or_else(String::new, |s| format!("no scheme of fathom-pack fits, the smallest is {}", named(s)))
}
