//! What becomes of numbers that f16 does not hold.

use fathom::engine::Kernels;
use fathom_models::checkpoint::WeightFormat;
use fathom_models::graph::builder::{Fused, GraphBuilder};
use fathom_tests::graphs::{Parameters, Rig, open_gpu, random_inputs};

use super::HALVES;

const GIVEN: [f32; 5] = [1e6, -1e6, 65504.0, 0.1, 1e-9];

/// A number beyond f16's range is stored as its largest, not as an infinity, one that is too small as zero, and what is no
/// number stays none.
#[test]
fn what_f16_does_not_hold_is_stored_as_the_nearest_that_it_does() {
    let mut p = Parameters::default();
    let mut g = GraphBuilder::default();
    g.stage("kernel");
    let reader = p.linear(4, 5, WeightFormat::F16);
    // Rows of one, but for the last; each column of y is one of the numbers.
    let mut values = [1.0; 33];
    values[32] = f32::NAN;
    let (x, layer) = (g.constant("x", 33, 1, &values), p.linear_of(&GIVEN, &[0.0; 5]));
    let y = g.linear(x, &layer, Fused::default());
    g.linear(y, &reader, Fused::default());
    g.output("linear", y);
    let ones = g.constant("ones", 2, 5, &[1.0, 1.0, 1.0, 1.0, 1.0, f32::NAN, 1.0, 1.0, 1.0, 1.0]);
    let y = g.rms_norm(ones, p.vector_of(&GIVEN.map(|v| v - 1.0)), 0.0);
    g.linear(y, &reader, Fused::default());
    g.output("norm", y);
    let graph = g.finish().expect("the shapes fit");
    let (weights, inputs) = (p.weights(), random_inputs(&graph));
    for kernels in Kernels::ALL {
        let mut rig = Rig::with(open_gpu(false), &p.table, &weights, HALVES.with(kernels));
        let (found, _) = rig.run(&graph, &inputs);
        for (output, values) in &found {
            let (first, last) = values.split_at(values.len() - 5);
            assert_eq!(first[..3], [65504.0, -65504.0, 65504.0], "{kernels}, {output}");
            let small = (first[3] - 0.1).abs();
            assert!(small > 0.0 && small < 5e-5 && first[4] == 0.0, "{kernels}, {output}: {first:?}");
            assert!(last.iter().all(|v| v.is_nan()), "{kernels}, {output}: {last:?}");
        }
    }
}
