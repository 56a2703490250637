//! The rule by which every replica reads the log: pure, the same everywhere, and so the consensus.
//!
//! Intuition. The log is one sequence for all. The first [`Entry::Epoch`] with a number makes its writer primary from
//! that place on; data of any other writer after it counts for nobody. A primary that hung and woke up may still append,
//! but every replica, itself included, ignores what it appends: nothing acknowledged is lost and nothing forks.
//! Each data entry names its predecessor's digest, so a log that lost its end or changed is noticed, never applied.

use std::collections::VecDeque;

use crate::entry::{Data, Entry};
use crate::position::{Chain, Position};

/// How many of the latest entries are known by digest, to recognise one that the bus delivered twice.
const RECENT: usize = 128;

/// What to do with an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Data: apply it, then [`Fold::advance`].
    Apply,
    /// A new primary from here on; already noted.
    Promoted,
    /// A barrier of the current primary.
    Barrier,
    /// Of a primary that is one no more, or a try to become one that came too late. For nobody.
    Stale,
    /// Seen before.
    Duplicate,
    /// Entries before it are missing here: this replica needs a snapshot.
    Gap,
    /// The log is not the one that this replica followed. Never guess: stop.
    Diverged(Divergence),
}

/// How a log differs from the one that was followed. Closed: shared by log, metric and test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Divergence {
    /// It ends before this replica's position.
    #[error("the log came back shorter than this replica has applied")]
    Shorter,
    /// The entry at this replica's position is another one.
    #[error("the log has other entries than this replica has applied")]
    Rewritten,
    /// The next entry continues another history.
    #[error("the log continues another history than this replica has")]
    OtherHistory,
    /// Two primaries wrote with one epoch number.
    #[error("the log has two primaries with one epoch")]
    TwoPrimaries,
    /// The changes do not fit the rows that are here.
    #[error("an entry does not fit this replica's rows")]
    Conflict,
}

/// A replica's position, moved by the log.
#[derive(Clone, Debug)]
pub struct Fold {
    position: Position,
    settled: Position,
    recent: VecDeque<(u64, Chain)>,
}

impl Fold {
    /// Starts where the replica's database is.
    #[must_use]
    pub fn new(position: Position) -> Self {
        Self { settled: position.clone(), position, recent: VecDeque::with_capacity(RECENT) }
    }

    /// Where it is.
    #[must_use]
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// Where it was at the last data entry: what is stored, and where reading begins again. An epoch that began after it
    /// is not part of it: should the log have lost that epoch, nothing here must remember it.
    #[must_use]
    pub fn settled(&self) -> &Position {
        &self.settled
    }

    /// What the log must look like for this replica to read on from it: `next` is the offset that the next entry
    /// will get; `at_position` the digest of the entry at the position, if it is still there.
    ///
    /// # Errors
    /// How it differs.
    pub fn attach(&self, next: u64, at_position: Option<Chain>) -> Result<(), Divergence> {
        match self.position.offset {
            Some(offset) if next <= offset => Err(Divergence::Shorter),
            Some(_) if at_position.is_some_and(|chain| chain != self.position.chain) => {
                Err(Divergence::Rewritten)
            }
            _ => Ok(()),
        }
    }

    /// Judges the entry at `offset`, whose body has digest `chain`, and notes a new primary.
    pub fn judge(&mut self, offset: u64, entry: &Entry, chain: impl FnOnce() -> Chain) -> Verdict {
        let at = &mut self.position;
        if at.offset.is_some_and(|mine| offset <= mine) {
            return Verdict::Duplicate;
        }
        match entry {
            Entry::Genesis { generation, seq, chain } => self.judge_genesis(*generation, *seq, *chain),
            Entry::Epoch { epoch, term, primary } => {
                if *epoch <= at.epoch {
                    let again = (*epoch, *term) == (at.epoch, at.term);
                    return if again { Verdict::Duplicate } else { Verdict::Stale };
                }
                (at.epoch, at.term) = (*epoch, *term);
                at.primary.clone_from(primary);
                Verdict::Promoted
            }
            Entry::Data(data) => self.judge_data(data, chain),
            Entry::Barrier { epoch, term, .. } => {
                if (*epoch, *term) == (at.epoch, at.term) {
                    Verdict::Barrier
                } else {
                    Verdict::Stale
                }
            }
        }
    }

    fn judge_genesis(&self, generation: u64, seq: u64, chain: Chain) -> Verdict {
        let at = &self.position;
        if at.offset.is_some() {
            return Verdict::Stale; // the first one counted; another replica wanted to begin it too
        }
        if generation != at.generation || seq < at.seq || (seq == at.seq && chain != at.chain) {
            return Verdict::Diverged(Divergence::OtherHistory);
        }
        if seq > at.seq { Verdict::Gap } else { Verdict::Duplicate }
    }

    fn judge_data(&self, data: &Data, chain: impl FnOnce() -> Chain) -> Verdict {
        let at = &self.position;
        if data.epoch < at.epoch {
            return Verdict::Stale;
        }
        if data.epoch > at.epoch {
            return Verdict::Gap; // its epoch began in a part of the log that is gone
        }
        if data.term != at.term {
            return Verdict::Diverged(Divergence::TwoPrimaries);
        }
        if data.seq <= at.seq {
            let known = self.recent.iter().find(|(seq, _)| *seq == data.seq);
            // One from before the restart of this replica cannot be told from a fork of the same length: the next entry
            // of a fork is, because it names its predecessor.
            return match known {
                Some((_, known)) if *known != chain() => Verdict::Diverged(Divergence::OtherHistory),
                _ => Verdict::Duplicate,
            };
        }
        if data.seq > at.seq + 1 {
            return Verdict::Gap;
        }
        if data.prev == at.chain { Verdict::Apply } else { Verdict::Diverged(Divergence::OtherHistory) }
    }

    /// The data entry that was judged [`Verdict::Apply`] is applied.
    pub fn advance(&mut self, offset: u64, seq: u64, chain: Chain) {
        debug_assert_eq!(seq, self.position.seq + 1, "entries are applied one after the other");
        (self.position.seq, self.position.chain, self.position.offset) = (seq, chain, Some(offset));
        self.settled.clone_from(&self.position);
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back((seq, chain));
    }
}

#[cfg(test)]
#[path = "fold_tests.rs"]
mod tests;
