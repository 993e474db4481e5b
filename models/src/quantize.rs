//! Numbers to a weight's format, a row at a time.

use fathom_shaders::format::WeightFormat;
use half::{bf16, f16};

/// Steps between the largest and the smallest scale that are tried for a group of nibbles.
const TRIES: usize = 12;

/// Bytes and scales of a row in `format`, as [`WeightFormat::decode`] reads them. `importance` weighs the squared error of
/// each value; every value counts the same where it is shorter.
///
/// Of W4 the length is a multiple of the group.
pub fn encode(format: WeightFormat, row: &[f32], importance: &[f32]) -> (Vec<u8>, Vec<u8>) {
    match format {
        WeightFormat::F32 => (row.iter().flat_map(|v| v.to_le_bytes()).collect(), Vec::new()),
        WeightFormat::F16 => (row.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(), Vec::new()),
        WeightFormat::Bf16 => (row.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(), Vec::new()),
        WeightFormat::W8 => {
            let scale = row.iter().fold(0.0_f32, |m, v| m.max(v.abs())) / 127.0;
            let q = |v: &f32| if scale == 0.0 { 0 } else { (v / scale).round().clamp(-127.0, 127.0) as i8 };
            (row.iter().map(|v| q(v).cast_unsigned()).collect(), scale.to_le_bytes().to_vec())
        }
        WeightFormat::W4 { group, minima } => {
            let (mut bytes, mut scales) = (Vec::with_capacity(row.len() / 2), Vec::new());
            let group = (group as usize).max(1);
            for (g, values) in row.chunks(group).enumerate() {
                let weights = importance.get(g * group..).unwrap_or_default();
                let (scale, minimum) = if minima { range(values, weights) } else { symmetric(values, weights) };
                scales.extend(scale.to_le_bytes());
                if minima {
                    scales.extend(minimum.to_le_bytes());
                }
                let (scale, minimum) = (scale.to_f32(), minimum.to_f32());
                let nibbles: Vec<u8> = values.iter().map(|v| nibble(*v, scale, minimum)).collect();
                bytes.extend(nibbles.chunks(2).map(|pair| pair.iter().rev().fold(0, |byte, q| byte << 4 | q)));
            }
            (bytes, scales)
        }
    }
}

fn nibble(v: f32, scale: f32, minimum: f32) -> u8 {
    if scale == 0.0 { 8 } else { ((v - minimum) / scale).round().clamp(0.0, 15.0) as u8 }
}

fn error(values: &[f32], weights: &[f32], scale: f32, minimum: f32) -> f32 {
    let value = |(i, v): (usize, &f32)| {
        let d = f32::from(nibble(*v, scale, minimum)) * scale + minimum - v;
        weights.get(i).copied().unwrap_or(1.0) * d * d
    };
    values.iter().enumerate().map(value).sum()
}

/// The scale of least error for `(q − 8) · scale`, and −8 times it. Its sign is that of the end that has eight steps.
fn symmetric(values: &[f32], weights: &[f32]) -> (f16, f16) {
    let largest = values.iter().fold(0.0_f32, |m, v| if v.abs() > m.abs() { *v } else { m });
    let tries = (0..=TRIES).flat_map(|i| {
        let divisor = 7.0 + 1.5 * i as f32 / TRIES as f32;
        [f16::from_f32(-largest / divisor), f16::from_f32(largest / divisor)]
    });
    let found = tries.map(|s| (error(values, weights, s.to_f32(), -8.0 * s.to_f32()), s));
    let best = found.min_by(|a, b| a.0.total_cmp(&b.0)).map_or(f16::ZERO, |(_, s)| s);
    (best, f16::from_f32(-8.0 * best.to_f32()))
}

/// Scale and minimum of least error for `q · scale + minimum`.
fn range(values: &[f32], weights: &[f32]) -> (f16, f16) {
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let tries = (0..=TRIES).map(|i| {
        let inside = 0.12 * (high - low) * i as f32 / TRIES as f32;
        (f16::from_f32((high - low - inside) / 15.0), f16::from_f32(low + inside / 2.0))
    });
    let found = tries.map(|(s, m)| (error(values, weights, s.to_f32(), m.to_f32()), (s, m)));
    found.min_by(|a, b| a.0.total_cmp(&b.0)).map_or((f16::ZERO, f16::ZERO), |(_, pair)| pair)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::normal;

    /// What a format gives back is as near as its steps allow.
    #[test]
    fn a_row_comes_back_within_half_a_step() {
        let row = normal(7, 256);
        let largest = row.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        let w4 = |group, minima| WeightFormat::W4 { group, minima };
        for (format, step) in [
            (WeightFormat::F32, 0.0),
            (WeightFormat::F16, largest / 1024.0),
            (WeightFormat::Bf16, largest / 128.0),
            (WeightFormat::W8, largest / 127.0),
            // Of the largest values a step may be cut off, where that makes the others better.
            (w4(32, false), 2.0 * largest / 7.0),
            (w4(64, false), 2.0 * largest / 7.0),
            (w4(128, true), 2.0 * largest / 7.0),
        ] {
            let (bytes, scales) = encode(format, &row, &[]);
            assert_eq!((bytes.len(), scales.len()), (format.row_bytes(256), format.scale_bytes(256)), "{format}");
            let back = format.decode(&bytes, &scales);
            let worst = row.iter().zip(&back).fold(0.0_f32, |m, (a, b)| m.max((a - b).abs()));
            assert!(back.len() == 256 && worst <= step / 2.0, "{format}: {worst} with steps of {step}");
        }
        let zeros = encode(w4(32, false), &[0.0; 32], &[]);
        assert!(w4(32, false).decode(&zeros.0, &zeros.1).iter().all(|v| *v == 0.0));
    }
}
