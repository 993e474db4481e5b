//! Hugging Face's `DepthAnythingForDepthEstimation`: `config.json` and `preprocessor_config.json`.

use std::path::Path;

use serde::Deserialize;

use super::description::{Family, Mark};
use super::dinov2::RawBackbone;
use super::nearest::Outline;
use super::summary::DepthSummary;
use crate::checkpoint::{Checkpoint, Weights};
use crate::error::ModelError;
use crate::io::is_there;
use crate::io::json::read_json;
use crate::nets::config::expect;
use crate::nets::depth_anything::{DepthAnything, DepthAnythingConfig, DepthKind, MAX_SIDE, Processor, Reassemble};
use crate::nets::image::{Filter, IMAGENET, PixelNormalization};

/// Depth Anything V2.
pub static FAMILY: Family = Family {
    name: "depth-anything",
    purpose: Some("for `fathom depth`, and its encoder for `fathom compose --depth`"),
    mark: Mark::ModelType("depth_anything"),
    outline: Some(Outline {
        title: "Depth Anything V2",
        names: &["backbone.", "neck.", "head.conv"],
        advice: "run by `fathom depth`",
    }),
    summary: DepthSummary::read,
    ..Family::POLICY
};

/// Loads the model in the Hugging Face directory `dir`.
///
/// # Errors
/// Every way in which the directory is not such a model: see [`ModelError`].
pub fn load(dir: &Path) -> Result<(DepthAnything, Weights), ModelError> {
    let model = DepthAnything::new(read(dir)?);
    let find = |checkpoint| super::find(&FAMILY, checkpoint, &model.params, |p| vec![p.name.clone()]);
    let weights = Checkpoint::open_model(dir, find)?.verify()?;
    Ok((model, weights))
}

/// Reads the configuration in `dir`. Without `preprocessor_config.json` it is that of the published models.
///
/// # Errors
/// [`ModelError::File`] for a file that cannot be read, [`ModelError::Config`] for values that no
/// such model has or that are not supported.
pub fn read(dir: &Path) -> Result<DepthAnythingConfig, ModelError> {
    let raw: RawConfig = read_json(&dir.join("config.json"))?;
    let processor = dir.join("preprocessor_config.json");
    let processor: RawProcessor = if is_there(&processor) { read_json(&processor)? } else { RawProcessor::published() };
    raw.check(processor.check()?)
}

/// The fields that decide; defaults are those of transformers' `DepthAnythingConfig`.
#[derive(Deserialize)]
#[serde(default)]
struct RawConfig {
    model_type: String,
    backbone_config: RawBackbone,
    patch_size: usize,
    reassemble_hidden_size: usize,
    reassemble_factors: Vec<f64>,
    neck_hidden_sizes: Vec<usize>,
    fusion_hidden_size: usize,
    head_in_index: i64,
    head_hidden_size: usize,
    depth_estimation_type: DepthKind,
    max_depth: Option<f32>,
}

impl Default for RawConfig {
    fn default() -> RawConfig {
        RawConfig {
            model_type: String::new(),
            backbone_config: RawBackbone::default(),
            patch_size: 14,
            reassemble_hidden_size: 384,
            reassemble_factors: vec![4.0, 2.0, 1.0, 0.5],
            neck_hidden_sizes: vec![48, 96, 192, 384],
            fusion_hidden_size: 64,
            head_in_index: -1,
            head_hidden_size: 32,
            depth_estimation_type: DepthKind::Relative,
            max_depth: None,
        }
    }
}

impl RawConfig {
    fn check(&self, processor: Processor) -> Result<DepthAnythingConfig, ModelError> {
        expect(self.model_type == "depth_anything", "model_type", "\"depth_anything\"", &self.model_type)?;
        let b = &self.backbone_config;
        let field = |name: &str| format!("backbone_config.{name}");
        let backbone = b.check(&field)?;
        expect(!b.reshape_hidden_states, &field("reshape_hidden_states"), "false", b.reshape_hidden_states)?;
        let (patch, width) = (backbone.patch, backbone.width);
        expect(self.patch_size == patch, "patch_size", format!("{patch}, as the backbone's"), self.patch_size)?;
        let reassembled = self.reassemble_hidden_size;
        expect(reassembled == width, "reassemble_hidden_size", format!("{width}, as the backbone's"), reassembled)?;

        let taps = b.taps();
        let ascending = taps.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
        let within = !taps.is_empty() && taps.iter().all(|t| *t <= backbone.layers);
        let expected = format!("ascending numbers of at most {} layers", backbone.layers);
        expect(ascending && within, &field("out_indices"), expected, format!("{taps:?}"))?;
        for (name, count) in
            [("neck_hidden_sizes", self.neck_hidden_sizes.len()), ("reassemble_factors", self.reassemble_factors.len())]
        {
            expect(count == taps.len(), name, format!("{}, as out_indices", taps.len()), count)?;
        }
        let mut neck = Vec::new();
        for (channels, factor) in self.neck_hidden_sizes.iter().zip(&self.reassemble_factors) {
            expect((1..=1 << 16).contains(channels), "neck_hidden_sizes", "1 to 65536", channels)?;
            let whole = |v: f64| v.fract() == 0.0 && (2.0..=64.0).contains(&v);
            neck.push((
                *channels,
                match *factor {
                    1.0 => Reassemble::Keep,
                    f if whole(f) => Reassemble::Enlarge(f as usize),
                    f if f > 0.0 && whole(1.0 / f) => Reassemble::Shrink((1.0 / f) as usize),
                    f => {
                        expect(false, "reassemble_factors", "1, 2 to 64, or the inverse of it", f)?;
                        Reassemble::Keep
                    }
                },
            ));
        }
        for (name, channels) in
            [("fusion_hidden_size", self.fusion_hidden_size), ("head_hidden_size", self.head_hidden_size)]
        {
            expect((1..=1 << 16).contains(&channels), name, "1 to 65536", channels)?;
        }
        expect(self.fusion_hidden_size > 1, "fusion_hidden_size", "at least 2", self.fusion_hidden_size)?;
        let count = taps.len() as i64;
        let input = if self.head_in_index < 0 { self.head_in_index + count } else { self.head_in_index };
        let expected = format!("{} to {}", -count, count - 1);
        expect((0..count).contains(&input), "head_in_index", expected, self.head_in_index)?;
        let max_depth = self.max_depth.filter(|d| *d != 0.0).unwrap_or(1.0);
        expect(max_depth > 0.0 && max_depth.is_finite(), "max_depth", "a number above 0", max_depth)?;
        Ok(DepthAnythingConfig {
            backbone,
            taps,
            norm: b.apply_layernorm,
            neck,
            fusion: self.fusion_hidden_size,
            head_input: input as usize,
            head: self.head_hidden_size,
            kind: self.depth_estimation_type,
            max_depth,
            processor,
        })
    }
}

/// Defaults are those of the class, not those of the published Depth Anything models.
#[derive(Deserialize)]
#[serde(default)]
struct RawProcessor {
    image_processor_type: Option<String>,
    do_resize: bool,
    do_rescale: bool,
    do_normalize: bool,
    do_pad: Option<bool>,
    size: RawSize,
    keep_aspect_ratio: bool,
    ensure_multiple_of: usize,
    resample: u32,
    rescale_factor: f64,
    image_mean: [f32; 3],
    image_std: [f32; 3],
}

#[derive(Deserialize)]
struct RawSize {
    height: usize,
    width: usize,
}

impl Default for RawProcessor {
    fn default() -> RawProcessor {
        RawProcessor {
            image_processor_type: None,
            do_resize: true,
            do_rescale: true,
            do_normalize: true,
            do_pad: None,
            size: RawSize { height: 384, width: 384 },
            keep_aspect_ratio: false,
            ensure_multiple_of: 1,
            resample: 3,
            rescale_factor: 1.0 / 255.0,
            image_mean: [0.5; 3],
            image_std: [0.5; 3],
        }
    }
}

impl RawProcessor {
    /// Of the published Depth Anything models.
    fn published() -> RawProcessor {
        RawProcessor {
            size: RawSize { height: 518, width: 518 },
            keep_aspect_ratio: true,
            ensure_multiple_of: 14,
            image_mean: IMAGENET.mean,
            image_std: IMAGENET.std,
            ..RawProcessor::default()
        }
    }

    fn check(&self) -> Result<Processor, ModelError> {
        let field = |name: &str| format!("preprocessor_config.json: {name}");
        let class = self.image_processor_type.as_deref().unwrap_or("DPTImageProcessor");
        let known = class.starts_with("DPTImageProcessor");
        expect(known, &field("image_processor_type"), "\"DPTImageProcessor\"", class)?;
        expect(self.do_rescale, &field("do_rescale"), "true", self.do_rescale)?;
        let padded = self.do_pad.unwrap_or(false);
        expect(!padded, &field("do_pad"), "false", padded)?;
        let factor = self.rescale_factor;
        expect((factor * 255.0 - 1.0).abs() < 1e-6, &field("rescale_factor"), "1/255", factor)?;
        let sides = (1..=MAX_SIDE).contains(&self.size.height) && (1..=MAX_SIDE).contains(&self.size.width);
        let found = format!("{} × {}", self.size.width, self.size.height);
        expect(sides, &field("size"), format!("sides of 1 to {MAX_SIDE}"), found)?;
        let multiple = self.ensure_multiple_of;
        expect((1..=MAX_SIDE).contains(&multiple), &field("ensure_multiple_of"), format!("1 to {MAX_SIDE}"), multiple)?;
        let known = (2..=3).contains(&self.resample);
        expect(known, &field("resample"), "2 (bilinear) or 3 (bicubic)", self.resample)?;
        let numbers = self.image_mean.iter().all(|m| m.is_finite()) && self.image_std.iter().all(|s| *s > 0.0);
        let found = format!("{:?} and {:?}", self.image_mean, self.image_std);
        expect(numbers, &field("image_mean, image_std"), "numbers, deviations above 0", found)?;
        let normalization = match self.do_normalize {
            true => PixelNormalization { mean: self.image_mean, std: self.image_std },
            false => PixelNormalization { mean: [0.0; 3], std: [1.0; 3] },
        };
        Ok(Processor {
            size: self.do_resize.then_some((self.size.height, self.size.width)),
            keep_aspect_ratio: self.keep_aspect_ratio,
            multiple: self.ensure_multiple_of,
            filter: if self.resample == 2 { Filter::Bilinear } else { Filter::Bicubic },
            normalization,
        })
    }
}
