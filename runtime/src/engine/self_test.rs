//! Compares kernels with their CPU twins on this adapter before their first use.

use std::collections::BTreeSet;

use bytemuck::{bytes_of, cast_slice};
use fathom_models::checkpoint::{WeightFormat, random};
use fathom_models::graph::precision::{Float, stored_in_f16};
use fathom_models::quantize::encode;
use fathom_shaders::cpu::{self, LinearIn};
use fathom_shaders::params::{epilogue, halves};
use fathom_shaders::{Kernel, Shader, Variant, params};
use half::f16;

use super::EngineError;
use super::choice::{Choice, Wanted};
use super::kernels::Kernels;
use super::resident::interleave;
use crate::gpu::{Commands, Dispatch, Download, Gpu, Slot, Work};

/// Largest error relative to the largest output: rounding operands to f16 (2⁻¹¹) leaves an error of about 2⁻¹¹ in sums
/// of 256 products; a wrong kernel is off by far more.
const TOLERANCE: f32 = 4e-3;
/// Rows of a layer for the kernels of few rows and of many: two tiles, none of them whole.
const ROWS: [u32; 2] = [17, 67];
const COLUMNS: usize = 140;
const INPUTS: usize = 256;
/// Widths of heads: one for each kernel of attention.
const HEADS: [u32; 3] = [64, 72, 256];
/// Bytes of the widest vector that a kernel binds.
const WIDEST: usize = 16;

impl Choice {
    /// Chooses kernels for weights of these formats: the requested ones or those that suit the adapter, if they agree
    /// with their CPU twins; otherwise [`Kernels::Tiled`], after a warning.
    ///
    /// # Errors
    /// [`EngineError::Lacking`] if the adapter lacks a feature of the requested kernels, [`EngineError::SelfTest`] if
    /// requested kernels, or finally the tiled ones, disagree with their twins; [`EngineError::Gpu`].
    pub fn make(gpu: &mut Gpu, formats: &BTreeSet<WeightFormat>, wanted: Wanted) -> Result<Choice, EngineError> {
        let choice = wanted.with(wanted.kernels.unwrap_or_else(|| Kernels::of(gpu.info())));
        if let Some(lacks) = choice.refused_by(gpu.info()) {
            let adapter = gpu.info().name.clone();
            return Err(EngineError::Lacking { kernels: choice.to_string(), lacks, adapter });
        }
        match self_test(gpu, formats, choice) {
            Ok(()) => Ok(choice),
            Err(error) if wanted.kernels.is_some() || choice.kernels == Kernels::Tiled => Err(error),
            Err(error) => {
                tracing::warn!(kernels = %choice, %error, "the self-test failed: using the tiled kernels");
                let choice = wanted.with(Kernels::Tiled);
                self_test(gpu, formats, choice)?;
                Ok(choice)
            }
        }
    }
}

/// A kernel, its inputs, and its CPU twin's result.
struct Case {
    shader: &'static Shader,
    params: Vec<u8>,
    /// Contents of buffers; the outputs' buffers follow.
    given: Vec<Vec<u8>>,
    /// The buffer of each binding.
    bindings: Vec<usize>,
    workgroups: [u32; 3],
    /// Whether the output is in f16.
    in_f16: bool,
    expected: Vec<f32>,
}

/// Numbers that f16 can represent if `in_f16`.
fn numbers(seed: u64, count: usize, in_f16: bool) -> Vec<f32> {
    let values = random::normal(seed, count);
    if in_f16 { values.into_iter().map(stored_in_f16).collect() } else { values }
}

/// The bytes of numbers, in f16 if `in_f16`.
fn floats(values: &[f32], in_f16: bool) -> Vec<u8> {
    match in_f16 {
        true => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        false => cast_slice(values).to_vec(),
    }
}

fn self_test(gpu: &mut Gpu, formats: &BTreeSet<WeightFormat>, choice: Choice) -> Result<(), EngineError> {
    let linear = formats.iter().flat_map(|format| ROWS.map(|m| linear(*format, m, choice)));
    for case in linear.chain(HEADS.map(|head_dim| attention(head_dim, choice))) {
        let case = case?;
        let (kernel, error) = (case.shader.name, error_of(gpu, case)?);
        tracing::debug!(kernel, error, "self-test");
        if error > TOLERANCE || error.is_nan() {
            return Err(EngineError::SelfTest { kernel, error, tolerance: TOLERANCE });
        }
    }
    Ok(())
}

fn linear(format: WeightFormat, m: u32, Choice { kernels, precision }: Choice) -> Result<Case, EngineError> {
    // Columns go to y, or, if only these are in f16, to the planes of keys and values.
    let in_f16 = precision.activations == Float::F16;
    let aside = !in_f16 && precision.kv == Float::F16;
    let x = numbers(1, m as usize * INPUTS, in_f16);
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
        split: if aside { 0 } else { COLUMNS as u32 },
        side_cols: COLUMNS as u32,
        flags: if in_f16 { epilogue::X_F16 | epilogue::Y_F16 } else { 0 } | if aside { epilogue::SIDE_F16 } else { 0 },
        scale: 1.0,
        ..params::Linear::default()
    };
    let variant = kernels.linear(format, &p)?;
    let [rows, columns] = variant.tile;
    let mut expected = vec![0.0; m as usize * COLUMNS];
    let read = LinearIn { x: &x, w: &decoded, ..LinearIn::default() };
    let twin = if variant.key.kernel == Kernel::LinearDot8 { cpu::linear_dot8 } else { cpu::linear };
    twin(&params::Linear { split: COLUMNS as u32, ..p }, read, &mut expected, &mut []);
    Ok(Case {
        shader: &variant.shader,
        params: bytes_of(&p).to_vec(),
        given: vec![floats(&x, in_f16), bytes, scales],
        bindings: vec![0, 1, 2, 2, 2, 2, 0, 0, 3, 3, 3, 3, 0],
        workgroups: [p.n.div_ceil(columns), p.m.div_ceil(rows), 1],
        in_f16: in_f16 || aside,
        expected,
    })
}

/// Nine tokens, whose four heads share keys and values, and 70 keys: more rows and keys than a tile, and no whole tiles.
fn attention(head_dim: u32, Choice { kernels, precision }: Choice) -> Result<Case, EngineError> {
    let (rows, heads, keys) = (9, 4, 70);
    let [in_f16, kv] = [precision.activations, precision.kv].map(|f| f == Float::F16);
    let p = params::Attention {
        rows,
        heads,
        kv_heads: 1,
        head_dim,
        q_stride: heads * head_dim,
        kv_stride: head_dim,
        out_stride: heads * head_dim,
        key_count: keys,
        q_block: rows,
        scale: (head_dim as f32).sqrt().recip(),
        flags: if in_f16 { halves::Q_F16 | halves::OUT_F16 } else { 0 } | if kv { halves::KV_F16 } else { 0 },
        ..params::Attention::default()
    };
    let Variant { shader, tile: [tile, _], .. } = kernels.attention(&p)?;
    let q = numbers(3, (rows * heads * head_dim) as usize, in_f16);
    let [k, v] = [4, 5].map(|seed| numbers(seed, (keys * head_dim) as usize, kv));
    let mut expected = vec![0.0; q.len()];
    cpu::attention(&p, &q, &k, &v, &mut expected);
    Ok(Case {
        shader,
        params: bytes_of(&p).to_vec(),
        given: vec![floats(&q, in_f16), floats(&k, kv), floats(&v, kv)],
        bindings: vec![0, 1, 2, 3, 3, 0, 1, 2],
        workgroups: [(rows * heads).div_ceil(*tile), 1, 1],
        in_f16,
        expected,
    })
}

/// The largest difference of a kernel and its twin, relative to the largest output.
fn error_of(gpu: &mut Gpu, mut case: Case) -> Result<f32, EngineError> {
    case.given.push(vec![0; case.expected.len() * 4]);
    let mut places = Vec::new();
    for bytes in &case.given {
        let size = bytes.len().max(WIDEST) as u64;
        let buffer = gpu.create_buffer("self-test", size)?;
        gpu.upload(buffer, 0, bytes)?;
        places.push(Slot { buffer, offset: 0, bytes: size });
    }
    let bound = case.bindings.iter().take(case.shader.bindings.len() - 1);
    let dispatch = Dispatch {
        shader: case.shader,
        params: case.params,
        slots: bound.filter_map(|i| places.get(*i).copied()).collect(),
        workgroups: case.workgroups,
        stage: 0,
        work: Work::default(),
    };
    let commands = Commands { label: "self-test".to_owned(), stages: vec![String::new()], dispatches: vec![dispatch] };
    let list = gpu.prepare(&commands)?;
    let mut found = vec![0.0_f32; case.expected.len()];
    let into = bytemuck::cast_slice_mut(&mut found);
    let downloads = places.last().map(|y| Download { buffer: y.buffer, offset: 0, into });
    gpu.submit(&[&list], &[], downloads.into_iter().collect::<Vec<_>>().as_mut_slice())?;
    for slot in places {
        gpu.release(slot.buffer);
    }
    if case.in_f16 {
        found = cast_slice::<f32, f16>(&found).iter().take(case.expected.len()).map(|v| v.to_f32()).collect();
    }
    let largest = case.expected.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
    // `max` would drop NaN.
    let difference = case.expected.iter().zip(&found).map(|(a, b)| (a - b).abs());
    let worst = difference.fold(0.0_f32, |m, d| if d > m || d.is_nan() { d } else { m });
    Ok(worst / largest)
}
