//! Being primary: campaigns, groups, stepping down.

use std::collections::VecDeque;
use std::time::Instant;

use bus::{Durable, Message};

use super::append::{Answer, Pending, Waiter, What};
use super::{Left, Mine, Replica};
use crate::entry::{Data, Entry, chain_of};
use crate::sqlite::writer::{Duty, Group, StoreError, Transaction};
use crate::state::{Refusal, Role, Shared, Write, WriteError};

/// The next write: one left over from the last group, or from the queue.
pub(super) async fn next_write(backlog: &mut VecDeque<Write>, shared: &Shared) -> Write {
    if let Some(write) = backlog.pop_front() {
        return write;
    }
    match shared.writes.take.recv().await {
        Ok(write) => write,
        Err(_) => std::future::pending().await, // never closed: the sender is in `shared`
    }
}

impl Replica {
    /// Proposes a new epoch. It is primary when it reads that back as the first with its number.
    pub(super) fn campaign(&mut self) {
        match self.role {
            Role::Follower | Role::Candidate => {}
            _ => return self.won = None,
        }
        let at = self.fold.position();
        let mine = Mine { epoch: at.epoch + 1, term: rand::random(), since: clock::now() };
        self.mine = Some(mine);
        self.role = Role::Candidate;
        let primary = self.instance().to_owned();
        let body = Entry::Epoch { epoch: mine.epoch, term: mine.term, primary }.encode();
        self.append(What::Epoch(mine.epoch, mine.term), body);
        self.publish();
    }

    /// An epoch began in the log; `fold` knows whose.
    pub(super) fn promoted(&mut self) -> Result<(), Left> {
        let at = self.fold.position().clone();
        let mine = self.mine.filter(|m| (m.epoch, m.term) == (at.epoch, at.term));
        if let Some(mine) = mine {
            self.writer.take_up(Duty::Primary).map_err(Left::Storage)?;
            self.role = Role::Primary;
            self.shared.telemetry.promoted(&at, clock::now() - mine.since);
        } else {
            // A group that is on its way comes after this epoch in the log, if at all: it surely counts for nobody.
            self.demote("another replica is primary", WriteError::NotPrimary);
        }
        self.publish();
        // After the role is published: the elector watches it from here on. If it has given up, the command to step
        // down is on its way.
        if let Some(won) = self.won.take_if(|_| self.role == Role::Primary) {
            let _ = won.send(());
        }
        Ok(())
    }

    /// Another epoch was first with the number that this one proposed: propose the next.
    pub(super) fn epoch_was_stale(&mut self, epoch: u64, term: u64) {
        if self.role == Role::Candidate && self.mine.is_some_and(|m| (m.epoch, m.term) == (epoch, term)) {
            self.campaign();
        }
    }

    pub(super) fn step_down(&mut self, reason: &'static str) {
        self.demote(reason, WriteError::Unknown);
        self.publish();
    }

    fn demote(&mut self, reason: &'static str, pending: WriteError) {
        self.won = None;
        if !matches!(self.role, Role::Primary | Role::Candidate) {
            return;
        }
        let was_primary = self.role == Role::Primary;
        self.role = Role::Follower;
        self.mine = None;
        self.give_up_all(pending);
        self.refuse_if_not_primary();
        if was_primary {
            self.shared.telemetry.stepped_down(self.fold.position().epoch, reason);
            if let Err(error) = self.writer.take_up(Duty::Replica) {
                self.life.fail(error);
            }
        }
    }

    /// The link or the log is lost: nothing that was on its way can be known.
    pub(super) fn let_go(&mut self) {
        self.demote("the log is lost", WriteError::Unknown);
        self.give_up_all(WriteError::Unknown);
        self.writer.rollback();
        self.appending.clear();
        self.role = Role::Detached;
        self.publish();
        self.shared.tell(|status| status.caught_up = false);
    }

    /// Takes everything that waits, runs it as one group and sends it off.
    pub(super) fn lead(&mut self, first: Write) -> Result<(), Left> {
        let since = clock::now();
        let mut group = self.gather(first, since);
        if group.is_empty() {
            return Ok(());
        }
        if self.requests_max == usize::MAX {
            group.extend(self.standing.take());
        }
        // What waits for a change sees those of its own group.
        group.sort_by_key(|write| write.patience.is_some());
        let transactions: Vec<&Transaction> = group.iter().flat_map(|w| &w.transactions).collect();
        match self.writer.run(&transactions) {
            Ok(done) if done.bytes > self.shared.config.entry_bytes_max => self.too_large(group),
            Ok(done) => return self.send(group, done, since),
            Err(error) => self.storage_failed(group, &error),
        }
        Ok(())
    }

    fn gather(&mut self, first: Write, now: Instant) -> Vec<Write> {
        let (mut group, mut transactions) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(write) = next {
            if write.due <= now {
                drop(write.reply.send(Err(WriteError::TooLate)));
            } else if !write.reply.is_closed() {
                transactions += write.transactions.len();
                group.push(write);
            }
            if transactions >= self.shared.config.group_max || group.len() >= self.requests_max {
                break;
            }
            next = self.backlog.pop_front().or_else(|| self.shared.writes.take.try_recv().ok());
        }
        group
    }

    fn send(&mut self, group: Vec<Write>, done: Group, since: Instant) -> Result<(), Left> {
        self.requests_max = usize::MAX;
        let Group { answers, settled, ops, .. } = done;
        let (mut each, mut settled) = (answers.into_iter(), settled.into_iter());
        let mut transactions = 0;
        let standing = &mut self.standing;
        let answers = group.into_iter().filter_map(|write| {
            let n = write.transactions.len();
            let answers = each.by_ref().take(n).collect();
            let settled = settled.by_ref().take(n).filter(|done| *done).count() > 0; // takes all of them
            let (write, answers) = if settled { (write, answers) } else { standing.keep(write, answers)? };
            transactions += n as u64;
            Some(Answer { reply: write.reply, answers, async_commit: write.async_commit })
        });
        let answers: Vec<_> = answers.collect();
        if answers.is_empty() {
            return Ok(()); // whoever there was waits for a chance, and nothing changed
        }
        if ops.is_empty() {
            self.wait_for_barrier(answers.into_iter().map(Waiter::Unchanged).collect());
            return Ok(());
        }
        let at = self.fold.position();
        let seq = at.seq + 1;
        let written = u64::try_from(clock::WallMs::now().0).unwrap_or(0);
        let data = Data { epoch: at.epoch, term: at.term, seq, prev: at.chain, at: written, ops };
        let body = Entry::Data(data).encode();
        let chain = chain_of(&body);
        let pending = Pending { chain, committed: false, answers, transactions, since };
        // Everything before `read` was judged: an entry that is exactly there is of an epoch that is still current.
        match self.log().place(self.read, vec![Message::new(body.clone())]) {
            Ok(durable) => self.placed(pending, seq, durable),
            Err(_) => {
                self.pending = Some(pending);
                self.append(What::Group(chain), body);
                Ok(())
            }
        }
    }

    /// The group has its place in the log: it is committed here while the log's disk is at work, and answered when both
    /// are done; or now, for those who wanted that.
    fn placed(&mut self, mut pending: Pending, seq: u64, durable: Durable) -> Result<(), Left> {
        let chain = pending.chain;
        self.fold.advance(self.read, seq, chain);
        self.read += 1;
        let token = self.fold.settled().token();
        pending.answers.extract_if(.., |answer| answer.async_commit).for_each(|answer| answer.send(token));
        let pending = self.commit(pending)?;
        self.pending = Some(Pending { committed: true, ..pending });
        self.appending.push(Box::pin(async move { (What::Group(chain), durable.wait().await) }));
        Ok(())
    }

    /// The group changes more than an entry holds: half of it next time; a single request has to be made smaller.
    fn too_large(&mut self, group: Vec<Write>) {
        self.writer.rollback();
        if group.len() == 1 {
            let limit = self.shared.config.entry_bytes_max;
            group.into_iter().for_each(|w| drop(w.reply.send(Err(WriteError::TooLarge(limit)))));
            return;
        }
        self.requests_max = group.len() / 2;
        group.into_iter().rev().for_each(|write| self.backlog.push_front(write));
    }

    fn storage_failed(&mut self, group: Vec<Write>, error: &StoreError) {
        tracing::error!(instance = self.instance(), %error, cause = super::cause(error), "a group was refused by the storage");
        for write in group {
            drop(write.reply.send(Err(WriteError::Refused(Refusal::Disk))));
        }
    }

    /// Its own entry was read back with its epoch still current: it counts. Commit and answer.
    pub(super) fn commit_own(&mut self, pending: Pending) -> Result<(), Left> {
        let pending = self.commit(pending)?;
        self.answer(pending);
        Ok(())
    }

    fn commit(&mut self, pending: Pending) -> Result<Pending, Left> {
        if let Err(error) = self.writer.commit(self.fold.settled()) {
            // It counts for everybody; here it will be applied from the log, once the disk takes it.
            pending.answers.into_iter().for_each(|a| drop(a.reply.send(Err(WriteError::Unknown))));
            return Err(Left::Storage(error));
        }
        self.publish();
        Ok(pending)
    }

    pub(super) fn answer(&mut self, pending: Pending) {
        let token = self.fold.settled().token();
        let telemetry = &self.shared.telemetry;
        telemetry.groups.inc();
        telemetry.transactions.inc_by(pending.transactions);
        telemetry.commit_seconds.observe((clock::now() - pending.since).as_secs_f64());
        pending.answers.into_iter().for_each(|answer| answer.send(token));
    }
}
