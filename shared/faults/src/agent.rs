//! One node's operating agent: shows its tree, and applies and undoes faults on its children and links.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use bus::{Bus, LinkFault, Message};
use clock::WallMs;
use messages::names;
use supervision::{BoxError, Intervention, Life, Root, view};
use uuid::Uuid;

use crate::glob;
use crate::spec::{Fault, Hits, Kind, Limits};
use crate::table::Table;
use crate::wire::{Answer, Ask, InForce};

/// Questions that may wait for this node's agent; more are refused by the bus.
const ASKED_MAX: usize = 64;
/// A process that is to be killed lives so much longer, for the answer to get out.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The bus links of this node's instances, by path of the instance: what link faults hit.
#[derive(Clone, Default)]
pub struct Links(Arc<RwLock<BTreeMap<String, Bus>>>);

impl Links {
    /// Notes the link of the instance at `path` (`/node/tier/instance`).
    pub fn register(&self, path: impl Into<String>, link: Bus) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(path.into(), link);
    }

    fn matching(&self, pattern: &str) -> Vec<String> {
        let links = self.0.read().unwrap_or_else(PoisonError::into_inner);
        links.keys().filter(|path| glob::matches(pattern, path)).cloned().collect()
    }

    fn get(&self, path: &str) -> Option<Bus> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }
}

/// The agent of one node. Cheap to clone.
#[derive(Clone)]
pub struct Agent(Arc<Inner>);

struct Inner {
    root: Root,
    links: Links,
    limits: Limits,
    table: Mutex<Table>,
}

impl Agent {
    /// The agent of the process whose tree is `root` and whose instances use `links`.
    #[must_use]
    pub fn new(root: Root, links: Links, limits: Limits) -> Self {
        Self(Arc::new(Inner { root, links, limits, table: Mutex::default() }))
    }

    /// The bounds that requests are checked against.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// This node's tree as it is now, each instance with the faults of its link.
    #[must_use]
    pub fn tree(&self) -> view::Node {
        let mut tree = self.0.root.snapshot();
        let mut table = self.table();
        let now = clock::now();
        if table.len(now) > 0 {
            let all = table.in_force(now, |_, _| true);
            for fault in all.iter().filter(|f| f.kind.hits() == Hits::Link && !f.kind.strikes_once()) {
                for path in &fault.matched {
                    if let Some(instance) = find_mut(&mut tree, path) {
                        instance.faults.push(fault.kind.to_string());
                    }
                }
            }
        }
        tree
    }

    /// This node's root: its events, above all.
    #[must_use]
    pub fn root(&self) -> &Root {
        &self.0.root
    }

    /// Sets a fault on whatever it matches on this node, and says what that was.
    ///
    /// # Errors
    /// When the node has as many faults in force as its limit allows.
    pub fn set(&self, id: Uuid, fault: &Fault) -> Result<Vec<String>, String> {
        let now = clock::now();
        let mut table = self.table();
        let max = self.0.limits.in_force_max;
        if table.len(now) >= max {
            return Err(format!("{max} faults are in force, which is the limit: clear some"));
        }
        let until = now + Duration::from_millis(fault.for_ms);
        let matched = match fault.kind.hits() {
            Hits::Child => self.hit_children(fault, until),
            Hits::Link => self.hit_links(fault, until),
            Hits::Node => self.hit_node(fault),
        };
        if !matched.is_empty() {
            tracing::warn!(fault = %id, kind = %fault.kind, target = %fault.target, paths = matched.len(), "fault set");
            table.set(id, fault.clone(), &matched, now, WallMs::now());
        }
        Ok(matched)
    }

    /// The faults in force on this node.
    #[must_use]
    pub fn list(&self) -> Vec<InForce> {
        let mut table = self.table();
        let now = clock::now();
        if table.len(now) == 0 {
            return Vec::new();
        }
        let tree = self.0.root.snapshot();
        table.in_force(now, |fault, path| match fault.kind.hits() {
            Hits::Child => find(&tree, path).is_some_and(|child| !child.faults.is_empty()),
            Hits::Link => !fault.kind.strikes_once(),
            Hits::Node => false,
        })
    }

    /// Undoes one fault, or all, and says which those were.
    #[must_use]
    pub fn clear(&self, id: Option<Uuid>) -> Vec<Uuid> {
        let now = clock::now();
        let mut table = self.table();
        let undone = table.clear(id, now);
        for entry in &undone {
            for path in &entry.holds {
                match entry.fault.kind.hits() {
                    Hits::Child => drop(self.0.root.clear(path)),
                    Hits::Link => self.restore_link(&table, path, now),
                    Hits::Node => {}
                }
            }
            tracing::info!(fault = %entry.id, kind = %entry.fault.kind, "fault cleared");
        }
        undone.into_iter().map(|entry| entry.id).collect()
    }

    /// Answers one question.
    #[must_use]
    pub fn answer(&self, ask: Ask) -> Answer {
        match ask {
            Ask::Tree => Answer::Tree(Box::new(self.tree())),
            Ask::Set { id, fault } => self.set(id, &fault).map_or_else(Answer::Refused, Answer::Matched),
            Ask::List => Answer::InForce(self.list()),
            Ask::Clear { id } => Answer::Cleared(self.clear(id)),
        }
    }

    /// Answers what is asked on the bus address of this node, until the life is asked to stop. To be run as a
    /// task child of the node.
    ///
    /// # Errors
    /// When the bus refuses to serve the address.
    pub async fn serve(self, bus: Bus, node: String, life: Life) -> Result<(), BoxError> {
        let mut requests = bus.serve(&names::topic(names::NODE, &node), ASKED_MAX).await?;
        life.ready();
        loop {
            let request = tokio::select! {
                request = requests.next() => request,
                () = life.stopping() => return Ok(()),
            };
            let answer = match request.message.parse::<Ask>() {
                Ok(ask) => self.answer(ask),
                Err(error) => Answer::Refused(format!("not understood: {error}")),
            };
            request.reply(Message::json(&answer));
        }
    }

    fn hit_children(&self, fault: &Fault, until: Instant) -> Vec<String> {
        let intervention = match fault.kind {
            Kind::Panic => Intervention::Panic,
            Kind::Exit => Intervention::Exit,
            Kind::Hang => Intervention::Hang,
            _ => Intervention::Slow(amount(fault)),
        };
        let meant = |path: &str| glob::matches(&fault.target, path) && chosen(fault.probability);
        self.0.root.intervene_where(meant, intervention, until)
    }

    fn hit_links(&self, fault: &Fault, until: Instant) -> Vec<String> {
        let mut paths = self.0.links.matching(&fault.target);
        if !matches!(fault.kind, Kind::Drop | Kind::Duplicate) {
            paths.retain(|_| chosen(fault.probability));
        }
        for path in &paths {
            if let Some(link) = self.0.links.get(path) {
                link.faults().set(link_fault(fault), until);
            }
        }
        paths
    }

    /// The bus clears a link as a whole: the other faults that it has are set again.
    fn restore_link(&self, table: &Table, path: &str, now: Instant) {
        if let Some(link) = self.0.links.get(path) {
            link.faults().clear();
            for other in table.holding(path, now) {
                link.faults().set(link_fault(&other.fault), other.until);
            }
        }
    }

    fn hit_node(&self, fault: &Fault) -> Vec<String> {
        let path = self.0.root.snapshot().path;
        if !glob::matches(&fault.target, &path) || !chosen(fault.probability) {
            return Vec::new();
        }
        tokio::spawn(async {
            tokio::time::sleep(LAST_WORDS).await;
            let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
            // The first process of a container cannot be killed from within: the kernel drops the signal.
            std::process::abort();
        });
        vec![path]
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn chosen(probability: f64) -> bool {
    probability >= 1.0 || rand::random::<f64>() < probability
}

fn amount(fault: &Fault) -> Duration {
    Duration::from_millis(fault.amount_ms.unwrap_or_default())
}

fn link_fault(fault: &Fault) -> LinkFault {
    match fault.kind {
        Kind::Disconnect => LinkFault::Disconnect,
        Kind::Delay => LinkFault::Delay(amount(fault)),
        Kind::Drop => LinkFault::Drop { p: fault.probability },
        Kind::Duplicate => LinkFault::Duplicate { p: fault.probability },
        _ => LinkFault::Partition,
    }
}

/// The node at `path` in or below `node`.
fn find<'a>(node: &'a view::Node, path: &str) -> Option<&'a view::Node> {
    if node.path == path {
        return Some(node);
    }
    node.children.iter().find_map(|child| find(child, path))
}

fn find_mut<'a>(node: &'a mut view::Node, path: &str) -> Option<&'a mut view::Node> {
    if node.path == path {
        return Some(node);
    }
    node.children.iter_mut().find_map(|child| find_mut(child, path))
}
