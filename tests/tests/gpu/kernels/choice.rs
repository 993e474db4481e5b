//! Which kernels serve: those that the adapter can run, and that compute what their twins compute.

use std::collections::BTreeSet;

use fathom::engine::{Choice, EngineError, Kernels, Wanted};
use fathom_models::checkpoint::WeightFormat;
use fathom_models::graph::precision::{Float, Precision};
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
        assert_eq!(
            Choice::make(&mut gpu, &formats, Wanted::default()).expect("it computes").kernels,
            own,
            "before it is broken"
        );
        let mut gpu = open_gpu(false);
        gpu.break_kernels(kernel);
        match Choice::make(&mut gpu, &formats, Some(own).into()) {
            Err(EngineError::SelfTest { kernel: named, error, .. }) => {
                assert!(named == kernel && (error == 1.0), "{named}: nothing instead of the outputs, {error}");
            }
            other => panic!("{kernel}: expected a failed self-test, found {other:?}"),
        }
        let chosen = Choice::make(&mut gpu, &formats, Wanted::default()).expect("the tiled ones compute");
        assert_eq!(chosen.kernels, Kernels::Tiled, "{kernel} is not used");
    }
}

#[test]
fn no_kernels_serve_where_even_the_tiled_ones_are_wrong() {
    let mut gpu = open_gpu(false);
    gpu.break_kernels("linear");
    let found = Choice::make(&mut gpu, &BTreeSet::from([WeightFormat::F16]), Wanted::default());
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
    info.f16 = false;
    let halves = Wanted { kv: Some(Float::F16), ..Wanted::default() }.with(Kernels::Tiled);
    assert_eq!(halves.refused_by(&info).as_deref(), Some("f16 in shaders and their storage"));
    assert_eq!(Choice::from(Kernels::Tiled).refused_by(&info), None, "all in f32");
    info.matrices.clear();
    assert_eq!(Kernels::Coop16.refused_by(&info).as_deref(), Some("cooperative matrices"));
    assert_eq!(Kernels::Tiled.refused_by(&info), None);
}

/// Kernels that take operands in f16 anyway have them in f16, others where it is asked for; each is tested as it is to serve.
#[test]
fn precision_is_that_of_the_kernels_unless_it_is_asked_for() {
    for kernels in Kernels::ALL {
        let own = if matches!(kernels, Kernels::Coop16 | Kernels::Coop8) { Precision::F16 } else { Precision::F32 };
        assert_eq!(Choice::from(kernels).precision, own, "{kernels}");
    }
    let mut gpu = open_gpu(false);
    let formats = BTreeSet::from([WeightFormat::F32, WeightFormat::F16, W4]);
    let kernels = Kernels::of(gpu.info());
    let own = Choice::make(&mut gpu, &formats, Wanted::default()).expect("it computes");
    assert_eq!((own, own.to_string()), (kernels.into(), kernels.to_string()));
    let kv = Wanted { kv: Some(Float::F16), activations: Some(Float::F32), kernels: None };
    let chosen = Choice::make(&mut gpu, &formats, kv).expect("it computes");
    assert_eq!(chosen.precision, Precision { kv: Float::F16, activations: Float::F32 });
    assert_eq!(chosen.to_string(), format!("{kernels}, keys and values in f16, activations in f32"));
}

/// Every family serves a checkpoint whose weights all have one format, whatever that format does without.
#[test]
fn every_family_passes_with_weights_of_one_format() {
    let mut gpu = open_gpu(false);
    for format in [WeightFormat::F32, WeightFormat::F16, WeightFormat::Bf16, WeightFormat::W8, W4] {
        for kernels in Kernels::ALL {
            for float in [Float::F32, Float::F16] {
                let wanted = Wanted { kernels: Some(kernels), kv: Some(float), activations: Some(float) };
                let made = Choice::make(&mut gpu, &BTreeSet::from([format]), wanted);
                assert_eq!(made.expect("it computes"), wanted.with(kernels), "{format}");
            }
        }
    }
}
