//! Which kernels serve: those that the adapter can run, and that compute what their twins compute.

use std::collections::BTreeSet;

use fathom::engine::{EngineError, Kernels};
use fathom_models::weights::WeightFormat;
use fathom_tests::graphs::open_gpu;

const W4: WeightFormat = WeightFormat::W4 { group: 64, minima: false };

#[test]
fn a_family_with_a_wrong_kernel_is_dropped_and_an_error_where_it_was_asked_for() {
    let formats = BTreeSet::from([WeightFormat::F32, W4]);
    for kernel in ["linear_lanes_w4", "attention_lanes"] {
        let mut gpu = open_gpu(false);
        let own = Kernels::of(gpu.info());
        if own != Kernels::Lanes {
            fathom_tests::skip("a wrong kernel is dropped", "the adapter is no software driver");
            return;
        }
        assert_eq!(Kernels::choose(&mut gpu, &formats, None).expect("it computes"), own, "before it is broken");
        let mut gpu = open_gpu(false);
        gpu.break_kernels(kernel);
        match Kernels::choose(&mut gpu, &formats, Some(own)) {
            Err(EngineError::SelfTest { kernel: named, error, .. }) => {
                assert!(named == kernel && (error == 1.0), "{named}: nothing instead of the outputs, {error}");
            }
            other => panic!("{kernel}: expected a failed self-test, found {other:?}"),
        }
        let chosen = Kernels::choose(&mut gpu, &formats, None).expect("the tiled ones compute");
        assert_eq!(chosen, Kernels::Tiled, "{kernel} is not used");
    }
}

#[test]
fn no_kernels_serve_where_even_the_tiled_ones_are_wrong() {
    let mut gpu = open_gpu(false);
    gpu.break_kernels("linear");
    let found = Kernels::choose(&mut gpu, &BTreeSet::from([WeightFormat::F16]), None);
    assert!(matches!(found, Err(EngineError::SelfTest { .. })), "{found:?}");
}

#[test]
fn kernels_that_need_what_the_adapter_lacks_are_refused() {
    let mut info = open_gpu(false).info().clone();
    info.subgroup_size = [64, 64];
    for kernels in [Kernels::Coop16, Kernels::Coop8] {
        let lacks = kernels.refused_by(&info).unwrap_or_default();
        assert!(lacks.contains("subgroups of at most 32"), "{kernels}: {lacks}");
    }
    info.matrices.clear();
    assert_eq!(Kernels::Coop16.refused_by(&info).as_deref(), Some("cooperative matrices"));
    assert_eq!(Kernels::Tiled.refused_by(&info), None);
}
