//! Reading the log on: one entry, or as many as are there, in one SQLite transaction.

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
        let mut open = false;
        for entry in entries {
            let next = entry.offset + 1;
            if let Err(left) = self.entry(entry, &mut open) {
                // What fitted before the one that failed is kept.
                let kept = self.close(&mut open);
                return kept.and(Err(left));
            }
            self.read = next;
        }
        self.close(&mut open)?;
        self.note_caught_up();
        Ok(())
    }

    fn entry(&mut self, entry: LogEntry, open: &mut bool) -> Result<(), Left> {
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
                        self.close(open)?;
                        self.make_way();
                        self.marked(op, offset, data.seq, chain)
                    }
                    _ => {
                        self.apply(&data, open)?;
                        self.fold.advance(offset, data.seq, chain);
                        Ok(())
                    }
                }
            }
            (Verdict::Promoted, _) => {
                self.close(open)?;
                self.promoted()
            }
            (Verdict::Barrier, Entry::Barrier { id, .. }) => {
                self.close(open)?;
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

    /// Applies an entry in the open transaction, and opens one if there is none.
    fn apply(&mut self, data: &Data, open: &mut bool) -> Result<(), Left> {
        self.make_way();
        if !*open {
            self.writer.begin().map_err(Left::Storage)?;
            *open = true;
        }
        self.writer.apply(&data.ops).map_err(|error| {
            self.writer.rollback();
            *open = false;
            if matches!(error, StoreError::Abandoned) {
                return Left::Reattach;
            }
            tracing::error!(instance = self.instance(), seq = data.seq, %error,
                cause = super::cause(&error), "an entry was not applied");
            let fits_not = error.conflict();
            if fits_not { Left::Diverged(Divergence::Conflict) } else { Left::Storage(error) }
        })?;
        self.shared.telemetry.applied.inc();
        Ok(())
    }

    /// Commits what was applied, with the position.
    fn close(&mut self, open: &mut bool) -> Result<(), Left> {
        if std::mem::take(open) {
            self.writer.commit(self.fold.settled()).map_err(Left::Storage)?;
            self.publish();
        }
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
