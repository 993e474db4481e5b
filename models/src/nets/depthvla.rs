//! DepthVLA, whole: three experts that share every layer's attention under a block mask.
//! With `depth: None` it is pi0. Shapes: V views, P patches a view, N text tokens, H horizon.

use crate::checkpoint::Weights;
use crate::error::ModelError;
use crate::graph::builder::{Activation, Fused, GraphBuilder, Keys};
use crate::graph::params::{Linear, ParamId, ParamTable, Role};
use crate::graph::{Graph, Tensor};
use crate::nets::config::{Depth, DepthHead, ModelConfig, Positions, PromptFormat, TimeConditioning, TimeEmbedding};
use crate::nets::expert::{self, Cache, ExpertNorm, ExpertParams, Modulations, Shared, Tokens};
use crate::nets::flow;
use crate::nets::image::{self, ImageSpec};
use crate::nets::vit::{self, VitParams};

/// A model: its configuration and the parameters it needs.
#[derive(Clone, Debug)]
pub struct Model {
    /// Sizes and variants.
    pub config: ModelConfig,
    /// All parameters, by [`ParamId`].
    pub params: ParamTable,
    /// Text embedding table `(vocab, W_vlm)`.
    pub embed_tokens: ParamId,
    vision: VitParams,
    projector: Linear, // (W_vlm, D)
    vlm: ExpertParams,
    depth: Option<DepthParams>,
    action: ExpertParams,
    action_norm: ExpertNorm,
    state_proj: Option<Linear>, // (W, state_dim)
    action_in: Linear, // (W, action_dim); with the time MLP's first layer where that joins the time with every action token
    time_in: Linear,   // (W, W): the time's part of the time MLP's first layer
    time_out: Linear,  // (W, W)
    action_out: Vec<Linear>, // one, or two with SiLU between
}

#[derive(Clone, Debug)]
struct DepthParams {
    encoder: VitParams,
    in_proj: Option<Linear>, // (W_depth, D)
    expert: ExpertParams,
    head: Option<(ParamId, Linear)>, // final norm (W_depth,), (patch², W_depth)
}

/// Options of a forward pass.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwardOptions {
    /// The image of each of the configuration's views, in its order.
    pub images: Vec<ImageSpec>,
    /// Tokens of the prompt; padding never enters.
    pub prompt_tokens: usize,
    /// Whether to compute the depth map.
    pub depth_map: bool,
    /// Whether the chunk can be drawn towards another one.
    pub guided: bool,
    /// Whether to give every stage's tensors as outputs.
    pub taps: bool,
}

impl Model {
    /// Declares the parameters of `config`.
    ///
    /// # Errors
    /// [`ModelError::Config`] when the configuration contradicts itself.
    pub fn new(config: ModelConfig) -> Result<Model, ModelError> {
        config.validate()?;
        let c = &config;
        let t = &mut ParamTable::default();
        let embed_tokens = t.declare("embed_tokens.weight", &[c.vocab, c.vlm.width], Role::Host);
        let vision = VitParams::siglip(t, &c.vision);
        let projector = t.linear("multi_modal_projector.linear", c.vlm.width, c.vision.width, true);
        let vlm = ExpertParams::declare(t, "vlm", &c.vlm, &c.attention, c.layers, (false, true));
        t.declare("joint_model.mixtures.vlm.norm.weight", &[c.vlm.width], Role::Unused);
        let depth = c.depth.as_ref().map(|d| DepthParams::declare(t, c, d));
        let w = c.action.width;
        let ada = c.time_conditioning == TimeConditioning::AdaRms;
        let action = ExpertParams::declare(t, "action", &c.action, &c.attention, c.layers, (ada, false));
        let action_norm = ExpertNorm::declare(t, "joint_model.mixtures.action.norm", w, ada);
        let state_proj = c.state_token.then(|| t.linear("proprio_encoder", w, c.state_dim, true));
        let action_in = t.tensors("action_encoder.linear_1", w, c.action_dim, true);
        // The time MLP's first layer takes [action ∥ time], [time ∥ action] or time alone.
        let (action_in, time_in, time_out) = match (c.time_conditioning, c.time_embedding) {
            (TimeConditioning::AdaRms, _) => {
                let action_in = t.stack(&[action_in], 0);
                (action_in, t.linear("time_mlp_in", w, w, true), t.linear("time_mlp_out", w, w, true))
            }
            (TimeConditioning::Token, embedding) => {
                let both = t.tensors("action_encoder.linear_2", w, 2 * w, true);
                let (action, time) = match embedding {
                    TimeEmbedding::Openpi { .. } => (0, w),
                    TimeEmbedding::OpenPiZero { .. } => (w, 0),
                };
                let time_in = t.columns(&[both], time..time + w, 0, true);
                let action_in = t.folded(action_in, both, action..action + w);
                (action_in, time_in, t.linear("action_encoder.linear_3", w, w, true))
            }
        };
        let action_out = match c.action_head_layers {
            1 => vec![t.linear("action_decoder", c.action_dim, w, true)],
            _ => vec![
                t.linear("action_decoder.proj.0.0", w, w, true),
                t.linear("action_decoder.proj.1", c.action_dim, w, true),
            ],
        };
        let params = std::mem::take(t);
        Ok(Model {
            params,
            embed_tokens,
            vision,
            projector,
            vlm,
            depth,
            action,
            action_norm,
            state_proj,
            action_in,
            time_in,
            time_out,
            action_out,
            config,
        })
    }

    /// One inference as a graph.
    ///
    /// Inputs: `image.<view>` (the camera's bytes), `text (N, W_vlm)` (rows of the embedding table), `state (1, state_dim)`,
    /// `noise (H, action_dim)`; with [`guided`](ForwardOptions::guided) `goal (H, action_dim)` and `gains (steps, H)` of
    /// [`crate::processing::guidance`]. Outputs: `actions (H, action_dim)`, normalised; `depth.<view> (S, S)` with
    /// [`depth_map`](ForwardOptions::depth_map); every stage with [`taps`](ForwardOptions::taps).
    ///
    /// # Errors
    /// [`ModelError::Observation`] for an image of impossible size or a prompt that is too long, [`ModelError::Shape`]
    /// when the configuration's sizes do not fit the kernels.
    pub fn forward(&self, weights: &Weights, o: &ForwardOptions) -> Result<Graph, ModelError> {
        let c = &self.config;
        self.check_options(o)?;
        let g = &mut GraphBuilder::default();

        // Tokens of each part, and its rows in the cache: depth, VLM, state, action.
        let n_depth = c.depth.as_ref().map_or(0, |d| d.views.len() * d.encoder.patches());
        let n_image = c.views.len() * c.vision.patches();
        let n_vlm = n_image + o.prompt_tokens;
        let n_state = usize::from(c.state_token);
        let prefix = n_depth + n_vlm;
        let total = prefix + n_state + c.horizon;
        let kv = c.attention.kv_heads * c.attention.head_dim;
        let cache = Cache {
            layers: (0..c.layers)
                .map(|_| {
                    let both = g.activation("keys and values", 2 * total, kv);
                    (both.slice(0, total), both.slice(total, total))
                })
                .collect(),
        };
        let (vlm_position, suffix_position) = match c.positions {
            Positions::Global { base } => (base, base + n_vlm),
            Positions::PerMixture { base } => (base, base),
        };
        let depth_position = c.depth.as_ref().map_or(0, |d| d.pos_base);
        let positions =
            1 + (vlm_position + n_vlm).max(suffix_position + n_state + c.horizon).max(depth_position + n_depth);
        let rope = g.constant(
            "rope",
            positions,
            c.attention.head_dim,
            &expert::rope_table(positions, c.attention.head_dim, c.attention.rope_theta),
        );
        let shared = Shared { attention: &c.attention, rms_eps: c.rms_eps, rope, cache: &cache };

        g.stage("decode and resize");
        let mut views = Vec::new();
        for (view, spec) in c.views.iter().zip(&o.images) {
            let pixels = image::unpack(g, view, *spec);
            let square = image::square(g, &pixels, c.resize, c.vision.image_size);
            views.push((view, pixels, square));
        }
        let mut patches = Vec::new();
        for (_, _, square) in &views {
            let into = g.activation("patches", c.vision.patches(), c.vision.patch_dim());
            image::patchify(g, *square, &c.vision, image::SIGLIP, into);
            patches.push(into);
        }
        let mut depth_patches = Vec::new();
        for (d, name) in c.depth.iter().flat_map(|d| d.views.iter().map(move |name| (d, name))) {
            let e = &d.encoder;
            let Some((_, pixels, square)) = views.iter().find(|(view, _, _)| *view == name) else { continue };
            let square = if e.image_size == c.vision.image_size {
                *square
            } else {
                image::square(g, pixels, c.resize, e.image_size)
            };
            let into = g.activation("depth patches", e.patches(), e.patch_dim());
            image::patchify(g, square, e, image::IMAGENET, into);
            depth_patches.push(into);
        }

        g.stage("vision tower");
        let x = g.activation("prefix", n_vlm, c.vlm.width);
        let table =
            g.constant("vision positions", c.vision.patches(), c.vision.width, &weights.host(self.vision.positions)?);
        let features = vit::encode(g, &self.vision, &c.vision, &patches, table, None);
        // Tokens of the prompt that come before the images: its begin.
        let lead = if c.prompt == PromptFormat::Galaxea { o.prompt_tokens.min(1) } else { 0 };
        let into = Some(x.slice(lead, n_image));
        g.linear(features, &self.projector, Fused { scale: Some(c.embed.image), into, ..Fused::default() });
        let projected = if o.taps { g.linear(features, &self.projector, Fused::default()) } else { features };
        for (v, view) in c.views.iter().enumerate().filter(|_| o.taps) {
            let rows = |t: Tensor| t.slice(v * c.vision.patches(), c.vision.patches());
            g.output(format!("vision.{view}"), rows(features));
            g.output(format!("projector.{view}"), rows(projected));
        }

        g.stage("VLM prefix");
        if o.prompt_tokens > 0 {
            let text = g.input("text", o.prompt_tokens, c.vlm.width);
            for (from, to, count) in [(0, 0, lead), (lead, lead + n_image, o.prompt_tokens - lead)] {
                if count > 0 {
                    g.scale(text.slice(from, count), c.embed.text, Some(x.slice(to, count)));
                }
            }
        }
        let at = Tokens { row: n_depth, position: vlm_position, keys: Keys::range(n_depth, n_vlm) };
        expert::forward(g, &self.vlm, shared, x, at, &Modulations::default(), true);

        if let (Some(d), Some(w)) = (&c.depth, &self.depth) {
            let at = Tokens { row: 0, position: depth_position, keys: Keys::range(0, n_depth) };
            w.forward(g, weights, (c, d, o), shared, &depth_patches, at)?;
        }

        if let Some(state_proj) = &self.state_proj {
            g.stage("state");
            let state = g.input("state", 1, c.state_dim);
            let x = g.linear(state, state_proj, Fused { scale: Some(c.embed.suffix), ..Fused::default() });
            let first = if c.depth.as_ref().is_some_and(|d| !d.proprio_sees_depth) { n_depth } else { 0 };
            let at = Tokens { row: prefix, position: suffix_position, keys: Keys::range(first, prefix + 1 - first) };
            expert::forward(g, &self.action, shared, x, at, &Modulations::default(), true);
        }
        if o.taps {
            for (i, (k, v)) in cache.layers.iter().enumerate() {
                for (part, row, count) in [("depth", 0, n_depth), ("vlm", n_depth, n_vlm), ("state", prefix, n_state)] {
                    if count > 0 {
                        g.output(format!("{part}.layers.{i}.k"), k.slice(row, count));
                        g.output(format!("{part}.layers.{i}.v"), v.slice(row, count));
                    }
                }
            }
        }
        let at = Tokens { row: prefix + n_state, position: suffix_position + n_state, keys: Keys::range(0, total) };
        self.flow_steps(g, shared, at, o);
        std::mem::take(g).finish()
    }

    /// The Euler steps from `noise` to `actions`. The prefix and the state stay as they are in the cache.
    fn flow_steps(&self, g: &mut GraphBuilder, shared: Shared<'_>, at: Tokens, o: &ForwardOptions) {
        let c = &self.config;
        let w = c.action.width;
        let (times, dt) = flow::times(&c.flow);
        let tau: Vec<f32> = times.iter().flat_map(|t| flow::embed_time(&c.time_embedding, *t, w)).collect();
        g.stage("time");
        let tau = g.constant("time", times.len(), w, &tau);
        let ada = c.time_conditioning == TimeConditioning::AdaRms;
        // The time MLP's first layer on the times of all steps at once; each step adds its own row.
        let silu = Fused { activation: Activation::Silu, ..Fused::default() };
        let time_rows = g.linear(tau, &self.time_in, if ada { silu } else { Fused::default() });
        let modulations = if ada {
            let conditions = g.linear(time_rows, &self.time_out, silu);
            Modulations::compute(g, &self.action, self.action_norm, conditions)
        } else {
            Modulations::default()
        };

        let mut x = g.input("noise", c.horizon, c.action_dim);
        let guide =
            o.guided.then(|| (g.input("goal", c.horizon, c.action_dim), g.input("gains", times.len(), c.horizon)));
        for (step, time) in times.iter().enumerate() {
            g.stage(flow::stage(step));
            let suffix = Fused { scale: Some(c.embed.suffix), ..Fused::default() };
            let h = if ada {
                g.linear(x, &self.action_in, suffix)
            } else {
                let h = g.linear(x, &self.action_in, Fused { add: Some(time_rows.slice(step, 1)), ..silu });
                g.linear(h, &self.time_out, suffix)
            };
            let m = modulations.at(step);
            let h = expert::forward(g, &self.action, shared, h, at, &m, false);
            let (mut h, mut norm) = expert::normed(g, h, self.action_norm, m.last(), c.rms_eps);
            if let [first, _] = self.action_out.as_slice() {
                h = g.linear(h, first, Fused { norm: norm.take(), ..silu });
            }
            let Some(last) = self.action_out.last() else { continue };
            let velocity = Fused { norm, ..Fused::default() };
            if o.taps {
                let velocity = g.linear(h, last, velocity);
                g.output(format!("velocity.{step}"), velocity);
            }
            let before = x;
            x = g.linear(h, last, Fused { scale: Some(dt as f32), add: Some(x), ..velocity });
            if let Some((goal, gains)) = guide {
                let ahead = flow::ahead(&c.flow, *time) as f32;
                g.guide(before, x, (goal, gains.slice(step, 1)), (dt as f32, ahead));
            }
        }
        g.output("actions", x);
    }

    fn check_options(&self, o: &ForwardOptions) -> Result<(), ModelError> {
        let c = &self.config;
        let refuse = |name: &str, expected: String, found: String| {
            Err(ModelError::Observation { name: name.to_owned(), expected, found })
        };
        if o.images.len() != c.views.len() {
            return refuse("images", format!("{} views {:?}", c.views.len(), c.views), format!("{}", o.images.len()));
        }
        for (view, image) in c.views.iter().zip(&o.images) {
            image.check(&format!("image.{view}"))?;
        }
        if o.prompt_tokens > c.max_tokens {
            return refuse("tokens", format!("at most {} tokens", c.max_tokens), format!("{} tokens", o.prompt_tokens));
        }
        Ok(())
    }
}

impl DepthParams {
    fn declare(t: &mut ParamTable, c: &ModelConfig, d: &Depth) -> DepthParams {
        let w = d.expert.width;
        let encoder = VitParams::dinov2(t, "depth_encoder", &d.encoder, d.pos_grid);
        let in_proj = d.in_proj.then(|| t.linear("depth_in_proj", w, d.encoder.width, true));
        let expert = ExpertParams::declare(t, "depth", &d.expert, &c.attention, c.layers, (false, false));
        let has_head = d.head != DepthHead::None;
        let role = if has_head { Role::Vector } else { Role::Unused };
        let norm = t.declare("joint_model.mixtures.depth.norm.weight", &[w], role);
        let head = has_head.then(|| (norm, t.linear("depth_head", d.encoder.patch * d.encoder.patch, w, true)));
        DepthParams { encoder, in_proj, expert, head }
    }

    /// Depth encoder, expert and (if asked for) head; `patches` has one tensor a view.
    fn forward(
        &self,
        g: &mut GraphBuilder,
        weights: &Weights,
        (c, d, o): (&ModelConfig, &Depth, &ForwardOptions),
        shared: Shared<'_>,
        patches: &[Tensor],
        at: Tokens,
    ) -> Result<(), ModelError> {
        let e = &d.encoder;
        g.stage("depth encoder");
        let table = weights.host(self.encoder.positions)?;
        let (first, rest) = table.split_at(e.width.min(table.len()));
        let rest = vit::interpolate_positions(rest, d.pos_grid, (e.grid(), e.grid()), e.width, d.pos_interpolation);
        let table = g.constant("depth positions", e.patches(), e.width, &rest);
        let cls = match self.encoder.cls {
            Some(cls) => {
                let cls: Vec<f32> = weights.host(cls)?.iter().zip(first).map(|(a, b)| a + b).collect();
                Some(g.constant("cls", 1, e.width, &cls))
            }
            None => None,
        };
        let features = vit::encode(g, &self.encoder, e, patches, table, cls);
        let x = match &self.in_proj {
            Some(layer) => g.linear(features, layer, Fused { scale: Some(d.scale_input), ..Fused::default() }),
            None if d.scale_input == 1.0 => features,
            None => g.scale(features, d.scale_input, None),
        };

        g.stage("depth prefix");
        let head = self.head.as_ref().filter(|_| o.depth_map);
        let x = expert::forward(g, &self.expert, shared, x, at, &Modulations::default(), head.is_none());
        let views = d.views.iter();
        if let Some((norm, layer)) = head {
            g.stage("depth map");
            let tokens = g.linear(x, layer, Fused { norm: Some((*norm, c.rms_eps)), ..Fused::default() });
            let link = match d.head {
                DepthHead::Log => 1,
                DepthHead::Sigmoid => 2,
                DepthHead::Linear | DepthHead::None => 0,
            };
            for (v, view) in views.clone().enumerate() {
                let map = g.unpatchify(tokens.slice(v * e.patches(), e.patches()), e.patch, link);
                g.output(format!("depth.{view}"), map);
            }
        }
        for (v, view) in views.enumerate().filter(|_| o.taps) {
            g.output(format!("depth_encoder.{view}"), features.slice(v * e.patches(), e.patches()));
        }
        Ok(())
    }
}
