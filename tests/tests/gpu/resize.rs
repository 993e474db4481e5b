//! All ways from an image of any size to the square that the towers see give what their origins give, on the CPU twins
//! and on the GPU: Pillow's and OpenCV's to the bit, torch's to 1e-6 of full scale, torchvision's to the bit but where its
//! f32 sum lies between two bytes.

#![expect(clippy::expect_used, reason = "a set-up that fails is a test that fails")]

use std::collections::BTreeMap;

use fathom_models::checkpoint::Checkpoint;
use fathom_models::graph::Graph;
use fathom_models::graph::builder::GraphBuilder;
use fathom_models::nets::config::Resize;
use fathom_models::nets::image::{self, ImageSpec};
use fathom_tests::graphs::{Inputs, Parameters, Rig, on_twins, open_gpu};

/// The squares of `images` (name, height, width, side), under the mode's name and theirs.
fn graph(images: &[(String, [usize; 3])]) -> Graph {
    let mut g = GraphBuilder::default();
    g.stage("resize");
    for (name, [height, width, side]) in images {
        let pixels = image::unpack(&mut g, name, ImageSpec::rgb(*width, *height));
        for (mode, resize) in [
            ("pillow", Resize::PillowBilinear),
            ("torch", Resize::TorchBilinear),
            ("torchvision", Resize::TorchvisionStretch),
            ("lanczos4", Resize::CvLanczos4Stretch),
        ] {
            let square = image::square(&mut g, &pixels, resize, *side);
            g.output(format!("{mode}.{name}"), square);
        }
    }
    g.finish().expect("the shapes fit")
}

fn on_twins_and_gpu(graph: &Graph, inputs: &Inputs) -> [(&'static str, BTreeMap<String, Vec<f32>>); 2] {
    let none = Parameters::default();
    let weights = none.weights();
    let twins = on_twins(graph, &weights, inputs);
    let (gpu, _) = Rig::new(open_gpu(false), &none.table, &weights).run(graph, inputs);
    [("twins", twins), ("GPU", gpu)]
}

#[test]
fn squares_are_those_of_their_origins() {
    let golden = Checkpoint::open(&fathom_tests::path("golden/resize.safetensors")).expect("the golden file");
    let names: Vec<String> = golden.names().filter_map(|n| n.strip_prefix("in.")).map(str::to_owned).collect();
    assert_eq!(names.len(), 11, "images");
    let size = |name: &str| {
        let (image, square) = (golden.shape(&format!("in.{name}")), golden.shape(&format!("pillow.{name}")));
        [image.expect("an image")[0], image.expect("an image")[1], square.expect("its square")[0]]
    };
    let bytes = |name: &str| golden.tensor(name).expect("a tensor").1;
    let images: Vec<_> = names.iter().map(|name| (name.clone(), size(name))).collect();
    let inputs: Inputs =
        names.iter().map(|name| (format!("image.{name}"), bytes(&format!("in.{name}")).to_vec())).collect();
    for (place, squares) in on_twins_and_gpu(&graph(&images), &inputs) {
        for name in &names {
            for (mode, ties) in [("pillow", 0), ("lanczos4", 0), ("torchvision", 1)] {
                let square = format!("{mode}.{name}");
                let found = squares[&square].iter().map(|v| (v * 255.0).round() as u8);
                let differences = found.zip(bytes(&square)).map(|(f, e)| f.abs_diff(*e)).filter(|d| *d > 0);
                let differences: Vec<u8> = differences.collect();
                let holds = differences.len() <= ties && differences.iter().all(|d| *d == 1);
                assert!(holds, "{place}: {square} differs from its origin: {differences:?}");
            }
            let torch = format!("torch.{name}");
            let expected = golden.f32(&torch).expect("f32");
            let error = expected.iter().zip(&squares[&torch]).fold(0.0_f32, |e, (a, b)| e.max((a - b).abs()));
            assert!(error <= 1e-6 && expected.len() == squares[&torch].len(), "{place}: {torch} is off by {error:.1e}");
        }
    }
}

/// The origins refuse an image whose shorter side would come out as 0 pixels; here it keeps one.
#[test]
fn a_side_never_vanishes() {
    let images = [("wide".to_owned(), [1, 100, 8]), ("tall".to_owned(), [100, 1, 8])];
    let inputs: Inputs = images.iter().map(|(name, _)| (format!("image.{name}"), vec![255; 300])).collect();
    for (place, squares) in on_twins_and_gpu(&graph(&images), &inputs) {
        for (name, values) in
            squares.into_iter().filter(|(name, _)| name.starts_with("pillow") || name.starts_with("torch."))
        {
            let white = values.iter().filter(|v| **v == 1.0).count();
            let black = values.iter().filter(|v| **v == 0.0).count();
            assert_eq!((white, black), (8 * 3, 7 * 8 * 3), "{place}: {name} is one line of 8 pixels");
        }
    }
}
