//! Ends of lives, and what follows from them.

use std::sync::Arc;
use std::time::Duration;

use clock::WallMs;

use crate::crash;
use crate::life::signal;
use crate::ops::Turn;
use crate::restart::{Decision, Ended, Scope, wants_another_life};
use crate::spec::{Backoff, Restart};
use crate::start::StartError;
use crate::tree::{After, Due, NodeId, Op, Role, Stage, World};
use crate::view::{Exit, ExitReason, State};

impl World {
    /// The present life of `id` has ended. Exactly once per life: the caller has checked that it is the present one.
    pub(crate) fn ended(&mut self, id: NodeId, reason: ExitReason, detail: String, turn: &mut Turn<'_>) {
        self.set_due(id, None, &mut turn.fx);
        let node = self.node_mut(id);
        let (reason, detail) = node.killing.take().unwrap_or((reason, detail));
        let was = (node.state, std::mem::take(&mut node.ready));
        node.life = None;
        node.waiting_for = None;
        node.ended_at.get_or_insert(turn.now);
        if let Role::Worker(worker) = &mut node.role {
            worker.life = None;
        }
        let exit = Exit { reason, detail, at: WallMs::now() };
        node.last_exit = Some(exit.clone());
        if was.0 == State::Stopping {
            self.stopped(id, &exit, turn)
        } else {
            self.ended_unasked(id, was, &exit, turn)
        }
    }

    /// Whether supervisor `id` is stopping its children, the one at `index` among them.
    fn is_stopping_children(&self, id: NodeId, index: usize) -> bool {
        matches!(&self.sup(id).op, Some(Op { from, stage: Stage::Stopping(_) }) if index >= *from)
    }

    /// `id` has stopped because its supervisor asked it to.
    fn stopped(&mut self, id: NodeId, exit: &Exit, turn: &mut Turn<'_>) {
        let node = self.node_mut(id);
        turn.fx.stops.append(&mut node.stop_waiters);
        turn.fx.firsts.extend(node.first.take().map(|first| (first, Err(StartError::Stopped))));
        let (pending, parent, remove) = (node.pending, node.parent, node.remove);
        let Some(parent) = parent else { return self.root_ended(exit, turn) };
        turn.fx.todo.push_back(parent);
        if remove {
            self.go(id, State::Stopped, Some(exit), turn.now, &mut turn.fx);
            self.remove(id, turn.now, &mut turn.fx);
        } else if self.sup(parent).pool.is_some() && !self.is_stopping_children(parent, 0) {
            // The pool grew again while this one was on its way out.
            self.go(id, State::Restarting, Some(exit), turn.now, &mut turn.fx);
            self.begin(id, turn);
        } else {
            self.rest(id, pending, exit, turn);
        }
    }

    /// Without a life: to be started again by its supervisor's operation, or not.
    fn rest(&mut self, id: NodeId, pending: bool, exit: &Exit, turn: &mut Turn<'_>) {
        let to = if pending { State::Restarting } else { State::Stopped };
        self.go(id, to, Some(exit), turn.now, &mut turn.fx);
    }

    fn root_ended(&mut self, exit: &Exit, turn: &mut Turn<'_>) {
        let root = crate::tree::ROOT;
        self.go(root, State::Stopped, Some(exit), turn.now, &mut turn.fx);
        self.close_mailboxes(root, &mut turn.fx);
        turn.fx.root_exit = Some(exit.reason);
    }

    fn ended_unasked(&mut self, id: NodeId, was: (State, bool), exit: &Exit, turn: &mut Turn<'_>) {
        let (state, was_ready) = was;
        let Some(parent) = self.node(id).parent else { return self.root_ended(exit, turn) };
        if let Some(first) = self.node_mut(id).first.take() {
            let error = StartError::Exited(format!("{} did not start: {}", self.node(id).path, exit.detail));
            turn.fx.firsts.push((first, Err(error)));
            self.go(id, State::Stopped, Some(exit), turn.now, &mut turn.fx);
            return self.remove(id, turn.now, &mut turn.fx);
        }
        let index = self.index_in(parent, id);
        if self.is_stopping_children(parent, index) {
            // It would have been stopped anyway. OTP does not count it either.
            let pending = self.node(id).pending;
            turn.fx.todo.push_back(parent);
            return self.rest(id, pending, exit, turn);
        }
        let waited = state == State::Waiting && exit.reason == ExitReason::Error;
        let abnormal = !matches!(exit.reason, ExitReason::Normal | ExitReason::Shutdown);
        let wanted = abnormal || wants_another_life(self.node(id).restart, exit.reason);
        if !was_ready && !waited && wanted && !self.node(parent).ready {
            return self.first_start_failed(parent, id, exit, turn);
        }
        self.decide(parent, id, exit, !waited, turn);
    }

    /// A child failed during its supervisor's own start: that has failed too.
    fn first_start_failed(&mut self, parent: NodeId, id: NodeId, exit: &Exit, turn: &mut Turn<'_>) {
        let why =
            format!("child `{}` did not start ({:?}: {})", self.node(id).name, exit.reason, exit.detail);
        self.go(id, State::Stopped, Some(exit), turn.now, &mut turn.fx);
        self.give_up(parent, ExitReason::Error, crash::capped(&why), turn);
    }

    fn give_up(&mut self, id: NodeId, reason: ExitReason, why: String, turn: &mut Turn<'_>) {
        self.start_nobody(id, turn);
        self.sup_mut(id).op = Some(Op { from: 0, stage: Stage::Stopping(After::Exit(reason, why)) });
        turn.fx.todo.push_back(id);
    }

    fn decide(&mut self, parent: NodeId, id: NodeId, exit: &Exit, counted: bool, turn: &mut Turn<'_>) {
        let lived = turn.now - self.node(id).started_at;
        let period = self.sup(parent).budget.period();
        let node = self.node_mut(id);
        if lived >= period {
            node.streak = 0;
        }
        let backoff = match &node.role {
            Role::Worker(worker) => worker.row.backoff,
            Role::Supervisor(_) => Backoff::DEFAULT,
        };
        let ended =
            Ended { restart: node.restart, reason: exit.reason, streak: node.streak, backoff, counted };
        match self.sup_mut(parent).budget.decide(ended, turn.now) {
            Decision::Leave => {
                self.go(id, State::Stopped, Some(exit), turn.now, &mut turn.fx);
                self.close_mailboxes(id, &mut turn.fx);
                turn.fx.retired.extend(self.worker_mut(id).and_then(|worker| worker.home.take()));
                turn.fx.todo.push_back(parent);
            }
            Decision::GiveUp => {
                let why = format!(
                    "too many restarts; the last was `{}` ({:?}: {})",
                    self.node(id).name,
                    exit.reason,
                    exit.detail
                );
                self.go(id, State::Stopped, Some(exit), turn.now, &mut turn.fx);
                self.give_up(parent, ExitReason::Intensity, crash::capped(&why), turn);
            }
            Decision::Again { scope, delay } => {
                self.node_mut(id).streak += 1;
                self.go(id, State::Restarting, Some(exit), turn.now, &mut turn.fx);
                self.again(parent, id, scope, delay, turn);
            }
        }
    }

    /// Starts `id` again after `delay`, and whoever goes with it.
    fn again(&mut self, parent: NodeId, id: NodeId, scope: Scope, delay: Duration, turn: &mut Turn<'_>) {
        let index = match scope {
            Scope::One if delay.is_zero() => return self.begin(id, turn),
            Scope::One => return self.set_due(id, Some((turn.now + delay, Due::Restart)), &mut turn.fx),
            Scope::Rest => self.index_in(parent, id),
            Scope::All => 0,
        };
        let mut not_before = turn.now + delay;
        let mut from = index;
        if let Some(op) = &self.sup(parent).op {
            from = from.min(op.from);
            if let Stage::Stopping(After::Start { not_before: other }) = op.stage {
                not_before = not_before.max(other);
            }
        }
        self.forget_restarts(parent, from, turn);
        self.set_due(parent, None, &mut turn.fx);
        for child in self.children_from(parent, from) {
            let node = self.node_mut(child);
            node.pending = node.restart != Restart::Temporary || child == id;
        }
        self.sup_mut(parent).op = Some(Op { from, stage: Stage::Stopping(After::Start { not_before }) });
        turn.fx.todo.push_back(parent);
    }

    /// `guilty` does not react, and was killed without effect: its thread is blocked. The thread is given up.
    /// Whoever else lived on it is started again on a fresh one; that is not their fault, and not counted.
    pub(crate) fn abandon_thread_of(&mut self, guilty: NodeId, turn: &mut Turn<'_>) {
        let Some(home) = self
            .worker_mut(guilty)
            .and_then(|worker| worker.life.as_ref().map(|life| Arc::clone(&life.home)))
        else {
            return;
        };
        let keeper = if home.own { Some(guilty) } else { self.instance_of(guilty) };
        if let Some(keeper) = keeper {
            match &mut self.node_mut(keeper).role {
                Role::Worker(worker) => worker.home = None,
                Role::Supervisor(sup) => {
                    if let Some(instance) = &mut sup.instance {
                        instance.home = None;
                    }
                }
            }
        }
        let why = format!("its arbiter was blocked by {}", self.node(guilty).path);
        let mut bystanders = Vec::new();
        for id in keeper.map_or_else(Vec::new, |keeper| self.subtree(keeper)) {
            let Some(worker) = self.worker_mut(id) else { continue };
            let Some(life) = worker.life.clone().filter(|life| life.home.id == home.id) else { continue };
            life.set(signal::REVOKED);
            turn.fx.wakes.push(life);
            if id != guilty {
                bystanders.push(id);
            }
        }
        turn.fx.retired.push(home);
        for id in bystanders {
            self.displaced(id, &why, turn);
        }
        self.ended(guilty, ExitReason::Hung, "its thread is blocked".to_owned(), turn);
    }

    fn displaced(&mut self, id: NodeId, why: &str, turn: &mut Turn<'_>) {
        let node = self.node_mut(id);
        let stays_down = node.state == State::Stopping || node.restart == Restart::Temporary;
        let Some(parent) = node.parent.filter(|_| !stays_down) else {
            return self.ended(id, ExitReason::Hung, why.to_owned(), turn);
        };
        self.set_due(id, None, &mut turn.fx);
        let exit = Exit { reason: ExitReason::Hung, detail: why.to_owned(), at: WallMs::now() };
        let node = self.node_mut(id);
        node.life = None;
        node.ready = false;
        node.ended_at.get_or_insert(turn.now);
        node.last_exit = Some(exit.clone());
        if let Role::Worker(worker) = &mut node.role {
            worker.life = None;
        }
        let index = self.index_in(parent, id);
        if self.is_stopping_children(parent, index) {
            let pending = self.node(id).pending;
            turn.fx.todo.push_back(parent);
            return self.rest(id, pending, &exit, turn);
        }
        self.go(id, State::Restarting, Some(&exit), turn.now, &mut turn.fx);
        let scope = match self.sup(parent).strategy {
            crate::spec::Strategy::OneForOne => Scope::One,
            crate::spec::Strategy::OneForAll => Scope::All,
            crate::spec::Strategy::RestForOne => Scope::Rest,
        };
        self.again(parent, id, scope, Duration::ZERO, turn);
    }
}
