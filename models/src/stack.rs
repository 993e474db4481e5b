//! Weights as linear layers take them: tensors of the checkpoint on top of each other, or some columns of one, row by row.

use std::borrow::Cow;
use std::ops::Range;

use fathom_shaders::format::{SLICE, WeightFormat};

use crate::error::ModelError;
use crate::fold::{self, fold_linear};
use crate::params::{ParamId, Stack};
use crate::weights::Weights;

/// Rows of a stack in the order in which linear layers have them, each padded with zeros to a multiple of
/// [`SLICE`] values.
#[derive(Debug)]
pub struct Rows<'a> {
    /// Of every row. Parts that differ, and quantised columns that begin inside a group, are widened to f32.
    pub format: WeightFormat,
    /// Rows.
    pub n: usize,
    /// Values of a row, padding included.
    pub stride: usize,
    columns: Range<usize>,
    pair_distance: usize,
    parts: Vec<Part<'a>>,
}

#[derive(Debug)]
struct Part<'a> {
    format: WeightFormat,
    n: usize,
    bytes: Cow<'a, [u8]>,
    scales: &'a [u8],
    /// Values of a row in the checkpoint.
    k: usize,
}

impl Part<'_> {
    /// Bytes and scales of the values `columns` of row `r`.
    fn row(&self, r: usize, columns: &Range<usize>) -> Option<(&[u8], &[u8])> {
        let (row, scale) = (self.format.row_bytes(self.k), self.format.scale_bytes(self.k));
        let at = |k: usize| self.format.row_bytes(k);
        let bytes = self.bytes.get(r * row..(r + 1) * row)?.get(at(columns.start)..at(columns.end))?;
        let scales = self.scales.get(r * scale..(r + 1) * scale)?;
        let scales = match self.format {
            WeightFormat::W4 { .. } => {
                scales.get(self.format.scale_bytes(columns.start)..self.format.scale_bytes(columns.end))?
            }
            _ => scales,
        };
        Some((bytes, scales))
    }
}

impl<'a> Rows<'a> {
    pub(crate) fn new(weights: &'a Weights, stack: &Stack) -> Result<Rows<'a>, ModelError> {
        let (format, columns) = (format(weights, stack)?, stack.columns.clone());
        let mut parts = Vec::with_capacity(stack.parts.len());
        for id in &stack.parts {
            let (n, k) = weights.rows_and_columns(*id);
            let (format, bytes, scales) = weights.encoded(*id)?;
            parts.push(Part { format, n, bytes: Cow::Borrowed(bytes), scales, k });
        }
        if let ([inner], Some((reader, columns))) = (stack.parts.as_slice(), &stack.reader) {
            let (n, (m, k)) = (weights.rows_and_columns(*reader).0, weights.rows_and_columns(*inner));
            let outer = outer(weights, *reader, columns)?;
            let values = fold_linear(&outer, &mut vec![0.0; n], &weights.host(*inner)?, &vec![0.0; m]);
            let bytes = Cow::Owned(values.iter().flat_map(|v| v.to_le_bytes()).collect());
            parts = vec![Part { format, n, bytes, scales: &[], k }];
        }
        let n = parts.iter().map(|p| p.n).sum();
        Ok(Rows {
            format,
            n,
            stride: columns.len().next_multiple_of(SLICE),
            columns,
            pair_distance: stack.pair_distance,
            parts,
        })
    }

    /// Bytes of a row.
    pub fn row_bytes(&self) -> usize {
        self.format.row_bytes(self.stride)
    }

    /// Bytes of a row's scales.
    pub fn scale_bytes(&self) -> usize {
        self.format.scale_bytes(self.columns.len())
    }

    /// All rows as they lie in the checkpoint, where nothing has to be put together, cut, padded or widened.
    pub fn verbatim(&self) -> Option<&'a [u8]> {
        match self.parts.as_slice() {
            [Part { bytes: Cow::Borrowed(bytes), k, .. }] => {
                (self.columns == (0..*k) && *k == self.stride && self.pair_distance == 0).then_some(*bytes)
            }
            _ => None,
        }
    }

    /// The part and its row that row `j` is.
    fn find(&self, j: usize) -> Option<(&Part<'a>, usize)> {
        let mut c = j;
        if self.pair_distance != 0 {
            let block = 2 * self.pair_distance;
            c = j / block * block + j % block / 2 + j % 2 * self.pair_distance;
        }
        for part in &self.parts {
            match c.checked_sub(part.n) {
                None => return Some((part, c)),
                Some(rest) => c = rest,
            }
        }
        None
    }

    /// Appends the rows `j` to `out`, and their scales to `scales`.
    pub fn write(&self, j: Range<usize>, out: &mut Vec<u8>, scales: &mut Vec<u8>) {
        for j in j {
            let end = out.len() + self.row_bytes();
            let row = self.find(j).and_then(|(part, r)| Some((part, part.row(r, &self.columns)?)));
            match row {
                Some((part, (bytes, own))) if part.format == self.format => {
                    out.extend_from_slice(bytes);
                    scales.extend_from_slice(own);
                }
                _ => out.extend(self.values(j).iter().flat_map(|v| v.to_le_bytes())),
            }
            out.resize(end, 0);
        }
    }

    /// Values of row `j`, without padding.
    fn values(&self, j: usize) -> Vec<f32> {
        let Some((part, r)) = self.find(j) else { return Vec::new() };
        let Some((bytes, scales)) = part.row(r, &(0..part.k)) else { return Vec::new() };
        part.format.decode(bytes, scales).get(self.columns.clone()).unwrap_or_default().to_vec()
    }

    /// Values of all rows, `(n, stride)`.
    pub fn decoded(&self) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.n * self.stride);
        for j in 0..self.n {
            out.extend(self.values(j));
            out.resize((j + 1) * self.stride, 0.0);
        }
        out
    }
}

/// The format of a stack's rows.
pub(crate) fn format(weights: &Weights, stack: &Stack) -> Result<WeightFormat, ModelError> {
    let formats = stack.parts.iter().map(|id| Ok(weights.encoded(*id)?.0));
    let formats: Vec<WeightFormat> = formats.collect::<Result<_, ModelError>>()?;
    let Some(first) = formats.first().filter(|first| formats.iter().all(|f| f == *first)) else {
        return Ok(WeightFormat::F32);
    };
    let cut = |group: u32| [stack.columns.start, stack.columns.end].iter().any(|c| !c.is_multiple_of(group as usize));
    Ok(match *first {
        _ if stack.reader.is_some() => WeightFormat::F32,
        WeightFormat::W4 { group, .. } if cut(group) => WeightFormat::F32,
        format => format,
    })
}

/// Values of vectors one after another, or what a reader makes of one.
pub(crate) fn vector(weights: &Weights, stack: &Stack) -> Result<Vec<f32>, ModelError> {
    let mut out = Vec::new();
    for id in &stack.parts {
        out.extend_from_slice(&weights.host(*id)?);
    }
    if let Some((reader, columns)) = &stack.reader {
        let mut bias = vec![0.0; weights.rows_and_columns(*reader).0];
        fold::fold_shift(&mut bias, &outer(weights, *reader, columns)?, &out);
        return Ok(bias);
    }
    Ok(out)
}

/// These columns of a matrix.
fn outer(weights: &Weights, id: ParamId, columns: &Range<usize>) -> Result<Vec<f32>, ModelError> {
    let k = weights.rows_and_columns(id).1;
    Ok(fold::columns(&weights.host(id)?, k, columns.start, columns.len()))
}
