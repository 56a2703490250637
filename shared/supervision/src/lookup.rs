//! Finding nodes of the live tree, and showing them.

use std::sync::Arc;
use std::time::Instant;

use actix::Actor;

use crate::intervene::Intervention;
use crate::mailbox::Mailbox;
use crate::ops::Turn;
use crate::tree::{NodeId, ROOT, Role, World};
use crate::view;

impl World {
    pub(crate) fn child_named(&self, parent: NodeId, name: &str) -> Option<NodeId> {
        let sup = self.get(parent)?.sup()?;
        sup.children.iter().copied().find(|&child| &*self.node(child).name == name)
    }

    fn down(&self, from: NodeId, path: &str) -> Option<NodeId> {
        path.split('/').try_fold(from, |at, name| self.child_named(at, name))
    }

    pub(crate) fn find_path(&self, path: &str) -> Option<NodeId> {
        let below = path.strip_prefix(&*self.get(ROOT)?.path)?.strip_prefix('/')?;
        self.down(ROOT, below)
    }

    /// `id` below the supervisor of `from`, or below one further up, within the instance.
    pub(crate) fn find_near(&self, from: NodeId, id: &str) -> Option<NodeId> {
        let top = self.instance_of(from)?;
        let mut at = from;
        while at != top {
            at = self.node(at).parent?;
            if let Some(found) = self.down(at, id) {
                return Some(found);
            }
        }
        None
    }

    pub(crate) fn is_pool(&self, id: NodeId) -> bool {
        self.node(id).sup().is_some_and(|sup| sup.pool.is_some())
    }

    /// The mailbox of worker `id`, made when it is first asked for.
    pub(crate) fn mailbox<A: Actor>(&mut self, id: NodeId) -> Arc<Mailbox<A>> {
        let path = Arc::clone(&self.node(id).path);
        let worker = self.worker_mut(id).expect("callers have found a worker");
        let capacity = worker.row.mailbox;
        let mailbox = worker.mailbox.get_or_insert_with(|| Arc::new(Mailbox::<A>::new(capacity)));
        let typed = Arc::clone(mailbox).as_any().downcast::<Mailbox<A>>();
        typed.unwrap_or_else(|_| panic!("`{path}` is not a `{}`", std::any::type_name::<A>()))
    }

    pub(crate) fn set_faults(
        &mut self,
        mut meant: impl FnMut(&str) -> bool,
        fault: Option<(Intervention, Instant)>,
        turn: &mut Turn<'_>,
    ) -> Vec<String> {
        let mut matched = Vec::new();
        for node in self.nodes.iter_mut().flatten() {
            let Role::Worker(worker) = &mut node.role else { continue };
            if !meant(&node.path) {
                continue;
            }
            matched.push(node.path.to_string());
            worker.fault = fault;
            if let Some(life) = &worker.life {
                life.set_fault(fault);
                turn.fx.wakes.push(Arc::clone(life));
            }
        }
        matched
    }

    pub(crate) fn view(&self, id: NodeId) -> view::Node {
        let node = self.node(id);
        let now = clock::now();
        let (kind, strategy, mailbox, fault, children) = match &node.role {
            Role::Worker(worker) => {
                let fault = worker.life.as_ref().and_then(|life| life.fault(now));
                let mailbox = worker.mailbox.as_ref().map(|mailbox| mailbox.depth());
                (view::Kind::Worker, None, mailbox, fault, Vec::new())
            }
            Role::Supervisor(sup) => {
                let children = sup.children.iter().map(|&child| self.view(child)).collect();
                (view::Kind::Supervisor, Some(sup.strategy.as_str().to_owned()), None, None, children)
            }
        };
        view::Node {
            path: node.path.to_string(),
            kind,
            strategy,
            state: node.state,
            incarnation: node.incarnation,
            restarts: node.restarts(),
            since: node.since,
            waiting_for: node.waiting_for.clone(),
            last_exit: node.last_exit.clone(),
            mailbox,
            faults: fault.iter().map(|(fault, _)| fault.as_str().to_owned()).collect(),
            children,
        }
    }
}
