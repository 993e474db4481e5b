//! Pictures of a run: camera images, depth maps in colours, and a path drawn over them, side by side in one PNG, still or
//! animated.

use std::path::Path;

use fathom_models::io::output_file::{OutputError, OutputFile};
use fathom_shaders::cpu;
use fathom_shaders::params::ImageUnpack;

use crate::camera::Image;

/// Between panels, in pixels.
const GAP: usize = 8;

/// A square of colours, `(side, side)` RGB.
#[derive(Debug)]
pub struct Panel {
    side: usize,
    pixels: Vec<[u8; 3]>,
    /// Panel pixels per source pixel, and where the source begins.
    scale: f32,
    left: f32,
    top: f32,
}

impl Panel {
    fn new(side: usize, width: usize, height: usize, colour: impl Fn(usize, usize) -> [u8; 3]) -> Panel {
        let scale = side as f32 / width.max(height).max(1) as f32;
        let left = (side as f32 - width as f32 * scale) / 2.0;
        let top = (side as f32 - height as f32 * scale) / 2.0;
        let pixel = |i: usize| {
            let x = ((i % side) as f32 + 0.5 - left) / scale;
            let y = ((i / side) as f32 + 0.5 - top) / scale;
            let inside = (0.0..width as f32).contains(&x) && (0.0..height as f32).contains(&y);
            if inside { colour(x as usize, y as usize) } else { [24, 24, 28] }
        };
        Panel { side, pixels: (0..side * side).map(pixel).collect(), scale, left, top }
    }

    /// A camera's image in a panel of `side` pixels.
    pub fn of_image(side: usize, image: &Image) -> Panel {
        let (width, height) = (image.width as usize, image.height as usize);
        let mut bytes = vec![0_u32; image.data.len().div_ceil(4)];
        if let Some(to) = bytemuck::cast_slice_mut::<u32, u8>(&mut bytes).get_mut(..image.data.len()) {
            to.copy_from_slice(&image.data);
        }
        let mut pixels = vec![0; width * height];
        if image.check("picture").is_ok() {
            let params = ImageUnpack { width: image.width, height: image.height, stride: image.stride };
            cpu::image_unpack(image.spec().layout, &params, &bytes, &mut pixels);
        }
        Panel::new(side, width, height, |x, y| {
            let [r, g, b, _] = pixels.get(y * width + x).copied().unwrap_or_default().to_le_bytes();
            [r, g, b]
        })
    }

    /// A depth map `(height, width)` in a panel of `side` pixels: `range.0` and nearer is yellow, `range.1` and farther is blue.
    pub fn of_depth(side: usize, values: &[f32], width: usize, height: usize, range: (f32, f32)) -> Panel {
        let (near, far) = range;
        Panel::new(side, width, height, |x, y| {
            let depth = values.get(y * width + x).copied().unwrap_or(far);
            viridis(1.0 - (depth - near) / (far - near).max(f32::MIN_POSITIVE))
        })
    }

    /// A line through points in the source's pixels; a point out of sight breaks it. Its end is marked.
    pub fn draw_path(&mut self, points: impl Iterator<Item = Option<(f32, f32)>>) {
        let mut last: Option<(f32, f32)> = None;
        for point in points {
            let point = point.map(|(x, y)| (x * self.scale + self.left, y * self.scale + self.top));
            if let (Some(from), Some(to)) = (last, point) {
                let steps = ((to.0 - from.0).abs().max((to.1 - from.1).abs()) * 2.0).ceil().clamp(1.0, 4096.0);
                for step in 0..=steps as usize {
                    let share = step as f32 / steps;
                    self.dot(from.0 + (to.0 - from.0) * share, from.1 + (to.1 - from.1) * share, 1.2, [255, 64, 200]);
                }
            }
            last = point.or(last);
        }
        if let Some((x, y)) = last {
            self.dot(x, y, 5.0, [255, 255, 255]);
            self.dot(x, y, 3.5, [255, 64, 200]);
        }
    }

    fn dot(&mut self, x: f32, y: f32, radius: f32, colour: [u8; 3]) {
        let range = |at: f32| {
            let first = (at - radius).floor().max(0.0) as usize;
            first..((at + radius).ceil().max(0.0) as usize + 1).min(self.side)
        };
        for row in range(y) {
            for column in range(x) {
                let (dx, dy) = (column as f32 + 0.5 - x, row as f32 + 0.5 - y);
                if dx * dx + dy * dy <= radius * radius
                    && let Some(pixel) = self.pixels.get_mut(row * self.side + column)
                {
                    *pixel = colour;
                }
            }
        }
    }
}

/// The 2nd and the 98th percentile of the finite values.
pub(crate) fn value_range(values: &[f32]) -> (f32, f32) {
    let [low, _, high] = percentiles(values, [2, 50, 98]);
    (low, high)
}

/// The range of depths in which a picture shows what is near: from the 2nd percentile to the 98th, or to twice the median if that
/// is less.
#[must_use]
pub fn depth_range(values: &[f32]) -> (f32, f32) {
    let [near, middle, far] = percentiles(values, [2, 50, 98]);
    (near, far.min(2.0 * middle))
}

fn percentiles(values: &[f32], shares: [usize; 3]) -> [f32; 3] {
    let mut sorted: Vec<f32> = values.iter().copied().filter(|v| v.is_finite()).collect();
    sorted.sort_by(f32::total_cmp);
    shares.map(|share| sorted.get(sorted.len() * share / 100).copied().unwrap_or(0.0))
}

/// matplotlib's viridis, 0 to 1, between eight of its colours.
pub(crate) fn viridis(share: f32) -> [u8; 3] {
    const COLOURS: [[f32; 3]; 8] = [
        [68.0, 1.0, 84.0],
        [70.0, 50.0, 127.0],
        [54.0, 92.0, 141.0],
        [39.0, 127.0, 142.0],
        [31.0, 161.0, 135.0],
        [74.0, 194.0, 109.0],
        [159.0, 218.0, 58.0],
        [253.0, 231.0, 37.0],
    ];
    let at = if share.is_finite() { share.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f32 } else { 0.0 };
    let first = (at as usize).min(COLOURS.len() - 2);
    let part = at - first as f32;
    std::array::from_fn(|i| (COLOURS[first][i] * (1.0 - part) + COLOURS[first + 1][i] * part) as u8)
}

/// Writes the panels side by side.
///
/// # Errors
/// [`OutputError`].
pub fn write(path: &Path, panels: &[Panel]) -> Result<(), OutputError> {
    write_frames(path, &[side_by_side(panels)], None)
}

/// Writes an animated PNG that repeats for ever: each frame is panels side by side, of one number and size, shown for
/// `frame_ms` milliseconds.
///
/// # Errors
/// [`OutputError`], also for no frames.
pub fn write_animation(path: &Path, frames: &[Vec<Panel>], frame_ms: u16) -> Result<(), OutputError> {
    let frames: Vec<Frame> = frames.iter().map(|panels| side_by_side(panels)).collect();
    write_frames(path, &frames, Some(frame_ms))
}

/// `(height, width)` RGB.
struct Frame {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

fn side_by_side(panels: &[Panel]) -> Frame {
    let height = panels.first().map_or(0, |panel| panel.side);
    let width = panels.len().max(1) * (height + GAP) - GAP;
    let mut rgb = Vec::with_capacity(width * height * 3);
    for row in 0..height {
        for (i, panel) in panels.iter().enumerate() {
            if i > 0 {
                rgb.extend([255; GAP * 3]);
            }
            rgb.extend(panel.pixels.iter().skip(row * height).take(height).flatten());
        }
    }
    Frame { width, height, rgb }
}

fn write_frames(path: &Path, frames: &[Frame], frame_ms: Option<u16>) -> Result<(), OutputError> {
    let mut file = OutputFile::create(path)?;
    let mut encode = || {
        let (width, height) = frames.first().map_or((0, 0), |frame| (frame.width, frame.height));
        let mut encoder = png::Encoder::new(&mut file, width as u32, height as u32);
        encoder.set_color(png::ColorType::Rgb);
        encoder.set_compression(png::Compression::High);
        if let Some(ms) = frame_ms {
            encoder.set_animated(frames.len() as u32, 0)?;
            encoder.set_frame_delay(ms, 1000)?;
        }
        let mut writer = encoder.write_header()?;
        for frame in frames {
            writer.write_image_data(&frame.rgb)?;
        }
        writer.finish()
    };
    encode().map_err(|error| file.failed(error.into()))?;
    file.commit()
}
