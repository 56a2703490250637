//! Entries beside the writes of clients: a restore, which replaces the content, and a comparison of all replicas.
//!
//! Their entry in the log is what orders them among the writes. The primary acts on it as every other replica does: when
//! it reads it.

use bus::PublishError;

use super::append::{Marked, What};
use super::{Left, Replica};
use crate::entry::{Data, Entry, Op, Restore, chain_of};
use crate::position::Chain;
use crate::sqlite::writer::RestoreError;
use crate::state::{Mark, Refusal, WriteError};

impl Replica {
    /// Sends the entry off, unless nobody waits for it any more.
    pub(super) fn mark(&mut self, mark: Mark) {
        if mark.reply.is_closed() {
            return;
        }
        let at = self.fold.position();
        let written = u64::try_from(clock::WallMs::now().0).unwrap_or(0);
        let (epoch, term, seq, prev) = (at.epoch, at.term, at.seq + 1, at.chain);
        let body = Entry::Data(Data { epoch, term, seq, prev, at: written, ops: vec![mark.op] }).encode();
        let chain = chain_of(&body);
        self.marked = Some(Marked { chain, reply: mark.reply });
        self.append(What::Mark(chain), body);
    }

    pub(super) fn mark_failed(&mut self, error: &PublishError) {
        let (answer, reason) = match error {
            PublishError::Refused(_) => (WriteError::Refused(Refusal::Log), None),
            PublishError::Down => (WriteError::Refused(Refusal::Log), Some("the bus is down")),
            PublishError::Unknown => (WriteError::Unknown, Some("an entry's outcome is unknown")),
        };
        self.give_up_pending(answer);
        if let Some(reason) = reason {
            self.step_down(reason);
        }
    }

    /// Does what the entry says. Nothing is open in SQLite.
    pub(super) fn marked(&mut self, op: &Op, offset: u64, seq: u64, chain: Chain) -> Result<(), Left> {
        let mut after = self.fold.clone();
        after.advance(offset, seq, chain);
        match op {
            Op::Restore(restore) => {
                self.install_restored(restore, after.settled())?;
                self.fold = after;
                self.publish();
                self.say_content();
            }
            _ => {
                self.writer.begin().map_err(Left::Storage)?;
                self.writer.commit(after.settled()).map_err(Left::Storage)?;
                self.fold = after;
                self.publish();
                self.say_content_here();
            }
        }
        if let Some(marked) = self.marked.take_if(|marked| marked.chain == chain) {
            let _ = marked.reply.send(Ok(self.fold.settled().token()));
        }
        Ok(())
    }

    fn install_restored(&mut self, restore: &Restore, at: &crate::position::Position) -> Result<(), Left> {
        let Some(prepared) = self.shared.staging.take(restore) else { return Err(Left::Unstaged) };
        let aside = self.shared.staging.aside();
        self.unsay_content();
        match self.writer.restore(&prepared, &aside, at) {
            Ok(()) => {}
            Err(RestoreError::Own(error)) => return Err(Left::Storage(error)),
            Err(RestoreError::Prepared(error)) => {
                tracing::error!(instance = self.instance(), %error, file = %prepared.display(),
                    "the staged file of a restore cannot be used: this replica takes a snapshot instead");
                self.shared.staging.clear();
                return Err(Left::Unstaged);
            }
        }
        self.shared.staging.clear();
        tracing::warn!(instance = self.instance(), seq = at.seq, kept = %aside.display(),
            "a restore replaced the whole content; a copy of the former content is kept");
        Ok(())
    }
}
