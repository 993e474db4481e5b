//! Depth Anything gives what transformers gives for the same photo, stage by stage, on the CPU twins and on the GPU; and
//! what is wrong with a directory is told.

#![expect(clippy::expect_used, reason = "a set-up that fails is a test that fails")]

use std::path::{Path, PathBuf};

use fathom_models::ModelError;
use fathom_models::families::depth_anything;
use fathom_models::graph::Op;
use fathom_models::nets::depth_anything::{BAND_BYTES, DepthAnything, DepthOptions};
use fathom_models::nets::image::ImageSpec;
use fathom_tests::tensors::{Dtype, Tensors, copy_golden};
use fathom_tests::{depth, golden_tensors, path, relative_error, skip};
use serde_json::{Value, json};

const CASES: [&str; 2] = ["depth_anything_relative", "depth_anything_metric"];

#[test]
fn the_twins_give_what_transformers_gives() {
    for case in CASES {
        depth::compare_twins(&path("golden").join(case));
    }
}

#[test]
fn the_gpu_gives_what_transformers_gives() {
    for case in CASES {
        depth::compare_gpu(&path("golden").join(case));
    }
}

/// The same with an encoder that was trained: its features are within 1e-4 of their largest magnitude.
#[test]
fn a_trained_encoder_gives_transformers_features_of_a_photograph() {
    let name = "a_trained_encoder_gives_transformers_features_of_a_photograph";
    let Some(dir) = std::env::var_os("FATHOM_TRAINED").filter(|dir| !dir.is_empty()).map(PathBuf::from) else {
        return skip(name, "FATHOM_TRAINED names no folder that tests/oracle/trained made");
    };
    depth::compare_gpu(&dir);
}

/// `--original-size` resizes as transformers' `post_process_depth_estimation`.
#[test]
fn the_map_at_the_photos_size_is_that_of_transformers() {
    for case in CASES {
        let dir = path("golden").join(case);
        let golden = golden_tensors(&dir);
        let resized = depth::original_size(&dir, golden.f32("depth").expect("f32"));
        let error = relative_error(&golden.f32("original_size").expect("f32"), &resized);
        assert!(error <= 1e-5, "{case}: {error:.2e}");
    }
}

/// With the neck and the head of Large, no tensor of a wide photo passes the 128 MiB that a small adapter binds, and no copy
/// the 65535 rows that it dispatches.
#[test]
fn a_wide_photo_fits_a_small_binding_limit() {
    let dir = copy_golden(CASES[0]);
    edit(dir.path(), "config.json", |c| {
        c["neck_hidden_sizes"] = json!([256, 512, 1024, 1024]);
        c["fusion_hidden_size"] = json!(256);
        c["head_hidden_size"] = json!(32);
    });
    std::fs::remove_file(dir.path().join("preprocessor_config.json")).expect("it is there");
    let config = depth_anything::read(dir.path()).expect("a configuration");
    let mut zeros = Tensors::default();
    for param in DepthAnything::new(config).params.params {
        let bytes = vec![0; param.shape.iter().product::<usize>() * 2];
        zeros.0.insert(param.name, (Dtype::BF16, param.shape, bytes));
    }
    zeros.write(&dir.path().join("model.safetensors"));
    let (model, weights) = depth_anything::load(dir.path()).expect("it loads");
    for (width, height) in [(1920, 1080), (1000, 500)] {
        let image = ImageSpec::rgb(width, height);
        let options = DepthOptions { image, taps: false, band_bytes: BAND_BYTES };
        let graph = model.forward(&weights, &options).expect("the graph is built");
        let largest = graph.tensors.iter().map(|t| t.words * 4).max().expect("tensors");
        assert!(largest <= 128 << 20, "{width} × {height}: {} MiB", largest >> 20);
        let copied = graph
            .ops
            .iter()
            .filter_map(|(_, op)| if let Op::Scale { params, .. } = op { Some(params.rows) } else { None });
        assert!(copied.max() <= Some(65535), "{width} × {height}");
    }
}

/// Sizes that transformers' `get_resize_output_image_size` gives for the published models' configuration.
#[test]
fn sizes_are_those_of_the_published_processor() {
    let dir = copy_golden(CASES[0]);
    std::fs::remove_file(dir.path().join("preprocessor_config.json")).expect("it is there");
    let config = depth_anything::read(dir.path()).expect("without it, that of the published models");
    for (photo, map) in [
        ((640, 480), (686, 518)),
        ((480, 640), (518, 686)),
        ((1920, 1080), (924, 518)),
        ((518, 518), (518, 518)),
        ((300, 100), (518, 168)),
        ((100, 300), (168, 518)),
        ((4032, 3024), (686, 518)),
    ] {
        assert_eq!(config.processor.output_size(photo.0, photo.1), map, "{photo:?}");
    }
}

fn edit(dir: &Path, file: &str, change: impl FnOnce(&mut Value)) {
    let path = dir.join(file);
    let mut json = serde_json::from_slice(&std::fs::read(&path).expect("the file")).expect("JSON");
    change(&mut json);
    std::fs::write(&path, json.to_string()).expect("it is written");
}

#[test]
fn unsupported_configurations_are_reported() {
    let own: [(&str, Value, &str); 10] = [
        ("model_type", json!("dpt"), "model_type"),
        ("patch_size", json!(16), "patch_size"),
        ("reassemble_hidden_size", json!(48), "reassemble_hidden_size"),
        ("neck_hidden_sizes", json!([1, 2, 3]), "neck_hidden_sizes"),
        ("neck_hidden_sizes", json!([12, 20, 0, 40]), "neck_hidden_sizes"),
        ("reassemble_factors", json!([4, 2, 1.5, 0.5]), "reassemble_factors"),
        ("fusion_hidden_size", json!(1), "fusion_hidden_size"),
        ("head_in_index", json!(4), "head_in_index"),
        ("depth_estimation_type", json!("absolute"), "absolute"),
        ("max_depth", json!(-1), "max_depth"),
    ];
    let backbone = [
        ("model_type", json!("dinov2_with_registers")),
        ("use_swiglu_ffn", json!(true)),
        ("reshape_hidden_states", json!(true)),
        ("out_indices", json!([1, 3, 2, 4])),
        ("out_indices", json!([1, 2, 3, 5])),
        ("num_attention_heads", json!(7)),
        ("image_size", json!(0)),
    ];
    let processor = [
        ("image_processor_type", json!("CLIPImageProcessor")),
        ("do_pad", json!(true)),
        ("resample", json!(1)),
        ("ensure_multiple_of", json!(0)),
        ("rescale_factor", json!(1.0)),
        ("size", json!({ "height": 0, "width": 56 })),
        ("image_std", json!([0.1, 0.0, 0.1])),
    ];
    let refuse = |file: &str, named: &str, change: &dyn Fn(&mut Value)| {
        let dir = copy_golden(CASES[0]);
        edit(dir.path(), file, change);
        let error = depth_anything::load(dir.path()).expect_err("it must not load").to_string();
        assert!(error.contains(named), "the error does not name {named}: {error}");
    };
    for (field, value, named) in own {
        refuse("config.json", named, &|json| json[field] = value.clone());
    }
    for (field, value) in backbone {
        refuse("config.json", &format!("backbone_config.{field}"), &|json| {
            json["backbone_config"][field] = value.clone()
        });
    }
    for (field, value) in processor {
        refuse("preprocessor_config.json", field, &|json| json[field] = value.clone());
    }
}

#[test]
fn tensors_that_do_not_fit_are_listed_in_one_error() {
    let dir = copy_golden(CASES[0]);
    let file = dir.path().join("model.safetensors");
    let mut tensors = Tensors::read(&file);
    tensors.0.remove("head.conv2.weight").expect("a tensor to remove");
    tensors.rename("neck.convs.1.weight", "neck.convs.9.weight");
    // What transformers has there and does not use may be missing.
    tensors.0.remove("neck.fusion_stage.layers.0.residual_layer1.convolution1.weight").expect("a tensor to remove");
    tensors.0.remove("backbone.embeddings.mask_token").expect("a tensor to remove");
    tensors.write(&file);
    let error = depth_anything::load(dir.path()).expect_err("it must not load");
    let ModelError::Tensors { problems, .. } = &error else { panic!("{error}") };
    assert_eq!(problems.len(), 3, "{error}");
    for name in ["missing     head.conv2.weight", "missing     neck.convs.1.weight", "unexpected  neck.convs.9.weight"]
    {
        assert!(error.to_string().contains(name), "the error does not name {name}: {error}");
    }
}

#[test]
fn photos_of_impossible_sizes_are_refused() {
    let (model, weights) = depth_anything::load(&path("golden").join(CASES[0])).expect("the golden model loads");
    for (width, height) in [(0, 10), (10, 0), (16384, 1), (1, 16384), (20000, 10)] {
        let options = DepthOptions { image: ImageSpec::rgb(width, height), taps: false, band_bytes: BAND_BYTES };
        let error = model.forward(&weights, &options).expect_err("no such photo");
        assert!(matches!(error, ModelError::Observation { .. }), "{width} × {height}: {error}");
    }
}
