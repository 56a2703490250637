//! What is on its way into the log, and who waits for it.

use std::time::Instant;

use bus::{Log, Message, PublishError, Refusal as BusRefusal};
use bytes::Bytes;
use tokio::sync::oneshot;

use super::{Left, Replica};
use crate::entry::Entry;
use crate::position::{Chain, Token};
use crate::state::{Refusal, Role, Strong, Write, WriteError, Written};
use crate::wire::Outcome;

/// What was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// The group with this digest.
    Group(Chain),
    /// The barrier with this id.
    Barrier(u64),
    /// The epoch with this number and term.
    Epoch(u64, u64),
    /// The mark with this digest.
    Mark(Chain),
}

pub(super) type Reply = oneshot::Sender<Result<Written, WriteError>>;

/// Answers of one request, to be sent when they are known to count.
pub(super) struct Answer {
    pub reply: Reply,
    pub answers: Vec<Vec<Outcome>>,
    /// See [`crate::state::Write::async_commit`].
    pub async_commit: bool,
}

impl Answer {
    pub fn send(self, token: Token) {
        drop(self.reply.send(Ok(Written { answers: self.answers, token })));
    }
}

/// A group that is executed and not answered.
pub(super) struct Pending {
    pub chain: Chain,
    /// Its place in the log is settled and it is committed here; the log's disk is still at work.
    pub committed: bool,
    pub answers: Vec<Answer>,
    /// A request that ran in part: it goes on when that part is committed.
    pub rest: Option<Write>,
    pub transactions: u64,
    pub since: Instant,
}

impl Pending {
    /// Answers everybody that it was not, or perhaps, done.
    pub fn refuse(self, error: WriteError) {
        self.answers.into_iter().for_each(|a| drop(a.reply.send(Err(error))));
        if let Some(rest) = self.rest {
            rest.refuse(error);
        }
    }
}

/// An entry beside the writes, on its way.
pub(super) struct Marked {
    pub chain: Chain,
    pub reply: oneshot::Sender<Result<Token, WriteError>>,
}

/// Somebody who must know that this is still the primary.
pub(super) enum Waiter {
    Read(Strong),
    /// A group that changed nothing: what it says about the data must not come from a stale primary either.
    Unchanged(Answer),
}

/// A barrier on its way.
pub(super) struct Barrier {
    pub id: u64,
    pub waiters: Vec<Waiter>,
    /// They came after it was sent, so it proves nothing to them.
    pub later: Vec<Waiter>,
}

impl Waiter {
    pub(super) fn tell(self, result: Result<Token, WriteError>) {
        match self {
            Self::Read(strong) => drop(strong.send(result)),
            Self::Unchanged(answer) => match result {
                Ok(token) => answer.send(token),
                Err(error) => drop(answer.reply.send(Err(error))),
            },
        }
    }
}

impl Replica {
    /// The log that is followed.
    pub(super) fn log(&self) -> Log {
        self.shared.log(self.fold.position().generation)
    }

    /// Sends an entry off; [`Replica::appended`] hears how it went.
    pub(super) fn append(&mut self, what: What, body: Bytes) {
        let log = self.log();
        self.appending.push(Box::pin(async move {
            let result = log.append_here(vec![Message::new(body)]).await;
            (what, result)
        }));
    }

    /// Stored is not yet counted: that is known when it is read back. Not stored, or unknown, is acted upon here.
    pub(super) fn appended(&mut self, what: What, result: Result<(), PublishError>) -> Result<(), Left> {
        let Err(error) = result else {
            if let Some(durable) = self.pending.take_if(|p| p.committed && what == What::Group(p.chain)) {
                self.answer(durable);
            }
            return Ok(());
        };
        match what {
            What::Group(chain) if self.pending.as_ref().is_some_and(|p| p.chain == chain) => {
                return self.group_failed(&error);
            }
            What::Barrier(id) if self.barrier.as_ref().is_some_and(|b| b.id == id) => {
                self.barrier_failed(&error)
            }
            What::Epoch(epoch, term) if self.mine.is_some_and(|m| (m.epoch, m.term) == (epoch, term)) => {
                self.step_down("its epoch could not be stored");
            }
            What::Mark(chain) if self.marked.as_ref().is_some_and(|m| m.chain == chain) => {
                self.mark_failed(&error);
            }
            _ => {} // of something that was given up already
        }
        Ok(())
    }

    fn group_failed(&mut self, error: &PublishError) -> Result<(), Left> {
        if self.pending.as_ref().is_some_and(|p| p.committed) {
            // It is here and not in the log: what that means is judged as after any loss of the log's end.
            self.step_down("the log's disk did not confirm an entry");
            return Err(Left::Reattach);
        }
        let (answer, reason) = match error {
            PublishError::Refused(BusRefusal::TooLarge { limit, .. }) => (WriteError::TooLarge(*limit), None),
            PublishError::Refused(_) => (WriteError::Refused(Refusal::Log), None),
            PublishError::Down => (WriteError::Refused(Refusal::Log), Some("the bus is down")),
            PublishError::Unknown => (WriteError::Unknown, Some("an entry's outcome is unknown")),
        };
        self.give_up_pending(answer);
        if let Some(reason) = reason {
            self.step_down(reason);
        }
        Ok(())
    }

    fn barrier_failed(&mut self, error: &PublishError) {
        if let Some(barrier) = self.barrier.take() {
            // Nothing was changed, so nothing is unknown.
            let all = barrier.waiters.into_iter().chain(barrier.later);
            all.for_each(|waiter| waiter.tell(Err(WriteError::Refused(Refusal::Log))));
        }
        if !matches!(error, PublishError::Refused(_)) {
            self.step_down("a barrier could not be stored");
        }
    }

    /// Undoes the group, or gives up the mark, that is on its way.
    pub(super) fn give_up_pending(&mut self, answer: WriteError) {
        if let Some(marked) = self.marked.take() {
            let _ = marked.reply.send(Err(answer));
        }
        if let Some(pending) = self.pending.take() {
            // One that has its place counts, unless its log loses it.
            let answer = if pending.committed { WriteError::Unknown } else { answer };
            self.writer.rollback();
            pending.refuse(answer);
        }
    }

    pub(super) fn strong(&mut self, first: Strong) {
        let mut waiters = vec![Waiter::Read(first)];
        while let Ok(more) = self.shared.strong.take.try_recv() {
            waiters.push(Waiter::Read(more));
        }
        self.wait_for_barrier(waiters);
    }

    /// All who come while a barrier is on its way share the next one.
    pub(super) fn wait_for_barrier(&mut self, waiters: Vec<Waiter>) {
        match &mut self.barrier {
            _ if self.role != Role::Primary => {
                waiters.into_iter().for_each(|waiter| waiter.tell(Err(WriteError::NotPrimary)));
            }
            Some(barrier) => barrier.later.extend(waiters),
            None => self.send_barrier(waiters),
        }
    }

    fn send_barrier(&mut self, waiters: Vec<Waiter>) {
        let at = self.fold.position();
        self.barriers += 1;
        let id = self.barriers;
        let body = Entry::Barrier { epoch: at.epoch, term: at.term, id }.encode();
        self.barrier = Some(Barrier { id, waiters, later: Vec::new() });
        self.append(What::Barrier(id), body);
    }

    /// A barrier of the current primary was read.
    pub(super) fn barrier_read(&mut self, id: u64) {
        if self.role != Role::Primary || self.barrier.as_ref().is_none_or(|b| b.id != id) {
            return;
        }
        if let Some(barrier) = self.barrier.take() {
            let token = self.fold.position().token();
            barrier.waiters.into_iter().for_each(|waiter| waiter.tell(Ok(token)));
            if !barrier.later.is_empty() {
                self.send_barrier(barrier.later);
            }
        }
    }

    /// Ends everything that is on its way: nobody is left waiting.
    pub(super) fn give_up_all(&mut self, pending: WriteError) {
        self.give_up_pending(pending);
        if let Some(barrier) = self.barrier.take() {
            let all = barrier.waiters.into_iter().chain(barrier.later);
            all.for_each(|waiter| waiter.tell(Err(WriteError::NotPrimary)));
        }
        for write in self.backlog.drain(..).chain(self.standing.take()) {
            write.refuse(WriteError::NotPrimary);
        }
    }
}
