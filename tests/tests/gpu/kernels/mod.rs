//! Every variant of every kernel computes on the GPU what its CPU twin computes, at sizes that no tile divides, with
//! bounds checks and without.

#![expect(clippy::expect_used, clippy::panic, reason = "a set-up that fails is a test that fails")]

mod choice;
mod drawn;
mod halves;
mod images;
mod maps;
mod split;
mod transformer;

use fathom::engine::{Choice, Kernels, Wanted};
use fathom_models::checkpoint::WeightFormat;
use fathom_models::graph::Graph;
use fathom_models::graph::precision::Float;
use fathom_shaders::variants;
use fathom_tests::graphs::{Parameters, Rig, on_twins_of, open_gpu, random_inputs};
use fathom_tests::relative_error;
use transformer::Mode;

/// Everything in f16 that can be.
const HALVES: Wanted = Wanted { kernels: None, kv: Some(Float::F16), activations: Some(Float::F16) };

/// What exercises the variant `name`, and the largest error that is allowed, relative to an output's largest
/// magnitude. 0 means equal to the bit.
fn case(name: &str, p: &mut Parameters) -> (Graph, f32) {
    // Integers, and a single product, which every adapter rounds correctly.
    const EXACT: f32 = 0.0;
    // A few operations: an adapter may fuse a product and a sum, and divide to 2.5 ulp.
    const ROUNDED: f32 = 1e-6;
    // The kernel, and whether the case is of its variant for tensors in f16.
    let (name, half) = name.strip_suffix("_h").map_or((name, false), |kernel| (kernel, true));
    let mode = |unit| Mode { unit, half };
    let (graph, tolerance) = match name {
        "image_unpack_rgb24" => (images::unpack(fathom_shaders::cpu::Layout::Rgb24), EXACT),
        "image_unpack_yuyv" => (images::unpack(fathom_shaders::cpu::Layout::Yuyv), EXACT),
        "image_unpack_nv12" => (images::unpack(fathom_shaders::cpu::Layout::Nv12), EXACT),
        "resize_axis_integer" => (images::resized(), EXACT),
        "resize_axis_float" => {
            (images::squares(fathom_models::nets::config::Resize::TorchvisionStretch, "resized sums"), ROUNDED)
        }
        "image_pad" => (images::squares(fathom_models::nets::config::Resize::PillowBilinear, "square"), ROUNDED),
        "resize_torch" => (images::squares(fathom_models::nets::config::Resize::TorchBilinear, "square"), ROUNDED),
        "patchify" => (images::patchify(), ROUNDED),
        "unpatchify" => (images::unpatchify(), SUMMED),
        "conv3x3_f32" => (maps::conv3x3(p, WeightFormat::F32), SUMMED),
        "conv3x3_f16" => (maps::conv3x3(p, WeightFormat::F16), SUMMED),
        "conv3x3_bf16" => (maps::conv3x3(p, WeightFormat::Bf16), SUMMED),
        "conv_transpose_f32" => (maps::conv_transpose(p, WeightFormat::F32), SUMMED),
        "conv_transpose_f16" => (maps::conv_transpose(p, WeightFormat::F16), SUMMED),
        "conv_transpose_bf16" => (maps::conv_transpose(p, WeightFormat::Bf16), SUMMED),
        "resize_corners" => (maps::resize_corners(), SUMMED),
        _ if name.starts_with("linear") => {
            let (kernel, format) = linear_variant(name);
            let rows: &[usize] = match kernel {
                "linear_lanes" => &[1, 7, 17, 33],
                _ if kernel.starts_with("linear_skinny") => &[1, 3, 17, 32],
                _ => &[33, 64, 65],
            };
            // Cooperative matrices take inputs in whole vectors of four.
            let (unit, tolerance) = match name {
                _ if name.contains("coop") => (4, HALF),
                _ if name.contains("dot8") => (1, HALF),
                _ => (1, SUMMED),
            };
            (transformer::linear(p, format, rows, mode(unit)), tolerance)
        }
        "rms_norm" | "rms_norm_subgroups" => (transformer::rms_norm(p, mode(1)), SUMMED),
        "ada_rms_norm" | "ada_rms_norm_subgroups" => (transformer::ada_rms_norm(p, mode(1)), SUMMED),
        "gated_add" => (transformer::gated_add(), ROUNDED),
        "layer_norm" | "layer_norm_subgroups" => (transformer::layer_norm(p, mode(1)), SUMMED),
        "attention_64" => (transformer::attention(p, &[1, 16, 64], mode(1)), SUMMED),
        "attention_lanes" => (transformer::attention(p, &[1, 72, 256], mode(1)), SUMMED),
        "attention_128" => (transformer::attention(p, &[65, 72, 128], mode(1)), SUMMED),
        "attention_256" => (transformer::attention(p, &[129, 256], mode(1)), SUMMED),
        "attention_coop16_64" | "attention_coop8_64" => (transformer::attention(p, &[4, 16, 64], mode(4)), HALF),
        "attention_coop16_128" | "attention_coop8_128" => (transformer::attention(p, &[68, 72, 128], mode(4)), HALF),
        "attention_coop16_256" | "attention_coop8_256" => (transformer::attention(p, &[132, 256], mode(4)), HALF),
        "scale" => (transformer::scale(), EXACT),
        "guide" => (transformer::guide(), ROUNDED),
        _ => panic!("no case for {name}: every variant in shaders/wgsl/variants.txt has one here"),
    };
    (graph, if half { f32::max(tolerance, FLIPPED) } else { tolerance })
}

/// Kernel and weights' format of a variant's name.
fn linear_variant(name: &str) -> (&str, WeightFormat) {
    let w4 = |minima| WeightFormat::W4 { group: if minima { 64 } else { 32 }, minima };
    let formats = [
        ("_dot8", WeightFormat::W8),
        ("_f32", WeightFormat::F32),
        ("_bf16", WeightFormat::Bf16),
        ("_f16", WeightFormat::F16),
        ("_w8", WeightFormat::W8),
        ("_w4", w4(false)),
        ("_w4_minima", w4(true)),
    ];
    let found = formats.into_iter().find_map(|(suffix, format)| Some((name.strip_suffix(suffix)?, format)));
    found.unwrap_or_else(|| panic!("no format in the name of {name}"))
}

/// A number that is stored in f16 is the twin's neighbour where the two are on either side of the middle between both:
/// 2⁻¹⁰ of it.
const FLIPPED: f32 = 1e-3;

/// Sums in another order than the twin's, and exp, tanh and inverseSqrt, which every adapter approximates.
const SUMMED: f32 = 1e-5;

/// Operands rounded to f16, of 11 bits: each product is off by up to 2⁻¹⁰ of itself, and products are up to four times
/// the sums. Of bytes, one may fall to the other side where kernel and twin divide differently.
const HALF: f32 = 4e-3;

/// Errors of sums that are all smaller than this are relative to this.
const LEAST: f32 = 0.05;

/// The error of an output relative to its largest magnitude, 0 only where it is equal to the bit.
fn error_of(expected: &[f32], found: &[f32], tolerance: f32) -> f32 {
    let same = expected.iter().map(|v| v.to_bits()).eq(found.iter().map(|v| v.to_bits()));
    let error = if same { 0.0 } else { relative_error(expected, found).max(f32::MIN_POSITIVE) };
    // Products are of order one, and so is what rounding them does, however small their sum: one that Relu left of 33 was 2e-4,
    // and right to 5e-7.
    let least = match tolerance {
        HALF => 1.0,
        SUMMED | FLIPPED => LEAST,
        _ => return error,
    };
    error * (expected.iter().fold(0.0_f32, |m, v| m.max(v.abs())) / least).min(1.0)
}

fn every_variant_agrees(checked: bool) {
    let mut parameters = Parameters::default();
    let names = variants::ALL.iter().map(|shader| shader.name);
    // Those in f16 last: what the others draw does not depend on them.
    let (halves, own): (Vec<_>, Vec<_>) = names.partition(|name| name.ends_with("_h"));
    let cases: Vec<_> = own.iter().chain(&halves).map(|name| (*name, case(name, &mut parameters))).collect();
    let weights = parameters.weights();
    let mut rigs: Vec<(Choice, Rig)> = Vec::new();
    let mut wrong = String::new();
    for (name, (graph, tolerance)) in cases {
        assert!(!graph.outputs.is_empty(), "{name}: nothing to compare");
        let inputs = random_inputs(&graph);
        let named = Kernels::ALL.into_iter().find(|kernels| name.contains(kernels.name()));
        let own = named.unwrap_or(if name.contains("subgroups") { Kernels::Coop16 } else { Kernels::Tiled });
        let choice = if name.ends_with("_h") { HALVES.with(own) } else { Choice::from(own) };
        let expected = on_twins_of(&graph, &weights, &inputs, choice);
        let at = rigs.iter().position(|(c, _)| *c == choice).unwrap_or_else(|| {
            rigs.push((choice, Rig::with(open_gpu(checked), &parameters.table, &weights, choice)));
            rigs.len() - 1
        });
        let (_, rig) = &mut rigs[at];
        let (found, times) = rig.run(&graph, &inputs);
        let ran = times.kernels.iter().any(|k| k.kernel == name);
        assert!(ran || !rig.gpu.info().timestamps, "{name}: its case does not run it");
        let mut worst = 0.0_f32;
        for (output, expected) in &expected {
            let found = &found[output];
            let error = error_of(expected, found, tolerance);
            // Rounding of a large logit is a relative error of its exponential.
            let bound = if output.starts_with("large") { 100.0 * tolerance } else { tolerance };
            if error > bound {
                wrong += &format!("{name}, {output}: error {error:.2e}, at most {bound:.0e}\n");
            }
            worst = worst.max(error);
        }
        println!("{name:20} {:3} outputs, largest error {worst:.2e}", expected.len());
    }
    assert!(wrong.is_empty(), "the GPU and the CPU twins differ:\n{wrong}");
}

#[test]
fn every_variant_agrees_with_its_twin() {
    every_variant_agrees(false);
}

#[test]
fn every_variant_agrees_with_its_twin_under_bounds_checks() {
    every_variant_agrees(true);
}
