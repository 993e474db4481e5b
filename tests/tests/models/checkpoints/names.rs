//! Names with levels too many, and weights that another program quantised.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use fathom_models::checkpoint::WeightFormat;
use fathom_models::families::depth_anything;
use fathom_models::quantize::pack::{self, Options, Source};
use fathom_models::quantize::scheme::{Named, Scheme};
use fathom_models::{FileError, ModelError, TensorProblem, families};
use fathom_tests::tensors::{Dtype, Tensors, copy_golden};

use super::{DEPTHVLA, LEROBOT, WEIGHTS, actions, expected, load, names_all, refused};

/// The golden with other names.
fn renamed(case: &str, name: impl Fn(&str) -> String) -> tempfile::TempDir {
    let dir = copy_golden(case);
    let file = dir.path().join(WEIGHTS);
    let mut tensors = Tensors::read(&file);
    tensors.0 = std::mem::take(&mut tensors.0).into_iter().map(|(old, tensor)| (name(&old), tensor)).collect();
    tensors.write(&file);
    dir
}

/// What is wrong with the tensors; nothing, where it is something else.
fn problems(error: &ModelError) -> &[TensorProblem] {
    match error {
        ModelError::Tensors { problems, .. } => problems,
        ModelError::OtherFamily { problem, .. } => problems(problem),
        _ => &[],
    }
}

/// With a level behind the first two.
fn inside(name: &str, level: &str) -> String {
    match name.match_indices('.').nth(1) {
        Some((dot, _)) if name.starts_with("model.") => format!("{}.{level}{}", &name[..dot], &name[dot..]),
        _ => format!("{level}.{name}"),
    }
}

/// PyTorch's wrappers change names and nothing else.
#[test]
fn the_levels_of_pytorchs_wrappers_change_nothing() {
    for case in [LEROBOT, DEPTHVLA, "depthvla_opz", "pi05_lerobot"] {
        let expected = expected(case);
        for wrapper in ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"] {
            for dir in [
                renamed(case, |name| format!("{wrapper}.{name}")),
                renamed(case, |name| inside(name, wrapper)),
                renamed(case, |name| format!("{wrapper}.{}", inside(name, "_orig_mod"))),
            ] {
                assert!(actions(dir.path(), &load(dir.path())) == expected, "{case}, {wrapper}: the same bits");
            }
        }
    }
    let dir = renamed("depth_anything_metric", |name| format!("_orig_mod.{name}"));
    depth_anything::load(dir.path()).expect("it loads");
}

#[test]
fn a_wrapped_checkpoint_is_detected_by_its_own_names() {
    let dir = renamed(LEROBOT, |name| format!("_orig_mod.{name}"));
    let file = dir.path().join(WEIGHTS);
    let mut tensors = Tensors::read(&file);
    let missing = "_orig_mod.model.paligemma_with_expert.gemma_expert.model.layers.1.mlp.up_proj.weight";
    tensors.0.remove(missing).expect("a tensor to remove");
    tensors.put("_orig_mod.surplus", WeightFormat::F32, &[2], &[0.0; 2]);
    tensors.write(&file);
    let error = refused(dir.path());
    names_all(&error, &[&format!("missing     {missing} [64, 32]"), "unexpected  _orig_mod.surplus [2]"]);
    assert_eq!(problems(&error).len(), 2, "{error}");

    // Of two names that would be one the wrapped one has no place.
    let dir = copy_golden(LEROBOT);
    let file = dir.path().join(WEIGHTS);
    let mut tensors = Tensors::read(&file);
    let twice = tensors.0["model.state_proj.bias"].clone();
    tensors.0.insert("model._orig_mod.state_proj.bias".to_owned(), twice);
    tensors.write(&file);
    let error = refused(dir.path());
    assert!(
        matches!(problems(&error), [TensorProblem::Unexpected { name, .. }] if name == "model._orig_mod.state_proj.bias"),
        "{error}"
    );
}

/// Packing keeps the names, and statistics beside them.
#[test]
fn a_wrapped_checkpoint_can_be_packed() {
    let dir = renamed(LEROBOT, |name| format!("_orig_mod.{name}"));
    let file = dir.path().join(WEIGHTS);
    let mut tensors = Tensors::read(&file);
    for list in ["mean", "std"] {
        let name = format!("_orig_mod.unnormalize_outputs.buffer_action.{list}");
        tensors.put(&name, WeightFormat::F32, &[7], &[2.0; 7]);
    }
    tensors.write(&file);
    for file in [super::PREPROCESSOR, super::POSTPROCESSOR] {
        std::fs::remove_file(dir.path().join(file)).expect("removed");
    }
    let source = load(dir.path());
    assert_eq!(source.normalization.action.offset, [2.0; 7]);
    let folder = tempfile::tempdir().expect("a folder");
    let packed = folder.path().join("packed");
    let scheme = Scheme::from(Named::W8);
    let options = Options {
        scheme: &scheme,
        shard_bytes: pack::SHARD_BYTES,
        calibration: None,
        program: "a test",
        cancel: &AtomicBool::new(false),
        progress: &|_| {},
    };
    pack::pack(dir.path(), &Source::open(dir.path(), None).expect("a source"), &packed, &options).expect("it packs");
    let loaded = load(&packed);
    assert_eq!(loaded.normalization.action.offset, [2.0; 7]);
    assert!(Tensors::read(&packed.join(WEIGHTS)).0.keys().all(|name| name.starts_with("_orig_mod.")));
}

/// Any other prefix can mean something (an average of weights, an adapter's base): it is named, with all that is wrong
/// besides.
#[test]
fn another_prefix_is_named() {
    for (case, family, prefix) in [
        (LEROBOT, "lerobot-pi0", "module."),
        (LEROBOT, "lerobot-pi0", "policy."),
        (LEROBOT, "lerobot-pi0", "model."),
        (LEROBOT, "lerobot-pi0", "base_model.model."),
        ("pi05_lerobot", "lerobot-pi05", "ema.averaged.module."),
        (DEPTHVLA, "depthvla", "policy."),
        ("depthvla_opz", "depthvla", "model."),
    ] {
        for middle in [false, true] {
            if middle && (case == DEPTHVLA || case == "depthvla_opz" || prefix == "model.") {
                continue;
            }
            let level = prefix.trim_end_matches('.');
            let name = |name: &str| if middle { inside(name, level) } else { format!("{prefix}{name}") };
            let dir = renamed(case, name);
            let error = refused(dir.path());
            let count = Tensors::read(&dir.path().join(WEIGHTS)).0.len();
            let [TensorProblem::Prefix { extra, count: found, .. }] = problems(&error) else {
                panic!("{case}, {prefix}: {error}")
            };
            // But for heads, which are not read under any name.
            assert!(extra == prefix && (count - 2..=count).contains(found), "{case}, {prefix}, {count}: {error}");
            names_all(
                &error,
                &[
                    &format!("prefix      {prefix:?} in the names of"),
                    &format!("save the weights again without {prefix:?} in their names"),
                    &format!("nearest known family: {family}: "),
                    &format!("(without {prefix:?})"),
                ],
            );

            // The rest is in the same list.
            let file = dir.path().join(WEIGHTS);
            let mut tensors = Tensors::read(&file);
            let removed = tensors.0.keys().find(|n| n.ends_with("layers.1.mlp.up_proj.weight")).expect("one").clone();
            tensors.0.remove(&removed);
            tensors.put("surplus", WeightFormat::F32, &[2], &[0.0; 2]);
            tensors.write(&file);
            let error = refused(dir.path());
            names_all(&error, &["layers.1.mlp.up_proj.weight", "unexpected  surplus [2]", "missing  "]);
            assert_eq!(problems(&error).len(), 3, "{error}");
        }
    }
    let dir = renamed("depth_anything_metric", |name| format!("module.{name}"));
    let error = depth_anything::load(dir.path()).map(|_| ()).expect_err("it must not load");
    assert!(matches!(problems(&error), [TensorProblem::Prefix { extra, .. }] if extra == "module."), "{error}");
    names_all(&error, &["nearest known family: Depth Anything V2", "(without \"module.\")"]);
}

/// How a program stores a matrix `(n, k)` whose name is `root` and `weight`.
type Store = fn(&mut Tensors, &str, usize, usize);

fn raw(tensors: &mut Tensors, name: String, dtype: Dtype, shape: &[usize], bytes: usize) {
    tensors.0.insert(name, (dtype, shape.to_vec(), vec![0; bytes]));
}

const STORES: [(&str, Store); 9] = [
    ("bitsandbytes (4 bits)", |t, root, n, k| {
        raw(t, format!("{root}weight"), Dtype::U8, &[n * k / 2, 1], n * k / 2);
        raw(t, format!("{root}weight.absmax"), Dtype::U8, &[n * k / 64], n * k / 64);
        raw(t, format!("{root}weight.quant_map"), Dtype::F32, &[16], 64);
        raw(t, format!("{root}weight.nested_absmax"), Dtype::F32, &[1], 4);
        raw(t, format!("{root}weight.nested_quant_map"), Dtype::F32, &[256], 1024);
        raw(t, format!("{root}weight.quant_state.bitsandbytes__nf4"), Dtype::U8, &[90], 90);
    }),
    ("bitsandbytes (8 bits)", |t, root, n, k| {
        raw(t, format!("{root}weight"), Dtype::I8, &[n, k], n * k);
        raw(t, format!("{root}SCB"), Dtype::F32, &[n], 4 * n);
        raw(t, format!("{root}weight_format"), Dtype::U8, &[], 1);
    }),
    ("GPTQ", |t, root, n, k| {
        raw(t, format!("{root}qweight"), Dtype::I32, &[k / 8, n], k * n / 2);
        raw(t, format!("{root}qzeros"), Dtype::I32, &[1, n / 8], n / 2);
        raw(t, format!("{root}scales"), Dtype::F16, &[1, n], 2 * n);
        raw(t, format!("{root}g_idx"), Dtype::I32, &[k], 4 * k);
    }),
    ("AWQ", |t, root, n, k| {
        raw(t, format!("{root}qweight"), Dtype::I32, &[k, n / 8], k * n / 2);
        raw(t, format!("{root}qzeros"), Dtype::I32, &[1, n / 8], n / 2);
        raw(t, format!("{root}scales"), Dtype::F16, &[1, n], 2 * n);
    }),
    ("compressed-tensors", |t, root, n, k| {
        raw(t, format!("{root}weight_packed"), Dtype::I32, &[n, k / 8], n * k / 2);
        raw(t, format!("{root}weight_scale"), Dtype::BF16, &[n, 1], 2 * n);
        raw(t, format!("{root}weight_shape"), Dtype::I64, &[2], 16);
    }),
    ("compressed-tensors", |t, root, n, k| {
        raw(t, format!("{root}weight"), Dtype::F8_E4M3, &[n, k], n * k);
        raw(t, format!("{root}weight_scale"), Dtype::BF16, &[n, 1], 2 * n);
        raw(t, format!("{root}input_scale"), Dtype::BF16, &[1], 2);
    }),
    ("FP8 with scales of blocks", |t, root, n, k| {
        raw(t, format!("{root}weight"), Dtype::F8_E4M3, &[n, k], n * k);
        raw(t, format!("{root}weight_scale_inv"), Dtype::F32, &[1, 1], 4);
    }),
    ("a converter to FP8", |t, root, n, k| raw(t, format!("{root}weight"), Dtype::F8_E5M2, &[n, k], n * k)),
    ("quanto", |t, root, n, k| {
        raw(t, format!("{root}weight._data"), Dtype::I8, &[n, k], n * k);
        raw(t, format!("{root}weight._scale"), Dtype::F32, &[n, 1], 4 * n);
    }),
];

/// Quantises the projections of the language models; their number.
fn quantise(dir: &Path, store: Store) -> usize {
    let file = dir.join(WEIGHTS);
    let mut tensors = Tensors::read(&file);
    let matrices: Vec<String> = tensors
        .0
        .keys()
        .filter(|name| name.ends_with("_proj.weight") && name.contains("layers.") && !name.contains("vision_tower"))
        .cloned()
        .collect();
    for name in &matrices {
        let (_, shape, _) = tensors.0.remove(name).expect("a matrix");
        store(&mut tensors, name.strip_suffix("weight").expect("its end"), shape[0], shape[1]);
    }
    tensors.write(&file);
    matrices.len()
}

#[test]
fn weights_of_another_quantiser_are_reported() {
    for (by, store) in STORES {
        for (case, family) in [(LEROBOT, "lerobot-pi0"), (DEPTHVLA, "depthvla"), ("pi05_lerobot", "lerobot-pi05")] {
            let dir = copy_golden(case);
            let count = quantise(dir.path(), store);
            let error = refused(dir.path());
            let found = problems(&error);
            assert_eq!(found.len(), count, "{by}, {case}: {error}");
            assert!(
                found.iter().all(|p| matches!(p, TensorProblem::Quantised { by: found, .. } if *found == by)),
                "{error}"
            );
            names_all(
                &error,
                &[
                    &format!("{count} tensor(s) do not fit"),
                    &format!("by {by}"),
                    "take the weights before that, and quantise them with fathom-pack",
                    &format!("nearest known family: {family}: "),
                    "(before they were quantised)",
                    // One line for all layers.
                    "layers.{0..2}.",
                ],
            );
            assert!(error.to_string().lines().count() < 30, "{error}");
            assert!(!error.to_string().contains("head_dim"), "{error}");
        }
    }
}

/// All at once: a prefix, a quantiser, a tensor that is missing and one too many.
#[test]
fn all_that_is_wrong_is_in_one_error() {
    let dir = renamed(LEROBOT, |name| format!("policy.{name}"));
    let file = dir.path().join(WEIGHTS);
    let mut tensors = Tensors::read(&file);
    tensors.0.remove("policy.model.state_proj.bias").expect("a tensor to remove");
    tensors.put("surplus", WeightFormat::F32, &[2], &[0.0; 2]);
    tensors.write(&file);
    let count = quantise(dir.path(), STORES[0].1);
    let error = refused(dir.path());
    let of = |wanted: fn(&TensorProblem) -> bool| problems(&error).iter().filter(|p| wanted(p)).count();
    assert_eq!(of(|p| matches!(p, TensorProblem::Prefix { extra, .. } if extra == "policy.")), 1, "{error}");
    assert_eq!(of(|p| matches!(p, TensorProblem::Quantised { .. })), count, "{error}");
    assert_eq!(of(|p| matches!(p, TensorProblem::Missing { .. })), 1, "{error}");
    names_all(&error, &["missing     model.state_proj.bias", "unexpected  surplus [2]", "lerobot-pi0"]);
    names_all(&error, &["(without \"policy.\", before they were quantised)"]);
}

/// Numbers of no known program, and half bytes without scales: not a head size.
#[test]
fn numbers_that_no_weight_has_are_all_listed() {
    for dtype in [Dtype::U8, Dtype::I8, Dtype::F64, Dtype::I32] {
        let dir = copy_golden(LEROBOT);
        let file = dir.path().join(WEIGHTS);
        let mut tensors = Tensors::read(&file);
        let mut count = 0;
        for (name, tensor) in &mut tensors.0 {
            if name.contains("q_proj.weight") || name.ends_with("state_proj.weight") {
                let shape = vec![tensor.1[0] / 2, tensor.1[1]];
                let bytes = shape[0] * shape[1] * dtype.bitsize() / 8;
                (*tensor, count) = ((dtype, shape, vec![0; bytes]), count + 1);
            }
        }
        tensors.write(&file);
        let error = refused(dir.path());
        assert_eq!(problems(&error).len(), count, "{error}");
        names_all(
            &error,
            &[&format!("expected F32, F16 or BF16, found {dtype:?}"), "layers.{0..2}.self_attn.q_proj.weight"],
        );
    }
}

/// A tensor that tells a size is not the only one that is listed.
#[test]
fn a_checkpoint_of_other_names_is_listed_whole() {
    let dir = renamed(LEROBOT, |name| name.replace("q_proj", "query").replace("fc1", "dense"));
    let error = refused(dir.path());
    let missing = problems(&error).iter().filter(|p| matches!(p, TensorProblem::Missing { .. })).count();
    let unexpected = problems(&error).iter().filter(|p| matches!(p, TensorProblem::Unexpected { .. })).count();
    // Queries of 3 + 3 + 2 layers with 2 biases, and 2 layers of a weight and a bias; the VLM's last query is not needed.
    assert_eq!((missing, unexpected), (13, 14), "{error}");
    names_all(&error, &["layers.{0..2}.self_attn.q_proj.weight [_, _] (3 tensors)"]);
    names_all(&error, &["layers.{0..1}.mlp.dense.bias [96] (2 tensors)"]);
    let error = families::load_as(dir.path(), Some(&families::openpi::FAMILY)).expect_err("no openpi configuration");
    assert!(matches!(error, ModelError::File(FileError::Json { .. })), "{error}");
}
