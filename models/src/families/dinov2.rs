//! Hugging Face's DINOv2: a `Dinov2Model` of its own, or the backbone of a Depth Anything. A DepthVLA takes it as its depth
//! encoder.

use std::path::Path;

use serde::Deserialize;

use super::description::{Family, Mark};
use super::nearest::Outline;
use super::summary::EncoderSummary;
use super::{depth_anything, detect};
use crate::checkpoint::{Checkpoint, Weights};
use crate::error::{ConfigError, ModelError};
use crate::graph::params::{ParamId, ParamTable};
use crate::io::json::read_json;
use crate::nets::config::{Vit, expect};
use crate::nets::vit::VitParams;

/// DINOv2 alone.
pub static FAMILY: Family = Family {
    name: "dinov2",
    purpose: Some("a depth encoder, for `fathom compose --depth`"),
    mark: Mark::ModelType("dinov2"),
    outline: Some(Outline {
        title: "DINOv2",
        names: &["embeddings.", "encoder.layer."],
        advice: "an encoder for `fathom compose --depth`",
    }),
    summary: EncoderSummary::read,
    ..Family::POLICY
};

/// Where its parameters are in a Depth Anything, and below which [`Encoder::params`] has them.
const ROOT: &str = "backbone";

/// A tower and its weights.
#[derive(Debug)]
pub struct Encoder {
    /// DINOv2, or Depth Anything.
    pub family: &'static Family,
    /// Sizes; `image_size` is that of its table of positions.
    pub tower: Vit,
    /// The parameters of `weights`, the tower's below `backbone.`.
    pub params: ParamTable,
    /// Its tensors, and those of the neck and head of a Depth Anything.
    pub weights: Weights,
}

impl Encoder {
    /// Loads the encoder in the Hugging Face directory `dir`.
    ///
    /// # Errors
    /// Every way in which the directory is neither: see [`ModelError`].
    pub fn load(dir: &Path) -> Result<Encoder, ModelError> {
        if detect(dir) == Some(&depth_anything::FAMILY) {
            let (model, weights) = depth_anything::load(dir)?;
            let (tower, params) = (model.config.backbone, model.params);
            return Ok(Encoder { family: &depth_anything::FAMILY, tower, params, weights });
        }
        let path = dir.join("config.json");
        let tower = read_json::<RawBackbone>(&path)?.check(&|field| format!("{}: {field}", path.display()))?;
        let mut params = ParamTable::default();
        VitParams::dinov2(&mut params, ROOT, &tower, tower.grid());
        let own = |name: &str| name.trim_start_matches(ROOT).trim_start_matches('.').to_owned();
        let find = |checkpoint| super::find(&FAMILY, checkpoint, &params, |p| vec![own(&p.name)]);
        let weights = Checkpoint::open_model(dir, find)?.verify()?;
        Ok(Encoder { family: &FAMILY, tower, params, weights })
    }

    /// The tower's parameter that has the name `part` in a `Dinov2Model`.
    pub fn id(&self, part: &str) -> Option<ParamId> {
        let own = |name: &str| name.strip_prefix(ROOT).and_then(|name| name.strip_prefix('.')) == Some(part);
        self.params.params.iter().position(|p| own(&p.name)).map(|i| ParamId(i as u32))
    }
}

/// The fields of `Dinov2Config` that decide, and its defaults.
#[derive(Deserialize)]
#[serde(default)]
pub(super) struct RawBackbone {
    model_type: String,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    mlp_ratio: f64,
    image_size: usize,
    patch_size: usize,
    num_channels: usize,
    layer_norm_eps: f32,
    hidden_act: String,
    qkv_bias: bool,
    use_swiglu_ffn: bool,
    pub(super) apply_layernorm: bool,
    pub(super) reshape_hidden_states: bool,
    out_indices: Option<Vec<usize>>,
    out_features: Option<Vec<String>>,
}

impl Default for RawBackbone {
    fn default() -> RawBackbone {
        RawBackbone {
            model_type: "dinov2".to_owned(),
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            mlp_ratio: 4.0,
            image_size: 224,
            patch_size: 14,
            num_channels: 3,
            layer_norm_eps: 1e-6,
            hidden_act: "gelu".to_owned(),
            qkv_bias: true,
            use_swiglu_ffn: false,
            apply_layernorm: true,
            reshape_hidden_states: true,
            out_indices: None,
            out_features: None,
        }
    }
}

impl RawBackbone {
    /// After how many layers it is tapped: `out_indices`, or the numbers in `out_features` ("stage3").
    pub(super) fn taps(&self) -> Vec<usize> {
        let number = |name: &String| match name.as_str() {
            "stem" => Some(0),
            name => name.strip_prefix("stage")?.parse().ok(),
        };
        let features = || self.out_features.iter().flatten().filter_map(number).collect();
        self.out_indices.clone().unwrap_or_else(features)
    }
    /// The tower that it describes; `field` is where one of its fields lies in the file.
    pub(super) fn check(&self, field: &dyn Fn(&str) -> String) -> Result<Vit, ConfigError> {
        expect(self.model_type == "dinov2", &field("model_type"), "\"dinov2\"", &self.model_type)?;
        expect(self.num_channels == 3, &field("num_channels"), "3", self.num_channels)?;
        expect(self.hidden_act == "gelu", &field("hidden_act"), "\"gelu\"", &self.hidden_act)?;
        expect(self.qkv_bias, &field("qkv_bias"), "true", self.qkv_bias)?;
        expect(!self.use_swiglu_ffn, &field("use_swiglu_ffn"), "false", self.use_swiglu_ffn)?;
        expect((0.1..=64.0).contains(&self.mlp_ratio), &field("mlp_ratio"), "0.1 to 64", self.mlp_ratio)?;
        let tower = Vit {
            image_size: self.image_size,
            patch: self.patch_size,
            width: self.hidden_size,
            layers: self.num_hidden_layers,
            heads: self.num_attention_heads,
            mlp: (self.hidden_size as f64 * self.mlp_ratio) as usize,
            eps: self.layer_norm_eps,
        };
        tower.validate("").map_err(|e| {
            // In the names of this configuration.
            let name = match e.field.trim_start_matches('.') {
                "width" => "hidden_size",
                "layers" => "num_hidden_layers",
                "heads" => "num_attention_heads",
                "mlp" => "mlp_ratio",
                "patch" => "patch_size",
                "eps" => "layer_norm_eps",
                other => other,
            };
            ConfigError { field: field(name), ..e }
        })?;
        Ok(tower)
    }
}
