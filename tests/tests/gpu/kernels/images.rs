//! Graphs for the kernels at the two ends, which see pixels.

use fathom_models::graph::Graph;
use fathom_models::graph::builder::GraphBuilder;
use fathom_models::nets::config::{Resize, Vit};
use fathom_models::nets::image::{self, ImageSpec};
use fathom_shaders::cpu::Layout;
use fathom_tests::graphs::expose;

/// Odd and even sides, down to one pixel, in rows of the least length and of longer ones.
pub(crate) fn unpack(layout: Layout) -> Graph {
    let mut g = GraphBuilder::default();
    g.stage("unpack");
    for (width, height) in [(1, 1), (2, 2), (3, 3), (17, 9), (33, 6), (8, 1), (1, 17)] {
        let row = match layout {
            Layout::Rgb24 => 3 * width,
            Layout::Yuyv => 2 * width + 2 * (width % 2),
            Layout::Nv12 => width + width % 2,
        };
        for stride in [row, row + 1, row + 6] {
            let spec = ImageSpec { layout, width, height, stride };
            spec.check("image").expect("a possible image");
            image::unpack(&mut g, &format!("{width}x{height} in {stride}"), spec);
        }
    }
    let mut graph = g.finish().expect("the shapes fit");
    expose(&mut graph, "pixels");
    graph
}

/// Width, height and side to reach: larger, smaller, wide, tall, unchanged, one pixel, and so thin that a side would vanish.
const SIZES: [(usize, usize, usize); 8] =
    [(40, 30, 17), (9, 17, 33), (17, 9, 17), (16, 16, 16), (1, 1, 8), (65, 3, 16), (3, 65, 16), (100, 1, 8)];

/// Every size to its square.
pub(crate) fn squares(resize: Resize, output: &str) -> Graph {
    let mut g = GraphBuilder::default();
    g.stage("resize");
    for (i, (width, height, side)) in SIZES.into_iter().enumerate() {
        let pixels = image::unpack(&mut g, &i.to_string(), ImageSpec::rgb(width, height));
        image::square(&mut g, &pixels, resize, side);
        if resize == Resize::PillowBilinear {
            image::rectangle(&mut g, &pixels, image::Filter::Bicubic, (side, side + 3));
            image::rectangle(&mut g, &pixels, image::Filter::Bilinear, (side + 2, side));
        }
    }
    let mut graph = g.finish().expect("the shapes fit");
    expose(&mut graph, output);
    if output == "square" {
        expose(&mut graph, "rectangle");
    }
    graph
}

/// Of the integer resizes: what is rounded after each axis, and what after both, with the sums between.
pub(crate) fn resized() -> Graph {
    let mut g = GraphBuilder::default();
    g.stage("resize");
    for (i, (width, height, side)) in SIZES.into_iter().enumerate() {
        let pixels = image::unpack(&mut g, &i.to_string(), ImageSpec::rgb(width, height));
        image::square(&mut g, &pixels, Resize::PillowBilinear, side);
        image::square(&mut g, &pixels, Resize::CvLanczos4Stretch, side);
        image::rectangle(&mut g, &pixels, image::Filter::Bicubic, (side, side + 3));
        image::rectangle(&mut g, &pixels, image::Filter::Bilinear, (side + 2, side));
    }
    let mut graph = g.finish().expect("the shapes fit");
    expose(&mut graph, "resized");
    expose(&mut graph, "resized sums");
    graph
}

/// Patches that fill the image and patches that leave a rest, into a part of a tensor.
pub(crate) fn patchify() -> Graph {
    let mut g = GraphBuilder::default();
    g.stage("patchify");
    for (image_size, patch) in [(28, 14), (30, 7), (9, 1), (33, 16), (5, 5)] {
        let vit = Vit { image_size, patch, width: 1, layers: 1, heads: 1, mlp: 1, eps: 1e-6 };
        let square = g.input(&format!("square {image_size}"), image_size * image_size, 3);
        let whole = g.input(&format!("patches {image_size}"), vit.patches() + 2, vit.patch_dim());
        let norm = if patch % 2 == 0 { image::IMAGENET } else { image::SIGLIP };
        image::patchify(&mut g, square, &vit, norm, whole.slice(1, vit.patches()));
        g.output(format!("{image_size} / {patch}"), whole);
    }
    let (width, height, patch) = (29, 16, 7);
    let image = g.input("oblong", width * height, 3);
    let whole = g.input("patches oblong", 4 * 2, 3 * patch * patch);
    image::patches(&mut g, image, (width, height), patch, image::IMAGENET, whole);
    g.output("oblong", whole);
    g.finish().expect("the shapes fit")
}

/// Every link from a token to a depth, from a part of a tensor.
pub(crate) fn unpatchify() -> Graph {
    let mut g = GraphBuilder::default();
    g.stage("unpatchify");
    for (i, (grid, patch)) in [(1, 1), (2, 14), (3, 5), (9, 1), (5, 7), (4, 2)].into_iter().enumerate() {
        let tokens = g.input(&format!("tokens {i}"), grid * grid + 3, patch * patch);
        let map = g.unpatchify(tokens.slice(2, grid * grid), patch, i as u32 % 3);
        g.output(format!("{grid} · {patch}, link {}", i % 3), map);
    }
    g.finish().expect("the shapes fit")
}
