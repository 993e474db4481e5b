//! One expert of the mixture: Gemma layers that write their keys and values into the shared cache and attend to a range
//! of it.

use crate::graph::Tensor;
use crate::graph::builder::{Activation, Fused, GraphBuilder, Keys, Rope};
use crate::graph::params::{Linear, ParamId, ParamTable, Role};
use crate::nets::config::{Attention, Expert};

/// Parameters of one layer of width W; the norms' weights are zero-centred (`1 + w`).
#[derive(Clone, Debug)]
struct Layer {
    input_norm: ExpertNorm,
    /// (2 · kv_heads · head_dim, W)
    kv: Linear,
    /// The layer after its keys and values, if its output is read.
    rest: Option<Rest>,
}

#[derive(Clone, Debug)]
struct Rest {
    qkv: Linear, // ((heads + 2 · kv_heads) · head_dim, W)
    o: Linear,   // (W, heads · head_dim)
    post_norm: ExpertNorm,
    gate_up: Linear, // (2 · mlp, W)
    down: Linear,    // (W, mlp)
}

/// An RMSNorm of width W.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ExpertNorm {
    /// `(W,)`
    Plain(ParamId),
    /// `(3 W, W)`: scale, shift and gate from the condition.
    Ada(Linear),
}

impl ExpertNorm {
    /// The norm `name` of width `w`, with a weight or (`ada`) conditioned.
    pub(crate) fn declare(t: &mut ParamTable, name: &str, w: usize, ada: bool) -> ExpertNorm {
        if ada {
            ExpertNorm::Ada(t.linear(&format!("{name}.dense"), 3 * w, w, true))
        } else {
            ExpertNorm::Plain(t.vector(format!("{name}.weight"), w))
        }
    }
}

/// Scale, shift and gate of the norms at every flow step, in the order of the norms in a step:
/// `(steps, 3 W)` each. Empty if the norms have weights.
#[derive(Clone, Debug, Default)]
pub(crate) struct Modulations(Vec<Tensor>);

impl Modulations {
    /// Of `w`'s layers and the norm after them, for the conditions `(steps, W)` of all steps.
    pub(crate) fn compute(g: &mut GraphBuilder, w: &ExpertParams, last: ExpertNorm, conditions: Tensor) -> Modulations {
        let norms =
            w.layers.iter().flat_map(|l| std::iter::once(l.input_norm).chain(l.rest.as_ref().map(|r| r.post_norm)));
        let norms = norms.chain([last]);
        let dense = norms.filter_map(|n| if let ExpertNorm::Ada(dense) = n { Some(dense) } else { None });
        Modulations(dense.map(|dense| g.linear(conditions, &dense, Fused::default())).collect())
    }

    /// Those of one step, `(1, 3 W)` each.
    pub(crate) fn at(&self, step: usize) -> Modulations {
        Modulations(self.0.iter().map(|m| m.slice(step, 1)).collect())
    }

    /// After the last layer.
    pub(crate) fn last(&self) -> Option<Tensor> {
        self.0.last().copied()
    }
}

/// Parameters of an expert's layers.
#[derive(Clone, Debug)]
pub(crate) struct ExpertParams {
    layers: Vec<Layer>,
}

impl ExpertParams {
    /// `layers` Gemma layers under `joint_model.mixtures.{name}`. With `ada` the norms are conditioned; with `keys_only`
    /// nobody ever reads what the last layer makes of its keys and values, and the checkpoint need not have those weights.
    pub(crate) fn declare(
        t: &mut ParamTable,
        name: &str,
        e: &Expert,
        a: &Attention,
        layers: usize,
        (ada, keys_only): (bool, bool),
    ) -> ExpertParams {
        let (w, q, kv) = (e.width, a.heads * a.head_dim, a.kv_heads * a.head_dim);
        let half = a.head_dim / 2;
        let layers = (0..layers)
            .map(|i| {
                let part = |part: &str| format!("joint_model.mixtures.{name}.layers.{i}.{part}");
                let input_norm = ExpertNorm::declare(t, &part("input_layernorm"), w, ada);
                let [k, v] = ["k", "v"].map(|p| t.tensors(&part(&format!("self_attn.{p}_proj")), kv, w, false));
                if keys_only && i + 1 == layers {
                    for (p, shape) in [
                        ("self_attn.q_proj", vec![q, w]),
                        ("self_attn.o_proj", vec![w, q]),
                        ("post_attention_layernorm", vec![w]),
                        ("mlp.gate_proj", vec![e.mlp, w]),
                        ("mlp.up_proj", vec![e.mlp, w]),
                        ("mlp.down_proj", vec![w, e.mlp]),
                    ] {
                        t.declare(format!("{}.weight", part(p)), &shape, Role::Unused);
                    }
                    return Layer { input_norm, kv: t.stack(&[k, v], half), rest: None };
                }
                let q_proj = t.tensors(&part("self_attn.q_proj"), q, w, false);
                let qkv = t.stack(&[q_proj, k, v], half);
                let o = t.linear(&part("self_attn.o_proj"), w, q, false);
                let post_norm = ExpertNorm::declare(t, &part("post_attention_layernorm"), w, ada);
                let gate_up = ["gate", "up"].map(|p| t.tensors(&part(&format!("mlp.{p}_proj")), e.mlp, w, false));
                let gate_up = t.stack(&gate_up, e.mlp);
                let down = t.linear(&part("mlp.down_proj"), w, e.mlp, false);
                Layer { input_norm, kv: qkv.from_row(q), rest: Some(Rest { qkv, o, post_norm, gate_up, down }) }
            })
            .collect();
        ExpertParams { layers }
    }
}

/// Keys and values of all experts, layer by layer: `(tokens, kv_heads · head_dim)` each, of one tensor. Keys are stored
/// after RoPE. Rows are ordered depth, VLM, state, action, so that every row of the block mask is one range of keys.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    pub(crate) layers: Vec<(Tensor, Tensor)>,
}

/// An expert's tokens in the mixture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens {
    /// Cache row of the first token.
    pub(crate) row: usize,
    /// RoPE position of the first token.
    pub(crate) position: usize,
    /// The rows they attend to.
    pub(crate) keys: Keys,
}

/// Shared by every expert of a forward pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shared<'a> {
    pub(crate) attention: &'a Attention,
    pub(crate) rms_eps: f32,
    /// `(positions, head_dim)`: cos and sin.
    pub(crate) rope: Tensor,
    pub(crate) cache: &'a Cache,
}

/// Runs the layers on `x (T, W)` and returns the residual stream `(T, W)`; if the norms are conditioned, that is `x`
/// itself, changed in place.
///
/// With `keys_only` the last layer stops at its keys and values: the rest would not be read.
pub(crate) fn forward(
    g: &mut GraphBuilder,
    w: &ExpertParams,
    s: Shared<'_>,
    mut x: Tensor,
    at: Tokens,
    modulations: &Modulations,
    keys_only: bool,
) -> Tensor {
    let head_dim = s.attention.head_dim;
    for (i, (layer, (k_cache, v_cache))) in w.layers.iter().zip(&s.cache.layers).enumerate() {
        let [first, second] = [2 * i, 2 * i + 1].map(|m| modulations.0.get(m).copied());
        let (h, norm) = normed(g, x, layer.input_norm, first, s.rms_eps);
        let rope = Some(Rope { table: s.rope, first: at.position });
        let keys_values = Some([k_cache, v_cache].map(|cache| cache.slice(at.row, x.rows)));
        let project = Fused { norm, rope, keys_values, ..Fused::default() };
        let Some(rest) = layer.rest.as_ref().filter(|_| !(keys_only && i + 1 == w.layers.len())) else {
            g.linear(h, &layer.kv, project);
            break;
        };
        let q = g.linear(h, &rest.qkv, project);
        let a = g.attention(q, *k_cache, *v_cache, at.keys, head_dim, s.attention.softcap);
        x = residual(g, x, a, &rest.o, first);

        let (h, norm) = normed(g, x, rest.post_norm, second, s.rms_eps);
        let activation = Activation::GeluTanh;
        let h = g.linear(h, &rest.gate_up, Fused { norm, activation, gated: true, ..Fused::default() });
        x = residual(g, x, h, &rest.down, second);
    }
    x
}

/// A linear layer's operands for `norm(x)`: `x` and the norm, or the output of a conditioned norm.
pub(crate) fn normed(
    g: &mut GraphBuilder,
    x: Tensor,
    norm: ExpertNorm,
    modulation: Option<Tensor>,
    eps: f32,
) -> (Tensor, Option<(ParamId, f32)>) {
    match (norm, modulation) {
        (ExpertNorm::Plain(weight), _) => (x, Some((weight, eps))),
        (ExpertNorm::Ada(_), Some(modulation)) => (g.ada_rms_norm(x, modulation, eps), None),
        (ExpertNorm::Ada(_), None) => (g.refuse("ada_rms_norm", "a conditioned norm without a condition", x), None),
    }
}

/// `x + layer(h)`, the layer's output gated if there is a modulation.
fn residual(g: &mut GraphBuilder, x: Tensor, h: Tensor, layer: &Linear, modulation: Option<Tensor>) -> Tensor {
    let Some(modulation) = modulation else {
        return g.linear(h, layer, Fused { add: Some(x), ..Fused::default() });
    };
    let f = g.linear(h, layer, Fused::default());
    g.gated_add(x, f, modulation);
    x
}

/// `(positions, head_dim)`: cos and sin of pair i at position p, angle `p · θ^(−2i/head_dim)`. The angle is rounded to
/// f32 as in `transformers`' `GemmaRotaryEmbedding`; cos and sin of it are exact.
pub(crate) fn rope_table(positions: usize, head_dim: usize, theta: f32) -> Vec<f32> {
    let inverse: Vec<f32> =
        (0..head_dim / 2).map(|i| (1.0 / f64::from(theta).powf(2.0 * i as f64 / head_dim as f64)) as f32).collect();
    (0..positions)
        .flat_map(|p| {
            inverse.iter().flat_map(move |f| {
                let angle = f64::from(p as f32 * f);
                [angle.cos() as f32, angle.sin() as f32]
            })
        })
        .collect()
}
