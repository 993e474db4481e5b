//! Weights beyond what an adapter binds at once.

use fathom::engine::EngineError;
use fathom::gpu::GpuError;
use fathom_models::checkpoint::WeightFormat;
use fathom_models::graph::builder::{Activation, Fused, GraphBuilder};
use fathom_tests::graphs::{Parameters, Rig, on_twins, open_gpu, random_inputs};
use fathom_tests::relative_error;

/// A weight beyond the limit is bound in parts of whole rows, and the layer comes out as it does in one piece.
#[test]
fn a_weight_beyond_the_binding_limit_is_split() {
    let mut p = Parameters::default();
    // Rows of 602 bytes, of which 204,800 hold 340, and so 256; rows of 1204 bytes: 170, and so 128.
    let (half, single) = (p.linear(500, 301, WeightFormat::Bf16), p.linear(300, 301, WeightFormat::F32));
    let layer_scale = Some(p.vector(300, WeightFormat::F32));
    let mut g = GraphBuilder::default();
    g.stage("split");
    let few = g.input("few", 3, 301);
    let y = g.linear(few, &half, Fused::default());
    g.output("few rows, nothing else", y);
    let many = g.input("many", 33, 301);
    let rest = g.input("rest", 33, 300);
    let all = Fused { layer_scale, add: Some(rest), activation: Activation::Silu, ..Fused::default() };
    let y = g.linear(many, &single, all);
    g.output("many rows, with all of the epilogue", y);
    let graph = g.finish().expect("the shapes fit");

    let weights = p.weights();
    let inputs = random_inputs(&graph);
    let expected = on_twins(&graph, &weights, &inputs);
    for checked in [false, true] {
        let mut rig = Rig::new(open_gpu(checked), &p.table, &weights);
        assert_eq!(rig.prepare(&graph).expect("it is prepared").dispatches(), 2, "one a layer where all fits");
        rig.gpu.limit_bindings(204_800);
        assert_eq!(rig.prepare(&graph).expect("it is prepared").dispatches(), 2 + 3, "parts of 256 and of 128 rows");
        let (found, _) = rig.run(&graph, &inputs);
        for (name, expected) in &expected {
            let error = relative_error(expected, &found[name]);
            assert!(error < 1e-5, "{name}: error {error:.2e}");
        }
    }
}

/// Where not even the smallest part can be bound, preparing says so.
#[test]
fn a_limit_that_no_part_fits_is_an_error() {
    let mut p = Parameters::default();
    let layer = p.linear(128, 64, WeightFormat::F32);
    let mut g = GraphBuilder::default();
    g.stage("split");
    let x = g.input("x", 1, 64);
    let y = g.linear(x, &layer, Fused::default());
    g.output("y", y);
    let graph = g.finish().expect("the shapes fit");
    let mut rig = Rig::new(open_gpu(false), &p.table, &p.weights());
    rig.gpu.limit_bindings(16_384);
    let error = rig.prepare(&graph).expect_err("a part has 32,768 bytes");
    let EngineError::Gpu(GpuError::Limit { what, asked: 32_768, limit: 16_384 }) = &error else { panic!("{error}") };
    assert!(what.contains("linear_lanes_f32") && what.contains("binding 2"), "{what}");
}
