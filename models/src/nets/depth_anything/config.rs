//! The sizes of a Depth Anything, and how its images are resized.

use serde::Deserialize;

use crate::error::ModelError;
use crate::nets::config::Vit;
use crate::nets::image::{Filter, PixelNormalization};

/// Most pixels along a side that the network is given.
pub(crate) const MAX_SIDE: usize = 1 << 13;

/// The meaning of a depth map's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DepthKind {
    /// Inverse depth up to scale and shift: larger is nearer.
    Relative,
    /// Metres.
    Metric,
}

/// The change of a tap's resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reassemble {
    /// Transposed convolution with this kernel and stride.
    Enlarge(usize),
    /// As it is.
    Keep,
    /// 3 × 3 convolution with this stride.
    Shrink(usize),
}

/// Sizes of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct DepthAnythingConfig {
    /// DINOv2; `image_size` is that of its table of positions.
    pub backbone: Vit,
    /// After how many layers features are tapped, ascending.
    pub taps: Vec<usize>,
    /// Whether taps pass the backbone's final norm.
    pub norm: bool,
    /// Channels of each tap once reassembled, and how it is resized.
    pub neck: Vec<(usize, Reassemble)>,
    /// Channels of the fused maps.
    pub fusion: usize,
    /// Which fused map the head takes.
    pub head_input: usize,
    /// Channels within the head.
    pub head: usize,
    /// Meaning of the result.
    pub kind: DepthKind,
    /// Factor on the result (metric: the largest depth in metres).
    pub max_depth: f32,
    /// From a photo to the network's input.
    pub processor: Processor,
}

/// transformers' `DPTImageProcessor`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Processor {
    /// Height and width to reach, if the image is resized at all.
    pub size: Option<(usize, usize)>,
    /// Whether both sides are scaled alike, by the factor nearer to 1.
    pub keep_aspect_ratio: bool,
    /// Sides are rounded to multiples of this.
    pub multiple: usize,
    /// Interpolation.
    pub filter: Filter,
    /// Of the channels.
    pub normalization: PixelNormalization,
}

impl Processor {
    /// Width and height that an image of `width` × `height` is resized to (`get_resize_output_image_size`).
    pub fn output_size(&self, width: usize, height: usize) -> (usize, usize) {
        let Some((to_height, to_width)) = self.size else { return (width, height) };
        let mut scale_height = to_height as f64 / height as f64;
        let mut scale_width = to_width as f64 / width as f64;
        if self.keep_aspect_ratio {
            if (1.0 - scale_width).abs() < (1.0 - scale_height).abs() {
                scale_height = scale_width;
            } else {
                scale_width = scale_height;
            }
        }
        let multiple = self.multiple as f64;
        let round = |v: f64| (v / multiple).round_ties_even() as usize * self.multiple;
        (round(scale_width * width as f64), round(scale_height * height as f64))
    }

    /// [`output_size`](Self::output_size), if it has a patch of the side `patch` at least and is not too large.
    ///
    /// # Errors
    /// [`ModelError::Observation`] for an image so thin that nothing would be left of it, or too large.
    pub fn checked_size(&self, width: usize, height: usize, patch: usize) -> Result<(usize, usize), ModelError> {
        let to = self.output_size(width, height);
        if (patch..=MAX_SIDE).contains(&to.0) && (patch..=MAX_SIDE).contains(&to.1) {
            return Ok(to);
        }
        Err(ModelError::Observation {
            name: "image".to_owned(),
            expected: format!("sides of {patch} to {MAX_SIDE} pixels once resized"),
            found: format!("{width} × {height} pixels, resized to {} × {}", to.0, to.1),
        })
    }
}
