//! Depth Anything's cases: comparing with them.

#![allow(clippy::expect_used, reason = "for tests: a case that does not load is a failed test")]

use std::collections::BTreeMap;
use std::path::Path;

use fathom::depth_map::DepthMap;
use fathom::engine::DepthSession;
use fathom_models::checkpoint::{Checkpoint, Weights};
use fathom_models::families::depth_anything;
use fathom_models::nets::depth_anything::{BAND_BYTES, DepthAnything, DepthOptions};
use fathom_models::nets::image::ImageSpec;
use fathom_models::nets::reference::Reference;

use crate::graphs::open_gpu;
use crate::{compare, golden_tensors};

/// So little that every map at full resolution is made of several bands.
const NARROW: usize = 12_000;

fn load(dir: &Path) -> (DepthAnything, Weights, ImageSpec, Vec<u8>) {
    let (model, weights) = depth_anything::load(dir).expect("the golden model loads");
    let file = Checkpoint::open(&dir.join("observation.safetensors")).expect("the observation");
    let shape = file.shape("image").expect("an image");
    let image = ImageSpec::rgb(shape[1], shape[0]);
    (model, weights, image, file.tensor("image").expect("an image").1.to_vec())
}

/// The oracle's map at the photo's own size, from its map at the model's, by the product's resize.
pub fn original_size(dir: &Path, values: Vec<f32>) -> Vec<f32> {
    let golden = golden_tensors(dir);
    let (shape, to) = (golden.shape("depth").expect("a map"), golden.shape("original_size").expect("a map"));
    let kind = depth_anything::read(dir).expect("the configuration").kind;
    DepthMap { width: shape[1], height: shape[0], values, kind }.resized(to[1], to[0]).values
}

fn compare_outputs(place: &str, dir: &Path, found: &BTreeMap<String, Vec<f32>>) {
    compare(place, dir, &golden_tensors(dir), |name| match name {
        "original_size" => Some(original_size(dir, found.get("depth")?.clone())),
        _ => found.get(name).cloned(),
    });
}

/// Compares what the CPU twins make of the case in `dir`, in one piece and in bands, with the oracle's stages.
pub fn compare_twins(dir: &Path) {
    let (model, weights, image, bytes) = load(dir);
    for band_bytes in [BAND_BYTES, NARROW] {
        let options = DepthOptions { image, taps: true, band_bytes };
        let graph = model.forward(&weights, &options).expect("the graph is built");
        let mut reference = Reference::new(&graph, &weights);
        reference.write(graph.input("image.photo").expect("an input").id, &bytes);
        reference.run().expect("it runs");
        compare_outputs("twins", dir, &reference.outputs());
    }
}

/// The same on the GPU, with and without bounds checks.
pub fn compare_gpu(dir: &Path) {
    for (checked, band_bytes) in [(false, BAND_BYTES), (true, BAND_BYTES), (false, NARROW)] {
        let (model, weights, image, bytes) = load(dir);
        let mut session = DepthSession::open(open_gpu(checked), model, weights, None).expect("the weights fit");
        session.band_bytes = band_bytes;
        let outputs = session.estimate(image, &bytes, true).expect("it runs");
        compare_outputs("GPU", dir, &outputs.into_iter().map(|o| (o.name, o.values)).collect());
    }
}
