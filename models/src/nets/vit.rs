//! The two vision transformers: SigLIP (the VLM's eye) and DINOv2 (the depth branch's). They differ in names, GELU,
//! layer scale and CLS token; the layer is the same.

use crate::graph::Tensor;
use crate::graph::builder::{Activation, Fused, GraphBuilder, Keys};
use crate::graph::params::{Linear, Norm, ParamId, ParamTable, Role};
use crate::nets::config::{PosInterpolation, Vit};

/// Parameters of one layer of width D.
#[derive(Clone, Debug)]
struct Layer {
    norm1: Norm,
    qkv: Linear,             // (3 D, D)
    out: Linear,             // (D, D)
    scale1: Option<ParamId>, // (D,)
    norm2: Norm,
    fc1: Linear,             // (mlp, D)
    fc2: Linear,             // (D, mlp)
    scale2: Option<ParamId>, // (D,)
}

/// Parameters of a tower.
#[derive(Clone, Debug)]
pub struct VitParams {
    patch: Linear, // (D, 3 · patch²)
    /// SigLIP `(patches, D)`; DINOv2 `(1, 1 + pos_grid², D)`.
    pub positions: ParamId,
    /// DINOv2 `(1, 1, D)`.
    pub cls: Option<ParamId>,
    layers: Vec<Layer>,
    norm: Norm,
}

impl VitParams {
    /// SigLIP under Hugging Face's names.
    pub fn siglip(t: &mut ParamTable, c: &Vit) -> VitParams {
        let root = "vision_tower.vision_model";
        let d = c.width;
        let patch = t.linear_shaped(&format!("{root}.embeddings.patch_embedding"), &[d, 3, c.patch, c.patch], true);
        let positions =
            t.declare(format!("{root}.embeddings.position_embedding.weight"), &[c.patches(), d], Role::Host);
        let layers = (0..c.layers)
            .map(|i| {
                let name = |part: &str| format!("{root}.encoder.layers.{i}.{part}");
                Layer {
                    norm1: t.layer_norm(&name("layer_norm1"), d),
                    qkv: stacked(t, ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(name), d),
                    out: t.linear(&name("self_attn.out_proj"), d, d, true),
                    scale1: None,
                    norm2: t.layer_norm(&name("layer_norm2"), d),
                    fc1: t.linear(&name("mlp.fc1"), c.mlp, d, true),
                    fc2: t.linear(&name("mlp.fc2"), d, c.mlp, true),
                    scale2: None,
                }
            })
            .collect();
        VitParams { patch, positions, cls: None, layers, norm: t.layer_norm(&format!("{root}.post_layernorm"), d) }
    }

    /// DINOv2 under Hugging Face's names, below `root`; `pos_grid` is the side of the checkpoint's position grid.
    pub fn dinov2(t: &mut ParamTable, root: &str, c: &Vit, pos_grid: usize) -> VitParams {
        let d = c.width;
        let cls = t.declare(format!("{root}.embeddings.cls_token"), &[1, 1, d], Role::Host);
        t.declare(format!("{root}.embeddings.mask_token"), &[1, d], Role::Unused);
        let positions =
            t.declare(format!("{root}.embeddings.position_embeddings"), &[1, 1 + pos_grid * pos_grid, d], Role::Host);
        let patch =
            t.linear_shaped(&format!("{root}.embeddings.patch_embeddings.projection"), &[d, 3, c.patch, c.patch], true);
        let layers = (0..c.layers)
            .map(|i| {
                let name = |part: &str| format!("{root}.encoder.layer.{i}.{part}");
                Layer {
                    norm1: t.layer_norm(&name("norm1"), d),
                    qkv: stacked(
                        t,
                        ["attention.attention.query", "attention.attention.key", "attention.attention.value"].map(name),
                        d,
                    ),
                    out: t.linear(&name("attention.output.dense"), d, d, true),
                    scale1: Some(t.vector(name("layer_scale1.lambda1"), d)),
                    norm2: t.layer_norm(&name("norm2"), d),
                    fc1: t.linear(&name("mlp.fc1"), c.mlp, d, true),
                    fc2: t.linear(&name("mlp.fc2"), d, c.mlp, true),
                    scale2: Some(t.vector(name("layer_scale2.lambda1"), d)),
                }
            })
            .collect();
        VitParams { patch, positions, cls: Some(cls), layers, norm: t.layer_norm(&format!("{root}.layernorm"), d) }
    }
}

/// Layers of these names with `d` inputs and outputs and biases, as one.
fn stacked(t: &mut ParamTable, names: [String; 3], d: usize) -> Linear {
    let parts = names.map(|name| t.tensors(&name, d, d, true));
    t.stack(&parts, 0)
}

/// Patches of each view `(patches, 3 · patch²)` to features `(views · patches, D)` after the final norm, without CLS.
///
/// `positions (patches, D)` is on the tower's own grid; `cls (1, D)` is the CLS token with its position added.
/// Each view attends to itself only.
pub(crate) fn encode(
    g: &mut GraphBuilder,
    w: &VitParams,
    c: &Vit,
    views: &[Tensor],
    positions: Tensor,
    cls: Option<Tensor>,
) -> Tensor {
    let after = run(g, w, c, views, positions, cls, &[c.layers]);
    let after = after.first().copied().unwrap_or(positions);
    features(g, w, c, after, (views.len(), positions.rows, usize::from(cls.is_some())), true)
}

/// Features of one image after some of the layers (0: the embeddings), each `(patches, D)` without CLS, through the
/// final norm where `norm` is set. Layers after the last of `taps` are not computed.
pub(crate) fn encode_taps(
    g: &mut GraphBuilder,
    w: &VitParams,
    c: &Vit,
    patches: Tensor,
    positions: Tensor,
    cls: Tensor,
    (taps, norm): (&[usize], bool),
) -> Vec<Tensor> {
    let states = run(g, w, c, &[patches], positions, Some(cls), taps);
    states.into_iter().map(|x| features(g, w, c, x, (1, positions.rows, 1), norm)).collect()
}

/// Tokens of all views without their first `extra` ones, through the final norm where `norm` is set.
fn features(
    g: &mut GraphBuilder,
    w: &VitParams,
    c: &Vit,
    x: Tensor,
    (views, patches, extra): (usize, usize, usize),
    norm: bool,
) -> Tensor {
    let out = g.activation("features", views * patches, c.width);
    for view in 0..views {
        let from = x.slice(view * (extra + patches) + extra, patches);
        let into = Some(out.slice(view * patches, patches));
        if norm {
            g.layer_norm(from, w.norm, c.eps, into)
        } else {
            g.scale(from, 1.0, into)
        };
    }
    out
}

/// The tokens `(views · tokens, D)` after each of the layers `taps`, in the order of the layers.
fn run(
    g: &mut GraphBuilder,
    w: &VitParams,
    c: &Vit,
    views: &[Tensor],
    positions: Tensor,
    cls: Option<Tensor>,
    taps: &[usize],
) -> Vec<Tensor> {
    let (patches, d) = (positions.rows, c.width);
    let extra = usize::from(cls.is_some());
    let tokens = extra + patches;
    let gelu = if cls.is_some() { Activation::GeluErf } else { Activation::GeluTanh };

    let mut x = g.activation("tokens", views.len() * tokens, d);
    for (view, patch) in views.iter().enumerate() {
        if let Some(cls) = cls {
            g.scale(cls, 1.0, Some(x.slice(view * tokens, 1)));
        }
        let into = Some(x.slice(view * tokens + extra, patches));
        g.linear(*patch, &w.patch, Fused { add: Some(positions), into, ..Fused::default() });
    }
    let mut tapped = Vec::new();
    let last = taps.iter().max().copied().unwrap_or(0);
    for (i, layer) in w.layers.iter().enumerate().take(last) {
        tapped.extend(taps.contains(&i).then_some(x));
        let h = g.layer_norm(x, layer.norm1, c.eps, None);
        let qkv = g.linear(h, &layer.qkv, Fused::default());
        let [q, k, v] = [0, 1, 2].map(|part| qkv.columns(part * d, d));
        let a = g.attention(q, k, v, Keys::blocks(tokens), d / c.heads, None);
        x = g.linear(a, &layer.out, Fused { layer_scale: layer.scale1, add: Some(x), ..Fused::default() });
        let h = g.layer_norm(x, layer.norm2, c.eps, None);
        let h = g.linear(h, &layer.fc1, Fused { activation: gelu, ..Fused::default() });
        x = g.linear(h, &layer.fc2, Fused { layer_scale: layer.scale2, add: Some(x), ..Fused::default() });
    }
    tapped.push(x);
    tapped
}

/// Position embeddings `(pos_grid², width)` on a grid of `(height, width)`: [`bicubic`], unchanged when the grids are
/// equal.
pub fn interpolate_positions(
    table: &[f32],
    pos_grid: usize,
    grid: (usize, usize),
    width: usize,
    mode: PosInterpolation,
) -> Vec<f32> {
    if grid == (pos_grid, pos_grid) {
        return table.to_vec();
    }
    let scale = |grid: usize| match mode {
        PosInterpolation::Size => pos_grid as f32 / grid as f32,
        PosInterpolation::Offset => (1.0 / ((grid as f64 + 0.1) / pos_grid as f64)) as f32,
    };
    bicubic(table, (pos_grid, pos_grid), grid, width, (scale(grid.0), scale(grid.1)))
}

/// `(height, width, channels)` at another size: cubic with a = −0.75, `align_corners=False`, borders clamped, not
/// antialiased, as torch's `interpolate`. Sizes are `(height, width)`; `scales` are input over output.
pub fn bicubic(
    table: &[f32],
    from: (usize, usize),
    to: (usize, usize),
    channels: usize,
    scales: (f32, f32),
) -> Vec<f32> {
    let (rows, columns) = (cubic_taps(from.0, to.0, scales.0), cubic_taps(from.1, to.1, scales.1));
    let mut out = vec![0.0_f32; to.0 * to.1 * channels];
    for (cell, out) in out.chunks_exact_mut(channels.max(1)).enumerate() {
        let (Some(rows), Some(columns)) = (rows.get(cell / to.1), columns.get(cell % to.1)) else { continue };
        for (row, row_weight) in rows {
            for (column, column_weight) in columns {
                let at = (row * from.1 + column) * channels;
                for (o, v) in out.iter_mut().zip(table.get(at..at + channels).unwrap_or_default()) {
                    *o += row_weight * column_weight * v;
                }
            }
        }
    }
    out
}

/// The four inputs and weights of each output coordinate.
fn cubic_taps(from: usize, to: usize, scale: f32) -> Vec<[(usize, f32); 4]> {
    (0..to)
        .map(|i| {
            let at = scale * (i as f32 + 0.5) - 0.5;
            let (first, t) = (at.floor(), at - at.floor());
            let near = |x: f32| ((-0.75 + 2.0) * x - (-0.75 + 3.0)) * x * x + 1.0;
            let far = |x: f32| ((-0.75 * x + 5.0 * 0.75) * x - 8.0 * 0.75) * x + 4.0 * 0.75;
            let weights = [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)];
            let mut tap = [(0, 0.0); 4];
            for (j, (slot, weight)) in tap.iter_mut().zip(weights).enumerate() {
                let index = (first as i64 - 1 + j as i64).clamp(0, from as i64 - 1);
                *slot = (index as usize, weight);
            }
            tap
        })
        .collect()
}
