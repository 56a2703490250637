//! What the tests of this crate share: children that do as they are told, and a stage to watch them on.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use supervision::view::{Node, State, Transition};
use supervision::{BoxError, Env, Intensity, Life, Root, RootOptions, StartError, Started, Tree, secs};
use tokio::sync::broadcast;

/// Bounds how long a failing test takes; no assertion depends on it.
pub const LIMIT: Duration = Duration::from_secs(20);

/// What the tests tell the children to do.
#[derive(Default)]
pub struct Orders(Mutex<Vec<(String, How)>>, tokio::sync::Notify);

/// How a child is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Normal,
    Error,
    Panic,
}

impl Orders {
    pub fn give(&self, child: &str, how: How) {
        self.0.lock().expect("nobody panics under it").push((child.to_owned(), how));
        self.1.notify_waiters();
    }

    fn take(&self, child: &str) -> Option<How> {
        let mut orders = self.0.lock().expect("nobody panics under it");
        let at = orders.iter().position(|(name, _)| name == child)?;
        Some(orders.remove(at).1)
    }

    pub async fn wait_for(&self, child: &str) -> How {
        loop {
            let given = self.1.notified();
            tokio::pin!(given);
            given.as_mut().enable();
            match self.take(child) {
                Some(how) => return how,
                None => given.await,
            }
        }
    }
}

/// A task that is ready at once and ends as ordered.
pub fn obedient(life: Life) -> Result<Started, StartError> {
    let orders: Arc<Orders> = life.env::<Arc<Orders>>().as_ref().clone();
    Ok(Started::task(async move {
        life.ready();
        let name = life.path().rsplit('/').next().unwrap_or_default().to_owned();
        tokio::select! {
            () = life.stopping() => Ok(()),
            how = orders.wait_for(&name) => match how {
                How::Normal => Ok(()),
                How::Error => Err(BoxError::from("told to fail")),
                How::Panic => panic!("told to panic"),
            },
        }
    }))
}

/// One instance, `/n/t/i`, and its events.
pub struct Stage {
    pub root: Root,
    pub orders: Arc<Orders>,
    pub events: broadcast::Receiver<Transition>,
    pub seen: Vec<Transition>,
}

pub const MANY: Intensity = Intensity { restarts: 1_000_000, period: secs(3600) };

impl Stage {
    pub async fn new(tree: &'static Tree) -> Self {
        Self::with(tree, Env::new()).await
    }

    pub async fn with(tree: &'static Tree, env: Env) -> Self {
        let mut stage = Self::empty(MANY).await;
        stage.add(tree, env).await.expect("the instance starts");
        stage
    }

    pub async fn empty(tier: Intensity) -> Self {
        let root = Root::start("n", RootOptions { seed: 7, ..RootOptions::default() });
        root.add_tier("t", tier).await;
        let events = root.events();
        Self { root, orders: Arc::default(), events, seen: Vec::new() }
    }

    pub async fn add(&mut self, tree: &'static Tree, env: Env) -> Result<(), StartError> {
        let env = env.with(Arc::clone(&self.orders));
        tokio::time::timeout(LIMIT, self.root.add_instance("t", "i", tree, env)).await.expect("in time")
    }

    /// The node `/n/t/i/{below}`, or the instance itself.
    pub fn node(&self, below: &str) -> Node {
        self.find(below).unwrap_or_else(|| panic!("no `{below}` in {:#?}", self.root.snapshot()))
    }

    pub fn find(&self, below: &str) -> Option<Node> {
        fn find(node: Node, path: &str) -> Option<Node> {
            if node.path == path {
                Some(node)
            } else {
                node.children.into_iter().find_map(|child| find(child, path))
            }
        }
        let path = if below.is_empty() { "/n/t/i".to_owned() } else { format!("/n/t/i/{below}") };
        find(self.root.snapshot(), &path)
    }

    pub fn state(&self, below: &str) -> (State, u64) {
        let node = self.node(below);
        (node.state, node.incarnation)
    }

    pub fn drain(&mut self) {
        while let Ok(transition) = self.events.try_recv() {
            self.seen.push(transition);
        }
    }

    /// Waits until `done`, looking after each event.
    pub async fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = clock::now() + LIMIT;
        loop {
            self.drain();
            if done(self) {
                self.drain(); // what happened between the two is a part of what is done
                return;
            }
            assert!(clock::now() < deadline, "{what}: {:#?}\n{:#?}", self.root.snapshot(), self.seen);
            if let Ok(Ok(transition)) =
                tokio::time::timeout(Duration::from_millis(20), self.events.recv()).await
            {
                self.seen.push(transition);
            }
        }
    }

    pub async fn until_is(&mut self, below: &str, state: State, incarnation: u64) {
        let what = format!("{below} is {state:?} #{incarnation}");
        self.until(&what, |stage| stage.state(below) == (state, incarnation)).await;
    }
}
