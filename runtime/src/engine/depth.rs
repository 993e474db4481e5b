//! Depth Anything on a GPU: a photo in, a depth map out.

use fathom_models::ModelError;
use fathom_models::checkpoint::Weights;
use fathom_models::nets::depth_anything::{BAND_BYTES, DepthAnything, DepthOptions};
use fathom_models::nets::image::ImageSpec;

use super::memory::explain;
use super::{Arena, Choice, EngineError, Kernels, Output, Program, Resident, Wanted};
use crate::gpu::Gpu;

/// A depth model on a GPU.
#[derive(Debug)]
pub struct DepthSession {
    gpu: Gpu,
    model: DepthAnything,
    weights: Weights,
    resident: Resident,
    arena: Arena,
    /// As [`DepthOptions::band_bytes`].
    pub band_bytes: usize,
}

impl DepthSession {
    /// Uploads the weights, with the requested kernels or with the best ones for the adapter.
    ///
    /// # Errors
    /// As [`Session::open_with`](super::Session::open_with).
    pub fn open(
        mut gpu: Gpu,
        model: DepthAnything,
        weights: Weights,
        wanted: impl Into<Wanted>,
    ) -> Result<DepthSession, EngineError> {
        let choice = Choice::make(&mut gpu, &weights.formats()?, wanted.into())?;
        let resident = Resident::upload(&mut gpu, &model.params, &weights, choice)
            .map_err(|error| explain(error, &gpu, (&model.params, &weights), choice, 0))?;
        Ok(DepthSession { gpu, model, weights, resident, arena: Arena::default(), band_bytes: BAND_BYTES })
    }

    /// Which kernels compute.
    pub fn kernels(&self) -> Kernels {
        self.resident.choice.kernels
    }

    /// The outputs of [`DepthAnything::forward`] for one photo: `depth (height, width)`, and every stage with `taps`.
    ///
    /// # Errors
    /// [`EngineError::Model`] for a photo of impossible size, or a map that is not finite; [`EngineError::Input`] if
    /// `bytes` are not an image of the form `image`; [`EngineError::Gpu`] beyond the adapter's limits.
    pub fn estimate(&mut self, image: ImageSpec, bytes: &[u8], taps: bool) -> Result<Vec<Output>, EngineError> {
        let options = DepthOptions { image, taps, band_bytes: self.band_bytes };
        let graph = self.model.forward(&self.weights, &options)?;
        let mut program = Program::prepare(&mut self.gpu, &mut self.arena, &self.resident, &graph)?;
        program.run(&mut self.gpu, |_| bytes, false)?;
        let outputs = program.outputs().to_vec();
        let depth = outputs.iter().filter(|o| o.name == "depth").flat_map(|o| &o.values);
        if let Some(value) = depth.copied().find(|v| !v.is_finite()) {
            let (name, expected) = ("depth".to_owned(), "finite numbers".to_owned());
            return Err(ModelError::Observation { name, expected, found: value.to_string() }.into());
        }
        Ok(outputs)
    }
}
