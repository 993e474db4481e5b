//! From the camera's bytes to the towers' patches, as graph operations; the sizes and tables are made here, on the host.

use fathom_shaders::cpu::{Arithmetic, Layout};
use fathom_shaders::params as p;

use crate::error::ModelError;
use crate::graph::builder::GraphBuilder;
use crate::graph::{Op, Storage, Tensor, TensorId};
use crate::nets::config::{Resize, Vit};

/// Mean and standard deviation of the channels, of values in 0..1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PixelNormalization {
    /// Mean of red, green, blue.
    pub mean: [f32; 3],
    /// Standard deviation of red, green, blue.
    pub std: [f32; 3],
}

/// SigLIP's: `2 x − 1`.
pub const SIGLIP: PixelNormalization = PixelNormalization { mean: [0.5; 3], std: [0.5; 3] };
/// DINOv2's: ImageNet statistics.
pub const IMAGENET: PixelNormalization = PixelNormalization { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };

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

/// Per output coordinate of one axis: the first input, and the weights from there on.
type Taps<W> = Vec<(usize, Vec<W>)>;

/// How the axes of a picture are resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// Pillow's bilinear of u8, rounded to u8 after each axis.
    Pillow,
    /// torch's antialiased resize of u8, rounded to u8 after each axis.
    Torch(Filter),
    /// torch's antialiased bilinear resize of f32, rounded to u8 at the end (torchvision's of u8).
    TorchFloat,
    /// OpenCV's `INTER_LANCZOS4` of u8.
    CvLanczos4,
}

impl Method {
    /// The table of `resize_axis.wgsl` for one axis, and the taps per coordinate.
    fn table(self, input: usize, output: usize) -> (Vec<u32>, usize) {
        match self {
            Method::Pillow => pack(&antialiased(Filter::Bilinear, input, output), |w| {
                ((w * f64::from(1 << 22) + 0.5) as i32).cast_unsigned()
            }),
            Method::Torch(filter) => {
                let taps = antialiased(filter, input, output);
                let bits = torch_bits(&taps);
                pack(&taps, |w| {
                    let w = w * f64::from(1 << bits);
                    (((if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32) << (22 - bits)).cast_unsigned()
                })
            }
            Method::TorchFloat => pack(&torch_float(input, output), f32::to_bits),
            Method::CvLanczos4 => pack(&lanczos4(input, output), i32::cast_unsigned),
        }
    }

    fn arithmetic(self) -> Arithmetic {
        if self == Method::TorchFloat { Arithmetic::Float } else { Arithmetic::Integer }
    }

    /// Whether the first axis' sums go into the second's as they are; else they are rounded to u8 between.
    fn wide(self) -> bool {
        matches!(self, Method::TorchFloat | Method::CvLanczos4)
    }
}

fn pack<W: Copy>(taps: &Taps<W>, word: impl Fn(W) -> u32) -> (Vec<u32>, usize) {
    let most = taps.iter().map(|(_, weights)| weights.len()).max().unwrap_or(0);
    let mut table = vec![0_u32; taps.len() * (most + 2)];
    for ((first, weights), entry) in taps.iter().zip(table.chunks_exact_mut(most + 2)) {
        if let [start, used, slots @ ..] = entry {
            *start = *first as u32;
            *used = weights.len() as u32;
            for (slot, weight) in slots.iter_mut().zip(weights) {
                *slot = word(*weight);
            }
        }
    }
    (table, most)
}

/// Weights of an antialiased filter, which Pillow (`precompute_coeffs`) and torch (aten, `compute_index_ranges_weights`)
/// make alike.
fn antialiased(filter: Filter, input: usize, output: usize) -> Taps<f64> {
    let scale = input as f64 / output as f64;
    let support = filter.support() * scale.max(1.0);
    let inverse = 1.0 / scale.max(1.0); // both multiply, which rounds otherwise than a division
    let row = |out: usize| {
        let center = (out as f64 + 0.5) * scale;
        let first = (center - support + 0.5).max(0.0) as usize;
        let end = ((center + support + 0.5) as usize).min(input);
        let weights: Vec<f64> = (first..end).map(|i| filter.at((i as f64 - center + 0.5) * inverse)).collect();
        let sum: f64 = weights.iter().sum();
        (first, weights.iter().map(|w| w / sum).collect())
    };
    (0..output).map(row).collect()
}

/// The bilinear ones where torch resizes f32, with places and weights in f32, too (aten,
/// `_compute_indices_min_size_weights_aa`): at some scales many sums lie between two bytes, and the last bit decides.
fn torch_float(input: usize, output: usize) -> Taps<f32> {
    let scale = input as f32 / output as f32;
    let support = scale.max(1.0);
    let inverse = 1.0 / support;
    let row = |out: usize| {
        let center = (f64::from(scale) * (out as f64 + 0.5)) as f32;
        let first = (f64::from(center - support) + 0.5).max(0.0) as usize;
        let end = ((f64::from(center + support) + 0.5) as usize).min(input);
        let at = |i: usize| ((f64::from(i as f32 - center) + 0.5) * f64::from(inverse)) as f32;
        let weights: Vec<f32> = (first..end).map(|i| Filter::Bilinear.at(f64::from(at(i))) as f32).collect();
        let sum: f32 = weights.iter().sum();
        (first, weights.iter().map(|w| w / sum).collect())
    };
    (0..output).map(row).collect()
}

/// torch keeps 16 bits of each weight of a u8 resize, in the finest fixed point that holds the largest (aten,
/// `compute_index_ranges_int16_weights`): the bits after the point, 22 at most. The same values in 22-bit fixed point give
/// the same sums.
fn torch_bits(taps: &Taps<f64>) -> u32 {
    let largest = taps.iter().flat_map(|(_, weights)| weights).fold(0.0_f64, |m, w| m.max(*w));
    (0..22).find(|bits| (0.5 + largest * f64::from(2 << bits)) as i32 >= 1 << 15).unwrap_or(22)
}

/// Weights of OpenCV's `INTER_LANCZOS4` in 11-bit fixed point (`interpolateLanczos4` and the tables of `cv::resize`):
/// eight taps whatever the scale, those beyond the border on the border.
fn lanczos4(input: usize, output: usize) -> Taps<i32> {
    let scale = 1.0 / (output as f64 / input as f64);
    let row = |out: usize| {
        let at = ((out as f64 + 0.5) * scale - 0.5) as f32;
        let from = at.floor();
        let weights = lanczos4_weights(at - from).map(|w| (w * 2048.0).round_ties_even() as i32);
        let place = |tap: usize| (from as i64 + tap as i64 - 3).clamp(0, input as i64 - 1) as usize;
        let first = place(0);
        let mut taps = vec![0; place(weights.len() - 1) - first + 1];
        for (tap, weight) in weights.iter().enumerate() {
            if let Some(slot) = taps.get_mut(place(tap) - first) {
                *slot += weight;
            }
        }
        (first, taps)
    };
    (0..output).map(row).collect()
}

/// OpenCV's weights for a place `x` (0 to 1) between the fourth and the fifth of eight pixels.
fn lanczos4_weights(x: f32) -> [f32; 8] {
    use std::f64::consts::{FRAC_1_SQRT_2 as S, FRAC_PI_4};
    const TURNS: [[f64; 2]; 8] = [[1.0, 0.0], [-S, -S], [0.0, 1.0], [S, -S], [-1.0, 0.0], [S, S], [0.0, -1.0], [-S, S]];
    let (sin, cos) = (-f64::from(x + 3.0) * FRAC_PI_4).sin_cos();
    let mut weights = [0.0_f32; 8];
    for (i, (weight, [s, c])) in weights.iter_mut().zip(TURNS).enumerate() {
        let distance = x + 3.0 - i as f32;
        let y = -f64::from(distance) * FRAC_PI_4;
        // On a pixel, all others vanish beside it.
        *weight = if distance.abs() >= 1e-6 { ((s * sin + c * cos) / (y * y)) as f32 } else { 1e30 };
    }
    let inverse = 1.0 / weights.iter().sum::<f32>();
    weights.map(|w| w * inverse)
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
    let mut at = placement(&pixels.spec, side);
    let method = match resize {
        Resize::TorchBilinear | Resize::TorchBilinearPadTopLeft => {
            if resize == Resize::TorchBilinearPadTopLeft {
                (at.left, at.top) = (side - at.width, side - at.height);
            }
            return square_torch(g, pixels, at, side);
        }
        Resize::PillowBilinear => Method::Pillow,
        Resize::TorchvisionStretch => Method::TorchFloat,
        Resize::CvLanczos4Stretch => Method::CvLanczos4,
    };
    if method.wide() {
        at = Placement { width: side, height: side, left: 0, top: 0 };
    }
    let square = g.activation("square", side * side, 3);
    let source = resize_u8(g, pixels, (at.width, at.height), method);
    let [width, height, left, top, side] = [at.width, at.height, at.left, at.top, side].map(|v| v as u32);
    let params = p::ImagePad { width, height, left, top, out_width: side, out_height: side };
    g.image_op(Op::ImagePad { params, source, square: square.id });
    square
}

fn square_torch(g: &mut GraphBuilder, pixels: &Pixels, at: Placement, side: usize) -> Tensor {
    let square = g.activation("square", side * side, 3);
    let [in_width, in_height] = [pixels.spec.width as u32, pixels.spec.height as u32];
    let [width, height, left, top, side] = [at.width, at.height, at.left, at.top, side].map(|v| v as u32);
    let params = p::ResizeTorch { in_width, in_height, width, height, left, top, side };
    g.image_op(Op::ResizeTorch { params, source: pixels.id, square: square.id });
    square
}

/// Pixels to `(height · width, 3)` in 0..1, as torchvision's antialiased `resize` of u8 tensors does: along rows, then
/// along columns, rounded to u8 after each; a side that stays is not touched.
pub fn rectangle(g: &mut GraphBuilder, pixels: &Pixels, filter: Filter, (width, height): (usize, usize)) -> Tensor {
    let source = resize_u8(g, pixels, (width, height), Method::Torch(filter));
    let [width, height] = [width, height].map(|v| v as u32);
    let out = g.activation("rectangle", (width * height) as usize, 3);
    let params = p::ImagePad { width, height, left: 0, top: 0, out_width: width, out_height: height };
    g.image_op(Op::ImagePad { params, source, square: out.id });
    out
}

/// Both axes of a resize of u8 pixels: along rows, then along columns. A side that stays is not touched, but where sums of
/// the one axis go into the other.
fn resize_u8(g: &mut GraphBuilder, pixels: &Pixels, (width, height): (usize, usize), method: Method) -> TensorId {
    let (across, down) = (width != pixels.spec.width, height != pixels.spec.height);
    let mut source = pixels.id;
    let wide = method.wide() && (across || down);
    if across || wide {
        let axis = Axis { vertical: false, wide: if wide { 2 } else { 0 } };
        source = resize_axis(g, source, pixels.spec.width, (width, pixels.spec.height), axis, method);
    }
    if down || wide {
        let axis = Axis { vertical: true, wide: u32::from(wide) };
        source = resize_axis(g, source, pixels.spec.height, (width, height), axis, method);
    }
    source
}

/// Which axis, and which of its pixels are sums: bits of `resize_axis.wgsl`'s `wide`.
#[derive(Clone, Copy)]
struct Axis {
    vertical: bool,
    wide: u32,
}

/// The axis of length `from`; the result is `to` wide and high.
fn resize_axis(
    g: &mut GraphBuilder,
    source: TensorId,
    from: usize,
    to: (usize, usize),
    axis: Axis,
    method: Method,
) -> TensorId {
    let (table, taps) = method.table(from, if axis.vertical { to.1 } else { to.0 });
    let table = g.words("resize weights", table.len(), Storage::Constant(table));
    let (name, words) = if axis.wide == 2 { ("resized sums", 3) } else { ("resized", 1) };
    let pixels = g.words(name, to.0 * to.1 * words, Storage::Activation);
    let params = p::ResizeAxis {
        in_width: if axis.vertical { to.0 } else { from } as u32,
        out_width: to.0 as u32,
        out_height: to.1 as u32,
        vertical: u32::from(axis.vertical),
        taps: taps as u32,
        wide: axis.wide,
    };
    g.image_op(Op::ResizeAxis { arithmetic: method.arithmetic(), params, table, source, pixels });
    pixels
}

/// The square to normalised patches, into `into (patches, 3 · patch²)`.
pub fn patchify(g: &mut GraphBuilder, square: Tensor, vit: &Vit, norm: PixelNormalization, into: Tensor) {
    patches(g, square, (vit.image_size, vit.image_size), vit.patch, norm, into);
}

/// An image `(height · width, 3)` to normalised patches, into `into (height / patch · width / patch, 3 · patch²)`.
pub fn patches(
    g: &mut GraphBuilder,
    image: Tensor,
    (width, height): (usize, usize),
    patch: usize,
    norm: PixelNormalization,
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
