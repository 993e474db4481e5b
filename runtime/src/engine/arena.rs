//! Places a graph's tensors in one buffer. Constants and inputs keep their place for good; activations share memory
//! with those whose life does not overlap theirs.

use fathom_models::graph::{Graph, Storage};

/// Slots begin at a multiple of this, which every adapter accepts.
pub(super) const ALIGN: u64 = 256;

/// Where each tensor lies.
#[derive(Debug)]
pub(super) struct Placement {
    /// First byte of each tensor.
    pub(super) offsets: Vec<u64>,
    /// Bytes of the whole.
    pub(super) bytes: u64,
}

/// Bytes of a tensor; in f16 as many as kernels may bind as vectors of f32, too.
pub(super) fn bytes(elements: usize, half: bool) -> u64 {
    match half {
        true => (elements as u64 * 2).next_multiple_of(16),
        false => elements as u64 * 4,
    }
}

impl Placement {
    /// Places the tensors of `graph`, of which `halves` says whether they are in f16.
    pub(super) fn of(graph: &Graph, halves: &[bool]) -> Placement {
        let lives = lives(graph);
        let span = |i: usize| {
            let (elements, half) = (graph.tensors.get(i).map_or(0, |t| t.words), halves.get(i).copied());
            bytes(elements, half.unwrap_or_default()).max(1).next_multiple_of(ALIGN)
        };
        let mut offsets = vec![0; graph.tensors.len()];
        let mut fixed = 0;
        for (i, (offset, tensor)) in offsets.iter_mut().zip(&graph.tensors).enumerate() {
            if tensor.storage != Storage::Activation {
                *offset = fixed;
                fixed += span(i);
            }
        }
        // Largest first, each at the lowest place free for its whole life.
        let mut order: Vec<usize> = (0..lives.len())
            .filter(|i| graph.tensors.get(*i).is_some_and(|t| t.storage == Storage::Activation))
            .collect();
        order.sort_by_key(|i| std::cmp::Reverse(span(*i)));
        let mut placed: Vec<(usize, u64, u64)> = Vec::new();
        let mut bytes = fixed;
        for i in order {
            let (Some(life), Some(slot)) = (lives.get(i), offsets.get_mut(i)) else { continue };
            let mut busy: Vec<(u64, u64)> = placed
                .iter()
                .filter(|(other, _, _)| lives.get(*other).is_some_and(|o| o.0 <= life.1 && life.0 <= o.1))
                .map(|(_, start, end)| (*start, *end))
                .collect();
            busy.sort_unstable();
            let mut at = fixed;
            for (start, end) in busy {
                if at + span(i) <= start {
                    break;
                }
                at = at.max(end);
            }
            *slot = at;
            placed.push((i, at, at + span(i)));
            bytes = bytes.max(at + span(i));
        }
        Placement { offsets, bytes }
    }
}

/// First and last operation that touches each tensor; outputs live to the end.
fn lives(graph: &Graph) -> Vec<(usize, usize)> {
    let mut lives = vec![(usize::MAX, 0); graph.tensors.len()];
    let mut touch = |id: usize, at: usize| {
        if let Some(life) = lives.get_mut(id) {
            *life = (life.0.min(at), life.1.max(at));
        }
    };
    for (at, (_, op)) in graph.ops.iter().enumerate() {
        let (read, written) = op.tensors();
        read.iter().chain(&written).for_each(|id| touch(id.0 as usize, at));
    }
    for output in &graph.outputs {
        touch(output.tensor.id.0 as usize, graph.ops.len());
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
        let placement = Placement::of(&graph, &[]);
        assert_eq!(placement.bytes, 256 * (1 + 1 + 2), "input, first, and two that alternate");
        let first_at = placement.offsets[first.id.0 as usize];
        let others = placement.offsets.iter().filter(|o| **o == first_at).count();
        assert_eq!(others, 1, "nothing else lies where an output is");
    }
}
