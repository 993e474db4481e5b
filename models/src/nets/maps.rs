//! Feature maps: pictures of many channels, and the operations on them.

use fathom_shaders::params::{self as p, conv};

use crate::graph::builder::{GraphBuilder, int, whole};
use crate::graph::params::Tensors;
use crate::graph::{Op, Tensor};

/// A picture of channels, or a band of its rows.
#[derive(Clone, Copy, Debug)]
pub struct Map {
    /// `(rows · width, channels)`, whole and channels last: a 1 × 1 convolution of it is a linear layer.
    pub tensor: Tensor,
    /// Pixels of a row.
    pub width: usize,
    /// Rows of the whole picture.
    pub height: usize,
    /// Row of the picture that the band begins with.
    pub first: usize,
}

impl Map {
    /// A whole picture in `tensor (height · width, channels)`.
    pub fn whole(tensor: Tensor, width: usize, height: usize) -> Map {
        Map { tensor, width, height, first: 0 }
    }

    /// Rows that are there.
    pub fn rows(&self) -> usize {
        self.tensor.rows / self.width.max(1)
    }

    /// Whether tensor and sizes fit each other.
    fn fits(&self) -> bool {
        let pixels = self.width > 0 && self.tensor.rows.is_multiple_of(self.width);
        pixels && self.rows() > 0 && self.first + self.rows() <= self.height && whole(self.tensor)
    }
}

/// The operations fused into a 3 × 3 convolution.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conv {
    /// Output pixels are this far apart in the input; 0 means 1.
    pub stride: usize,
    /// ReLU on its input.
    pub relu_in: bool,
    /// Maps of the output's shape that are added.
    pub add: [Option<Map>; 2],
    /// ReLU on its output, after the addends.
    pub relu_out: bool,
    /// First row and number of rows to compute; all when it is not given.
    pub band: Option<(usize, usize)>,
}

impl GraphBuilder {
    /// 3 × 3 convolution with zeros around the picture; `layer`'s weight is `(out, channels, 3, 3)`.
    pub fn conv3x3(&mut self, x: Map, layer: &Tensors, c: Conv) -> Map {
        let stride = c.stride.max(1);
        let (width, height) = (x.width.div_ceil(stride), x.height.div_ceil(stride));
        let (first, rows) = c.band.unwrap_or((0, height));
        let tensor = self.activation("convolution", rows * width, layer.n);
        let y = Map { tensor, width, height, first };
        // Rows of x that the band needs, as far as the picture has them.
        let needed = (first * stride).saturating_sub(1)..((first + rows) * stride).min(x.height);
        let there = x.first <= needed.start && needed.end <= x.first + x.rows();
        let same = |a: Map| {
            let (shape, expected) = ((a.tensor.rows, a.tensor.cols, a.width), (tensor.rows, tensor.cols, width));
            a.fits() && shape == expected && a.first == first
        };
        let fits =
            x.fits() && y.fits() && there && layer.k == 9 * x.tensor.cols && c.add.into_iter().flatten().all(same);
        self.check("3 × 3 convolution", fits, || format!("x {x:?}, w ({}, {}), {c:?}", layer.n, layer.k));
        let flag = |set: bool, bit: u32| if set { bit } else { 0 };
        let params = p::Conv3x3 {
            width: int(x.width),
            height: int(x.height),
            channels: int(x.tensor.cols),
            x_first: int(x.first),
            out_width: int(width),
            out_channels: int(layer.n),
            rows: int(rows),
            y_first: int(first),
            stride: int(stride),
            flags: flag(layer.bias.is_some(), conv::BIAS)
                | flag(c.relu_in, conv::RELU_IN)
                | flag(c.relu_out, conv::RELU_OUT)
                | flag(c.add[0].is_some(), conv::ADD)
                | flag(c.add[1].is_some(), conv::ADD_SECOND),
        };
        let [add, second] = c.add.map(|a| a.map(|a| a.tensor.id));
        let op = Op::Conv3x3 { params, x: x.tensor.id, w: layer.w, bias: layer.bias, first: add, second, y: tensor.id };
        self.push(op);
        y
    }

    /// Transposed convolution with a kernel and a stride of `factor`, of a whole picture; `layer`'s weight is
    /// `(channels, out, factor, factor)`.
    pub fn conv_transpose(&mut self, x: Map, layer: &Tensors, factor: usize) -> Map {
        let area = (factor * factor).max(1);
        let out = layer.k / area;
        let (width, height) = (x.width * factor, x.height * factor);
        let tensor = self.activation("transposed convolution", width * height, out);
        let fits = x.fits() && x.rows() == x.height && factor > 0 && layer.k == out * area && layer.n == x.tensor.cols;
        self.check("transposed convolution", fits, || {
            format!("x {x:?}, w ({}, {}), factor {factor}", layer.n, layer.k)
        });
        let params = p::ConvTranspose {
            width: int(x.width),
            height: int(x.height),
            channels: int(x.tensor.cols),
            out_channels: int(out),
            factor: int(factor),
            flags: if layer.bias.is_some() { conv::BIAS } else { 0 },
        };
        self.push(Op::ConvTranspose { params, x: x.tensor.id, w: layer.w, bias: layer.bias, y: tensor.id });
        Map::whole(tensor, width, height)
    }

    /// A whole picture at another size `(width, height)`: bilinear, `align_corners=True`. Of the result, `band` gives the
    /// first row and the number of rows to compute.
    pub fn resize_corners(&mut self, x: Map, (width, height): (usize, usize), band: Option<(usize, usize)>) -> Map {
        let (first, rows) = band.unwrap_or((0, height));
        let channels = x.tensor.cols;
        let tensor = self.activation("resized map", rows * width, channels);
        let y = Map { tensor, width, height, first };
        self.check("resize", x.fits() && x.rows() == x.height && y.fits(), || format!("x {x:?}, y {y:?}"));
        let scale = |from: usize, to: usize| if to > 1 { (from - 1) as f32 / (to - 1) as f32 } else { 0.0 };
        let params = p::ResizeCorners {
            width: int(x.width),
            height: int(x.height),
            channels: int(channels),
            out_width: int(width),
            rows: int(rows),
            y_first: int(first),
            scale_x: scale(x.width.max(1), width),
            scale_y: scale(x.height.max(1), height),
        };
        self.push(Op::ResizeCorners { params, x: x.tensor.id, y: tensor.id });
        y
    }
}
