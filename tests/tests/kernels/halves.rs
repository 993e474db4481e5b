//! What becomes of numbers that f16 does not hold.

use fathom::engine::Kernels;
use fathom_models::builder::{Fused, GraphBuilder};
use fathom_models::weights::WeightFormat;
use fathom_tests::graphs::{Parameters, Rig, open_gpu, random_inputs};

use crate::HALVES;

const GIVEN: [f32; 6] = [1e6, -1e6, 65504.0, 0.1, 1e-9, f32::NAN];

/// A number beyond f16's range is stored as its largest, not as an infinity, one that is too small as zero, and what is no
/// number stays none.
#[test]
fn what_f16_does_not_hold_is_stored_as_the_nearest_that_it_does() {
    let mut p = Parameters::default();
    let mut g = GraphBuilder::default();
    g.stage("kernel");
    // Each column of y is one of the numbers, for an x of ones.
    let (x, layer) = (g.constant("ones", 33, 1, &[1.0; 33]), p.linear_of(&GIVEN, &[0.0; 6]));
    let y = g.linear(x, &layer, Fused::default());
    let reader = p.linear(4, 6, WeightFormat::F16);
    g.linear(y, &reader, Fused::default());
    g.output("linear", y);
    // An RMSNorm of ones by 1 + w, with and without one that is no number.
    let finite: Vec<f32> = GIVEN.iter().map(|v| if v.is_nan() { 0.0 } else { *v }).collect();
    let weight = p.linear_of(&[1.0; 6], &finite);
    let ones = g.constant("row", 2, 6, &[1.0; 12]);
    let y = g.rms_norm(ones, p.vector_of(&finite), 0.0);
    g.linear(y, &weight, Fused::default());
    g.output("norm", y);
    let graph = g.finish().expect("the shapes fit");
    let (weights, inputs) = (p.weights(), random_inputs(&graph));
    for kernels in Kernels::ALL {
        let mut rig = Rig::with(open_gpu(false), &p.table, &weights, HALVES.with(kernels));
        let (found, _) = rig.run(&graph, &inputs);
        let row = &found["linear"][..6];
        assert_eq!(row[..3], [65504.0, -65504.0, 65504.0], "{kernels}");
        assert!((row[3] - 0.1).abs() < 5e-5 && row[3] != 0.1 && row[4] == 0.0 && row[5].is_nan(), "{kernels}: {row:?}");
        let row = &found["norm"][..6];
        assert_eq!(row[..3], [65504.0, -65504.0, 65504.0], "{kernels}");
    }
}
