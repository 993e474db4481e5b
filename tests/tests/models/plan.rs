//! What an inference does, counted in the list that the GPU replays: dispatches, operations, bytes, and what devices need
//! at least. No GPU but where the test says so.

#![expect(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use fathom::engine::{Choice, DEVICES, FLOW, Kernels, Plan, Session, StageWork, Wanted, Work};
use fathom_models::checkpoint::{WeightFormat, Weights};
use fathom_models::graph::precision::Float;
use fathom_models::nets::config::ModelConfig;
use fathom_models::nets::depthvla::{ForwardOptions, Model};
use fathom_models::nets::image::ImageSpec;
use fathom_models::nets::presets;
use fathom_models::quantize::scheme::{Named, Scheme};
use fathom_tests::Golden;
use fathom_tests::graphs::open_gpu;

/// Of the full-size model with weights of these formats, or all in one.
fn plan(config: ModelConfig, tokens: usize, depth_map: bool, scheme: Option<Named>, choice: impl Into<Choice>) -> Plan {
    let model = Model::new(config).expect("a valid configuration");
    let targets = scheme.map(|s| Scheme::from(s).assign(&model.params).expect("it fits").targets);
    let weights = Weights::planned(&model.params, |id, _| {
        targets.as_ref().map_or(WeightFormat::Bf16, |t| t[id.0 as usize].format(WeightFormat::Bf16))
    });
    let images = vec![ImageSpec::rgb(640, 480); model.config.views.len()];
    let options = ForwardOptions { images, prompt_tokens: tokens, depth_map, guided: false, taps: false };
    let graph = model.forward(&weights, &options).expect("the shapes fit");
    Plan::of(&graph, &model.params, &weights, choice).expect("it is lowered")
}

fn full(views: usize) -> ModelConfig {
    let mut config = presets::depthvla();
    config.views = (0..views).map(|i| format!("view {i}")).collect();
    config.depth.as_mut().expect("a depth branch").views.clone_from(&config.views);
    config
}

fn stage<'a>(plan: &'a Plan, name: &str) -> &'a StageWork {
    plan.stages.iter().find(|s| s.name == name).expect("a stage of that name")
}

#[test]
fn the_full_size_model_stays_within_its_dispatches() {
    for kernels in [Kernels::Coop16, Kernels::Tiled] {
        for scheme in [None, Some(Named::W8), Some(Named::W4), Some(Named::W4All)] {
            let plan = plan(full(1), 20, false, scheme, kernels);
            let [action, other] = plan.dispatches();
            // Five a layer, and three: what the actions become, and what becomes of them.
            assert_eq!(action, 10 * (18 * 5 + 3), "{kernels}, {scheme:?}");
            assert!(other <= 700, "{other} dispatches in all else: {kernels}, {scheme:?}");
            let towers = ["vision tower", "VLM prefix", "depth encoder", "depth prefix"];
            let towers: u64 = towers.iter().map(|name| stage(&plan, name).dispatches).sum();
            assert!(towers <= 620, "{towers} dispatches in towers and prefixes: {kernels}, {scheme:?}");
        }
    }
}

/// What is stored in f16 is half as many bytes to store and to move, and not one dispatch more or less.
#[test]
fn tensors_in_f16_are_half_as_large() {
    let of = |kv, activations| Wanted { kernels: None, kv: Some(kv), activations: Some(activations) };
    let plan = |wanted: Wanted| plan(full(1), 20, false, None, wanted.with(Kernels::Coop16));
    let (exact, kv, both) =
        (plan(of(Float::F32, Float::F32)), plan(of(Float::F16, Float::F32)), plan(of(Float::F16, Float::F16)));
    // Depth, image and text, state, action; keys and values of a head of 256; 18 layers.
    assert_eq!(exact.kv, (256 + 276 + 1 + 16) * 2 * 256 * 18 * 4);
    assert_eq!((kv.kv, both.kv), (exact.kv / 2, exact.kv / 2));
    assert!(both.arena < kv.arena && kv.arena < exact.arena, "{} {} {}", exact.arena, kv.arena, both.arena);
    assert_eq!((exact.dispatches(), exact.weights), (both.dispatches(), both.weights));
    for name in ["vision tower", "VLM prefix", "depth encoder", "depth prefix", FLOW] {
        let [a, b, c] = [&exact, &kv, &both].map(|plan| stage(plan, name));
        assert_eq!((a.flops, a.weight_bytes), (c.flops, c.weight_bytes), "{name}");
        assert!(c.activation_bytes < a.activation_bytes, "{name}");
        assert_eq!(b.activation_bytes < a.activation_bytes, !name.contains("er"), "{name}: towers have no cache");
    }
    // A flow step reads all keys and values once a layer, and writes those of its 16 actions.
    let moved = |plan: &Plan| stage(plan, FLOW).activation_bytes;
    assert_eq!(moved(&exact) - moved(&kv), 10 * 18 * 2 * 256 * (549 + 16) * 2);
}

/// Where nobody reads what comes after the last layer's keys and values, it is not computed: at 2·M·K operations a weight,
/// the depth map costs the last layer's queries, output and MLP and a head, and no other stage changes.
#[test]
fn the_last_layer_stops_at_keys_and_values() {
    let [without, with] = [false, true].map(|map| plan(full(1), 20, map, None, Kernels::Coop16));
    let whole_layer = |width: u64, mlp: u64| 2 * width * 2048 + 3 * width * mlp;
    let attention = 4 * 256 * 256 * 2048;
    let rest = stage(&with, "depth prefix").flops - stage(&without, "depth prefix").flops;
    assert_eq!(rest, 2 * 256 * whole_layer(1024, 4096) + attention);
    assert_eq!(stage(&with, "depth map").flops, 2 * 256 * 1024 * 196);
    assert!(without.stages.iter().all(|s| s.name != "depth map"));
    for name in ["vision tower", "VLM prefix", "depth encoder", "state", FLOW] {
        assert_eq!(stage(&with, name), stage(&without, name), "{name}");
    }
    // Seventeen layers, and of the eighteenth keys and values.
    let per_layer = 2 * 276 * (whole_layer(2048, 16384) + 2 * 2048 * 256) + 4 * 276 * 276 * 2048;
    assert_eq!(stage(&without, "VLM prefix").flops, 17 * per_layer + 2 * 276 * 2 * 2048 * 256);
}

/// Against an arithmetic of its own, from the shapes of the layers alone (GFLOP of 1, 2 and 3 views with 20, 32 and 48
/// tokens). It counts the state token in every flow step, where we compute it once: 16 rows of 17.
#[test]
fn operations_are_those_of_the_roofline() {
    let expected = [
        (1, 20, [220.3, 162.0, 1044.4, 160.0, 120.0]),
        (2, 32, [440.7, 324.1, 2079.3, 338.4, 133.2]),
        (3, 48, [661.0, 486.1, 3149.0, 535.2, 146.2]),
    ];
    for (views, tokens, gflop) in expected {
        let plan = plan(full(views), tokens, false, None, Kernels::Coop16);
        let names = ["vision tower", "depth encoder", "VLM prefix", "depth prefix", FLOW];
        for (name, expected) in names.iter().zip(gflop) {
            let expected = if *name == FLOW { expected * 16.0 / 17.0 } else { expected };
            let found = stage(&plan, name).flops as f64 / 1e9;
            assert!((found / expected - 1.0).abs() < 0.01, "{views} views, {name}: {found} GFLOP, {expected} expected");
        }
    }
}

/// The same arithmetic's bytes of weights in 16 bits and in 8, and its time on an AGX Orin.
#[test]
fn bytes_and_times_are_those_of_the_roofline() {
    let gigabytes = |plan: &Plan, name: &str| stage(plan, name).weight_bytes as f64 / 1e9;
    let names = ["vision tower", "depth encoder", "VLM prefix", "depth prefix", FLOW];
    let in_16_bits = [0.828, 0.605, 3.746, 0.589, 6.229];
    for (scheme, share) in [(None, 1.0), (Some(Named::W8), 0.5)] {
        let plan = plan(full(1), 20, false, scheme, Kernels::Coop16);
        for (name, bytes) in names.iter().zip(in_16_bits) {
            let (found, expected) = (gigabytes(&plan, name), bytes * share);
            assert!((found / expected - 1.0).abs() < 0.02, "{scheme:?}, {name}: {found} GB, {expected} expected");
        }
    }
    let agx = DEVICES.iter().find(|d| d.name == "AGX Orin 64 GB").expect("it is among them");
    let bf16 = agx.bound(&plan(full(1), 20, false, None, Kernels::Coop16));
    // 220, 162, 1044 and 160 GFLOP at 42.5 TFLOP/s; the state's and the flow steps' bytes at 204.8 GB/s.
    let expected = (220.2 + 162.0 + 1044.4 + 160.0) / 42.5 + (0.59 + 6.25) / 204.8 * 1e3;
    assert!((bf16.total_ms / expected - 1.0).abs() < 0.01, "{bf16:?}, {expected} expected");
    assert!(bf16.with_activations_ms > bf16.total_ms && bf16.flow_ms < bf16.total_ms, "{bf16:?}");
    let tiled = agx.bound(&plan(full(1), 20, false, None, Kernels::Tiled));
    assert!(tiled.total_ms > 4.0 * bf16.total_ms, "without matrix units: {tiled:?}");
}

/// What is counted without a GPU is what a GPU replays.
#[test]
fn a_plan_is_the_recording() {
    let golden = Golden::load("depthvla_openpi");
    let options = ForwardOptions { taps: false, ..golden.options() };
    let graph = golden.loaded.model.forward(&golden.loaded.weights, &options).expect("the shapes fit");
    let gpu = open_gpu(false);
    let kernels = Kernels::of(gpu.info());
    let plan = Plan::of(&graph, &golden.loaded.model.params, &golden.loaded.weights, kernels).expect("it is lowered");
    let mut session = Session::open(gpu, golden.loaded).expect("the weights fit");
    session.prepare(&options, &golden.observation.tokens).expect("it prepares");
    assert_eq!(session.gpu_bytes(), (plan.weights, plan.arena));
    assert_eq!(session.dispatches() as u64, plan.stages.iter().map(|s| s.dispatches).sum::<u64>());
    let mut whole = Work::default();
    session.work().iter().for_each(|work| whole += *work);
    let sum = |of: fn(&StageWork) -> u64| plan.stages.iter().map(of).sum::<u64>();
    assert_eq!(
        (whole.flops, whole.weight_bytes, whole.activation_bytes),
        (sum(|s| s.flops), sum(|s| s.weight_bytes), sum(|s| s.activation_bytes))
    );
}
