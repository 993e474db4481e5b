//! Depth Anything V2, whole: DINOv2 tapped after four layers, each tap reassembled at its own resolution, fused from the
//! deepest on, and a head that gives one depth a pixel. `DepthAnythingForDepthEstimation` of transformers is the origin.

use crate::checkpoint::Weights;
use crate::error::ModelError;
use crate::graph::builder::{Activation, Fused, GraphBuilder};
use crate::graph::params::{Linear, ParamTable, Role, Tensors};
use crate::graph::{Graph, Tensor};
use crate::nets::config::PosInterpolation;
use crate::nets::image::{self, ImageSpec};
use crate::nets::maps::{Conv, Map};
use crate::nets::vit::{self, VitParams};

mod config;

pub(crate) use config::MAX_SIDE;
pub use config::{DepthAnythingConfig, DepthKind, Processor, Reassemble};

/// Most bytes of one map in the head. Larger maps are computed in bands of rows. It is a fourth of the software driver's
/// binding limit.
pub const BAND_BYTES: usize = 32 << 20;

/// A model: its configuration and the parameters it needs, under Hugging Face's names.
#[derive(Clone, Debug)]
pub struct DepthAnything {
    /// Sizes.
    pub config: DepthAnythingConfig,
    /// All parameters.
    pub params: ParamTable,
    backbone: VitParams,
    reassemble: Vec<Neck>,
    fusion: Vec<Fusion>,
    conv1: Tensors, // (F / 2, F, 3, 3)
    conv2: Tensors, // (head, F / 2, 3, 3)
    conv3: Linear,  // (1, head, 1, 1)
}

/// Of one tap with C channels.
#[derive(Clone, Debug)]
struct Neck {
    projection: Linear,      // (C, D, 1, 1)
    resize: Option<Tensors>, // enlarging (C, C, f, f), shrinking (C, C, 3, 3)
    conv: Tensors,           // (F, C, 3, 3), no bias
}

/// Of one fusion layer; each convolution is `(F, F, 3, 3)`.
#[derive(Clone, Debug)]
struct Fusion {
    residual1: Option<[Tensors; 2]>,
    residual2: [Tensors; 2],
    projection: Linear, // (F, F, 1, 1)
}

/// Options of a forward pass.
#[derive(Clone, Copy, Debug)]
pub struct DepthOptions {
    /// The photo.
    pub image: ImageSpec,
    /// Whether to give every stage's tensors as outputs.
    pub taps: bool,
    /// Most bytes of one map in the head; see [`BAND_BYTES`].
    pub band_bytes: usize,
}

impl DepthAnything {
    /// Declares the parameters of `config`.
    pub fn new(config: DepthAnythingConfig) -> DepthAnything {
        let (c, t) = (&config, &mut ParamTable::default());
        let backbone = VitParams::dinov2(t, "backbone", &c.backbone, c.backbone.grid());
        let f = c.fusion;
        let conv = |t: &mut ParamTable, name: &str, to: usize, from: usize, side: usize, bias: bool| {
            t.convolution(name, &[to, from, side, side], bias)
        };
        let pointwise =
            |t: &mut ParamTable, name: &str, to: usize, from: usize| t.linear_shaped(name, &[to, from, 1, 1], true);
        let reassemble = c
            .neck
            .iter()
            .enumerate()
            .map(|(i, (channels, resize))| {
                let name = |part: &str| format!("neck.reassemble_stage.layers.{i}.{part}");
                let side = match resize {
                    Reassemble::Enlarge(factor) => Some(*factor),
                    Reassemble::Keep => None,
                    Reassemble::Shrink(_) => Some(3),
                };
                Neck {
                    projection: pointwise(t, &name("projection"), *channels, c.backbone.width),
                    resize: side.map(|side| conv(t, &name("resize"), *channels, *channels, side, true)),
                    conv: conv(t, &format!("neck.convs.{i}"), f, *channels, 3, false),
                }
            })
            .collect();
        let fusion = (0..c.neck.len())
            .map(|i| {
                let name = |part: &str| format!("neck.fusion_stage.layers.{i}.{part}");
                let unit = |t: &mut ParamTable, unit: &str| {
                    [1, 2].map(|n| conv(t, &name(&format!("{unit}.convolution{n}")), f, f, 3, true))
                };
                // The deepest layer has nothing to add to: its first unit is in the file, and not used.
                let residual1 = if i > 0 { Some(unit(t, "residual_layer1")) } else { None };
                for n in (1..=2).filter(|_| i == 0) {
                    let unused = name(&format!("residual_layer1.convolution{n}"));
                    t.declare(format!("{unused}.weight"), &[f, f, 3, 3], Role::Unused);
                    t.declare(format!("{unused}.bias"), &[f], Role::Unused);
                }
                let residual2 = unit(t, "residual_layer2");
                Fusion { residual1, residual2, projection: pointwise(t, &name("projection"), f, f) }
            })
            .collect();
        let conv1 = conv(t, "head.conv1", f / 2, f, 3, true);
        let conv2 = conv(t, "head.conv2", c.head, f / 2, 3, true);
        let conv3 = pointwise(t, "head.conv3", 1, c.head);
        let params = std::mem::take(t);
        DepthAnything { params, backbone, reassemble, fusion, conv1, conv2, conv3, config }
    }

    /// Width and height of the map for a photo of `width` × `height`.
    ///
    /// # Errors
    /// [`ModelError::Observation`] for a photo of impossible size.
    pub fn map_size(&self, width: usize, height: usize) -> Result<(usize, usize), ModelError> {
        let patch = self.config.backbone.patch;
        let (width, height) = self.config.processor.checked_size(width, height, patch)?;
        Ok((width / patch * patch, height / patch * patch))
    }

    /// One photo as a graph. Input: `image.photo` (its bytes). Output: `depth (height, width)` of
    /// [`map_size`](Self::map_size); with [`taps`](DepthOptions::taps) every stage, channels last.
    ///
    /// # Errors
    /// [`ModelError::Observation`] for a photo of impossible size, [`ModelError::Shape`] when the configuration's sizes do
    /// not fit the kernels.
    pub fn forward(&self, weights: &Weights, o: &DepthOptions) -> Result<Graph, ModelError> {
        let (c, b) = (&self.config, &self.config.backbone);
        o.image.check("image")?;
        let size = c.processor.checked_size(o.image.width, o.image.height, b.patch)?;
        let (pw, ph) = (size.0 / b.patch, size.1 / b.patch);
        let g = &mut GraphBuilder::default();

        g.stage("decode and resize");
        let pixels = image::unpack(g, "photo", o.image);
        let resized = image::rectangle(g, &pixels, c.processor.filter, size);
        let patches = g.activation("patches", pw * ph, b.patch_dim());
        image::patches(g, resized, size, b.patch, c.processor.normalization, patches);

        g.stage("backbone");
        let features = self.backbone(g, weights, patches, (ph, pw))?;

        g.stage("reassemble");
        let mut maps = Vec::new();
        for ((neck, (_, resize)), feature) in self.reassemble.iter().zip(&c.neck).zip(&features) {
            let x = Map::whole(g.linear(*feature, &neck.projection, Fused::default()), pw, ph);
            let x = match (resize, &neck.resize) {
                (Reassemble::Enlarge(factor), Some(layer)) => g.conv_transpose(x, layer, *factor),
                (Reassemble::Shrink(stride), Some(layer)) => {
                    g.conv3x3(x, layer, Conv { stride: *stride, ..Conv::default() })
                }
                _ => x,
            };
            maps.push(g.conv3x3(x, &neck.conv, Conv::default()));
        }

        let (mut fused, mut small): (Vec<Map>, Vec<_>) = Default::default();
        for (i, (layer, map)) in self.fusion.iter().zip(maps.iter().rev()).enumerate() {
            g.stage(format!("fusion {}", i + 1));
            let x = match (fused.last(), &layer.residual1) {
                (Some(deeper), Some(unit)) => residual(g, *map, unit, Some(*deeper)),
                _ => *map,
            };
            let x = residual(g, x, &layer.residual2, None);
            let next = maps.iter().rev().nth(i + 1);
            let size = next.map_or((2 * x.width, 2 * x.height), |next| (next.width, next.height));
            // The origin projects after it resized. A projection of each pixel and an interpolation, whose weights sum
            // to 1, may change places; here it meets a fourth of the pixels.
            let projected = g.linear(x.tensor, &layer.projection, Fused::default());
            let projected = Map { tensor: projected, ..x };
            small.push((projected, size));
            // The largest goes to the head only, which resizes it itself.
            if next.is_some() || o.taps {
                fused.push(g.resize_corners(projected, size, None));
            }
        }

        g.stage("head");
        let (from, size) = small.get(c.head_input).copied().unwrap_or((Map::whole(patches, pw, ph), (pw, ph)));
        let half = self.half(g, from, size, o.band_bytes);
        let depth = self.head(g, half, (pw * b.patch, ph * b.patch), o.band_bytes);
        if o.taps {
            g.output("patches", patches);
            let stages =
                [("tap", features), ("map", tensors(&maps)), ("fused", tensors(&fused)), ("head", vec![half.tensor])];
            for (stage, list) in stages {
                for (i, tensor) in list.into_iter().enumerate() {
                    g.output(format!("{stage}.{i}"), tensor);
                }
            }
        }
        g.output("depth", depth);
        std::mem::take(g).finish()
    }

    /// Features `(patches, D)` of each tap.
    fn backbone(
        &self,
        g: &mut GraphBuilder,
        weights: &Weights,
        patches: Tensor,
        grid: (usize, usize),
    ) -> Result<Vec<Tensor>, ModelError> {
        let (c, b) = (&self.config, &self.config.backbone);
        let table = weights.host(self.backbone.positions)?;
        let (first, rest) = table.split_at(b.width.min(table.len()));
        let rest = vit::interpolate_positions(rest, b.grid(), grid, b.width, PosInterpolation::Size);
        let positions = g.constant("positions", grid.0 * grid.1, b.width, &rest);
        let cls: Vec<f32> = match self.backbone.cls {
            Some(cls) => weights.host(cls)?.iter().zip(first).map(|(a, b)| a + b).collect(),
            None => Vec::new(),
        };
        let cls = g.constant("cls", 1, b.width, &cls);
        Ok(vit::encode_taps(g, &self.backbone, b, patches, positions, cls, (&c.taps, c.norm)))
    }

    /// A fused map, not yet resized, through its resize to `(width, height)` and the head's first convolution, in bands of
    /// rows.
    fn half(&self, g: &mut GraphBuilder, from: Map, (width, height): (usize, usize), band_bytes: usize) -> Map {
        let bands: Vec<Band> = bands(band_bytes, (width, height), from.tensor.cols.max(self.conv1.n)).collect();
        let made = |g: &mut GraphBuilder, b: &Band| {
            let x = g.resize_corners(from, (width, height), Some(b.needed));
            g.conv3x3(x, &self.conv1, Conv { band: Some((b.first, b.rows)), ..Conv::default() })
        };
        if let [all] = bands.as_slice() {
            return made(g, all);
        }
        let whole = g.activation("half", height * width, self.conv1.n);
        for band in &bands {
            let x = made(g, band);
            // A row of pixels as one row: a GPU takes no more than 65535 of them.
            let cols = width * whole.cols;
            let lines = |t: Tensor| Tensor { rows: band.rows, cols, stride: cols, ..t };
            let into = whole.slice(band.first * width, band.rows * width);
            g.scale(lines(x.tensor), 1.0, Some(lines(into)));
        }
        Map::whole(whole, width, height)
    }

    /// From the head's first convolution to `(height, width)` depths, in bands of rows.
    fn head(&self, g: &mut GraphBuilder, half: Map, (width, height): (usize, usize), band_bytes: usize) -> Tensor {
        let c = &self.config;
        let depth = g.activation("depth", height * width, 1);
        let channels = half.tensor.cols.max(c.head);
        for Band { first, rows, needed } in bands(band_bytes, (width, height), channels) {
            let x = g.resize_corners(half, (width, height), Some(needed));
            let x = g.conv3x3(x, &self.conv2, Conv { relu_out: true, band: Some((first, rows)), ..Conv::default() });
            let activation = match c.kind {
                DepthKind::Relative => Activation::Relu,
                DepthKind::Metric => Activation::Sigmoid,
            };
            let into = Some(depth.slice(first * width, rows * width));
            g.linear(x.tensor, &self.conv3, Fused { activation, into, ..Fused::default() });
        }
        let depth = Tensor { rows: height, cols: width, stride: width, ..depth };
        if c.max_depth == 1.0 { depth } else { g.scale(depth, c.max_depth, None) }
    }
}

/// Rows of a picture that are made at once.
struct Band {
    first: usize,
    rows: usize,
    /// First row and number of rows that a 3 × 3 convolution reads for them: one above and one below, where they are.
    needed: (usize, usize),
}

/// Bands of a picture of `channels` whose bytes are at most `band_bytes`, if a row's are.
fn bands(band_bytes: usize, (width, height): (usize, usize), channels: usize) -> impl Iterator<Item = Band> {
    let rows = (band_bytes / (4 * width * channels).max(1)).saturating_sub(2).clamp(1, height.max(1));
    (0..height).step_by(rows).map(move |first| {
        let rows = rows.min(height - first);
        let from = first.saturating_sub(1);
        let to = (first + rows + 1).min(height);
        Band { first, rows, needed: (from, to - from) }
    })
}

/// `x + conv2(relu(conv1(relu(x))))`, and `other` on top of it.
fn residual(g: &mut GraphBuilder, x: Map, [conv1, conv2]: &[Tensors; 2], other: Option<Map>) -> Map {
    let h = g.conv3x3(x, conv1, Conv { relu_in: true, ..Conv::default() });
    g.conv3x3(h, conv2, Conv { relu_in: true, add: [Some(x), other], ..Conv::default() })
}

fn tensors(maps: &[Map]) -> Vec<Tensor> {
    maps.iter().map(|m| m.tensor).collect()
}
