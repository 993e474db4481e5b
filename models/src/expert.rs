//! One expert of the mixture: Gemma layers that write their keys and values into the shared cache and attend to a range
//! of it.

use crate::builder::{Activation, Epilogue, GraphBuilder, Keys};
use crate::config::{Attention, Expert};
use crate::graph::Tensor;
use crate::params::{Linear, ParamId, ParamTable};

/// Parameters of one layer of width W; the norms' weights are zero-centred (`1 + w`).
#[derive(Clone, Debug)]
struct Layer {
    input_norm: ParamId, // (W,)
    q: Linear,           // (heads · head_dim, W)
    k: Linear,           // (kv_heads · head_dim, W)
    v: Linear,           // (kv_heads · head_dim, W)
    o: Linear,           // (W, heads · head_dim)
    post_norm: ParamId,  // (W,)
    gate: Linear,        // (mlp, W)
    up: Linear,          // (mlp, W)
    down: Linear,        // (W, mlp)
}

/// Parameters of an expert's layers.
#[derive(Clone, Debug)]
pub(crate) struct ExpertParams {
    layers: Vec<Layer>,
}

impl ExpertParams {
    /// `layers` Gemma layers under `joint_model.mixtures.{name}`.
    pub(crate) fn declare(t: &mut ParamTable, name: &str, e: &Expert, a: &Attention, layers: usize) -> ExpertParams {
        let (w, q, kv) = (e.width, a.heads * a.head_dim, a.kv_heads * a.head_dim);
        let layers = (0..layers)
            .map(|i| {
                let part = |part: &str| format!("joint_model.mixtures.{name}.layers.{i}.{part}");
                Layer {
                    input_norm: t.vector(part("input_layernorm.weight"), w),
                    q: t.linear(&part("self_attn.q_proj"), q, w, false),
                    k: t.linear(&part("self_attn.k_proj"), kv, w, false),
                    v: t.linear(&part("self_attn.v_proj"), kv, w, false),
                    o: t.linear(&part("self_attn.o_proj"), w, q, false),
                    post_norm: t.vector(part("post_attention_layernorm.weight"), w),
                    gate: t.linear(&part("mlp.gate_proj"), e.mlp, w, false),
                    up: t.linear(&part("mlp.up_proj"), e.mlp, w, false),
                    down: t.linear(&part("mlp.down_proj"), w, e.mlp, false),
                }
            })
            .collect();
        ExpertParams { layers }
    }
}

/// Keys and values of all experts, layer by layer: `(tokens, kv_heads · head_dim)` each. Keys are stored after RoPE.
/// Rows are ordered depth, VLM, state, action, so that every row of the block mask is one range of keys.
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    pub(crate) layers: Vec<(Tensor, Tensor)>,
}

/// What an expert's tokens are to the mixture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tokens {
    /// Cache row of the first token.
    pub(crate) row: usize,
    /// RoPE position of the first token.
    pub(crate) position: usize,
    /// What they attend to.
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

/// Runs the layers on `x (T, W)` and returns the residual stream `(T, W)`.
///
/// With `keys_only` the last layer stops at its keys and values: nobody reads what would come after.
pub(crate) fn forward(
    g: &mut GraphBuilder,
    w: &ExpertParams,
    s: Shared<'_>,
    mut x: Tensor,
    at: Tokens,
    keys_only: bool,
) -> Tensor {
    let head_dim = s.attention.head_dim;
    for (i, (layer, (k_cache, v_cache))) in w.layers.iter().zip(&s.cache.layers).enumerate() {
        let h = g.rms_norm(x, layer.input_norm, s.rms_eps);
        let k = g.linear(h, &layer.k, Epilogue { into: Some(k_cache.slice(at.row, x.rows)), ..Epilogue::default() });
        g.rope(k, s.rope, head_dim, at.position);
        g.linear(h, &layer.v, Epilogue { into: Some(v_cache.slice(at.row, x.rows)), ..Epilogue::default() });
        if keys_only && i + 1 == w.layers.len() {
            break;
        }
        let q = g.linear(h, &layer.q, Epilogue::default());
        g.rope(q, s.rope, head_dim, at.position);
        let a = g.attention(q, *k_cache, *v_cache, at.keys, head_dim, s.attention.softcap);
        x = g.linear(a, &layer.o, Epilogue { add: Some(x), ..Epilogue::default() });

        let h = g.rms_norm(x, layer.post_norm, s.rms_eps);
        let gate = g.linear(h, &layer.gate, Epilogue { activation: Activation::GeluTanh, ..Epilogue::default() });
        let h = g.linear(h, &layer.up, Epilogue { multiply: Some(gate), ..Epilogue::default() });
        x = g.linear(h, &layer.down, Epilogue { add: Some(x), ..Epilogue::default() });
    }
    x
}
