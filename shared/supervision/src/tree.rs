//! The live tree. One lock holds all of it; whoever observes something (a driver an exit, the control loop a
//! deadline, a caller a request) decides about it under that lock, and carries out the effects after it.
//!
//! The lock is never held while code of a child runs, and never taken on the way of a message.

use std::any::Any;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use actix::System;
use clock::WallMs;
use tokio::sync::oneshot;

use crate::arbiter::Home;
use crate::driver::Order;
use crate::env::Env;
use crate::events::Events;
use crate::intervene::Intervention;
use crate::life;
use crate::mailbox::AnyMailbox;
use crate::restart::Budget;
use crate::spec::{Child, Restart, Shutdown, Strategy};
use crate::start::StartError;
use crate::view::{Exit, ExitReason, State, Transition};

/// A node's place in the arena; used again after its removal, so never trusted without a [`LifeId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NodeId(pub(crate) u32);

/// One life of one node; never used twice. A report of another life than the present one is stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LifeId(pub(crate) u64);

/// A supervisor or a worker of the live tree.
pub(crate) struct Node {
    pub path: Arc<str>,
    pub name: Arc<str>,
    pub parent: Option<NodeId>,
    pub restart: Restart,
    pub shutdown: Shutdown,
    pub role: Role,
    pub state: State,
    pub since: WallMs,
    pub incarnation: u64,
    pub waiting_for: Option<String>,
    pub last_exit: Option<Exit>,
    /// The present life, if it has one.
    pub life: Option<LifeId>,
    /// Its present life has been ready.
    pub ready: bool,
    /// To be started by the operation its supervisor is in.
    pub pending: bool,
    /// Restarts in a row, each of a life shorter than the supervisor's period.
    pub streak: u32,
    pub started_at: Instant,
    /// When it last stopped doing its work.
    pub ended_at: Option<Instant>,
    pub due: Option<(Instant, Due)>,
    /// The end to report for a life that is being killed.
    pub killing: Option<(ExitReason, String)>,
    /// Who waits for the first start of an instance.
    pub first: Option<First>,
    /// Who waits for its stop.
    pub stop_waiters: Vec<oneshot::Sender<()>>,
    /// To be taken out of the tree once it has stopped.
    pub remove: bool,
}

/// To whom the outcome of an instance's first start is told.
pub(crate) type First = oneshot::Sender<Result<(), StartError>>;

pub(crate) enum Role {
    Worker(Box<Worker>),
    Supervisor(Box<Supervisor>),
}

pub(crate) struct Worker {
    pub row: Child,
    pub start: crate::spec::StartFn,
    pub life: Option<Arc<life::Inner>>,
    /// Its own arbiter, if it has one.
    pub home: Option<Arc<Home>>,
    pub mailbox: Option<Arc<dyn AnyMailbox>>,
    pub fault: Option<(Intervention, Instant)>,
    pub pinged_at: Option<Instant>,
    pub answered_at: Instant,
    pub probe: u64,
    /// Of a pool's child: its number in it, from 1.
    pub number: usize,
}

pub(crate) struct Supervisor {
    pub strategy: Strategy,
    pub budget: Budget,
    pub children: Vec<NodeId>,
    pub op: Option<Op>,
    /// Of an instance: what its children are given, and the arbiter they share.
    pub instance: Option<Instance>,
    pub pool: Option<Pool>,
}

pub(crate) struct Instance {
    pub env: Env,
    pub home: Option<Arc<Home>>,
}

pub(crate) struct Pool {
    pub row: Child,
    pub start: crate::spec::StartFn,
    pub size: usize,
}

/// What a supervisor is doing with its children from index `from` on. One_for_one restarts need none.
pub(crate) struct Op {
    pub from: usize,
    pub stage: Stage,
}

pub(crate) enum Stage {
    /// Last to first, one at a time.
    Stopping(After),
    /// Waits for the delay before the restart.
    Delayed,
    /// First to last, each when the one before is ready.
    Starting,
}

pub(crate) enum After {
    /// Start them again.
    Start { not_before: Instant },
    /// The supervisor itself ends.
    Exit(ExitReason, String),
}

/// What happens to a node when its time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// It is not ready in time.
    Start,
    /// It has not stopped in time.
    Stop,
    /// It was killed, and its thread has not noticed.
    Kill,
    /// Its restart delay is over.
    Restart,
}

/// What is to be done once the lock is released.
#[derive(Default)]
pub(crate) struct Effects {
    pub orders: Vec<Order>,
    pub wakes: Vec<Arc<life::Inner>>,
    pub told: Vec<Transition>,
    pub firsts: Vec<(First, Result<(), StartError>)>,
    pub stops: Vec<oneshot::Sender<()>>,
    pub retired: Vec<Arc<Home>>,
    pub garbage: Vec<Box<dyn Any + Send>>,
    pub root_exit: Option<ExitReason>,
    pub poke_control: bool,
    /// Supervisors that may have a next step; worked off before the lock is released.
    pub todo: VecDeque<NodeId>,
}

pub(crate) struct World {
    pub nodes: Vec<Option<Node>>,
    pub free: Vec<NodeId>,
    pub timers: BTreeSet<(Instant, NodeId)>,
    /// When the control loop looks next, at the latest.
    pub control_at: Instant,
    pub next_life: u64,
    pub next_home: u64,
    pub next_probe: u64,
    pub transitions: u64,
    pub seed: u64,
    pub system: System,
    pub events: Arc<Events>,
    /// The root has gone: nothing starts any more.
    pub closed: bool,
}

pub(crate) const ROOT: NodeId = NodeId(0);

impl World {
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        self.get(id).expect("ids are only held while their node is in the tree")
    }

    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        self.nodes
            .get_mut(id.0 as usize)
            .and_then(Option::as_mut)
            .expect("ids are only held while their node is in the tree")
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id.0 as usize).and_then(Option::as_ref)
    }

    /// Whether `life` is the present life of `id`: everything a life reports is checked by this first.
    pub(crate) fn is_present(&self, id: NodeId, life: LifeId) -> bool {
        !self.closed && self.get(id).is_some_and(|node| node.life == Some(life))
    }

    pub(crate) fn sup(&self, id: NodeId) -> &Supervisor {
        self.node(id).sup().expect("only supervisors have children")
    }

    pub(crate) fn sup_mut(&mut self, id: NodeId) -> &mut Supervisor {
        match &mut self.node_mut(id).role {
            Role::Supervisor(sup) => sup,
            Role::Worker(_) => unreachable!("only supervisors have children"),
        }
    }

    pub(crate) fn worker_mut(&mut self, id: NodeId) -> Option<&mut Worker> {
        match &mut self.node_mut(id).role {
            Role::Worker(worker) => Some(worker),
            Role::Supervisor(_) => None,
        }
    }

    /// A copy, for loops that change the tree.
    pub(crate) fn children_from(&self, id: NodeId, from: usize) -> Vec<NodeId> {
        self.sup(id).children[from..].to_vec()
    }

    pub(crate) fn index_in(&self, parent: NodeId, id: NodeId) -> usize {
        let at = self.sup(parent).children.iter().position(|&child| child == id);
        at.expect("a child is in its parent's list")
    }

    /// Puts a node into the tree, stopped.
    pub(crate) fn insert(&mut self, node: Node) -> NodeId {
        let parent = node.parent;
        let id = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(None);
            NodeId(u32::try_from(self.nodes.len() - 1).expect("fewer than 4 billion children"))
        });
        self.nodes[id.0 as usize] = Some(node);
        if let Some(parent) = parent {
            self.sup_mut(parent).children.push(id);
        }
        id
    }

    /// Takes a node without a life, and all below it, out of the tree.
    pub(crate) fn remove(&mut self, id: NodeId, now: Instant, fx: &mut Effects) {
        self.close_mailboxes(id, fx);
        if let Some(parent) = self.node(id).parent {
            self.sup_mut(parent).children.retain(|&child| child != id);
        }
        for node in self.subtree(id) {
            self.set_due(node, None, fx);
            self.go(node, State::Stopped, None, now, fx);
            if let Some(gone) = self.nodes[node.0 as usize].take() {
                self.free.push(node);
                match gone.role {
                    Role::Worker(worker) => fx.retired.extend(worker.home),
                    Role::Supervisor(sup) => {
                        if let Some(instance) = sup.instance {
                            fx.retired.extend(instance.home);
                            fx.garbage.push(Box::new(instance.env)); // its values' drops are the tier's code
                        }
                    }
                }
            }
        }
    }

    /// `id` and all below it, in order of start.
    pub(crate) fn subtree(&self, id: NodeId) -> Vec<NodeId> {
        let mut all = vec![id];
        let mut next = 0;
        while next < all.len() {
            if let Some(sup) = self.node(all[next]).sup() {
                let children = sup.children.clone();
                all.splice(next + 1..next + 1, children);
            }
            next += 1;
        }
        all
    }

    /// What is queued for `id` and those below it will not be handled any more: their callers are told.
    pub(crate) fn close_mailboxes(&mut self, id: NodeId, fx: &mut Effects) {
        for node in self.subtree(id) {
            if let Role::Worker(worker) = &self.node(node).role
                && let Some(mailbox) = &worker.mailbox
            {
                fx.garbage.push(mailbox.close());
            }
        }
    }

    /// Sets or clears the one thing that is due for `id`.
    pub(crate) fn set_due(&mut self, id: NodeId, due: Option<(Instant, Due)>, fx: &mut Effects) {
        let node =
            self.nodes[id.0 as usize].as_mut().expect("ids are only held while their node is in the tree");
        if let Some((at, _)) = std::mem::replace(&mut node.due, due) {
            self.timers.remove(&(at, id));
        }
        if let Some((at, _)) = due {
            self.timers.insert((at, id));
            fx.poke_control |= at < self.control_at;
        }
    }

    /// Moves `id` to state `to`, and tells.
    pub(crate) fn go(&mut self, id: NodeId, to: State, exit: Option<&Exit>, now: Instant, fx: &mut Effects) {
        let node =
            self.nodes[id.0 as usize].as_mut().expect("ids are only held while their node is in the tree");
        let from = std::mem::replace(&mut node.state, to);
        if from == to && exit.is_none() && to != State::Waiting {
            return;
        }
        node.since = WallMs::now();
        let recovered = if to == State::Running { node.ended_at.take() } else { None };
        self.transitions += 1;
        if !self.events.are_wanted() {
            return;
        }
        let transition = Transition {
            id: self.transitions,
            path: node.path.to_string(),
            at: node.since,
            from,
            to,
            incarnation: node.incarnation,
            restarts: node.restarts(),
            exit: exit.cloned(),
            recovered_us: recovered.map(|at| u64::try_from((now - at).as_micros()).unwrap_or(u64::MAX)),
            waiting_for: node.waiting_for.clone(),
        };
        self.events.broadcast(&transition);
        fx.told.push(transition);
    }

    /// The instance `id` belongs to.
    pub(crate) fn instance_of(&self, id: NodeId) -> Option<NodeId> {
        let mut at = Some(id);
        while let Some(id) = at {
            let node = self.node(id);
            if node.sup().is_some_and(|sup| sup.instance.is_some()) {
                return Some(id);
            }
            at = node.parent;
        }
        None
    }

    pub(crate) fn new_seed(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.seed
    }
}

impl Node {
    pub(crate) fn new(
        parent: Option<(NodeId, &str)>,
        name: &str,
        restart: Restart,
        shutdown: Shutdown,
        role: Role,
    ) -> Self {
        let path = parent.map_or_else(|| format!("/{name}"), |(_, above)| format!("{above}/{name}"));
        Self {
            path: path.into(),
            name: name.into(),
            parent: parent.map(|(id, _)| id),
            restart,
            shutdown,
            role,
            state: State::Stopped,
            since: WallMs::now(),
            incarnation: 0,
            waiting_for: None,
            last_exit: None,
            life: None,
            ready: false,
            pending: false,
            streak: 0,
            started_at: clock::now(),
            ended_at: None,
            due: None,
            killing: None,
            first: None,
            stop_waiters: Vec::new(),
            remove: false,
        }
    }

    pub(crate) fn sup(&self) -> Option<&Supervisor> {
        match &self.role {
            Role::Supervisor(sup) => Some(sup),
            Role::Worker(_) => None,
        }
    }

    /// Lives after the first.
    pub(crate) fn restarts(&self) -> u64 {
        self.incarnation.saturating_sub(1)
    }
}
