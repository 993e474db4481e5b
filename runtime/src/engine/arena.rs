//! Places a graph's tensors in one buffer. Constants and inputs have permanent places; activations share memory if
//! their lifetimes do not overlap.

use fathom_models::graph::precision::Precision;
use fathom_models::graph::{Graph, Storage, TensorId, TensorInfo};

use super::EngineError;

/// Slots begin at a multiple of this, which every adapter accepts.
pub(super) const ALIGN: u64 = 256;

/// The place of a tensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    /// First byte.
    pub(super) offset: u64,
    /// Bytes; for f16 at least the bytes of a binding as vectors of f32.
    pub(super) bytes: u64,
    /// Whether it is in f16.
    pub(super) f16: bool,
}

impl Place {
    /// Bytes up to the next place.
    fn span(self) -> u64 {
        self.bytes.max(1).next_multiple_of(ALIGN)
    }
}

/// The places of a graph's tensors.
#[derive(Debug)]
pub(super) struct Placement {
    /// By [`TensorId`].
    pub(super) places: Vec<Place>,
    /// Bytes of the whole.
    pub(super) bytes: u64,
}

impl Placement {
    /// Places the tensors of `graph` in this precision.
    pub(super) fn of(graph: &Graph, precision: Precision) -> Placement {
        let mut fixed = 0;
        let place = |(tensor, f16): (&TensorInfo, bool)| {
            let words = tensor.words as u64;
            let bytes = if f16 { (words * 2).next_multiple_of(16) } else { words * 4 };
            let place = Place { offset: fixed, bytes, f16 };
            if tensor.storage != Storage::Activation {
                fixed += place.span();
            }
            place
        };
        let mut places: Vec<Place> = graph.tensors.iter().zip(precision.halves(graph)).map(place).collect();
        // Largest first, each at the lowest place that is free for its whole lifetime.
        let mut order: Vec<(&mut Place, (usize, usize))> = places
            .iter_mut()
            .zip(lives(graph))
            .zip(&graph.tensors)
            .filter_map(|(place, tensor)| (tensor.storage == Storage::Activation).then_some(place))
            .collect();
        order.sort_by_key(|(place, _)| std::cmp::Reverse(place.span()));
        let mut placed: Vec<((usize, usize), u64, u64)> = Vec::new();
        let mut bytes = fixed;
        for (place, life) in order {
            let mut busy: Vec<(u64, u64)> = placed
                .iter()
                .filter(|(other, _, _)| other.0 <= life.1 && life.0 <= other.1)
                .map(|(_, start, end)| (*start, *end))
                .collect();
            busy.sort_unstable();
            let mut at = fixed;
            for (start, end) in busy {
                if at + place.span() <= start {
                    break;
                }
                at = at.max(end);
            }
            place.offset = at;
            placed.push((life, at, at + place.span()));
            bytes = bytes.max(at + place.span());
        }
        Placement { places, bytes }
    }

    /// The place of a tensor.
    pub(super) fn place(&self, id: TensorId) -> Result<Place, EngineError> {
        self.places.get(id.index()).copied().ok_or(EngineError::NoTensor(id))
    }
}

/// First and last operation that uses each tensor; outputs live to the end.
fn lives(graph: &Graph) -> Vec<(usize, usize)> {
    let mut lives = vec![(usize::MAX, 0); graph.tensors.len()];
    let mut touch = |id: TensorId, at: usize| {
        if let Some(life) = lives.get_mut(id.index()) {
            *life = (life.0.min(at), life.1.max(at));
        }
    };
    for (at, (_, op)) in graph.ops.iter().enumerate() {
        let (read, written) = op.tensors();
        read.iter().chain(&written).for_each(|id| touch(*id, at));
    }
    for output in &graph.outputs {
        touch(output.tensor.id, graph.ops.len());
    }
    lives
}

#[cfg(test)]
mod tests {
    use super::*;
    use fathom_models::graph::builder::GraphBuilder;

    /// A chain of equal tensors needs two places, and an output is never overwritten.
    #[test]
    fn tensors_share_memory_only_when_their_lives_do_not_overlap() {
        let mut g = GraphBuilder::default();
        g.stage("chain");
        let input = g.input("input", 1, 64);
        let first = g.scale(input, 1.0, None);
        g.output("first", first);
        let mut x = first;
        for _ in 0..10 {
            x = g.scale(x, 1.0, None);
        }
        g.output("last", x);
        let graph = g.finish().expect("shapes fit");
        let placement = Placement::of(&graph, Precision::F32);
        assert_eq!(placement.bytes, 256 * (1 + 1 + 2), "input, first, and two that alternate");
        let first_at = placement.place(first.id).expect("it is the graph's").offset;
        let others = placement.places.iter().filter(|p| p.offset == first_at).count();
        assert_eq!(others, 1, "no other tensor overlaps an output");
    }
}
