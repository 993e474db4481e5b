//! The counted parts of NVK's assembly: instructions by kind, and their loops.

use std::collections::{BTreeMap, BTreeSet};

/// A sequence of instructions with a jump only at its end.
#[derive(Debug, Default)]
struct Block {
    /// Full names of the operations.
    operations: Vec<String>,
    /// Reads of the size of a bound buffer.
    sizes: usize,
    next: Vec<usize>,
}

/// The assembly of one kernel.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    blocks: BTreeMap<usize, Block>,
    open: Option<usize>,
}

/// The innermost loop with most multiplications and additions.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Loop {
    /// Instructions, without those that only wait.
    pub(crate) instructions: usize,
    /// Instructions for matrices.
    pub(crate) matrix: usize,
    /// Products that a thread sums.
    pub(crate) macs: usize,
}

impl Assembly {
    /// Adds a line of the listing.
    pub(crate) fn line(&mut self, line: &str) {
        let line = line.split("//").next().unwrap_or_default().trim();
        if line.starts_with("block") {
            let index = line.split_whitespace().nth(1).and_then(|n| n.parse().ok());
            self.open = index;
            if let Some(index) = index {
                self.blocks.insert(index, Block::default());
            }
        } else if let Some(next) = line.strip_prefix("} -> [") {
            let next = next.trim_end_matches(']').split(',').filter_map(|n| n.trim().parse().ok()).collect();
            if let Some(block) = self.open.take().and_then(|index| self.blocks.get_mut(&index)) {
                block.next = next;
            }
        } else if let Some(block) = self.open.and_then(|index| self.blocks.get_mut(&index))
            && let Some(operation) = operation(line)
        {
            block.operations.push(operation.to_owned());
            block.sizes += line.match_indices("c[0x1][0x").filter(|(at, _)| is_size(&line[*at..])).count();
        }
    }

    /// Instructions, all of them.
    pub(crate) fn instructions(&self) -> usize {
        self.blocks.values().map(|b| b.operations.len()).sum()
    }

    /// Reads of the sizes of bound buffers; every bounds check begins with one.
    pub(crate) fn sizes(&self) -> usize {
        self.blocks.values().map(|b| b.sizes).sum()
    }

    /// Instructions for matrices.
    pub(crate) fn matrix(&self) -> usize {
        self.blocks.values().flat_map(|b| &b.operations).filter(|o| is_matrix(o)).count()
    }

    /// Of the innermost loops, the one with the most products; none if no loop multiplies.
    pub(crate) fn hottest(&self) -> Option<Loop> {
        let loops = self.loops();
        let inner = loops.iter().filter(|l| !loops.iter().any(|other| other != *l && other.is_subset(l)));
        let counted = inner.map(|blocks| self.count(blocks));
        counted.filter(|l| l.macs > 0).max_by_key(|l| (l.macs, std::cmp::Reverse(l.instructions)))
    }

    fn count(&self, blocks: &BTreeSet<usize>) -> Loop {
        let operations = blocks.iter().filter_map(|b| self.blocks.get(b)).flat_map(|b| &b.operations);
        let mut found = Loop::default();
        for operation in operations.filter(|o| *o != "nop") {
            found.instructions += 1;
            found.matrix += usize::from(is_matrix(operation));
            found.macs += macs(operation);
        }
        found
    }

    /// The blocks of each loop: from its start to the end that jumps back.
    fn loops(&self) -> Vec<BTreeSet<usize>> {
        let mut before: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut ends: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (index, block) in &self.blocks {
            for next in &block.next {
                before.entry(*next).or_default().push(*index);
                if next <= index {
                    ends.entry(*next).or_default().push(*index);
                }
            }
        }
        let body = |(head, mut open): (usize, Vec<usize>)| {
            let mut body = BTreeSet::from([head]);
            while let Some(block) = open.pop() {
                if body.insert(block) {
                    open.extend(before.get(&block).into_iter().flatten());
                }
            }
            body
        };
        ends.into_iter().map(body).collect()
    }
}

/// The operation of `line`: `r0..4 = hmma.m16n8k16.f32 …` or `@!p0 bra …`.
fn operation(line: &str) -> Option<&str> {
    let whole = line.split_once("= ").map_or(line, |(_, after)| after);
    whole.split_whitespace().find(|word| !word.starts_with('@'))
}

/// Whether `operand`, `c[0x1][0x28]…`, is the third word of a buffer's four: its size.
fn is_size(operand: &str) -> bool {
    let offset = operand.get(9..).and_then(|rest| rest.split(']').next());
    offset.and_then(|o| u32::from_str_radix(o, 16).ok()).is_some_and(|o| o % 16 == 8)
}

fn is_matrix(operation: &str) -> bool {
    operation.starts_with("hmma") || operation.starts_with("imma")
}

/// Products that one thread of 32 sums with `operation`.
fn macs(operation: &str) -> usize {
    match operation.split('.').next() {
        Some("ffma") => 1,
        Some("hfma2") => 2,
        Some("idp4") => 4,
        Some("hmma" | "imma") => {
            let shape = operation.split('.').nth(1).unwrap_or_default();
            let sides = shape.split(|c: char| c.is_ascii_alphabetic()).filter_map(|n| n.parse::<usize>().ok());
            sides.product::<usize>() / 32
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "
block.u 0 L0 [] -> {
 r0      = s2r sr[0x21]                                   // delay=2 wr:0
 r2 p0   = iadd3 r1 c[0x1][0x10] rZ                       // delay=4
 r3      = imnmx.u32 r2 c[0x1][0x18] pT                   // delay=4
} -> [1]
block.u 1 L1 [0, 2] -> {
 r8..12  = ldsm.16.m8n8.x4 [r0+0x500]                     // delay=1 wr:0
 r4..8   = hmma.m16n8k16.f32 r12..16 r8..10 r4..8         // delay=2
           nop                                            // delay=2
 r1      = ffma.ftz r1 r2 r3                              // delay=2
@!p0       bra pT L1                                      // delay=1
} -> [2, 3]
block 2 L2 [1] -> {
           bra pT L1                                      // delay=1
} -> [1]
block 3 L3 [1] -> {
 r1      = ffma.ftz r1 r2 r3                              // delay=2
           exit                                           // delay=1
} -> []
";

    #[test]
    fn loops_jump_back_and_sizes_of_buffers_have_their_places() {
        let mut assembly = Assembly::default();
        LISTING.lines().for_each(|line| assembly.line(line));
        assert_eq!(assembly.hottest(), Some(Loop { instructions: 5, matrix: 1, macs: 65 }));
        assert_eq!((assembly.matrix(), assembly.sizes()), (1, 1));
    }
}
