//! A graph on the GPU: recorded once, replayed with new inputs.

use fathom_models::graph::precision::Precision;
use fathom_models::graph::{Graph, Named, Storage, Tensor, TensorId};

use super::EngineError;
use super::arena::Placement;
use super::lower::Places;
use super::plan::{StageWork, stages};
use super::resident::Resident;
use crate::gpu::{BufferId, CommandList, Download, Gpu, GpuTimes, Slot, Upload, Work};

/// The buffer that programs keep their tensors in; made anew only for a program that needs more.
#[derive(Debug, Default)]
pub struct Arena {
    held: Option<(BufferId, u64)>,
}

impl Arena {
    /// Its size.
    pub fn bytes(&self) -> u64 {
        self.held.map_or(0, |(_, bytes)| bytes)
    }
}

/// A result of an inference: values of one of the graph's outputs, `(rows, cols)`.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its name.
    pub name: String,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// Row-major.
    pub values: Vec<f32>,
}

/// The place of an output.
#[derive(Debug)]
struct Place {
    buffer: BufferId,
    /// First byte that is read.
    offset: u64,
    /// For f16, the words to read; the output starts after `skip` numbers.
    f16: Option<Vec<u32>>,
    skip: usize,
}

impl Place {
    fn new(places: &Places<'_>, t: Tensor) -> Result<Place, EngineError> {
        let slot = places.slot(t.id)?;
        let count = t.rows * t.cols;
        let (skip, bytes) = if places.f16(t.id)? { (t.offset % 2, 2) } else { (0, 4) };
        let offset = slot.offset + (t.offset - skip) as u64 * bytes;
        let words = (bytes == 2).then(|| vec![0; (skip + count).div_ceil(2)]);
        Ok(Place { buffer: slot.buffer, offset, f16: words, skip })
    }
}

/// A graph on the GPU.
#[derive(Debug)]
pub struct Program {
    list: CommandList,
    work: Vec<Work>,
    stages: Vec<StageWork>,
    /// Name and slot of each input.
    inputs: Vec<(String, Slot)>,
    /// The places of the outputs.
    places: Vec<Place>,
    outputs: Vec<Output>,
}

impl Program {
    /// Plans, records and checks `graph`. Programs of one arena overwrite each other's tensors;
    /// one that needs a larger arena makes those before it unusable.
    ///
    /// # Errors
    /// [`EngineError::Gpu`] beyond the adapter's limits, [`EngineError::Model`] for a parameter that is not resident.
    pub fn prepare(
        gpu: &mut Gpu,
        arena: &mut Arena,
        resident: &Resident,
        graph: &Graph,
    ) -> Result<Program, EngineError> {
        let placement = Placement::of(graph, resident.choice.precision);
        let buffer = match arena.held {
            Some((buffer, bytes)) if bytes >= placement.bytes => buffer,
            _ => {
                if let Some((smaller, _)) = arena.held.take() {
                    gpu.release(smaller);
                }
                arena.held.insert((gpu.create_buffer("arena", placement.bytes)?, placement.bytes)).0
            }
        };
        let max_binding_bytes = gpu.info().max_binding_bytes;
        let places = Places { graph, placement: &placement, buffer, resident, max_binding_bytes };
        let commands = places.commands("inference")?;
        let stages = stages(&commands);
        let work = commands.dispatches.iter().map(|d| d.work).collect();
        let list = gpu.prepare(&commands)?;
        gpu.save_pipelines();
        upload_constants(gpu, graph, &places)?;
        let inputs = graph.inputs.iter().map(|n| Ok((n.name.clone(), places.slot(n.tensor.id)?)));
        let inputs = inputs.collect::<Result<_, EngineError>>()?;
        let of = |n: &Named| Place::new(&places, n.tensor);
        let output_places = graph.outputs.iter().map(of).collect::<Result<_, _>>()?;
        let outputs = graph
            .outputs
            .iter()
            .map(|n| {
                let shape = [n.tensor.rows, n.tensor.cols];
                Output { name: n.name.clone(), shape, values: vec![0.0; shape[0] * shape[1]] }
            })
            .collect();
        Ok(Program { list, work, stages, inputs, places: output_places, outputs })
    }

    /// Bytes of the arena that `graph` needs in this precision.
    pub(super) fn arena_bytes(graph: &Graph, precision: Precision) -> u64 {
        Placement::of(graph, precision).bytes
    }

    /// Dispatches of a run.
    pub fn dispatches(&self) -> usize {
        self.list.len()
    }

    /// The work of each dispatch of a run, in order.
    pub fn work(&self) -> &[Work] {
        &self.work
    }

    /// The work of the stages of a run.
    pub fn stages(&self) -> &[StageWork] {
        &self.stages
    }

    /// The outputs of the last run.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// One run; `input` gives the bytes of each input by its name. With `profile`, a time for each dispatch, slower.
    ///
    /// # Errors
    /// [`EngineError::Input`] for an input of another size than the graph's, [`EngineError::Gpu`].
    pub fn run<'a>(
        &mut self,
        gpu: &mut Gpu,
        input: impl Fn(&str) -> &'a [u8],
        profile: bool,
    ) -> Result<GpuTimes, EngineError> {
        let mut uploads = Vec::with_capacity(self.inputs.len());
        for (name, slot) in &self.inputs {
            let (bytes, expected) = (input(name), slot.bytes as usize);
            if bytes.len().next_multiple_of(4) != expected {
                return Err(EngineError::Input { name: name.clone(), expected, found: bytes.len() });
            }
            uploads.push(Upload { buffer: slot.buffer, offset: slot.offset, bytes });
        }
        let mut downloads: Vec<Download<'_>> = self
            .places
            .iter_mut()
            .zip(&mut self.outputs)
            .map(|(place, o)| Download {
                buffer: place.buffer,
                offset: place.offset,
                into: match &mut place.f16 {
                    Some(words) => bytemuck::cast_slice_mut(words),
                    None => bytemuck::cast_slice_mut(&mut o.values),
                },
            })
            .collect();
        let lists = [&self.list];
        let times = match profile {
            true => gpu.profile(&lists, &uploads, &mut downloads)?,
            false => gpu.submit(&lists, &uploads, &mut downloads)?,
        };
        for (place, output) in self.places.iter().zip(&mut self.outputs) {
            let numbers = place.f16.as_deref().map(bytemuck::cast_slice::<u32, half::f16>).unwrap_or_default();
            for (value, number) in output.values.iter_mut().zip(numbers.iter().skip(place.skip)) {
                *value = number.to_f32();
            }
        }
        Ok(times)
    }
}

fn upload_constants(gpu: &mut Gpu, graph: &Graph, places: &Places<'_>) -> Result<(), EngineError> {
    for (id, tensor) in (0..).map(TensorId).zip(&graph.tensors) {
        if let Storage::Constant(words) = &tensor.storage {
            let slot = places.slot(id)?;
            gpu.upload(slot.buffer, slot.offset, bytemuck::cast_slice(words))?;
        }
    }
    Ok(gpu.flush()?)
}
