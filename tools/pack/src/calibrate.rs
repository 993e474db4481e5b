//! Runs a checkpoint on observations to capture the inputs of its layers.

use std::error::Error;
use std::path::{Path, PathBuf};

use fathom::engine::{Arena, Choice, Program, Resident, Wanted};
use fathom::gpu::Gpu;
use fathom_models::graph::Graph;
use fathom_models::graph::params::ParamId;
use fathom_models::nets::depth_anything::{BAND_BYTES, DepthOptions};
use fathom_models::nets::depthvla::ForwardOptions;
use fathom_models::quantize::calibration::Calibration;
use fathom_models::quantize::pack::Source;
use fathom_models::quantize::scheme::{Scheme, Target};
use indicatif::ProgressBar;

use crate::eval::{observation, photo};

/// Statistics of the inputs of every layer whose weights `scheme` quantises, over one inference for each of `files`.
pub(crate) fn run(
    mut gpu: Gpu,
    dir: &Path,
    source: &Source,
    scheme: &Scheme,
    files: &[PathBuf],
) -> Result<Calibration, Box<dyn Error>> {
    let weights = source.weights();
    let table = weights.table();
    let targets = scheme.assign(&table)?.targets;
    let quantised = |id: ParamId| match targets.get(id.0 as usize) {
        Some(Target::To(format)) => !format.is_float(),
        _ => false,
    };
    let choice = Choice::make(&mut gpu, &weights.formats()?, Wanted::default())?;
    let resident = Resident::upload(&mut gpu, &table, weights, choice)?;
    let mut arena = Arena::default();
    let mut calibration = Calibration::default();
    let bar = ProgressBar::new(files.len() as u64);
    for file in files {
        let (mut graph, inputs) = graph(dir, source, file)?;
        graph.outputs.clear();
        calibration.expose(&mut graph, weights, &quantised);
        let mut program = Program::prepare(&mut gpu, &mut arena, &resident, &graph)?;
        let input = |name: &str| inputs.iter().find(|(n, _)| n == name).map_or(&[][..], |(_, bytes)| bytes.as_slice());
        program.run(&mut gpu, input, false)?;
        let outputs = program.outputs();
        let values = |name: &str| outputs.iter().find(|o| o.name == name).map_or(&[][..], |o| o.values.as_slice());
        calibration.add(weights, values)?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(calibration)
}

/// An inference, and the bytes of its inputs by their names.
type Prepared = (Graph, Vec<(String, Vec<u8>)>);

fn graph(dir: &Path, source: &Source, file: &Path) -> Result<Prepared, Box<dyn Error>> {
    match source {
        Source::Policy(loaded) => {
            let o = observation(dir, loaded, file)?;
            let model = &loaded.model;
            let options = ForwardOptions {
                images: o.images.iter().map(|(spec, _)| *spec).collect(),
                prompt_tokens: o.tokens.len(),
                depth_map: true,
                guided: false,
                taps: false,
            };
            let text = loaded.weights.rows(model.embed_tokens, model.config.vlm.width, &o.tokens)?;
            let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<_>>();
            let mut inputs = vec![
                ("text".to_owned(), bytes(&text)),
                ("state".to_owned(), bytes(&o.model_state(loaded))),
                ("noise".to_owned(), bytes(&o.noise)),
            ];
            let images = model.config.views.iter().zip(o.images);
            inputs.extend(images.map(|(view, (_, bytes))| (format!("image.{view}"), bytes)));
            Ok((model.forward(&loaded.weights, &options)?, inputs))
        }
        Source::Depth(model, weights) => {
            let (image, bytes) = photo(file)?;
            let options = DepthOptions { image, taps: false, band_bytes: BAND_BYTES };
            Ok((model.forward(weights, &options)?, vec![("image.photo".to_owned(), bytes)]))
        }
    }
}
