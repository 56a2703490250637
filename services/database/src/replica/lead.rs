//! Being primary: campaigns, groups, stepping down.

use std::collections::VecDeque;
use std::time::Instant;

use bus::{Durable, Message};

use super::append::{Answer, Pending, Waiter, What};
use super::{Left, Mine, Replica};
use crate::entry::{Data, Entry, chain_of};
use crate::sqlite::cause::Cause;
use crate::sqlite::group::{Group, Job, Ran};
use crate::sqlite::writer::{Duty, StoreError};
use crate::state::{Role, Shared, Write, WriteError};

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
                if error.is_damage() {
                    self.condemn(error.to_string()); // and with the file goes the connection
                } else {
                    self.life.fail(error);
                }
            }
        }
    }

    /// The link or the log is lost: nothing that was on its way can be known.
    pub(super) fn let_go(&mut self, reason: &'static str) {
        self.demote(reason, WriteError::Unknown);
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
        group.extend(self.standing.take());
        // What waits for a change sees those of its own group.
        group.sort_by_key(|write| write.patience.is_some());
        let jobs: Vec<Job<'_>> =
            group.iter().enumerate().flat_map(|(owner, write)| jobs(owner, write)).collect();
        match self.writer.run(&jobs) {
            Ok(done) => self.send(group, done, since),
            Err(error) => self.not_run(group, error),
        }
    }

    fn gather(&mut self, first: Write, now: Instant) -> Vec<Write> {
        let (mut group, mut transactions) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(write) = next {
            if write.due <= now && write.done.is_empty() {
                write.refuse(WriteError::TooLate);
            } else if !write.reply.is_closed() && (write.begun || write.claim.take()) {
                transactions += write.transactions.len();
                group.push(write);
            }
            if transactions >= self.shared.config.group_max {
                break;
            }
            next = self.backlog.pop_front().or_else(|| self.shared.writes.take.try_recv().ok());
        }
        group
    }

    /// Sorts out who is answered with this group and what is left for the next one, and puts the group into the log.
    fn send(&mut self, group: Vec<Write>, done: Group, since: Instant) -> Result<(), Left> {
        let Group { ran, ops, session } = done;
        let (mut ran, mut answers, mut left) = (ran.into_iter(), Vec::new(), Vec::new());
        let (mut rest, mut transactions) = (None, 0);
        for mut write in group {
            let n = write.transactions.len().min(ran.len());
            transactions += n as u64;
            if n < write.transactions.len() {
                if n > 0 {
                    write.done.extend(ran.by_ref().take(n).map(|ran| ran.outcomes));
                    write.transactions.drain(..n);
                    // It has had its first chance, and is answered when it has had the last.
                    (write.session, write.patience) = (session, None);
                    rest = Some(write);
                } else {
                    left.push(write);
                }
                continue;
            }
            answers.extend(self.answer_of(write, ran.by_ref().take(n).collect()));
        }
        left.into_iter().rev().for_each(|write| self.put_back(write));
        if ops.is_empty() {
            if let Some(rest) = rest {
                self.put_back(rest);
            }
            if !answers.is_empty() {
                self.wait_for_barrier(answers.into_iter().map(Waiter::Unchanged).collect());
            }
            return Ok(()); // otherwise whoever there was waits for a chance, and nothing changed
        }
        let at = self.fold.position();
        let seq = at.seq + 1;
        let written = u64::try_from(clock::WallMs::now().0).unwrap_or(0);
        let data = Data { epoch: at.epoch, term: at.term, seq, prev: at.chain, at: written, ops };
        let body = Entry::Data(data).encode();
        let chain = chain_of(&body);
        let pending = Pending { chain, committed: false, answers, rest, transactions, since };
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

    /// What a request is told that ran to its end; nothing yet if it waits for a chance, or is told already.
    fn answer_of(&mut self, write: Write, ran: Vec<Ran>) -> Option<Answer> {
        let settled = ran.iter().any(|ran| ran.settled) || !write.done.is_empty();
        if write.done.is_empty() && ran.len() == 1 && ran.iter().any(|ran| ran.too_large) {
            write.refuse(WriteError::TooLarge(self.shared.config.entry_bytes_max));
            return None;
        }
        let mut write = write;
        let mut answers = std::mem::take(&mut write.done);
        answers.extend(ran.into_iter().map(|ran| ran.outcomes));
        let (write, answers) = if settled { (write, answers) } else { self.standing.keep(write, answers)? };
        Some(Answer { reply: write.reply, answers, async_commit: write.async_commit })
    }

    /// It was taken, and nothing of it is done for good: it is first in the next group.
    fn put_back(&mut self, write: Write) {
        if !write.begun {
            write.claim.put_back();
        }
        self.backlog.push_front(write);
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

    /// The group did not run, and nothing of it was done. Who cannot write gives the role away.
    fn not_run(&mut self, group: Vec<Write>, error: StoreError) -> Result<(), Left> {
        if matches!(error, StoreError::Abandoned) {
            group.into_iter().for_each(|write| write.refuse(WriteError::NotPrimary));
            return Ok(());
        }
        let cause = error.cause();
        tracing::error!(instance = self.instance(), %error, cause = cause.as_str(), detail = super::cause(&error),
            "a group of transactions was not run");
        for write in group {
            write.refuse(WriteError::Refused(cause.into()));
        }
        match cause {
            // Also a lock that another program holds: another replica's file is not locked.
            Cause::DiskFull | Cause::Io | Cause::Corrupt | Cause::Busy => Err(Left::Storage(error)),
            Cause::Sender => Ok(()),
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
            pending.refuse(WriteError::Unknown);
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
        if let Some(rest) = pending.rest {
            self.backlog.push_front(Write { begun: true, ..rest });
        }
    }
}

fn jobs(owner: usize, write: &Write) -> impl Iterator<Item = Job<'_>> {
    write.transactions.iter().map(move |transaction| Job { transaction, owner, session: write.session })
}
