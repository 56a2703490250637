//! All nodes of the stack as one: their trees and their faults, asked over the bus from each node's agent.

use std::collections::BTreeSet;
use std::time::Duration;

use bus::{Bus, Message, RequestError};
use clock::WallMs;
use discovery::Registry;
use faults::{Agent, Answer, Ask, Fault, InForce, Injected};
use futures_util::future::join_all;
use messages::names;
use supervision::view::{Kind, Node, State};
use uuid::Uuid;

/// The nodes that discovery knows, and our own, which is asked without the bus.
#[derive(Clone)]
pub struct Fleet {
    agent: Agent,
    bus: Bus,
    registry: Registry,
    deadline: Duration,
}

/// What a node said, or why it said nothing.
type Said = Result<Answer, String>;

impl Fleet {
    /// The fleet as `registry` knows it. A node that does not answer within `deadline` is silent.
    #[must_use]
    pub fn new(agent: Agent, bus: Bus, registry: Registry, deadline: Duration) -> Self {
        Self { agent, bus, registry, deadline }
    }

    /// The tree of the whole stack: `/`, with a child for each node. A silent node is `waiting`, for its answer.
    pub async fn tree(&self) -> Node {
        let said = self.ask(&Ask::Tree, None).await;
        let children = said.into_iter().map(|(node, said)| match said {
            Ok(Answer::Tree(tree)) => *tree,
            Ok(_) => silent(&node, "an answer it understands"),
            Err(why) => silent(&node, &why),
        });
        joined(children.collect())
    }

    /// Sets a fault on every node that it can hit.
    ///
    /// # Errors
    /// When a node refused it and none set it.
    pub async fn set(&self, fault: &Fault) -> Result<Injected, String> {
        let id = Uuid::now_v7();
        let ask = Ask::Set { id, fault: fault.clone() };
        let mut done = Injected { id, matched: Vec::new(), unreachable: Vec::new() };
        let mut refused = None;
        for (node, said) in self.ask(&ask, faults::glob::node(&fault.target)).await {
            match said {
                Ok(Answer::Matched(paths)) => done.matched.extend(paths),
                Ok(Answer::Refused(why)) => refused = Some(format!("{node}: {why}")),
                Ok(_) | Err(_) => done.unreachable.push(node),
            }
        }
        match refused {
            Some(why) if done.matched.is_empty() => Err(why),
            _ => Ok(done),
        }
    }

    /// The faults in force on all nodes that answer, oldest first.
    pub async fn faults(&self) -> Vec<InForce> {
        let said = self.ask(&Ask::List, None).await;
        faults::wire::merge(said.into_iter().filter_map(|(_, said)| match said {
            Ok(Answer::InForce(list)) => Some(list),
            _ => None,
        }))
    }

    /// Undoes a fault, or all, everywhere; tells which.
    pub async fn clear(&self, id: Option<Uuid>) -> BTreeSet<Uuid> {
        let said = self.ask(&Ask::Clear { id }, None).await;
        let cleared = said.into_iter().filter_map(|(_, said)| match said {
            Ok(Answer::Cleared(ids)) => Some(ids),
            _ => None,
        });
        cleared.flatten().collect()
    }

    /// Asks every node, or only one, all at the same time.
    async fn ask(&self, ask: &Ask, only: Option<&str>) -> Vec<(String, Said)> {
        let ours = self.registry.node();
        let mut nodes: BTreeSet<String> = self.registry.snapshot().iter().map(|a| a.node.clone()).collect();
        nodes.insert(ours.to_owned());
        nodes.retain(|node| only.is_none_or(|only| only == node));
        join_all(nodes.into_iter().map(|node| async {
            let said = if node == ours {
                Ok(self.agent.answer(ask.clone()))
            } else {
                self.request(&node, ask).await
            };
            (node, said)
        }))
        .await
    }

    async fn request(&self, node: &str, ask: &Ask) -> Said {
        let address = names::topic(names::NODE, node);
        let reply = self.bus.request(&address, Message::json(ask), self.deadline).await;
        let reply = reply.map_err(|error| match error {
            RequestError::Down => "its answer: the bus is down".to_owned(),
            _ => format!("its answer: none within {} ms", self.deadline.as_millis()),
        })?;
        reply.parse().map_err(|_| "an answer of the same version".to_owned())
    }
}

fn silent(node: &str, waiting_for: &str) -> Node {
    Node {
        path: format!("/{node}"),
        kind: Kind::Supervisor,
        strategy: None,
        state: State::Waiting,
        incarnation: 1,
        restarts: 0,
        since: WallMs::now(),
        waiting_for: Some(waiting_for.to_owned()),
        last_exit: None,
        mailbox: None,
        faults: Vec::new(),
        children: Vec::new(),
    }
}

/// The stack: running when all of its nodes are.
fn joined(children: Vec<Node>) -> Node {
    let state = children.iter().map(|n| n.state).find(|s| *s != State::Running).unwrap_or(State::Running);
    Node {
        path: "/".to_owned(),
        kind: Kind::Supervisor,
        strategy: None,
        state,
        incarnation: 1,
        restarts: children.iter().map(|n| n.restarts).sum(),
        since: children.iter().map(|n| n.since).max().unwrap_or_default(),
        waiting_for: None,
        last_exit: None,
        mailbox: None,
        faults: Vec::new(),
        children,
    }
}
