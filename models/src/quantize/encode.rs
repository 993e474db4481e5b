//! Numbers to a weight's format, a row at a time.

use fathom_shaders::format::WeightFormat;
use half::{bf16, f16};

use crate::quantize::calibration::{BLOCK, Layer};

/// Steps between the largest and the smallest scale that are tried for a group of nibbles.
const TRIES: usize = 12;
/// Values that are summed up side by side. A group is a multiple of it.
const LANES: usize = 8;
/// Added and taken away again it rounds to the next whole number what is smaller than 2²²: without a call for each value.
const ROUND: f32 = 12_582_912.0;
/// A group whose largest value is below has no scale in f16 and becomes 0.
const NOTHING: f32 = 2e-7;

/// Bytes and scales of a row in `format`, as [`WeightFormat::decode`] reads them. `importance` weighs the squared error of
/// each value; every value counts the same if it has another length.
///
/// Of W4 the length is a multiple of the group.
pub fn encode(format: WeightFormat, row: &[f32], importance: &[f32]) -> (Vec<u8>, Vec<u8>) {
    match format {
        WeightFormat::F32 => (row.iter().flat_map(|v| v.to_le_bytes()).collect(), Vec::new()),
        WeightFormat::F16 => (row.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(), Vec::new()),
        WeightFormat::Bf16 => (row.iter().flat_map(|v| bf16::from_f32(*v).to_le_bytes()).collect(), Vec::new()),
        WeightFormat::W8 => {
            let scale = byte_scale(row);
            (row.iter().map(|v| byte(*v, scale).cast_unsigned()).collect(), scale.to_le_bytes().to_vec())
        }
        WeightFormat::W4 { group, minima } => {
            let (mut bytes, mut scales) = (Vec::with_capacity(row.len() / 2), Vec::new());
            let group = (group as usize).max(1);
            let ones = if importance.len() == row.len() { Vec::new() } else { vec![1.0; group] };
            for (g, values) in row.chunks(group).enumerate() {
                let weights = importance.get(g * group..g * group + values.len()).filter(|_| ones.is_empty());
                let affine = NibbleScale::fit(values, weights.unwrap_or(&ones), minima);
                affine.write(minima, &mut scales);
                bytes.extend(values.chunks(2).map(|pair| pair.iter().rev().fold(0, |b, v| b << 4 | affine.nibble(*v))));
            }
            (bytes, scales)
        }
    }
}

/// As [`encode`], for a layer whose inputs are known: the error that each value's rounding makes is made good by those after
/// it in its block of [`BLOCK`], as far as their inputs go together (GPTQ, block by block).
pub fn encode_for(format: WeightFormat, row: &[f32], layer: &Layer) -> (Vec<u8>, Vec<u8>) {
    let (group, minima) = match format {
        WeightFormat::W4 { group, minima } if BLOCK.is_multiple_of(group as usize) => (group as usize, minima),
        WeightFormat::W8 => (BLOCK, false),
        _ => return encode(format, row, &layer.importance),
    };
    let mut rest = row.to_vec();
    let (mut quantised, mut scales) = (Vec::with_capacity(row.len()), Vec::new());
    let of_row = byte_scale(row);
    let blocks = rest.chunks_mut(BLOCK).zip(layer.feedback.chunks(BLOCK * BLOCK)).zip(layer.importance.chunks(BLOCK));
    for ((block, feedback), importance) in blocks {
        let mut nibbles = NibbleScale { scale: f16::ZERO, minimum: f16::ZERO };
        for (i, factors) in feedback.chunks(BLOCK).enumerate().take(block.len()) {
            let (before, after) = block.split_at_mut(i + 1);
            let Some(v) = before.last().copied() else { continue };
            let back = if format == WeightFormat::W8 {
                let q = byte(v, of_row);
                quantised.push(q.cast_unsigned());
                f32::from(q) * of_row
            } else {
                if i.is_multiple_of(group) {
                    let rest_of_group = std::iter::once(v).chain(after.iter().copied()).take(group);
                    let weights = importance.get(i..i + group).unwrap_or_default();
                    nibbles = NibbleScale::fit(&rest_of_group.collect::<Vec<_>>(), weights, minima);
                    nibbles.write(minima, &mut scales);
                }
                let q = nibbles.nibble(v);
                quantised.push(q);
                nibbles.value(q)
            };
            let error = v - back;
            let factors = factors.get(i + 1..).unwrap_or_default();
            after.iter_mut().zip(factors).for_each(|(w, f)| *w -= error * f);
        }
    }
    if format == WeightFormat::W8 {
        return (quantised, of_row.to_le_bytes().to_vec());
    }
    (quantised.chunks(2).map(|pair| pair.iter().rev().fold(0, |byte, q| byte << 4 | q)).collect(), scales)
}

/// The scale of a row of bytes.
fn byte_scale(row: &[f32]) -> f32 {
    row.iter().fold(0.0_f32, |m, v| m.max(v.abs())) / 127.0
}

/// A value as a byte of that scale.
fn byte(v: f32, scale: f32) -> i8 {
    if scale == 0.0 { 0 } else { ((v / scale).clamp(-127.0, 127.0) + ROUND - ROUND) as i8 }
}

/// The value of a nibble `q` of a group: `q · scale + minimum`; without minima the minimum is `−8 · scale`.
#[derive(Clone, Copy, Debug)]
struct NibbleScale {
    scale: f16,
    minimum: f16,
}

impl NibbleScale {
    /// Of least error for `values`, which `weights` weigh.
    fn fit(values: &[f32], weights: &[f32], minima: bool) -> NibbleScale {
        let largest = values.iter().fold(0.0_f32, |m, v| if v.abs() > m.abs() { *v } else { m });
        if largest.abs() < NOTHING {
            return NibbleScale { scale: f16::ZERO, minimum: f16::ZERO };
        }
        if minima { range(values, weights) } else { symmetric(values, weights, largest) }
    }

    /// Appends it to a row's scales.
    fn write(self, minima: bool, scales: &mut Vec<u8>) {
        scales.extend(self.scale.to_le_bytes());
        if minima {
            scales.extend(self.minimum.to_le_bytes());
        }
    }

    fn nibble(self, v: f32) -> u8 {
        let scale = self.scale.to_f32();
        let q = ((v - self.minimum()) / scale).clamp(0.0, 15.0);
        if scale == 0.0 { 8 } else { (q + ROUND - ROUND) as u8 }
    }

    /// The value of the nibble.
    fn value(self, nibble: u8) -> f32 {
        f32::from(nibble) * self.scale.to_f32() + self.minimum()
    }

    fn minimum(self) -> f32 {
        self.minimum.to_f32()
    }
}

/// The scale of least error for `(q − 8) · scale`. Its sign is that of the end that has eight steps. For each try's `q` the
/// best scale is that of least squares.
fn symmetric(values: &[f32], weights: &[f32], largest: f32) -> NibbleScale {
    let tries = (0..=TRIES).flat_map(|i| {
        let divisor = 7.0 + 1.5 * i as f32 / TRIES as f32;
        [-divisor / largest, divisor / largest]
    });
    let mut best = (0.0, f16::ZERO);
    for inverse in tries {
        let (mut qv, mut qq) = ([0.0; LANES], [0.0; LANES]);
        for (v, w) in values.as_chunks::<LANES>().0.iter().zip(weights.as_chunks::<LANES>().0) {
            for i in 0..LANES {
                let q = (v[i] * inverse).clamp(-8.0, 7.0) + ROUND - ROUND;
                let wq = w[i] * q;
                qv[i] += wq * v[i];
                qq[i] += wq * q;
            }
        }
        let (qv, qq): (f32, f32) = (qv.iter().sum(), qq.iter().sum());
        // The error is Σ w v² less this.
        let gain = if qq > 0.0 { qv * qv / qq } else { 0.0 };
        if gain > best.0 {
            best = (gain, f16::from_f32(qv / qq));
        }
    }
    NibbleScale { scale: best.1, minimum: f16::from_f32(-8.0 * best.1.to_f32()) }
}

/// Scale and minimum of least error for `q · scale + minimum`, by least squares for each try's `q`.
fn range(values: &[f32], weights: &[f32]) -> NibbleScale {
    let low = values.iter().copied().fold(f32::INFINITY, f32::min);
    let high = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = weights.iter().sum();
    let weighted: f32 = values.iter().zip(weights).map(|(v, w)| w * v).sum();
    let mut best = (f32::INFINITY, f16::from_f32((high - low) / 15.0), f16::from_f32(low));
    for i in 0..=TRIES {
        let inside = 0.12 * (high - low) * i as f32 / TRIES as f32;
        let (inverse, minimum) = (15.0 / (high - low - inside), low + inside / 2.0);
        if !inverse.is_finite() {
            break;
        }
        let (mut q1, mut qv, mut qq) = ([0.0; LANES], [0.0; LANES], [0.0; LANES]);
        for (v, w) in values.as_chunks::<LANES>().0.iter().zip(weights.as_chunks::<LANES>().0) {
            for i in 0..LANES {
                let q = ((v[i] - minimum) * inverse).clamp(0.0, 15.0) + ROUND - ROUND;
                let wq = w[i] * q;
                q1[i] += wq;
                qv[i] += wq * v[i];
                qq[i] += wq * q;
            }
        }
        let [q1, qv, qq] = [q1, qv, qq].map(|s| s.iter().sum::<f32>());
        let determinant = total * qq - q1 * q1;
        if determinant <= 0.0 {
            continue;
        }
        let (scale, minimum) = ((total * qv - q1 * weighted) / determinant, (qq * weighted - q1 * qv) / determinant);
        // The error is Σ w v² more than this.
        let error = -scale * qv - minimum * weighted;
        if error < best.0 && scale > 0.0 {
            best = (error, f16::from_f32(scale), f16::from_f32(minimum));
        }
    }
    NibbleScale { scale: best.1, minimum: best.2 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::random::normal;
    use crate::quantize::calibration::Moments;

    /// A decoded value is within the format's rounding error.
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
        for zeros in [[0.0; 32], [1e-20; 32]] {
            for format in [w4(32, false), w4(32, true)] {
                let (bytes, scales) = encode(format, &zeros, &[]);
                assert!(format.decode(&bytes, &scales).iter().all(|v| *v == 0.0));
            }
        }
        let same = encode(w4(32, true), &[0.5; 32], &[]);
        assert!(w4(32, true).decode(&same.0, &same.1).iter().all(|v| *v == 0.5), "a group of one value");
    }

    /// A calibrated layer is more exact, also on inputs that were not part of the calibration.
    #[test]
    fn a_layer_of_known_inputs_computes_more_exactly() {
        let (k, rank) = (256, 24);
        // Inputs that go together: mixtures of fewer sources, and noise.
        let mixture = normal(1, k * rank);
        let inputs = |seed: u64| -> Vec<Vec<f32>> {
            let row = |r: u64| {
                let (sources, noise) = (normal(seed + 2 * r, rank), normal(seed + 2 * r + 1, k));
                let mix = |i: usize| -> f32 { (0..rank).map(|s| mixture[i * rank + s] * sources[s]).sum() };
                (0..k).map(|i| mix(i) + 0.3 * noise[i]).collect()
            };
            (0..200).map(row).collect()
        };
        let mut moments = Moments::new(k);
        inputs(1000).iter().for_each(|x| moments.add(x));
        let layer = moments.layer();
        let (row, unseen) = (normal(7, k), inputs(9000));
        for format in [
            WeightFormat::W4 { group: 32, minima: false },
            WeightFormat::W4 { group: 64, minima: true },
            WeightFormat::W8,
        ] {
            let error = |(bytes, scales): (Vec<u8>, Vec<u8>)| -> f32 {
                let back = format.decode(&bytes, &scales);
                assert_eq!(back.len(), k);
                let off =
                    |x: &Vec<f32>| x.iter().zip(row.iter().zip(&back)).map(|(x, (a, b))| x * (a - b)).sum::<f32>();
                unseen.iter().map(|x| off(x).powi(2)).sum()
            };
            let (known, unknown) = (error(encode_for(format, &row, &layer)), error(encode(format, &row, &[])));
            assert!(known < 0.6 * unknown, "{format}: {known} with, {unknown} without");
        }
    }

    /// Where the inputs of a layer differ in size, its error becomes smaller when the quantisation knows.
    #[test]
    fn importance_moves_the_error_to_where_it_matters_less() {
        let row = normal(3, 1024);
        let weights: Vec<f32> = (0..row.len()).map(|i| if i % 4 == 0 { 100.0 } else { 1.0 }).collect();
        for minima in [false, true] {
            let format = WeightFormat::W4 { group: 64, minima };
            let error = |importance: &[f32]| {
                let (bytes, scales) = encode(format, &row, importance);
                let back = format.decode(&bytes, &scales);
                row.iter().zip(&back).zip(&weights).map(|((a, b), w)| w * (a - b).powi(2)).sum::<f32>()
            };
            let (with, without) = (error(&weights), error(&[]));
            assert!(with < 0.95 * without, "{format}: {with} with, {without} without");
        }
    }
}
