//! A depth map and its file formats.

use std::io;
use std::path::Path;

use fathom_models::io::output_file::{self, OutputError, Step};
use fathom_models::nets::depth_anything::DepthKind;
use fathom_models::nets::vit;

use crate::picture::{value_range, viridis};

/// Depths, one per pixel.
#[derive(Clone, Debug)]
pub struct DepthMap {
    /// Pixels.
    pub width: usize,
    /// Pixels.
    pub height: usize,
    /// Row-major, `(height, width)`, finite.
    pub values: Vec<f32>,
    /// The meaning of the values.
    pub kind: DepthKind,
}

/// The file format of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValuesFormat {
    /// numpy's `.npy`: f32 `(height, width)`.
    Npy,
    /// `.safetensors`: the tensor `depth`, f32 `(height, width)`.
    Safetensors,
}

impl ValuesFormat {
    /// From the extension of the file's name; `None` for an unknown one.
    pub fn of(path: &Path) -> Option<ValuesFormat> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "npy" => Some(ValuesFormat::Npy),
            "safetensors" => Some(ValuesFormat::Safetensors),
            _ => None,
        }
    }
}

impl DepthMap {
    /// Resized bicubically, as transformers' `post_process_depth_estimation` does.
    pub fn resized(&self, width: usize, height: usize) -> DepthMap {
        let scales = (self.height as f32 / height as f32, self.width as f32 / width as f32);
        let values = vit::bicubic(&self.values, (self.height, self.width), (height, width), 1, scales);
        DepthMap { width, height, values, kind: self.kind }
    }

    /// Smallest and largest value.
    pub fn range(&self) -> (f32, f32) {
        self.values.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), v| (low.min(*v), high.max(*v)))
    }

    /// A grey PNG of 16 bits: metric depth in millimetres (65.535 m and beyond are white), relative depth from its
    /// smallest value (0) to its largest (65535).
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn write_png(&self, path: &Path) -> Result<(), OutputError> {
        let (low, high) = self.range();
        let grey = |v: f32| match self.kind {
            DepthKind::Metric => v * 1000.0,
            DepthKind::Relative => (v - low) / (high - low).max(f32::MIN_POSITIVE) * 65535.0,
        };
        let bytes: Vec<u8> =
            self.values.iter().flat_map(|v| (grey(*v).round().clamp(0.0, 65535.0) as u16).to_be_bytes()).collect();
        self.write(path, self.png(png::ColorType::Grayscale, png::BitDepth::Sixteen, &bytes))
    }

    /// A coloured PNG: near is yellow, far is blue, between the 2nd and the 98th percentile.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn write_colours(&self, path: &Path) -> Result<(), OutputError> {
        let (low, high) = value_range(&self.values);
        let bytes: Vec<u8> = self
            .values
            .iter()
            .flat_map(|v| {
                let share = (v - low) / (high - low).max(f32::MIN_POSITIVE);
                viridis(if self.kind == DepthKind::Relative { share } else { 1.0 - share })
            })
            .collect();
        self.write(path, self.png(png::ColorType::Rgb, png::BitDepth::Eight, &bytes))
    }

    /// The values without conversion.
    ///
    /// # Errors
    /// [`OutputError`].
    pub fn write_values(&self, path: &Path, format: ValuesFormat) -> Result<(), OutputError> {
        let values: Vec<u8> = self.values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let bytes = match format {
            ValuesFormat::Npy => {
                let shape = format!("({}, {})", self.height, self.width);
                let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
                // The values start at a multiple of 64; a newline ends the header.
                let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
                header += &" ".repeat(length - 1 - header.len());
                let magic = b"\x93NUMPY\x01\x00";
                Ok([magic, (length as u16).to_le_bytes().as_slice(), header.as_bytes(), b"\n", &values].concat())
            }
            ValuesFormat::Safetensors => {
                let shape = vec![self.height, self.width];
                let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape, &values);
                view.and_then(|view| safetensors::serialize([("depth", view)], None)).map_err(io::Error::other)
            }
        };
        self.write(path, bytes)
    }

    fn png(&self, colour: png::ColorType, depth: png::BitDepth, bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut file = Vec::new();
        let mut encoder = png::Encoder::new(&mut file, self.width as u32, self.height as u32);
        encoder.set_color(colour);
        encoder.set_depth(depth);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(bytes)?;
        writer.finish()?;
        Ok(file)
    }

    fn write(&self, path: &Path, bytes: io::Result<Vec<u8>>) -> Result<(), OutputError> {
        let bytes = bytes.map_err(|source| OutputError::Io { path: path.to_owned(), step: Step::Write, source })?;
        output_file::write(path, bytes)
    }
}
