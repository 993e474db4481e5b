//! Kernels are compared with their CPU twins on this adapter before they serve.

use std::collections::BTreeSet;

use bytemuck::bytes_of;
use fathom_models::quantize::encode;
use fathom_models::random;
use fathom_models::weights::WeightFormat;
use fathom_shaders::cpu::{self, LinearIn};
use fathom_shaders::params;

use super::EngineError;
use super::kernels::Kernels;
use super::resident::interleave;
use crate::gpu::{Commands, Dispatch, Download, Gpu, Slot};

/// Largest error relative to the largest output: operands are rounded to f16 (2⁻¹¹), of which sums of 256 products keep
/// about 2⁻¹¹; a kernel that is wrong is off by far more.
const TOLERANCE: f32 = 4e-3;
/// Rows of a layer for the kernels of few rows and of many, its columns and inputs: of two tiles, none whole.
const ROWS: [u32; 2] = [17, 67];
const COLUMNS: usize = 140;
const INPUTS: usize = 256;

impl Kernels {
    /// The kernels that serve weights of these formats: those that fit the adapter, or `forced`, where they compute what
    /// their twins compute; else [`Kernels::Tiled`], after a warning.
    ///
    /// # Errors
    /// [`EngineError::Lacking`] where `forced` needs what the adapter has not, [`EngineError::SelfTest`] where `forced`, or
    /// in the end the tiled kernels, compute something else; [`EngineError::Gpu`].
    pub fn choose(
        gpu: &mut Gpu,
        formats: &BTreeSet<WeightFormat>,
        forced: Option<Kernels>,
    ) -> Result<Kernels, EngineError> {
        let kernels = forced.unwrap_or_else(|| Kernels::of(gpu.info()));
        if let Some(lacks) = kernels.refused_by(gpu.info()) {
            let adapter = gpu.info().name.clone();
            return Err(EngineError::Lacking { kernels: kernels.name(), lacks, adapter });
        }
        match self_test(gpu, formats, kernels) {
            Ok(()) => Ok(kernels),
            Err(error) if forced.is_some() || kernels == Kernels::Tiled => Err(error),
            Err(error) => {
                tracing::warn!(kernels = kernels.name(), %error, "dropped: the tiled kernels serve instead");
                self_test(gpu, formats, Kernels::Tiled)?;
                Ok(Kernels::Tiled)
            }
        }
    }
}

fn self_test(gpu: &mut Gpu, formats: &BTreeSet<WeightFormat>, kernels: Kernels) -> Result<(), EngineError> {
    for (format, m) in formats.iter().flat_map(|format| ROWS.map(|m| (*format, m))) {
        let error = linear_error(gpu, format, m, kernels)?;
        let kernel = kernels.linear(format, m).0.name;
        tracing::debug!(kernel, error, "self-test");
        if error > TOLERANCE || error.is_nan() {
            return Err(EngineError::SelfTest { kernel, error, tolerance: TOLERANCE });
        }
    }
    Ok(())
}

/// Largest difference of a kernel and its twin, relative to the largest output.
fn linear_error(gpu: &mut Gpu, format: WeightFormat, m: u32, kernels: Kernels) -> Result<f32, EngineError> {
    let (shader, [columns, rows]) = kernels.linear(format, m);
    let x = random::normal(1, m as usize * INPUTS);
    let values = random::normal(2, COLUMNS * INPUTS);
    let (mut bytes, mut scales, mut decoded) = (Vec::new(), Vec::new(), Vec::new());
    for row in values.chunks(INPUTS) {
        let (own, scale) = encode(format, row, &[]);
        decoded.extend(format.decode(&own, &scale));
        bytes.extend(own);
        scales.extend(scale);
    }
    if kernels.rows_together() > 1 {
        bytes = interleave(&bytes, format.row_bytes(INPUTS), kernels.rows_together());
    }
    let p = params::Linear {
        m,
        n: COLUMNS as u32,
        k: INPUTS as u32,
        x_stride: INPUTS as u32,
        w_stride: INPUTS as u32,
        group_shift: if let WeightFormat::W4 { group, .. } = format { group.trailing_zeros() } else { 0 },
        y_stride: COLUMNS as u32,
        split: COLUMNS as u32,
        side_cols: 1,
        scale: 1.0,
        ..params::Linear::default()
    };
    let mut expected = vec![0.0; m as usize * COLUMNS];
    let read = LinearIn { x: &x, w: &decoded, ..LinearIn::default() };
    let twin = if shader.name == "linear_dot8" { cpu::linear_dot8 } else { cpu::linear };
    twin(&p, read, &mut expected, &mut []);

    let mut place = |label: &str, bytes: &[u8]| {
        let buffer = gpu.create_buffer(label, bytes.len().max(4) as u64)?;
        gpu.upload(buffer, 0, bytes)?;
        Ok::<Slot, EngineError>(Slot { buffer, offset: 0, bytes: bytes.len().max(4) as u64 })
    };
    let (w, s) = (place("self-test weights", &bytes)?, place("self-test scales", &scales)?);
    let (x, y) = (place("self-test x", bytemuck::cast_slice(&x))?, place("self-test y", &vec![0; expected.len() * 4])?);
    let dispatch = Dispatch {
        shader,
        params: bytes_of(&p).to_vec(),
        slots: vec![x, w, s, s, s, s, x, x, y, y],
        workgroups: [p.n.div_ceil(columns), p.m.div_ceil(rows), 1],
        stage: 0,
    };
    let commands = Commands { label: "self-test".to_owned(), stages: vec![String::new()], dispatches: vec![dispatch] };
    let recording = gpu.prepare(&commands)?;
    let mut found = vec![0.0_f32; expected.len()];
    let into = bytemuck::cast_slice_mut(&mut found);
    gpu.submit(&[&recording], &[], &mut [Download { buffer: y.buffer, offset: 0, into }])?;
    for slot in [w, s, x, y] {
        gpu.release(slot.buffer);
    }
    let largest = expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    // `max` would leave out what is not a number.
    let difference = expected.iter().zip(&found).map(|(a, b)| (a - b).abs());
    let worst = difference.fold(0.0_f32, |m, d| if d > m || d.is_nan() { d } else { m });
    Ok(worst / largest)
}
