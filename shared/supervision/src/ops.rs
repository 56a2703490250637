//! Starting and stopping, in order.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::arbiter::Home;
use crate::driver::Order;
use crate::env::Env;
use crate::intervene::Intervention;
use crate::life::{self, Life, signal};
use crate::root::Shared;
use crate::spec::Shutdown;
use crate::tree::{After, Due, Effects, LifeId, NodeId, Op, Role, Stage, World};
use crate::view::{ExitReason, State};

/// A killed child whose thread has not noticed after this time is given up, and its thread with it.
const KILL_GRACE: Duration = Duration::from_millis(100);

/// What every decision needs: the time, the effects to fill, and the tree's shared handle for new lives.
pub(crate) struct Turn<'a> {
    pub now: Instant,
    pub shared: &'a Arc<Shared>,
    pub fx: Effects,
}

impl World {
    /// Works off the supervisors that may have a next step.
    pub(crate) fn settle(&mut self, turn: &mut Turn<'_>) {
        while let Some(id) = turn.fx.todo.pop_front() {
            if self.get(id).is_some_and(|node| node.sup().is_some()) {
                self.advance(id, turn);
            }
        }
    }

    /// The next step of what supervisor `id` is doing.
    fn advance(&mut self, id: NodeId, turn: &mut Turn<'_>) {
        let Some(op) = &self.sup(id).op else { return };
        let from = op.from;
        match op.stage {
            Stage::Stopping(_) => {
                let live = |&&child: &&NodeId| self.node(child).life.is_some();
                match self.sup(id).children[from..].iter().rev().find(live).copied() {
                    Some(last) => self.stop(last, turn),
                    None => self.all_stopped(id, turn),
                }
            }
            Stage::Delayed => {}
            Stage::Starting => self.start_next(id, from, turn),
        }
    }

    fn all_stopped(&mut self, id: NodeId, turn: &mut Turn<'_>) {
        let Some(op) = self.sup_mut(id).op.take() else { return };
        match op.stage {
            Stage::Stopping(After::Exit(reason, detail)) => self.ended(id, reason, detail, turn),
            Stage::Stopping(After::Start { not_before }) if not_before > turn.now => {
                self.sup_mut(id).op = Some(Op { from: op.from, stage: Stage::Delayed });
                self.set_due(id, Some((not_before, Due::Restart)), &mut turn.fx);
            }
            _ => {
                self.sup_mut(id).op = Some(Op { from: op.from, stage: Stage::Starting });
                turn.fx.todo.push_back(id);
            }
        }
    }

    fn start_next(&mut self, id: NodeId, from: usize, turn: &mut Turn<'_>) {
        let together = self.sup(id).pool.is_some(); // alike, so none needs another
        let mut all_ready = true;
        for child in self.children_from(id, from) {
            let node = self.node(child);
            if node.pending && node.life.is_none() && node.due.is_none() {
                self.begin(child, turn);
                all_ready = false;
            } else if (node.life.is_some() && !node.ready && node.state != State::Stopping)
                || node.due.is_some()
            {
                all_ready = false;
            }
            if !all_ready && !together {
                return;
            }
        }
        if all_ready {
            self.sup_mut(id).op = None;
            self.became_ready(id, turn);
        }
    }

    /// Begins a life of `id`.
    pub(crate) fn begin(&mut self, id: NodeId, turn: &mut Turn<'_>) {
        self.next_life += 1;
        let life = LifeId(self.next_life);
        let node = self.node_mut(id);
        node.incarnation += 1;
        node.life = Some(life);
        node.ready = false;
        node.pending = false;
        node.killing = None;
        node.waiting_for = None;
        node.started_at = turn.now;
        self.go(id, State::Starting, None, turn.now, &mut turn.fx);
        if self.node(id).sup().is_some() {
            self.begin_supervisor(id, turn);
        } else {
            self.begin_worker(id, life, turn);
        }
    }

    fn begin_supervisor(&mut self, id: NodeId, turn: &mut Turn<'_>) {
        self.set_due(id, None, &mut turn.fx);
        self.fill_pool(id);
        let sup = self.sup_mut(id);
        sup.budget.refill();
        sup.op = Some(Op { from: 0, stage: Stage::Starting });
        for child in sup.children.clone() {
            self.node_mut(child).pending = true;
        }
        turn.fx.todo.push_back(id);
    }

    fn begin_worker(&mut self, id: NodeId, life: LifeId, turn: &mut Turn<'_>) {
        let home = match self.home_of(id, turn) {
            Ok(home) => home,
            Err(error) => {
                return self.ended(id, ExitReason::Error, format!("no thread for it: {error}"), turn);
            }
        };
        let env = self.instance_of(id).map_or_else(Env::new, |at| self.env(at));
        let node = self.node(id);
        let (path, incarnation) = (Arc::clone(&node.path), node.incarnation);
        let inner =
            Arc::new(life::Inner::new(life, id, path, incarnation, env, Arc::clone(turn.shared), home));
        let Some(worker) = self.worker_mut(id) else { return };
        worker.fault =
            worker.fault.filter(|(fault, until)| matches!(fault, Intervention::Slow(_)) && *until > turn.now);
        if let Some(fault) = worker.fault {
            inner.set_fault(Some(fault));
        }
        if let Some(mailbox) = &worker.mailbox {
            mailbox.open();
        }
        worker.pinged_at = None;
        worker.answered_at = turn.now;
        worker.life = Some(Arc::clone(&inner));
        let (start, deadline) = (worker.start, worker.row.start_deadline);
        turn.fx.orders.push(Order::new(Life(inner), start));
        self.set_due(id, Some((turn.now + deadline, Due::Start)), &mut turn.fx);
    }

    fn env(&self, instance: NodeId) -> Env {
        self.sup(instance).instance.as_ref().map(|instance| instance.env.clone()).unwrap_or_default()
    }

    /// The arbiter `id` lives on: the one it has, or a new one.
    fn home_of(&mut self, id: NodeId, turn: &mut Turn<'_>) -> std::io::Result<Arc<Home>> {
        let own = self.worker_mut(id).is_some_and(|worker| worker.row.own_arbiter);
        let keeper = if own { id } else { self.instance_of(id).unwrap_or(id) };
        let slot = match &mut self.node_mut(keeper).role {
            Role::Worker(worker) => &mut worker.home,
            Role::Supervisor(sup) => match &mut sup.instance {
                Some(instance) => &mut instance.home,
                None => unreachable!("a supervisor that keeps an arbiter is an instance"),
            },
        };
        if let Some(home) = slot.take_if(|home| !home.is_alive()) {
            turn.fx.retired.push(home);
        }
        if let Some(home) = slot {
            return Ok(Arc::clone(home));
        }
        self.next_home += 1;
        let home = Home::start(self.next_home, own, &self.system)?;
        match &mut self.node_mut(keeper).role {
            Role::Worker(worker) => worker.home = Some(Arc::clone(&home)),
            Role::Supervisor(sup) => {
                if let Some(instance) = &mut sup.instance {
                    instance.home = Some(Arc::clone(&home));
                }
            }
        }
        Ok(home)
    }

    /// `id` does its work now.
    pub(crate) fn became_ready(&mut self, id: NodeId, turn: &mut Turn<'_>) {
        let node = self.node_mut(id);
        if node.state == State::Stopping || node.life.is_none() {
            return;
        }
        let first = node.first.take();
        node.ready = true;
        node.waiting_for = None;
        let (state, parent) = (node.state, node.parent);
        turn.fx.firsts.extend(first.map(|first| (first, Ok(()))));
        if matches!(self.node(id).due, Some((_, Due::Start))) {
            self.set_due(id, None, &mut turn.fx);
        }
        if state != State::Running {
            self.go(id, State::Running, None, turn.now, &mut turn.fx);
        }
        turn.fx.todo.extend(parent);
    }

    /// `id` cannot work while `on` is down.
    pub(crate) fn became_waiting(&mut self, id: NodeId, on: &str, turn: &mut Turn<'_>) {
        let node = self.node_mut(id);
        if !matches!(node.state, State::Starting | State::Running | State::Waiting) {
            return;
        }
        if node.state == State::Waiting && node.waiting_for.as_deref() == Some(on) {
            return;
        }
        node.waiting_for = Some(on.to_owned());
        if matches!(node.due, Some((_, Due::Start))) {
            self.set_due(id, None, &mut turn.fx);
        }
        self.go(id, State::Waiting, None, turn.now, &mut turn.fx);
    }

    /// Asks a live `id` to stop; nothing if it is stopping already.
    pub(crate) fn stop(&mut self, id: NodeId, turn: &mut Turn<'_>) {
        if self.node(id).state == State::Stopping {
            return;
        }
        self.go(id, State::Stopping, None, turn.now, &mut turn.fx);
        let shutdown = self.node(id).shutdown;
        let node = self.node_mut(id);
        match &mut node.role {
            Role::Supervisor(sup) => {
                sup.op = Some(Op {
                    from: 0,
                    stage: Stage::Stopping(After::Exit(ExitReason::Shutdown, String::new())),
                });
                self.start_nobody(id, turn);
                turn.fx.todo.push_back(id);
            }
            Role::Worker(worker) => {
                if node.killing.is_some() {
                    return; // it is being killed already; the grace time runs
                }
                if let Some(life) = &worker.life {
                    life.set(signal::STOP);
                    turn.fx.wakes.push(Arc::clone(life));
                }
                match shutdown {
                    Shutdown::Brutal => self.kill(id, ExitReason::Shutdown, "killed".to_owned(), turn),
                    Shutdown::Within(time) => {
                        self.set_due(id, Some((turn.now + time, Due::Stop)), &mut turn.fx)
                    }
                    Shutdown::Infinity => self.set_due(id, None, &mut turn.fx),
                }
            }
        }
    }

    /// Supervisor `id` is going to end: those of its children that were to start again do not.
    pub(crate) fn start_nobody(&mut self, id: NodeId, turn: &mut Turn<'_>) {
        self.forget_restarts(id, 0, turn);
        self.set_due(id, None, &mut turn.fx);
        for child in self.children_from(id, 0) {
            let node = self.node_mut(child);
            node.pending = false;
            if node.life.is_none() && node.state == State::Restarting {
                self.go(child, State::Stopped, None, turn.now, &mut turn.fx);
            }
        }
    }

    /// Children of `id` from index `from` on that wait for their restart delay do not restart by themselves any more.
    pub(crate) fn forget_restarts(&mut self, id: NodeId, from: usize, turn: &mut Turn<'_>) {
        for child in self.children_from(id, from) {
            let node = self.node(child);
            if node.life.is_none() && node.due.is_some() {
                self.set_due(child, None, &mut turn.fx);
            }
        }
    }

    /// Ends a live worker without asking it.
    pub(crate) fn kill(&mut self, id: NodeId, reason: ExitReason, detail: String, turn: &mut Turn<'_>) {
        let node = self.node_mut(id);
        node.killing.get_or_insert((reason, detail));
        if let Role::Worker(worker) = &node.role
            && let Some(life) = &worker.life
        {
            life.set(signal::KILL);
            turn.fx.wakes.push(Arc::clone(life));
        }
        self.set_due(id, Some((turn.now + KILL_GRACE, Due::Kill)), &mut turn.fx);
    }

    /// What was due for `id` is due now.
    pub(crate) fn fall_due(&mut self, id: NodeId, due: Due, turn: &mut Turn<'_>) {
        self.set_due(id, None, &mut turn.fx);
        match due {
            Due::Start => {
                self.kill(id, ExitReason::Error, "was not ready within its start deadline".to_owned(), turn)
            }
            Due::Stop => {
                self.kill(id, ExitReason::Hung, "did not stop within its shutdown time".to_owned(), turn)
            }
            Due::Kill => self.abandon_thread_of(id, turn),
            Due::Restart if self.node(id).sup().is_some_and(|sup| sup.op.is_some()) => {
                if let Some(op) = &mut self.sup_mut(id).op {
                    op.stage = Stage::Starting;
                }
                turn.fx.todo.push_back(id);
            }
            Due::Restart => self.begin(id, turn),
        }
    }
}
