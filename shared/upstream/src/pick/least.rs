//! The least loaded of many: a tournament over the members' loads.
//!
//! Each inner node holds the least load below it and how many have it. A request changes one leaf and the log n nodes above it; the choice walks down
//! towards the least load, and among equals throws dice by their number, so that each of them is as likely.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use super::Seat;
use crate::dice::Dice;
use crate::vitals::Vitals;

/// The least load below a node in the upper 40 bits, how many have it in the lower 24.
type Node = u64;
const COUNT_BITS: u32 = 24;
/// No seat: heavier than any.
const NOBODY: Node = Node::MAX << COUNT_BITS;

#[derive(Debug)]
pub(super) struct Tournament {
    /// `nodes[1]` is the root, `nodes[i]` has `2i` and `2i + 1` below it; the leaves are the upper half.
    nodes: Box<[AtomicU64]>,
    leaves: Vec<(Arc<Vitals>, u32)>,
}

impl Tournament {
    pub(super) fn new(seats: &[Seat]) -> Self {
        let width = seats.len().next_power_of_two().max(1);
        let nodes = (0..2 * width).map(|_| AtomicU64::new(NOBODY)).collect();
        let leaves = seats.iter().map(|seat| (Arc::clone(&seat.vitals), seat.weight)).collect();
        let tree = Self { nodes, leaves };
        for seat in 0..seats.len() {
            tree.nodes[width + seat].store(tree.leaf(seat), SeqCst);
        }
        for node in (1..width).rev() {
            tree.nodes[node].store(tree.joined(node), SeqCst);
        }
        tree
    }

    /// The load of `seat` changed. Each node is read again after it was written: of two workers that change
    /// two leaves at once, whoever writes the common node last has seen both.
    pub(super) fn touch(&self, seat: usize) {
        if seat >= self.leaves.len() {
            return;
        }
        let mut node = self.nodes.len() / 2 + seat;
        self.agree(node, || self.leaf(seat));
        while node > 1 {
            node /= 2;
            self.agree(node, || self.joined(node));
        }
    }

    fn agree(&self, node: usize, value: impl Fn() -> Node) {
        let mut now = value();
        loop {
            self.nodes[node].store(now, SeqCst);
            let again = value();
            if again == now {
                return;
            }
            now = again;
        }
    }

    /// One of those with the least load.
    pub(super) fn least(&self, dice: &mut Dice) -> usize {
        let width = self.nodes.len() / 2;
        let mut node = 1;
        while node < width {
            let (left, right) = (self.nodes[2 * node].load(SeqCst), self.nodes[2 * node + 1].load(SeqCst));
            let right_wins = match (left >> COUNT_BITS).cmp(&(right >> COUNT_BITS)) {
                std::cmp::Ordering::Less => false,
                std::cmp::Ordering::Greater => true,
                std::cmp::Ordering::Equal => dice.below(count(left) + count(right)) >= count(left),
            };
            node = 2 * node + usize::from(right_wins);
        }
        (node - width).min(self.leaves.len().saturating_sub(1))
    }

    fn leaf(&self, seat: usize) -> Node {
        let (vitals, weight) = &self.leaves[seat];
        // In 1/1024 of a request for each unit of weight: finer than any two loads that matter.
        let load = (u64::from(vitals.active()) << 10) / u64::from(*weight);
        (load.min((1 << 39) - 1) << COUNT_BITS) | 1
    }

    fn joined(&self, node: usize) -> Node {
        let (left, right) = (self.nodes[2 * node].load(SeqCst), self.nodes[2 * node + 1].load(SeqCst));
        match (left >> COUNT_BITS).cmp(&(right >> COUNT_BITS)) {
            std::cmp::Ordering::Less => left,
            std::cmp::Ordering::Greater => right,
            std::cmp::Ordering::Equal => left + count(right) as Node,
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "24 bits")]
const fn count(node: Node) -> usize {
    (node & ((1 << COUNT_BITS) - 1)) as usize
}
