//! Graphs for the kernels on feature maps.

use fathom_models::checkpoint::WeightFormat;
use fathom_models::graph::Graph;
use fathom_models::graph::builder::GraphBuilder;
use fathom_models::graph::params::Tensors as Layer;
use fathom_models::nets::maps::{Conv, Map};
use fathom_tests::graphs::Parameters;

/// (width, height, channels): a pixel, lines, sizes that no tile divides, and more than one tile of each.
const SIZES: [(usize, usize, usize); 7] =
    [(1, 1, 1), (1, 5, 3), (9, 1, 17), (3, 3, 16), (7, 11, 5), (13, 6, 33), (17, 9, 8)];

fn input(g: &mut GraphBuilder, name: &str, (width, height, channels): (usize, usize, usize)) -> Map {
    Map::whole(g.input(name, width * height, channels), width, height)
}

/// Both strides, with and without each of what it can do, whole and in bands.
pub(crate) fn conv3x3(p: &mut Parameters, format: WeightFormat) -> Graph {
    let mut g = GraphBuilder::default();
    g.stage("convolution");
    for (i, size) in SIZES.into_iter().cycle().take(42).enumerate() {
        let (width, height, channels) = size;
        let (out, stride) = ([1, 3, 31, 32, 37][i % 5], 1 + i / 7 % 2);
        let layer = p.convolution(out, 9 * channels, format);
        let layer = Layer { bias: layer.bias.filter(|_| i % 3 != 1), ..layer };
        let shape = (width.div_ceil(stride), height.div_ceil(stride), out);
        let add = [0, 1].map(|a| (i >> a & 1 == 1).then(|| input(&mut g, &format!("add {a} {i}"), shape)));
        let x = input(&mut g, &format!("x {i}"), size);
        let conv = Conv { stride, relu_in: i % 2 == 0, add, relu_out: i % 4 > 1, band: None };
        let y = g.conv3x3(x, &layer, conv);
        g.output(format!("{size:?} to {out}, stride {stride}, {i}"), y.tensor);
    }
    // Bands of three rows; each has the rows around it, and no others.
    let (width, height) = (17_usize, 10_usize);
    let layer = p.convolution(33, 9 * 5, format);
    for first in (0..height).step_by(3) {
        let rows = (height - first).min(3);
        let (from, to) = (first.saturating_sub(1), (first + rows + 1).min(height));
        let tensor = g.input(&format!("band {first}"), (to - from) * width, 5);
        let x = Map { tensor, width, height, first: from };
        let y = g.conv3x3(x, &layer, Conv { band: Some((first, rows)), ..Conv::default() });
        g.output(format!("band {first}"), y.tensor);
    }
    g.finish().expect("the shapes fit")
}

pub(crate) fn conv_transpose(p: &mut Parameters, format: WeightFormat) -> Graph {
    let mut g = GraphBuilder::default();
    g.stage("transposed convolution");
    for (i, size) in SIZES.into_iter().cycle().take(21).enumerate() {
        let (out, factor) = ([1, 5, 33][i % 3], [2, 4, 1, 3][i % 4]);
        let layer = p.convolution(size.2, out * factor * factor, format);
        let bias = (i % 3 != 1).then(|| p.vector(out, format));
        let x = input(&mut g, &format!("x {i}"), size);
        let y = g.conv_transpose(x, &Layer { bias, ..layer }, factor);
        g.output(format!("{size:?} to {out} × {factor}, {i}"), y.tensor);
    }
    g.finish().expect("the shapes fit")
}

/// Larger, smaller, equal and one pixel, whole and in bands.
pub(crate) fn resize_corners() -> Graph {
    let mut g = GraphBuilder::default();
    g.stage("resize");
    for (i, size) in SIZES.into_iter().enumerate() {
        for to in [(1, 1), (5, 3), (26, 12), (size.0, size.1), (70, 2)] {
            let x = input(&mut g, &format!("x {i} {to:?}"), size);
            let y = g.resize_corners(x, to, None);
            g.output(format!("{size:?} to {to:?}, {i}"), y.tensor);
            if to.1 > 2 {
                let y = g.resize_corners(x, to, Some((1, to.1 - 2)));
                g.output(format!("{size:?} to {to:?}, {i}, a band"), y.tensor);
            }
        }
    }
    g.finish().expect("the shapes fit")
}
