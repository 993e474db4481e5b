//! Equalities that hold for any weights. The first nine go by their letters in the list that the design started from:
//!
//! | | equality | also held by |
//! |---|---|---|
//! | a | pi0 ≡ DepthVLA with zero depth tokens | `tests/oracle/agreement.py` |
//! | b | packed prompt ≡ padded prompt | `agreement.py`, and every golden of lerobot, which pads |
//! | c | skipping masked cameras ≡ masking them | `agreement.py`, cases `pi0_masked_cameras`, `pi05_masked_camera` |
//! | d | cached state token ≡ recomputed | `agreement.py`: lerobot computes it in every step |
//! | e | folded norms and time branch ≡ unfolded, in f32 | |
//! | f | prefix kept over all flow steps ≡ full joint forward under the block mask | the goldens: the oracle keeps nothing |
//! | g | depth map on or off changes no action | |
//! | h | weights with interleaved RoPE pairs ≡ half-split pairs | |
//! | i | heads padded from 72 to 80 with zeros ≡ unpadded | |

#![expect(clippy::expect_used, reason = "a set-up that fails is a test that fails")]

use std::collections::BTreeMap;
use std::path::Path;

use fathom::engine::{Inputs, Session};
use fathom_models::checkpoint::{WeightFormat, fold, random};
use fathom_models::families::{self, Loaded};
use fathom_models::graph::builder::{Fused, GraphBuilder, Keys, Rope};
use fathom_models::graph::{Graph, Op};
use fathom_models::nets::config::{DepthHead, ModelConfig, TimeConditioning, TimeEmbedding};
use fathom_models::nets::depthvla::ForwardOptions;
use fathom_models::processing::observation::Observation;
use fathom_tests::graphs::{Parameters, Rig, on_twins, open_gpu, random_inputs};
use fathom_tests::tensors::{Tensors, copy_golden};
use fathom_tests::{Golden, inputs, options, path, relative_error};

type Stages = BTreeMap<String, Vec<f32>>;

/// The models of these goldens together have every variant of the forward pass.
const MODELS: [&str; 4] = ["depthvla_openpi", "depthvla_opz", "pi0_lerobot", "pi05_lerobot"];

pub(super) fn session(golden: &str) -> Session {
    let loaded = families::load(&path("golden").join(golden)).expect("the golden model loads");
    Session::open(open_gpu(false), loaded).expect("the weights fit")
}

pub(super) fn stages(session: &mut Session, observation: &Observation) -> Stages {
    let once = session.infer_once(observation, true).expect("it runs");
    once.outputs.into_iter().map(|o| (o.name, o.values)).collect()
}

/// The model of a golden with other weights, and the golden's observation.
struct Seeded {
    dir: tempfile::TempDir,
    loaded: Loaded,
    observation: Observation,
}

fn seeded(golden: &str, seed: u64) -> Seeded {
    let Golden { loaded, observation, .. } = Golden::load(golden);
    let dir = tempfile::tempdir().expect("a folder");
    families::depthvla::write_random(dir.path(), &loaded.model.config, seed).expect("the checkpoint is written");
    let loaded = families::load(dir.path()).expect("it loads");
    Seeded { dir, loaded, observation }
}

impl Seeded {
    fn config(&self) -> &ModelConfig {
        &self.loaded.model.config
    }

    fn graph(&self) -> Graph {
        self.loaded.model.forward(&self.loaded.weights, &options(&self.observation)).expect("the graph is built")
    }

    /// Every stage of `graph`, on the CPU twins.
    fn run(&self, graph: &Graph) -> Stages {
        on_twins(graph, &self.loaded.weights, &inputs(&self.loaded, &self.observation))
    }

    /// The same model after `alter` has changed its tensors and its configuration.
    fn altered(&self, alter: impl FnOnce(&mut Tensors, &mut ModelConfig)) -> Seeded {
        let mut config = self.config().clone();
        let mut tensors = Tensors::read(&self.dir.path().join("model.safetensors"));
        alter(&mut tensors, &mut config);
        let dir = tempfile::tempdir().expect("a folder");
        families::depthvla::write_random(dir.path(), &config, 0).expect("the configuration is written");
        tensors.write(&dir.path().join("model.safetensors"));
        let loaded = families::load(dir.path()).expect("it loads");
        Seeded { dir, loaded, observation: self.observation.clone() }
    }
}

/// Without the depth tokens in what state and actions attend to, a DepthVLA gives what its VLM and its action expert
/// alone give, which is a pi0.
#[test]
fn a_pi0_is_depthvla_with_zero_depth_tokens() {
    for (name, seed) in [("depthvla_openpi", 1), ("depthvla_opz", 2)] {
        let depthvla = seeded(name, seed);
        let depth = depthvla.config().depth.clone().expect("a depth branch");
        let n_depth = (depth.views.len() * depth.encoder.patches()) as u32;
        let mut graph = depthvla.graph();
        for (stage, op) in &mut graph.ops {
            let stage = graph.stages[usize::from(*stage)].as_str();
            if let Op::Attention { params, .. } = op
                && (stage == "state" || stage.starts_with("flow step"))
                && params.key_start == 0
            {
                (params.key_start, params.key_count) = (n_depth, params.key_count - n_depth);
            }
        }
        let pi0 = depthvla.altered(|tensors, config| {
            config.depth = None;
            tensors.0.retain(|name, _| !name.starts_with("depth_") && !name.contains("mixtures.depth"));
        });
        let (whole, found, expected) = (depthvla.run(&depthvla.graph()), depthvla.run(&graph), pi0.run(&pi0.graph()));
        assert!(expected.iter().all(|(stage, values)| &found[stage] == values), "{name}: the same bits");
        assert!(whole["actions"] != expected["actions"], "{name}: depth tokens matter");
    }
}

/// How long a prompt may be changes nothing, since padding never enters.
#[test]
fn b_packed_prompts_are_padded_prompts() {
    for name in MODELS {
        let packed = seeded(name, 3);
        let roomier = packed.altered(|_, config| config.max_tokens += 77);
        assert!(packed.run(&packed.graph()) == roomier.run(&roomier.graph()), "{name}: the same bits");
    }
    let golden = Golden::load("pi0_lerobot");
    let padding = golden.loaded.model.config.max_tokens - golden.observation.tokens.len();
    assert_eq!(padding, 6, "lerobot padded, and the stages are compared without the padding");
    golden.compare_twins();
}

/// lerobot pads with cameras that are never there and masks them; leaving them out is the same, and costs nothing.
#[test]
fn c_masked_cameras_are_left_out() {
    let dir = copy_golden("pi0_lerobot");
    alter_file(&dir.path().join("config.json"), |text| {
        let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        config["empty_cameras"] = 1.into();
        config["input_features"]["observation.images.empty_camera_0"] =
            serde_json::json!({"type": "VISUAL", "shape": [3, 56, 56]});
        config.to_string()
    });
    let loaded = families::load(dir.path()).expect("it loads");
    assert_eq!(loaded.model.config, Golden::load("pi0_lerobot").loaded.model.config);
}

/// With the stages `again` computed anew before each flow step, every stage is the same to the bit, on twins and GPU;
/// and the flow steps leave what they attend to as they found it.
fn assert_kept(name: &str, again: impl Fn(&str) -> bool) {
    let model = seeded(name, 5);
    let graph = model.graph();
    let stage = |index: u16| graph.stages[usize::from(index)].as_str();
    let repeated: Vec<(u16, Op)> = graph.ops.iter().filter(|(index, _)| again(stage(*index))).copied().collect();
    assert!(!repeated.is_empty(), "{name}: there is such a stage");
    let mut anew = Vec::new();
    for step in graph.ops.chunk_by(|(a, _), (b, _)| a == b) {
        if stage(step[0].0).starts_with("flow step") {
            anew.extend(repeated.iter().copied());
        }
        anew.extend(step.iter().copied());
    }
    let anew = Graph { ops: anew, ..graph.clone() };
    let before = graph.ops.iter().filter(|(index, _)| !stage(*index).starts_with("flow step")).copied().collect();
    let before = Graph { ops: before, ..graph.clone() };

    let given = inputs(&model.loaded, &model.observation);
    let mut rig = Rig::new(open_gpu(false), &model.loaded.model.params, &model.loaded.weights);
    for (place, [kept, anew, before]) in [
        ("twins", [&graph, &anew, &before].map(|graph| model.run(graph))),
        ("GPU", [&graph, &anew, &before].map(|graph| rig.run(graph, &given).0)),
    ] {
        assert!(kept == anew, "{name}, {place}: the same bits");
        for (stage, values) in before.iter().filter(|(stage, _)| stage.contains(".layers.")) {
            assert!(values == &kept[stage], "{name}, {place}: a flow step changed {stage}");
        }
    }
}

#[test]
fn d_a_cached_state_token_is_a_recomputed_one() {
    for name in &MODELS[..3] {
        assert_kept(name, |stage| stage == "state");
    }
}

#[test]
fn f_a_kept_prefix_is_a_recomputed_one() {
    for name in MODELS {
        assert_kept(name, |stage| !stage.starts_with("flow step"));
    }
}

/// Folds a norm's scale and bias into the layers that read it, where they are there. `offset` is what the scale adds to
/// the weight.
fn fold_norm(t: &mut Tensors, norm: &str, readers: &[String], offset: f32) {
    let (shape, weight) = t.values(&format!("{norm}.weight"));
    let scale: Vec<f32> = weight.iter().map(|w| w + offset).collect();
    let shift = t.0.contains_key(&format!("{norm}.bias")).then(|| t.values(&format!("{norm}.bias")).1);
    for reader in readers.iter().filter(|r| t.0.contains_key(&format!("{r}.weight"))).cloned().collect::<Vec<_>>() {
        let (matrix, mut w) = t.values(&format!("{reader}.weight"));
        if let Some(shift) = &shift {
            let (vector, mut bias) = t.values(&format!("{reader}.bias"));
            fold::fold_shift(&mut bias, &w, shift);
            t.put(&format!("{reader}.bias"), WeightFormat::F32, &vector, &bias);
        }
        fold::fold_scale(&mut w, &scale);
        t.put(&format!("{reader}.weight"), WeightFormat::F32, &matrix, &w);
    }
    t.put(&format!("{norm}.weight"), WeightFormat::F32, &shape, &vec![1.0 - offset; scale.len()]);
    if shift.is_some() {
        t.put(&format!("{norm}.bias"), WeightFormat::F32, &shape, &vec![0.0; scale.len()]);
    }
}

/// Folds every norm that layers read, as far as it has a weight of its own.
fn fold_norms(t: &mut Tensors) -> usize {
    const READERS: [(&str, &[&str], f32); 6] = [
        ("input_layernorm", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], 1.0),
        ("post_attention_layernorm", &["mlp.gate_proj", "mlp.up_proj"], 1.0),
        ("layer_norm1", &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], 0.0),
        ("layer_norm2", &["mlp.fc1"], 0.0),
        ("norm1", &["attention.attention.query", "attention.attention.key", "attention.attention.value"], 0.0),
        ("norm2", &["mlp.fc1"], 0.0),
    ];
    let names: Vec<String> = t.0.keys().cloned().collect();
    let mut folded = 0;
    for (norm, readers, offset) in READERS {
        for layer in names.iter().filter_map(|name| name.strip_suffix(&format!(".{norm}.weight"))) {
            let readers: Vec<String> = readers.iter().map(|reader| format!("{layer}.{reader}")).collect();
            fold_norm(t, &format!("{layer}.{norm}"), &readers, offset);
            folded += 1;
        }
    }
    for (mixture, readers) in [("action", ["action_decoder", "action_decoder.proj.0.0"]), ("depth", ["depth_head"; 2])]
    {
        let norm = format!("joint_model.mixtures.{mixture}.norm");
        if t.0.contains_key(&format!("{norm}.weight")) {
            let readers: &[&str] = if mixture == "depth" { &readers[..1] } else { &readers };
            fold_norm(t, &norm, &readers.iter().map(|r| (*r).to_owned()).collect::<Vec<_>>(), 1.0);
            folded += 1;
        }
    }
    folded
}

/// Folds `linear_1` of the action encoder into the action half of `linear_2`, which becomes the identity.
fn fold_time(t: &mut Tensors, config: &ModelConfig) {
    let [first, second] = ["action_encoder.linear_1", "action_encoder.linear_2"];
    let (inner_shape, inner) = t.values(&format!("{first}.weight"));
    let (vector, b) = t.values(&format!("{first}.bias"));
    let (outer_shape, mut outer) = t.values(&format!("{second}.weight"));
    let mut bias = t.values(&format!("{second}.bias")).1;
    let width = b.len();
    let from = if matches!(config.time_embedding, TimeEmbedding::Openpi { .. }) { 0 } else { width };
    let folded = fold::fold_linear(&fold::columns(&outer, 2 * width, from, width), &mut bias, &inner, &b);
    for (row, values) in outer.chunks_exact_mut(2 * width).enumerate() {
        values[from..from + width].fill(0.0);
        values[from + row] = 1.0;
    }
    for (name, shape, values) in [
        (format!("{first}.weight"), &inner_shape, folded),
        (format!("{first}.bias"), &vector, vec![0.0; width]),
        (format!("{second}.weight"), &outer_shape, outer),
        (format!("{second}.bias"), &vector, bias),
    ] {
        t.put(&name, WeightFormat::F32, shape, &values);
    }
}

#[test]
fn e_folded_norms_and_time_branch_are_unfolded_ones() {
    for name in MODELS {
        let own = seeded(name, 7);
        let token = own.config().time_conditioning == TimeConditioning::Token;
        let folded = own.altered(|tensors, config| {
            assert!(fold_norms(tensors) >= config.layers + 2 * config.vision.layers, "the norms are found");
            if token {
                fold_time(tensors, config);
            }
        });
        let (expected, found) = (own.run(&own.graph()), folded.run(&folded.graph()));
        assert!(expected != found, "{name}: the sums are others");
        for (stage, values) in &expected {
            let error = relative_error(values, &found[stage]);
            assert!(error <= 1e-5, "{name}, {stage}: {error:.1e}");
        }
    }
}

#[test]
fn g_the_depth_map_changes_no_action() {
    for name in &MODELS[..2] {
        let Seeded { loaded, observation, .. } = seeded(name, 8);
        assert!(loaded.model.config.depth.as_ref().is_some_and(|d| d.head != DepthHead::None), "it has a depth head");
        let mut session = Session::open(open_gpu(false), loaded).expect("the weights fit");
        let images: Vec<&[u8]> = observation.images.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        let given = Inputs { images: &images, state: &observation.state, noise: &observation.noise };
        let mut infer = |depth_map: bool| -> Stages {
            let options = ForwardOptions { depth_map, taps: false, ..options(&observation) };
            session.prepare(&options, &observation.tokens).expect("it prepares");
            let outputs = session.infer(&given, false).expect("it runs").0;
            outputs.iter().map(|o| (o.name.clone(), o.values.clone())).collect()
        };
        let (with, without) = (infer(true), infer(false));
        assert!(with.len() > 1 && without.len() == 1, "{name}: maps and actions, or actions alone");
        assert!(with["actions"] == without["actions"], "{name}: the same bits");
    }
}

/// Queries and keys of interleaved weights, turned by pairs `(2i, 2i + 1)`, are those of half-split weights in another
/// order, and attention gives the same.
#[test]
fn h_interleaved_weights_are_half_split_ones() {
    let (rows, width, heads, head_dim) = (7, 24, 3, 10);
    let w: Vec<f32> = random::normal(1, heads * head_dim * width);
    let angles = random::normal(2, rows * head_dim / 2);
    let table: Vec<f32> = angles.iter().flat_map(|a| [a.cos(), a.sin()]).collect();
    // Rotated by the product's RoPE, or not at all.
    let project = |w: &[f32], rotate: bool| {
        let mut parameters = Parameters::default();
        let queries = parameters.tensors_of(w, &vec![0.0; heads * head_dim]);
        let g = &mut GraphBuilder::default();
        g.stage("project");
        let x = g.input("x", rows, width);
        let y = if rotate {
            let [k, v] = [0, 1].map(|_| parameters.tensors(head_dim, width, WeightFormat::F32));
            let layer = parameters.table.stack(&[queries, k, v], head_dim / 2);
            let table = g.constant("rope", rows, head_dim, &table);
            let cache = g.activation("cache", 2 * rows, head_dim);
            let keys_values = Some([cache.slice(0, rows), cache.slice(rows, rows)]);
            g.linear(x, &layer, Fused { rope: Some(Rope { table, first: 0 }), keys_values, ..Fused::default() })
        } else {
            let layer = parameters.table.stack(&[queries], 0);
            g.linear(x, &layer, Fused::default())
        };
        g.output("y", y);
        let graph = std::mem::take(g).finish().expect("shapes fit");
        on_twins(&graph, &parameters.weights(), &random_inputs(&graph))["y"].clone()
    };
    let half_split = project(&w, true);
    let mut interleaved = project(&fold::interleave_pairs(&w, head_dim, width), false);
    for (i, pair) in interleaved.chunks_exact_mut(2).enumerate() {
        let (row, at) = (i / (heads * head_dim / 2), i % (head_dim / 2));
        let (a, b, turn) = (pair[0], pair[1], 2 * (row * head_dim / 2 + at));
        let (cos, sin) = (table[turn], table[turn + 1]);
        (pair[0], pair[1]) = (a * cos - b * sin, b * cos + a * sin);
    }
    assert!(fold::interleave_pairs(&half_split, head_dim, 1) == interleaved, "the same bits in another order");

    let attend = |queries_and_keys: &[f32]| {
        let g = &mut GraphBuilder::default();
        g.stage("attend");
        let qk = g.constant("q and k", rows, heads * head_dim, queries_and_keys);
        let v = g.input("v", rows, heads * head_dim);
        let a = g.attention(qk, qk, v, Keys::range(0, rows), head_dim, None);
        g.output("a", a);
        let graph = std::mem::take(g).finish().expect("shapes fit");
        on_twins(&graph, &Parameters::default().weights(), &random_inputs(&graph))["a"].clone()
    };
    let error = relative_error(&attend(&half_split), &attend(&interleaved));
    assert!(error <= 1e-5, "{error:.1e}");
}

/// SigLIP's heads of 72 with zeros to 80, on twins and GPU: queries, keys and values have the zeros in the rows of their
/// weights, the output projection in its columns. The scale stays that of 72.
#[test]
fn i_padded_heads_are_unpadded_ones() {
    let (heads, width, tokens) = (2, 144, 5);
    let normal = |seed: u64, n: usize| random::normal(seed, n).into_iter().map(|v| v / 12.0).collect::<Vec<f32>>();
    let run = |head_dim: usize| {
        let pad = |values: &[f32], of: usize| fold::pad_runs(values, 72 * of, head_dim * of);
        let mut parameters = Parameters::default();
        let projections: Vec<_> = (0..3)
            .map(|i| (pad(&normal(i, width * width), width), pad(&normal(i + 9, width), 1)))
            .map(|(w, bias)| parameters.linear_of(&w, &bias))
            .collect();
        let out = parameters.linear_of(&pad(&normal(4, width * width), 1), &normal(5, width));
        let g = &mut GraphBuilder::default();
        g.stage("attention");
        let x = g.input("x", 2 * tokens, width);
        let [q, k, v] = [0, 1, 2].map(|i| g.linear(x, &projections[i], Fused::default()));
        assert_eq!(q.cols, heads * head_dim);
        let a = g.attention(q, k, v, Keys::blocks(tokens), head_dim, None);
        let y = g.linear(a, &out, Fused::default());
        g.output("y", y);
        let mut graph = std::mem::take(g).finish().expect("shapes fit");
        for (_, op) in &mut graph.ops {
            if let Op::Attention { params, .. } = op {
                params.scale = 1.0 / 72_f32.sqrt();
            }
        }
        let (weights, given) = (parameters.weights(), random_inputs(&graph));
        let twins = on_twins(&graph, &weights, &given)["y"].clone();
        (twins, Rig::new(open_gpu(false), &parameters.table, &weights).run(&graph, &given).0["y"].clone())
    };
    let ((twins, gpu), (padded_twins, padded_gpu)) = (run(72), run(80));
    assert!(twins == padded_twins, "twins: the same bits");
    let error = relative_error(&gpu, &padded_gpu);
    assert!(error <= 1e-6, "GPU: {error:.1e}");
}

/// The stages whose names begin with one of `prefixes` are the same to the bit.
fn assert_untouched(by: &str, before: &Stages, after: &Stages, prefixes: &[&str]) {
    for prefix in prefixes {
        let mut of = before.iter().filter(|(name, _)| name.starts_with(prefix)).peekable();
        assert!(of.peek().is_some(), "there is a stage {prefix}…");
        for (name, values) in of {
            assert!(values == &after[name], "{by} reached {name}, which must not see it");
        }
    }
}

/// Who sees whom: a change reaches the blocks that the mask lets it reach, and no other.
#[test]
fn the_block_mask_keeps_changes_where_they_belong() {
    let golden = Golden::load("depthvla_openpi");
    let mut session = session("depthvla_openpi");
    let before = stages(&mut session, &golden.observation);
    let mut altered = |alter: &dyn Fn(&mut Observation)| {
        let mut observation = golden.observation.clone();
        alter(&mut observation);
        stages(&mut session, &observation)
    };
    let prefix = ["vision.", "projector.", "depth_encoder.", "depth.base", "depth.layers.", "vlm.layers."];

    let after = altered(&|o| o.noise[0] += 1.0);
    assert_untouched("the noise", &before, &after, &[&prefix[..], &["state.layers."]].concat());
    assert!(before["velocity.0"] != after["velocity.0"], "the action tokens see the noise");

    let after = altered(&|o| o.state[0] += 1.0);
    assert_untouched("the state", &before, &after, &prefix);
    assert!(before["state.layers.0.k"] != after["state.layers.0.k"], "the state token sees the state");

    let after = altered(&|o| o.tokens[0] += 1);
    assert_untouched("the prompt", &before, &after, &prefix[..5]);
    assert!(before["vlm.layers.1.k"] != after["vlm.layers.1.k"], "the VLM's tokens see the prompt");
    assert!(before["state.layers.1.k"] != after["state.layers.1.k"], "the state token sees the prompt");

    let after = altered(&|o| o.images[1].1.fill(200));
    assert_untouched("the wrist's image", &before, &after, &["vision.base", "projector.base", "depth_encoder.base"]);
    for reached in ["vision.wrist", "depth_encoder.wrist", "vlm.layers.1.k", "depth.layers.1.k", "state.layers.1.k"] {
        assert!(before[reached] != after[reached], "{reached} sees the wrist's image");
    }
}

pub(super) fn alter_file(path: &Path, alter: impl Fn(String) -> String) {
    let text = std::fs::read_to_string(path).expect("the file is there");
    let altered = alter(text.clone());
    assert!(altered != text, "{} is altered", path.display());
    std::fs::write(path, altered).expect("the file is written");
}
