//! Verifies the content of mapped files in one pass: the hashes that a manifest lists, and that all floats are finite.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sha2::{Digest as _, Sha256};

use super::manifest::{self, hexadecimal};
use super::{Mapped, WeightFormat, Weights, not_finite};
use crate::error::{FileProblem, ModelError};

/// Bytes that are hashed and checked at a time: they are still in the processor's cache when the second reads them.
const PIECE_BYTES: usize = 256 << 10;
/// Bytes that a thread takes at a time of a file without a hash; a hash takes the file from its beginning to its end.
const SPAN_BYTES: usize = 64 << 20;

/// A model's weights whose content is not verified: names, shapes and dtypes fit. Nothing but
/// [`verify`](Self::verify) and [`verify_while`](Self::verify_while) gives [`Weights`] to infer with.
#[derive(Debug)]
pub struct UnverifiedWeights {
    weights: Weights,
    verified: bool,
}

/// Verified weights, where unverified ones are taken: nothing is left to verify.
impl From<Weights> for UnverifiedWeights {
    fn from(weights: Weights) -> UnverifiedWeights {
        UnverifiedWeights { weights, verified: true }
    }
}

impl UnverifiedWeights {
    pub(super) fn new(weights: Weights) -> UnverifiedWeights {
        UnverifiedWeights { weights, verified: false }
    }

    /// Verifies the weights on all cores.
    ///
    /// # Errors
    /// [`ModelError::Altered`] with all files that are not as the manifest says, else [`ModelError::Tensors`] with all
    /// tensors that are not finite.
    pub fn verify(self) -> Result<Weights, ModelError> {
        if !self.verified {
            check(&self.weights, cores())?;
        }
        Ok(self.weights)
    }

    /// As [`verify`](Self::verify), while `work` uploads the weights on this thread, if there is more than one core; else
    /// before that. The result of `work` comes only with weights that passed.
    ///
    /// # Errors
    /// As [`verify`](Self::verify).
    pub fn verify_while<R>(self, work: impl FnOnce(&Weights) -> R) -> Result<(Weights, R), ModelError> {
        let others = cores() - 1;
        if self.verified || others == 0 {
            let weights = self.verify()?;
            let result = work(&weights);
            return Ok((weights, result));
        }
        let weights = self.weights;
        let (checked, result) = thread::scope(|scope| {
            let checked = scope.spawn(|| check(&weights, others));
            let result = work(&weights);
            (checked.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), result)
        });
        checked.map(|()| (weights, result))
    }
}

/// A part of a mapped file that one thread reads.
struct Span<'a> {
    file: &'a Mapped,
    range: Range<usize>,
    /// Of the file, by their beginning.
    floats: &'a [Floats],
}

/// Floats that have to be finite: where they lie in their file, and which parameter they are of.
struct Floats {
    range: Range<usize>,
    format: WeightFormat,
    param: usize,
}

/// What a pass over a span found.
struct Found {
    sha256: Option<String>,
    /// Parameters that are not finite.
    not_finite: BTreeSet<usize>,
}

fn check(weights: &Weights, threads: usize) -> Result<(), ModelError> {
    let files = &weights.checkpoint().files;
    let mut floats: Vec<Vec<Floats>> = files.iter().map(|_| Vec::new()).collect();
    for (param, format, place) in weights.floats() {
        if let Some(floats) = floats.get_mut(place.file) {
            floats.push(Floats { range: place.range.clone(), format, param });
        }
    }
    floats.iter_mut().for_each(|floats| floats.sort_by_key(|f| f.range.start));
    let spans = files.iter().zip(&floats).flat_map(|(file, floats)| {
        let step = if file.listed.is_some() { file.map.len() } else { SPAN_BYTES };
        let range = move |start: usize| start..(start + step).min(file.map.len());
        (0..file.map.len()).step_by(step.max(1)).map(move |start| Span { file, range: range(start), floats })
    });
    let spans: Vec<Span<'_>> = spans.collect();
    let found = parallel(threads, &spans, Span::pass);
    let differing = |(span, found): (&Span<'_>, &Found)| {
        let (expected, found) = (span.file.listed.as_ref()?, found.sha256.as_ref()?);
        let (file, expected, found) = (span.file.name.clone(), expected.sha256.clone(), found.clone());
        (expected != found).then_some(FileProblem::Hash { file, expected, found })
    };
    let differing: Vec<FileProblem> = spans.iter().zip(&found).filter_map(differing).collect();
    if !differing.is_empty() {
        let path = weights.checkpoint().path().with_file_name(manifest::FILE);
        return Err(ModelError::Altered { path, problems: differing });
    }
    let not_finite: BTreeSet<usize> = found.into_iter().flat_map(|found| found.not_finite).collect();
    if not_finite.is_empty() { Ok(()) } else { Err(weights.not_finite(&not_finite)) }
}

impl Span<'_> {
    /// Reads the span once, and gives its pages back piece by piece.
    fn pass(&self) -> Found {
        let (Span { file, range, floats }, mut first) = (self, 0);
        let mut hash = file.listed.as_ref().map(|_| Sha256::new());
        let mut not_finite = BTreeSet::new();
        for start in range.clone().step_by(PIECE_BYTES) {
            let piece = start..(start + PIECE_BYTES).min(range.end);
            first += floats.iter().skip(first).take_while(|f| f.range.end <= start).count();
            let mut here = floats.iter().skip(first).take_while(|f| f.range.start < piece.end).peekable();
            if hash.is_none() && here.peek().is_none() {
                continue;
            }
            if let Some(hash) = &mut hash {
                hash.update(file.map.get(piece.clone()).unwrap_or_default());
            }
            for Floats { range, format, param } in here {
                // The numbers that end in this piece: one may begin in the piece before.
                let size = format.row_bytes(1).max(1);
                let end = |at: usize| range.start + (at.clamp(range.start, range.end) - range.start) / size * size;
                let bytes = file.map.get(end(piece.start)..end(piece.end)).unwrap_or_default();
                if self::not_finite(*format, bytes).is_some() {
                    not_finite.insert(*param);
                }
            }
            file.release(piece);
        }
        Found { sha256: hash.map(hexadecimal), not_finite }
    }
}

/// Cores of this machine that the process may use.
pub(super) fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// What `work` gives for each of `items`, in their order, by at most as many threads.
pub(super) fn parallel<T: Sync, R: Send>(threads: usize, items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let take = || {
        let mut done = Vec::new();
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(i) else { return done };
            done.push((i, work(item)));
        }
    };
    let mut all: Vec<_> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads.min(items.len())).map(|_| scope.spawn(take)).collect();
        let mut all = take();
        for other in others {
            all.extend(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        }
        all
    });
    all.sort_by_key(|(i, _)| *i);
    all.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::error::TensorProblem;
    use crate::graph::params::ParamTable;

    /// Tensors begin at any byte of a file, so that a number may lie in two pieces.
    #[test]
    fn every_number_is_checked_wherever_pieces_end() {
        const COUNT: usize = PIECE_BYTES / 2;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let mut table = ParamTable::default();
        table.vector("v", COUNT);
        for odd in 0..4 {
            let mut header = format!(r#"{{"v":{{"dtype":"F32","shape":[{COUNT}],"data_offsets":[0,{}]}}}}"#, 4 * COUNT);
            header += &" ".repeat(4 - header.len() % 4 + odd);
            let start = 8 + header.len();
            let across = (PIECE_BYTES - start) / 4;
            for index in [0, across - 1, across, across + 1, 2 * across, COUNT - 1] {
                let mut bytes = [(header.len() as u64).to_le_bytes().as_slice(), header.as_bytes()].concat();
                bytes.resize(start + 4 * COUNT, 0);
                bytes[start + 4 * index..][..4].copy_from_slice(&f32::INFINITY.to_le_bytes());
                fs::write(&path, bytes).unwrap();
                let weights =
                    Weights::resolve(Checkpoint::open(&path).unwrap(), &table, |p| vec![p.name.clone()], |_| false);
                let ModelError::Tensors { problems, .. } = weights.unwrap().verify().unwrap_err() else { panic!() };
                let expected = TensorProblem::NotFinite { name: "v".to_owned(), index, value: f32::INFINITY };
                assert_eq!(problems, [expected], "{odd}");
            }
        }
    }
}
