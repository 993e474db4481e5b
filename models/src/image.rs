//! From the camera's bytes to the towers' patches, as graph operations; the sizes and tables are made here, on the host.

use fathom_shaders::cpu::Layout;
use fathom_shaders::params as p;

use crate::builder::GraphBuilder;
use crate::config::{Resize, Vit};
use crate::error::ModelError;
use crate::graph::{Op, Storage, Tensor, TensorId};

/// Mean and standard deviation of the channels, of values in 0..1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Normalization {
    /// Mean of red, green, blue.
    pub mean: [f32; 3],
    /// Standard deviation of red, green, blue.
    pub std: [f32; 3],
}

/// SigLIP's: `2 x − 1`.
pub const SIGLIP: Normalization = Normalization { mean: [0.5; 3], std: [0.5; 3] };
/// DINOv2's: ImageNet statistics.
pub const IMAGENET: Normalization = Normalization { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

/// An image as the camera gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageSpec {
    /// Order of the bytes.
    pub layout: Layout,
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Bytes of a row (of the first plane).
    pub stride: usize,
}

impl ImageSpec {
    /// Tightly packed RGB.
    pub fn rgb(width: usize, height: usize) -> ImageSpec {
        ImageSpec { layout: Layout::Rgb24, width, height, stride: width.saturating_mul(3) }
    }

    /// Bytes of an image.
    pub fn bytes(&self) -> usize {
        match self.layout {
            Layout::Rgb24 | Layout::Yuyv => self.stride * self.height,
            Layout::Nv12 => self.stride * (self.height + self.height.div_ceil(2)),
        }
    }

    /// Checks that the sizes fit each other.
    ///
    /// # Errors
    /// [`ModelError::Observation`] for `name` when a side is 0 or beyond 16384, or the stride is shorter than a row or beyond
    /// 131072 (the kernels count bytes in 32 bits).
    pub fn check(&self, name: &str) -> Result<(), ModelError> {
        let (side, longest) = (1..=16384, 131_072);
        let even = self.width.clamp(1, 16384).next_multiple_of(2);
        let row = match self.layout {
            Layout::Rgb24 => 3 * self.width.min(16384),
            Layout::Yuyv => 2 * even,
            Layout::Nv12 => even,
        };
        if side.contains(&self.width) && side.contains(&self.height) && (row..=longest).contains(&self.stride) {
            return Ok(());
        }
        Err(ModelError::Observation {
            name: name.to_owned(),
            expected: format!("1 to 16384 pixels a side and rows of {row} to {longest} bytes"),
            found: format!("{} × {} pixels, rows of {} bytes", self.width, self.height, self.stride),
        })
    }
}

/// Where a picture lies, resized, in its square.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placement {
    width: usize,
    height: usize,
    left: usize,
    top: usize,
}

/// Keeps the aspect ratio, truncates the new sides, centres (openpi `image_tools.resize_with_pad`, lerobot
/// `resize_with_pad`: the same rule). A side never becomes 0.
fn placement(image: &ImageSpec, side: usize) -> Placement {
    let ratio = (image.width as f64 / side as f64).max(image.height as f64 / side as f64);
    let width = ((image.width as f64 / ratio) as usize).clamp(1, side);
    let height = ((image.height as f64 / ratio) as usize).clamp(1, side);
    Placement { width, height, left: (side - width) / 2, top: (side - height) / 2 }
}

/// Weights of Pillow's bilinear (triangle) filter for one axis: per output coordinate the first input, the number of
/// taps, then the weights in 22-bit fixed point (Pillow, `precompute_coeffs` and `normalize_coeffs_8bpc`).
/// Returns the table and the taps per coordinate.
fn pillow_table(input: usize, output: usize) -> (Vec<u32>, usize) {
    let scale = input as f64 / output as f64;
    let filter_scale = scale.max(1.0);
    let support = filter_scale; // the triangle's own support is 1
    let inverse = 1.0 / filter_scale; // Pillow multiplies, which rounds otherwise than a division
    let taps = support.ceil() as usize * 2 + 1;
    let mut table = vec![0_u32; output * (taps + 2)];
    for (out, entry) in table.chunks_exact_mut(taps + 2).enumerate() {
        let center = (out as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(input);
        let weights: Vec<f64> =
            (first..end).map(|i| (1.0 - ((i as f64 - center + 0.5) * inverse).abs()).max(0.0)).collect();
        let sum: f64 = weights.iter().sum();
        if let [start, used, slots @ ..] = entry {
            *start = first as u32;
            *used = weights.len() as u32;
            for (slot, weight) in slots.iter_mut().zip(&weights) {
                *slot = ((weight / sum * f64::from(1 << 22) + 0.5) as i32).cast_unsigned();
            }
        }
    }
    (table, taps)
}

/// Interpolation of [`rectangle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filter {
    /// Triangle.
    Bilinear,
    /// Cubic with a = −0.5.
    Bicubic,
}

impl Filter {
    /// Its value at `x`.
    fn at(self, x: f64) -> f64 {
        let x = x.abs();
        match self {
            Filter::Bilinear => (1.0 - x).max(0.0),
            Filter::Bicubic if x < 1.0 => ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1.0,
            Filter::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            Filter::Bicubic => 0.0,
        }
    }

    /// Half its width.
    fn support(self) -> f64 {
        match self {
            Filter::Bilinear => 1.0,
            Filter::Bicubic => 2.0,
        }
    }
}

/// Weights of torch's antialiased resize of u8 for one axis (aten, `compute_index_ranges_int16_weights`), in the form of
/// [`pillow_table`]. torch keeps 16 bits of each, in the finest fixed point that holds the largest; here the same values
/// stand in 22-bit fixed point, which gives the same sums.
fn torch_table(filter: Filter, input: usize, output: usize) -> (Vec<u32>, usize) {
    let scale = input as f64 / output as f64;
    let support = filter.support() * scale.max(1.0);
    let inverse = if scale >= 1.0 { 1.0 / scale } else { 1.0 };
    let rows: Vec<(usize, Vec<f64>)> = (0..output)
        .map(|out| {
            let center = scale * (out as f64 + 0.5);
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let weights: Vec<f64> = (first..end).map(|i| filter.at((i as f64 - center + 0.5) * inverse)).collect();
            let sum: f64 = weights.iter().sum();
            (first, weights.iter().map(|w| w / sum).collect())
        })
        .collect();
    let largest = rows.iter().flat_map(|(_, weights)| weights).fold(0.0_f64, |m, w| m.max(*w));
    let bits = (0..22).find(|bits| (0.5 + largest * f64::from(2 << bits)) as i32 >= 1 << 15).unwrap_or(22);
    let fixed = |w: f64| {
        let w = w * f64::from(1 << bits);
        ((if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32) << (22 - bits)
    };
    let taps = rows.iter().map(|(_, weights)| weights.len()).max().unwrap_or(0);
    let mut table = vec![0_u32; output * (taps + 2)];
    for ((first, weights), entry) in rows.iter().zip(table.chunks_exact_mut(taps + 2)) {
        if let [start, used, slots @ ..] = entry {
            *start = *first as u32;
            *used = weights.len() as u32;
            for (slot, weight) in slots.iter_mut().zip(weights) {
                *slot = fixed(*weight).cast_unsigned();
            }
        }
    }
    (table, taps)
}

/// The camera's bytes as pixels.
#[derive(Clone, Copy, Debug)]
pub struct Pixels {
    id: TensorId,
    spec: ImageSpec,
}

/// Declares the input `image.<view>` (the camera's bytes in words) and unpacks it.
pub fn unpack(g: &mut GraphBuilder, view: &str, spec: ImageSpec) -> Pixels {
    let bytes = g.words(&format!("image.{view}"), spec.bytes().div_ceil(4), Storage::Input);
    let id = g.words("pixels", spec.width * spec.height, Storage::Activation);
    let params = p::ImageUnpack { width: spec.width as u32, height: spec.height as u32, stride: spec.stride as u32 };
    g.image_op(Op::ImageUnpack { layout: spec.layout, params, bytes, pixels: id });
    Pixels { id, spec }
}

/// Pixels to the square `(side · side, 3)` in 0..1.
pub fn square(g: &mut GraphBuilder, pixels: &Pixels, resize: Resize, side: usize) -> Tensor {
    let square = g.activation("square", side * side, 3);
    let mut at = placement(&pixels.spec, side);
    if resize == Resize::TorchBilinearPadTopLeft {
        (at.left, at.top) = (side - at.width, side - at.height);
    }
    let [in_width, in_height] = [pixels.spec.width as u32, pixels.spec.height as u32];
    let [width, height, left, top] = [at.width, at.height, at.left, at.top].map(|v| v as u32);
    let side = side as u32;
    match resize {
        // At the input's size, as Exact demands, torch's changes nothing.
        Resize::TorchBilinear | Resize::TorchBilinearPadTopLeft | Resize::Exact => {
            let params = p::ResizeTorch { in_width, in_height, width, height, left, top, side };
            g.image_op(Op::ResizeTorch { params, source: pixels.id, square: square.id });
        }
        Resize::PillowBilinear => {
            let source = resize_u8(g, pixels, (at.width, at.height), pillow_table);
            let params = p::ImagePad { width, height, left, top, out_width: side, out_height: side };
            g.image_op(Op::ImagePad { params, source, square: square.id });
        }
    }
    square
}

/// Pixels to `(height · width, 3)` in 0..1, as torchvision's antialiased `resize` of u8 tensors does: along rows, then
/// along columns, rounded to u8 after each; a side that stays is not touched.
pub fn rectangle(g: &mut GraphBuilder, pixels: &Pixels, filter: Filter, (width, height): (usize, usize)) -> Tensor {
    let source = resize_u8(g, pixels, (width, height), |from, to| torch_table(filter, from, to));
    let [width, height] = [width, height].map(|v| v as u32);
    let out = g.activation("rectangle", (width * height) as usize, 3);
    let params = p::ImagePad { width, height, left: 0, top: 0, out_width: width, out_height: height };
    g.image_op(Op::ImagePad { params, source, square: out.id });
    out
}

/// Both passes of a resize of u8 pixels; `table` makes the weights for (input, output) sizes.
fn resize_u8(
    g: &mut GraphBuilder,
    pixels: &Pixels,
    (width, height): (usize, usize),
    table: impl Fn(usize, usize) -> (Vec<u32>, usize),
) -> TensorId {
    let mut source = pixels.id;
    if width != pixels.spec.width {
        source = resize_axis(g, source, &pixels.spec, (width, pixels.spec.height), false, &table);
    }
    if height != pixels.spec.height {
        let narrowed = ImageSpec { width, ..pixels.spec };
        source = resize_axis(g, source, &narrowed, (width, height), true, &table);
    }
    source
}

fn resize_axis(
    g: &mut GraphBuilder,
    source: TensorId,
    from: &ImageSpec,
    to: (usize, usize),
    vertical: bool,
    table: impl Fn(usize, usize) -> (Vec<u32>, usize),
) -> TensorId {
    let (table, taps) = if vertical { table(from.height, to.1) } else { table(from.width, to.0) };
    let table = g.words("resize weights", table.len(), Storage::Constant(table));
    let pixels = g.words("resized", to.0 * to.1, Storage::Activation);
    let params = p::ResizePillow {
        in_width: from.width as u32,
        out_width: to.0 as u32,
        out_height: to.1 as u32,
        vertical: u32::from(vertical),
        taps: taps as u32,
    };
    g.image_op(Op::ResizePillow { params, table, source, pixels });
    pixels
}

/// The square to normalised patches, into `into (patches, 3 · patch²)`.
pub fn patchify(g: &mut GraphBuilder, square: Tensor, vit: &Vit, norm: Normalization, into: Tensor) {
    patches(g, square, (vit.image_size, vit.image_size), vit.patch, norm, into);
}

/// An image `(height · width, 3)` to normalised patches, into `into (height / patch · width / patch, 3 · patch²)`.
pub fn patches(
    g: &mut GraphBuilder,
    image: Tensor,
    (width, height): (usize, usize),
    patch: usize,
    norm: Normalization,
    into: Tensor,
) {
    let params = p::Patchify {
        width: width as u32,
        height: height as u32,
        patch_side: patch as u32,
        y_offset: into.offset as u32,
        mean_r: norm.mean[0],
        mean_g: norm.mean[1],
        mean_b: norm.mean[2],
        std_r: norm.std[0],
        std_g: norm.std[1],
        std_b: norm.std[2],
    };
    g.image_op(Op::Patchify { params, square: image.id, patches: into.id });
}
