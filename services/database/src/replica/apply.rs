//! Reading the log on: one entry, or as many as are there, applied together in one SQLite transaction.

use bus::{LogEntry, LogReader};

use super::{Left, Replica};
use crate::entry::{Data, Entry, chain_of};
use crate::fold::{Divergence, Verdict};
use crate::sqlite::writer::StoreError;
use crate::state::WriteError;

/// Entries applied in one SQLite transaction when there are as many.
const TOGETHER_MAX: usize = 256;

impl Replica {
    /// Handles an entry and what else is there already.
    pub(super) fn entries(&mut self, first: LogEntry, reader: &mut LogReader) -> Result<(), Left> {
        let more = reader.take_ready(TOGETHER_MAX);
        self.handle(std::iter::once(first).chain(more))
    }

    pub(super) fn handle(&mut self, entries: impl Iterator<Item = LogEntry>) -> Result<(), Left> {
        let mut batch = Vec::new();
        for entry in entries {
            let next = entry.offset + 1;
            if let Err(left) = self.entry(entry, &mut batch) {
                // What came before the one that cannot be followed is kept.
                let kept = self.apply(&mut batch);
                return kept.and(Err(left));
            }
            self.read = next;
        }
        self.apply(&mut batch)?;
        self.note_caught_up();
        Ok(())
    }

    /// Judges an entry. One that is to be applied goes into the batch; whatever else it asks for is done now, after what is
    /// in the batch.
    fn entry(&mut self, entry: LogEntry, batch: &mut Vec<Data>) -> Result<(), Left> {
        let (offset, body) = (entry.offset, entry.message.body);
        let decoded = match Entry::decode(&body) {
            Ok(decoded) => decoded,
            Err(error) => {
                // Not ours, or of a newer program: applying what follows without it would be a guess.
                self.life.fail(error);
                return Err(Left::Reattach);
            }
        };
        let mut chain = None;
        let verdict = self.fold.judge(offset, &decoded, || *chain.insert(chain_of(&body)));
        match (verdict, decoded) {
            (Verdict::Apply, Entry::Data(data)) => {
                let chain = chain.unwrap_or_else(|| chain_of(&body));
                if self.pending.as_ref().is_some_and(|p| p.chain == chain) {
                    self.fold.advance(offset, data.seq, chain);
                    let pending = self.pending.take().expect("it was there a line above");
                    return self.commit_own(pending);
                }
                match data.ops.as_slice() {
                    [op] if op.stands_alone() => {
                        self.apply(batch)?;
                        self.make_way();
                        self.marked(op, offset, data.seq, chain)
                    }
                    _ => {
                        self.make_way();
                        self.fold.advance(offset, data.seq, chain);
                        batch.push(data);
                        Ok(())
                    }
                }
            }
            (Verdict::Promoted, _) => {
                self.apply(batch)?;
                self.promoted()
            }
            (Verdict::Barrier, Entry::Barrier { id, .. }) => {
                self.apply(batch)?;
                self.barrier_read(id);
                Ok(())
            }
            (Verdict::Stale, stale) => {
                self.shared.telemetry.stale.inc();
                if let Entry::Epoch { epoch, term, .. } = stale {
                    self.epoch_was_stale(epoch, term);
                }
                Ok(())
            }
            (Verdict::Gap, _) => Err(Left::Gap),
            (Verdict::Diverged(why), _) => Err(Left::Diverged(why)),
            (Verdict::Apply | Verdict::Barrier | Verdict::Duplicate, _) => Ok(()),
        }
    }

    /// An entry of ours that an earlier term of this life wrote; what is pending continues another history.
    fn make_way(&mut self) {
        if self.pending.is_some() {
            self.give_up_pending(WriteError::Unknown);
            self.step_down("another entry came first");
        }
    }

    /// Applies the batch and commits it with the position. All of it or nothing: after an error the position is read again.
    fn apply(&mut self, batch: &mut Vec<Data>) -> Result<(), Left> {
        let (Some(first), Some(last)) = (batch.first(), batch.last()) else { return Ok(()) };
        let (first, last) = (first.seq, last.seq);
        self.writer.begin().map_err(Left::Storage)?;
        self.writer.apply(batch.iter().flat_map(|data| &data.ops)).map_err(|error| {
            self.writer.rollback();
            if matches!(error, StoreError::Abandoned) {
                return Left::Reattach;
            }
            tracing::error!(instance = self.instance(), first, last, %error,
                cause = super::cause(&error), "entries were not applied");
            let fits_not = error.conflict();
            if fits_not { Left::Diverged(Divergence::Conflict) } else { Left::Storage(error) }
        })?;
        self.writer.commit(self.fold.settled()).map_err(Left::Storage)?;
        self.shared.telemetry.applied.inc_by(batch.len() as u64);
        batch.clear();
        self.publish();
        Ok(())
    }

    /// Whether the end that the log had when this replica attached to it is reached.
    pub(super) fn note_caught_up(&mut self) {
        if self.end.is_none_or(|end| self.read < end) {
            return;
        }
        self.end = None;
        self.shared.telemetry.caught_up(self.fold.position());
        self.shared.tell(|status| status.caught_up = true);
        self.say_content();
    }
}
