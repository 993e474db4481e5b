//! The work of an inference, counted without a GPU in the list that a GPU would replay.

use fathom_models::checkpoint::Weights;
use fathom_models::graph::Graph;
use fathom_models::graph::params::ParamTable;
use fathom_models::graph::precision::keys_values;
use fathom_models::nets::flow;
use serde::Serialize;

use super::arena::Placement;
use super::lower::Places;
use super::{Choice, EngineError, Resident};
use crate::gpu::{BufferId, Commands, Work};

/// The binding limit, and that of a buffer, of NVIDIA's driver as wgpu has it.
const NVIDIA_BYTES: u64 = (1 << 31) - 256;

/// An inference in numbers.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The kernels that it is lowered to, and the precision of tensors between them.
    pub choice: Choice,
    /// In the order in which they run.
    pub stages: Vec<StageWork>,
    /// Bytes of weights on the GPU.
    pub weights: u64,
    /// Bytes of everything else on the GPU.
    pub arena: u64,
    /// Bytes of the caches of keys and values.
    pub kv: u64,
}

/// One stage in numbers; the flow steps are one together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StageWork {
    /// Its name.
    pub name: String,
    /// Dispatches.
    pub dispatches: u64,
    /// As [`Work::flops`].
    pub flops: u64,
    /// As [`Work::weight_bytes`].
    pub weight_bytes: u64,
    /// As [`Work::activation_bytes`].
    pub activation_bytes: u64,
}

/// Common name of all flow steps.
pub const FLOW: &str = "flow steps";

/// The stage that a stage of a recording is counted to: [`FLOW`] for each flow step.
pub fn stage_of(name: &str) -> &str {
    if flow::is_stage(name) { FLOW } else { name }
}

impl Plan {
    /// Of `graph` with weights of a model with these parameters, lowered to these kernels as for an NVIDIA GPU.
    ///
    /// # Errors
    /// [`EngineError::Model`] for a parameter that is not there, or of a format that its kernel does not take.
    pub fn of(
        graph: &Graph,
        table: &ParamTable,
        weights: &Weights,
        choice: impl Into<Choice>,
    ) -> Result<Plan, EngineError> {
        let choice = choice.into();
        let (resident, sizes) = Resident::place(table, weights, choice, NVIDIA_BYTES)?;
        let placement = Placement::of(graph, choice.precision);
        let buffer = BufferId::new(sizes.len() as u32);
        let places =
            Places { graph, placement: &placement, buffer, resident: &resident, max_binding_bytes: NVIDIA_BYTES };
        let stages = stages(&places.commands("plan")?);
        let kv = placement.places.iter().zip(keys_values(graph));
        let kv = kv.filter_map(|(place, kv)| kv.then_some(place.bytes)).sum();
        Ok(Plan { choice, stages, weights: resident.bytes(), arena: placement.bytes, kv })
    }

    /// Dispatches of the flow steps, and of everything else.
    pub fn dispatches(&self) -> [u64; 2] {
        let sum = |flow: bool| self.stages.iter().filter(|s| (s.name == FLOW) == flow).map(|s| s.dispatches).sum();
        [sum(true), sum(false)]
    }
}

/// The work of the stages of a list.
pub(super) fn stages(commands: &Commands) -> Vec<StageWork> {
    let mut stages: Vec<StageWork> = Vec::new();
    for dispatch in &commands.dispatches {
        let name = commands.stages.get(usize::from(dispatch.stage)).map_or("", |name| stage_of(name));
        let index = stages.iter().position(|s| s.name == name).unwrap_or_else(|| {
            stages.push(StageWork { name: name.to_owned(), ..StageWork::default() });
            stages.len() - 1
        });
        if let Some(stage) = stages.get_mut(index) {
            let Work { flops, weight_bytes, activation_bytes } = dispatch.work;
            stage.dispatches += 1;
            stage.flops += flops;
            stage.weight_bytes += weight_bytes;
            stage.activation_bytes += activation_bytes;
        }
    }
    stages
}
