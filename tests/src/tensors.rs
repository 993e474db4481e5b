//! Safetensors files that tests make and alter.

#![allow(clippy::expect_used, reason = "for tests: a file that cannot be made is a failed test")]

use std::collections::BTreeMap;
use std::path::Path;

use fathom_models::checkpoint::{WeightFormat, float_format, scales_of};
use fathom_models::quantize::encode;
use safetensors::tensor::TensorView;
pub use safetensors::{Dtype, SafeTensors};

/// A tensor's dtype, shape and bytes.
pub type Tensor = (Dtype, Vec<usize>, Vec<u8>);

/// A file's tensors by name.
#[derive(Clone, Debug, Default)]
pub struct Tensors(pub BTreeMap<String, Tensor>);

impl Tensors {
    /// Reads a file.
    pub fn read(path: &Path) -> Tensors {
        let bytes = std::fs::read(path).expect("the file is there");
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let owned = |v: &TensorView<'_>| (v.dtype(), v.shape().to_vec(), v.data().to_vec());
        Tensors(file.iter().map(|(name, view)| (name.to_owned(), owned(&view))).collect())
    }

    /// Writes a file.
    pub fn write(&self, path: &Path) {
        let view =
            |(dtype, shape, bytes)| TensorView::new(dtype, shape, bytes).expect("as many bytes as the shape says");
        let views = self.0.iter().map(|(name, (dtype, shape, bytes))| (name, view((*dtype, shape.clone(), bytes))));
        safetensors::serialize_to_file(views, None, path).expect("the file is written");
    }

    /// Puts `values` in a weight's format.
    pub fn put(&mut self, name: &str, format: WeightFormat, shape: &[usize], values: &[f32]) {
        let dtype = match format {
            WeightFormat::F32 => Dtype::F32,
            WeightFormat::F16 => Dtype::F16,
            WeightFormat::Bf16 => Dtype::BF16,
            WeightFormat::W8 => Dtype::I8,
            WeightFormat::W4 { .. } => Dtype::U8,
        };
        let columns = if format.is_float() { values.len() } else { shape.iter().skip(1).product() };
        let (mut bytes, mut scales) = (Vec::new(), Vec::new());
        for row in values.chunks(columns.max(1)) {
            let (own, of_row) = encode(format, row, &[]);
            bytes.extend(own);
            scales.extend(of_row);
        }
        let rows = values.len() / columns.max(1);
        let (shape, of_scales) = match format {
            WeightFormat::W8 => (shape.to_vec(), Some((Dtype::F32, vec![rows]))),
            WeightFormat::W4 { group, minima } => {
                let groups = [rows, columns / group as usize];
                let minima: &[usize] = if minima { &[2] } else { &[] };
                (vec![rows, columns / 2], Some((Dtype::F16, [&groups[..], minima].concat())))
            }
            _ => (shape.to_vec(), None),
        };
        if let Some((dtype, shape)) = of_scales {
            self.0.insert(scales_of(name), (dtype, shape, scales));
        }
        self.0.insert(name.to_owned(), (dtype, shape, bytes));
    }

    /// A weight's shape and values, whatever its format.
    pub fn values(&self, name: &str) -> (Vec<usize>, Vec<f32>) {
        let (dtype, shape, bytes) = self.0.get(name).expect("a tensor of that name");
        (shape.clone(), float_format(*dtype).expect("a weight's format").decode(bytes, &[]))
    }

    /// Gives a tensor another name.
    pub fn rename(&mut self, from: &str, to: &str) {
        let tensor = self.0.remove(from).expect("a tensor of that name");
        self.0.insert(to.to_owned(), tensor);
    }
}

/// Copies the files of `tests/golden/{case}` to a folder of their own.
pub fn copy_golden(case: &str) -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a temporary folder");
    for file in std::fs::read_dir(crate::path("golden").join(case)).expect("the golden case") {
        let from = file.expect("an entry").path();
        std::fs::copy(&from, to.path().join(from.file_name().expect("a name"))).expect("the file is copied");
    }
    to
}

/// A Hugging Face `Dinov2Model` directory: the encoder of the golden `depthvla_openpi`, whose images are smaller than its
/// table of positions.
pub fn dinov2() -> tempfile::TempDir {
    let to = tempfile::tempdir().expect("a temporary folder");
    let mut tensors = Tensors::read(&crate::path("golden/depthvla_openpi/model.safetensors"));
    tensors.0.retain(|name, _| name.starts_with("depth_encoder."));
    for name in tensors.0.keys().cloned().collect::<Vec<_>>() {
        tensors.rename(&name, name.trim_start_matches("depth_encoder."));
    }
    tensors.write(&to.path().join("model.safetensors"));
    let encoder = crate::Golden::load("depthvla_openpi").loaded.model.config.depth.expect("a depth branch");
    let (tower, side) = (encoder.encoder, encoder.pos_grid * encoder.encoder.patch);
    let config = serde_json::json!({
        "model_type": "dinov2", "hidden_size": tower.width, "num_hidden_layers": tower.layers, "image_size": side,
        "num_attention_heads": tower.heads, "mlp_ratio": tower.mlp as f64 / tower.width as f64, "patch_size": tower.patch,
    });
    std::fs::write(to.path().join("config.json"), config.to_string()).expect("the file is written");
    to
}
