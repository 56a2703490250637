//! The last transitions of the whole stack, numbered, so that a client that was away can be told what it missed.

use std::collections::VecDeque;
use std::sync::Arc;

/// One numbered event.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Counts from 1 within one life of the console.
    pub seq: u64,
    /// What happened.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A child changed its state: the transition as JSON, encoded once for all clients.
    Transition(Arc<str>),
    /// Transitions may have been missed, by us: whoever follows needs a new snapshot.
    Gap,
}

/// A bounded run of entries without holes.
#[derive(Debug)]
pub struct Ring {
    entries: VecDeque<Entry>,
    capacity: usize,
    last: u64,
}

impl Ring {
    /// Keeps the last `capacity` entries.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { entries: VecDeque::new(), capacity: capacity.max(1), last: 0 }
    }

    /// Numbers and keeps an entry.
    pub fn push(&mut self, what: What) -> Entry {
        self.last += 1;
        let entry = Entry { seq: self.last, what };
        if self.entries.len() == self.capacity {
            self.entries.pop_front();
        }
        self.entries.push_back(entry.clone());
        entry
    }

    /// The number of the newest entry; 0 if there was none yet.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.last
    }

    /// What came after `seq`; `None` if that cannot be told without a hole, for it is too long ago, not yet, or
    /// there was a gap since.
    #[must_use]
    pub fn since(&self, seq: u64) -> Option<Vec<Entry>> {
        let missed = usize::try_from(self.last.checked_sub(seq)?).ok()?;
        let from = self.entries.len().checked_sub(missed)?;
        let missed: Vec<Entry> = self.entries.range(from..).cloned().collect();
        (!missed.iter().any(|e| e.what == What::Gap)).then_some(missed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(n: u64) -> Ring {
        let mut ring = Ring::new(3);
        for i in 1..=n {
            ring.push(What::Transition(i.to_string().into()));
        }
        ring
    }

    fn seqs(ring: &Ring, since: u64) -> Option<Vec<u64>> {
        ring.since(since).map(|missed| missed.iter().map(|e| e.seq).collect())
    }

    #[test]
    fn what_was_missed_is_told_as_far_as_it_is_kept() {
        let ring = ring(5);
        assert_eq!(seqs(&ring, 5), Some(vec![]));
        assert_eq!(seqs(&ring, 3), Some(vec![4, 5]));
        assert_eq!(seqs(&ring, 2), Some(vec![3, 4, 5]));
        assert_eq!(seqs(&ring, 1), None, "2 is gone");
        assert_eq!(seqs(&ring, 6), None, "of another life");
        assert_eq!(seqs(&super::Ring::new(3), 0), Some(vec![]));
    }

    #[test]
    fn a_gap_cannot_be_resumed_over() {
        let mut ring = ring(1);
        ring.push(What::Gap);
        ring.push(What::Transition("3".into()));
        assert_eq!(seqs(&ring, 1), None);
        assert_eq!(seqs(&ring, 2), Some(vec![3]));
    }
}
