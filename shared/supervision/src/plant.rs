//! Bringing tables into the live tree, and changing the size of its pools.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crate::env::Env;
use crate::ops::Turn;
use crate::restart::Budget;
use crate::spec::{Child, Intensity, Restart, Shutdown, StartFn, Strategy, Tree, What};
use crate::tree::{Instance, Node, NodeId, Op, Pool, Role, Stage, Supervisor, Worker, World};

impl World {
    /// Brings a new subtree into the tree, stopped. Returns its top.
    pub(crate) fn plant(&mut self, parent: NodeId, row: &Child, env: &Env) -> NodeId {
        let above = Arc::clone(&self.node(parent).path);
        let (strategy, intensity, below): (_, _, &[Child]) = match row.what {
            What::Worker(start) => {
                let role = Role::Worker(Box::new(Worker::new(*row, start)));
                return self.insert(Node::new(
                    Some((parent, &above)),
                    row.id,
                    row.restart,
                    row.shutdown,
                    role,
                ));
            }
            What::Pool(_) => (Strategy::OneForOne, pool_intensity(row, env.pool_size(row.id)), &[]),
            What::Subtree(tree) => (tree.strategy, tree.intensity, tree.children),
        };
        let mut sup = Supervisor::new(strategy, intensity, self.new_seed());
        if let What::Pool(start) = row.what {
            sup.pool = Some(Pool { row: *row, start, size: env.pool_size(row.id) });
        }
        let role = Role::Supervisor(Box::new(sup));
        let id = self.insert(Node::new(
            Some((parent, &above)),
            row.id,
            Restart::Permanent,
            Shutdown::Infinity,
            role,
        ));
        for row in below {
            self.plant(id, row, env);
        }
        id
    }

    /// Brings an instance of `tree` into the tree, stopped.
    pub(crate) fn plant_instance(
        &mut self,
        tier: NodeId,
        name: &str,
        tree: &'static Tree,
        env: Env,
    ) -> NodeId {
        let above = Arc::clone(&self.node(tier).path);
        let mut sup = Supervisor::new(tree.strategy, tree.intensity, self.new_seed());
        sup.instance = Some(Instance { env: env.clone(), home: None });
        let role = Role::Supervisor(Box::new(sup));
        let id =
            self.insert(Node::new(Some((tier, &above)), name, Restart::Permanent, Shutdown::Infinity, role));
        for row in tree.children {
            self.plant(id, row, &env);
        }
        id
    }

    /// Gives a pool its children number 1 to its size; only ever adds.
    pub(crate) fn fill_pool(&mut self, id: NodeId) {
        let Some(pool) = &self.sup(id).pool else { return };
        let (row, start, size) = (pool.row, pool.start, pool.size);
        let above = Arc::clone(&self.node(id).path);
        // One that is on its way out keeps its number until it has gone, so these need not be the first ones.
        let taken: HashSet<usize> =
            self.children_from(id, 0).into_iter().map(|child| self.number(child)).collect();
        for number in (1..=size).filter(|number| !taken.contains(number)) {
            let role = Role::Worker(Box::new(Worker { number, ..Worker::new(row, start) }));
            let name = format!("{}-{number}", row.id);
            let child = self.insert(Node::new(Some((id, &above)), &name, row.restart, row.shutdown, role));
            self.node_mut(child).pending = true;
        }
        let mut children = self.children_from(id, 0);
        children.sort_by_key(|&child| self.number(child));
        self.sup_mut(id).children = children;
    }

    fn number(&self, id: NodeId) -> usize {
        match &self.node(id).role {
            Role::Worker(worker) => worker.number,
            Role::Supervisor(_) => 0,
        }
    }

    /// Changes the size of a pool: starts more, or stops the last ones.
    pub(crate) fn resize(&mut self, id: NodeId, size: usize, turn: &mut Turn<'_>) {
        let Some(pool) = &mut self.sup_mut(id).pool else { return };
        pool.size = size;
        let row = pool.row;
        self.sup_mut(id).budget.set_intensity(pool_intensity(&row, size));
        self.fill_pool(id);
        for child in self.children_from(id, 0) {
            let surplus = self.number(child) > size;
            self.node_mut(child).remove = surplus;
            if surplus && self.node(child).life.is_some() {
                self.stop(child, turn);
            } else if surplus {
                self.remove(child, turn.now, &mut turn.fx);
            }
        }
        if self.sup(id).op.is_none() && self.node(id).life.is_some() {
            self.sup_mut(id).op = Some(Op { from: 0, stage: Stage::Starting });
        }
        turn.fx.todo.push_back(id);
    }
}

fn pool_intensity(row: &Child, size: usize) -> Intensity {
    let restarts = u32::try_from(size).unwrap_or(u32::MAX).max(10);
    row.intensity.unwrap_or(Intensity { restarts, period: Duration::from_secs(5) })
}

impl Worker {
    fn new(row: Child, start: StartFn) -> Self {
        Self {
            row,
            start,
            life: None,
            home: None,
            mailbox: None,
            fault: None,
            pinged_at: None,
            answered_at: clock::now(),
            probe: 0,
            number: 0,
        }
    }
}

impl Supervisor {
    pub(crate) fn new(strategy: Strategy, intensity: Intensity, seed: u64) -> Self {
        let budget = Budget::new(strategy, intensity, seed);
        Self { strategy, budget, children: Vec::new(), op: None, instance: None, pool: None }
    }
}
