//! The test every tier's tree passes: `supervision::conformance!(name, TREE, env)`.
//!
//! On a live instance, with the tier's real sockets and threads, each row is made to panic, to fail, to end and to
//! hang. Read from the table who has to restart and in which order, and compared with what the events say. Then one
//! row crashes until its supervisor gives up, and at last everything is stopped, which has to go backwards.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::env::Env;
use crate::intervene::Intervention;
use crate::restart::wants_another_life;
use crate::root::{Root, RootOptions};
use crate::spec::{Child, Intensity, Restart, Strategy, Tree, What, secs};
use crate::view::{ExitReason, Kind, Node, State, Transition};

/// Longest wait for any one step. Generous: it only bounds how long a failure takes to be reported.
const LIMIT: Duration = Duration::from_secs(60);

/// In a test, hung means no answer for this long; it must be above what a busy machine does to an innocent child.
const PING: Duration = Duration::from_millis(50);
const DEADLINE: Duration = Duration::from_millis(1200);

const INSTANCE: &str = "/conformance/tier/instance-1";

/// Makes a test `$name` that runs the conformance suite on `$tree` with the [`Env`](crate::Env) that the
/// function `$env` returns (`async $env` if it is an `async fn`).
///
/// ```ignore
/// supervision::conformance!(supervision_tree, my_tier::TREE, || my_env());
/// supervision::conformance!(supervision_tree, my_tier::TREE, async my_async_env);
/// ```
#[macro_export]
macro_rules! conformance {
    ($name:ident, $tree:expr, async $env:expr $(,)?) => {
        #[test]
        fn $name() {
            $crate::conformance::check(&$tree, $env);
        }
    };
    ($name:ident, $tree:expr, $env:expr $(,)?) => {
        #[test]
        fn $name() {
            let env = $env;
            $crate::conformance::check(&$tree, move || async move { env() });
        }
    };
}

/// What [`conformance!`](crate::conformance!) runs, in an actix system of its own.
///
/// # Panics
/// When the tree does not behave as its table says; the text says which row, what was done to it, what was expected
/// and what happened, and shows the tree.
pub fn check<F: Future<Output = Env>>(tree: &'static Tree, env: impl FnOnce() -> F) {
    if let Err(error) = tree.check() {
        panic!("{error}");
    }
    actix::System::new().block_on(async move {
        let env = env().await;
        let mut run = Run::start(tree, env).await;
        run.started_in_order();
        for row in rows(tree) {
            for fault in [Intervention::Panic, Intervention::Exit, Intervention::Stop, Intervention::Hang] {
                run.each_restarts_as_the_table_says(&row, fault).await;
            }
        }
        run.intensity_escalates(tree).await;
        run.stops_backwards().await;
    });
}

/// A worker row of the table, and the way to it.
struct Row {
    /// Below the instance.
    path: String,
    child: Child,
    /// From its own supervisor up: that supervisor's path, its strategy, the index of the child on this way.
    above: Vec<(String, Strategy, usize)>,
}

fn rows(tree: &Tree) -> Vec<Row> {
    let mut rows = Vec::new();
    collect(tree, INSTANCE, &[], &mut rows);
    rows
}

fn collect(tree: &Tree, at: &str, above: &[(String, Strategy, usize)], rows: &mut Vec<Row>) {
    for (index, child) in tree.children.iter().enumerate() {
        let mut way = vec![(at.to_owned(), tree.strategy, index)];
        way.extend_from_slice(above);
        let path = format!("{at}/{}", child.id);
        match child.what {
            What::Worker(_) => rows.push(Row { path, child: *child, above: way }),
            What::Subtree(below) => collect(below, &path, &way, rows),
            What::Pool(_) => {
                way.insert(0, (path.clone(), Strategy::OneForOne, 0));
                rows.push(Row { path: format!("{path}/{}-1", child.id), child: *child, above: way });
            }
        }
    }
}

struct Run {
    root: Root,
    events: Receiver<Transition>,
    /// Of the step that is being checked.
    seen: Vec<Transition>,
}

impl Run {
    async fn start(tree: &'static Tree, env: Env) -> Self {
        let root = Root::start("conformance", RootOptions { seed: 1, ..RootOptions::default() });
        root.add_tier("tier", Intensity { restarts: 1000, period: secs(3600) }).await;
        let events = root.events();
        let started = tokio::time::timeout(LIMIT, root.add_instance("tier", "instance-1", tree, env)).await;
        match started {
            Err(_) => panic!("`{}` did not start within {LIMIT:?}: {:#?}", tree.name, root.snapshot()),
            Ok(Err(error)) => panic!("`{}` did not start: {error}", tree.name),
            Ok(Ok(())) => {}
        }
        root.adapt_to_tests(PING, DEADLINE);
        let mut run = Self { root, events, seen: Vec::new() };
        run.drain();
        run
    }

    fn drain(&mut self) {
        while let Ok(transition) = self.events.try_recv() {
            self.seen.push(transition);
        }
    }

    /// Workers in table order.
    fn workers(&self) -> Vec<Node> {
        let mut workers = Vec::new();
        flatten(&self.root.snapshot(), &mut workers);
        workers
    }

    fn paths(&self) -> Vec<String> {
        self.workers().into_iter().map(|node| node.path).collect()
    }

    /// Each starts when the one before is ready; the children of a pool in any order.
    fn started_in_order(&self) {
        let table = self.paths();
        let started = self.order(|t| t.to == State::Starting);
        assert_eq!(
            ranks(&started, &table),
            sorted(ranks(&started, &table)),
            "started in the order of the table: {started:?}"
        );
        assert_eq!(started.len(), table.len(), "all were started: {started:?} of {table:?}");
    }

    /// Paths of workers in the order of their first transition that `of` picks.
    fn order(&self, of: impl Fn(&Transition) -> bool) -> Vec<String> {
        let table = self.paths();
        let mut order = Vec::new();
        for transition in self.seen.iter().filter(|t| of(t)) {
            if table.contains(&transition.path) && !order.contains(&transition.path) {
                order.push(transition.path.clone());
            }
        }
        order
    }

    async fn each_restarts_as_the_table_says(&mut self, row: &Row, fault: Intervention) {
        let what = format!("{fault:?} of {}", row.path);
        let before = self.workers();
        if before.iter().any(|node| node.path == row.path && node.state == State::Stopped) {
            return; // a temporary or finished row, which an earlier step has ended for good
        }
        self.seen.clear();
        self.root.forgive_all();
        let matched = self.root.intervene(&row.path, fault, clock::now() + LIMIT);
        assert_eq!(matched, [row.path.as_str()], "{what}: the row is in the tree");
        self.until(&what, |run| run.seen.iter().any(|t| t.path == row.path && t.exit.is_some())).await;
        let expected = expected_restarts(row, fault, &before);
        self.until(&what, |run| run.settled_after(&before, &expected)).await;
        self.nothing_else_moved(&what, row, &before, &expected);
        self.restarted_in_order(&what, &expected);
    }

    /// All of `expected` have begun a later life, and nobody is on the way any more.
    fn settled_after(&self, before: &[Node], expected: &[String]) -> bool {
        let now = self.workers();
        let later = |path: &String| lives(&now).get(path) > lives(before).get(path);
        expected.iter().all(later)
            && now.iter().all(|n| matches!(n.state, State::Running | State::Waiting | State::Stopped))
    }

    fn nothing_else_moved(&mut self, what: &str, row: &Row, before: &[Node], expected: &[String]) {
        let (was, is) = (lives(before), lives(&self.workers()));
        let moved: Vec<String> =
            self.paths().into_iter().filter(|path| is.get(path) != was.get(path)).collect();
        assert_eq!(&moved, expected, "{what}: who restarted, against the table. Events: {:#?}", self.seen);
        for path in &moved {
            assert_eq!(is[path], was[path] + 1, "{what}: {path} restarted once");
        }
        let exit = self.seen.iter().find(|t| t.path == row.path).and_then(|t| t.exit.clone());
        let reason = exit.map(|exit| exit.reason);
        let told = match what.split(' ').next() {
            Some("Panic") => ExitReason::Panic,
            Some("Exit") => ExitReason::Fault,
            Some("Stop") => ExitReason::Normal,
            _ => ExitReason::Hung,
        };
        assert_eq!(reason, Some(told), "{what}: reason of the exit. Events: {:#?}", self.seen);
    }

    /// Siblings stop last to first, then start first to last.
    fn restarted_in_order(&self, what: &str, expected: &[String]) {
        let table = self.paths();
        let stopped = ranks(&self.order(|t| t.to == State::Stopping), &table);
        let started = ranks(&self.order(|t| t.to == State::Starting), &table);
        let mut backwards = sorted(stopped.clone());
        backwards.reverse();
        assert_eq!(stopped, backwards, "{what}: stopped last to first. Events: {:#?}", self.seen);
        assert_eq!(
            started,
            sorted(started.clone()),
            "{what}: started first to last. Events: {:#?}",
            self.seen
        );
        assert_eq!(started.len(), expected.len(), "{what}: each started once. Events: {:#?}", self.seen);
    }

    /// The first permanent row crashes until its supervisor gives up; one level up that is a restart, and all run again.
    async fn intensity_escalates(&mut self, tree: &'static Tree) {
        let Some(row) = rows(tree).into_iter().find(|row| row.child.restart == Restart::Permanent) else {
            return;
        };
        let supervisor = row.above.first().map(|(path, ..)| path.clone()).unwrap_or_default();
        self.root.forgive_all();
        self.seen.clear();
        let what = format!("repeated panic of {}", row.path);
        for _ in 0..10_000 {
            let matched = self.root.intervene(&row.path, Intervention::Panic, clock::now() + LIMIT);
            assert_eq!(matched.len(), 1, "{what}: the row is in the tree");
            let panics = self.count(&row.path, ExitReason::Panic);
            self.until(&what, |run| run.count(&row.path, ExitReason::Panic) > panics).await;
            self.root.forget_delays();
            self.until(&what, Self::all_up).await;
            if self.count(&supervisor, ExitReason::Intensity) > 0 {
                return;
            }
        }
        panic!("{what}: {supervisor} never gave up: {:#?}", self.root.snapshot());
    }

    fn count(&self, path: &str, reason: ExitReason) -> usize {
        let exits = self.seen.iter().filter(|t| t.path == path).filter_map(|t| t.exit.as_ref());
        exits.filter(|exit| exit.reason == reason).count()
    }

    /// Permanent and transient children have a life again; temporary ones may be gone for good.
    fn all_up(&mut self) -> bool {
        let up = |node: &Node| matches!(node.state, State::Running | State::Waiting | State::Stopped);
        let mut supervisors = Vec::new();
        flatten_all(&self.root.snapshot(), &mut supervisors);
        self.workers().iter().all(up) && supervisors.iter().all(|node| node.state == State::Running)
    }

    async fn stops_backwards(&mut self) {
        let table = self.paths();
        let live: Vec<_> = self.workers().into_iter().filter(|n| n.state != State::Stopped).collect();
        self.drain();
        self.seen.clear();
        let stopped = tokio::time::timeout(LIMIT, self.root.stop()).await;
        assert!(stopped.is_ok(), "did not stop within {LIMIT:?}: {:#?}", self.root.snapshot());
        self.drain();
        let order = ranks(&self.order(|t| t.to == State::Stopped), &table);
        let mut backwards = sorted(order.clone());
        backwards.reverse();
        assert_eq!(order, backwards, "stopped last to first. Events: {:#?}", self.seen);
        assert_eq!(order.len(), live.len(), "everybody stopped. Events: {:#?}", self.seen);
        for transition in self.seen.iter().filter(|t| t.to == State::Stopped) {
            let reason = transition.exit.as_ref().map(|exit| exit.reason);
            assert_eq!(reason, Some(ExitReason::Shutdown), "stopped when asked, not killed: {transition:#?}");
        }
    }

    /// Reads events until `done`; no sleep, and looks again at least every 50 ms for what has no event.
    async fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let deadline = clock::now() + LIMIT;
        loop {
            self.drain();
            if done(self) {
                self.drain(); // what made it so since, for `done` may look at the tree itself
                return;
            }
            assert!(
                clock::now() < deadline,
                "{what}: nothing more within {LIMIT:?}. Tree: {:#?}\nEvents: {:#?}",
                self.root.snapshot(),
                self.seen
            );
            match tokio::time::timeout(Duration::from_millis(50), self.events.recv()).await {
                Ok(Ok(transition)) => self.seen.push(transition),
                Ok(Err(RecvError::Lagged(missed))) => panic!("{what}: missed {missed} events"),
                Ok(Err(RecvError::Closed)) | Err(_) => {}
            }
        }
    }
}

/// Who begins another life when `row` suffers `fault`, in table order.
fn expected_restarts(row: &Row, fault: Intervention, before: &[Node]) -> Vec<String> {
    let reason = if fault == Intervention::Stop { ExitReason::Normal } else { ExitReason::Error };
    if !wants_another_life(row.child.restart, reason) {
        return Vec::new();
    }
    let Some((supervisor, strategy, index)) = row.above.first() else { return Vec::new() };
    let mut members: Vec<&str> = Vec::new(); // of this supervisor, in table order
    for node in before {
        if let Some(member) =
            node.path.strip_prefix(supervisor.as_str()).and_then(|below| below.split('/').nth(1))
            && members.last() != Some(&member)
        {
            members.push(member);
        }
    }
    let mut restarted = Vec::new();
    for node in before {
        let Some(below) = node.path.strip_prefix(supervisor.as_str()) else { continue };
        let Some(at) = members.iter().position(|&member| Some(member) == below.split('/').nth(1)) else {
            continue;
        };
        let goes_along = match strategy {
            Strategy::OneForOne => node.path == row.path,
            Strategy::OneForAll => true,
            Strategy::RestForOne => at >= *index,
        };
        if goes_along {
            restarted.push(node.path.clone());
        }
    }
    restarted
}

fn lives(workers: &[Node]) -> BTreeMap<String, u64> {
    workers.iter().map(|node| (node.path.clone(), node.incarnation)).collect()
}

fn flatten(node: &Node, workers: &mut Vec<Node>) {
    if node.kind == Kind::Worker {
        workers.push(node.clone());
    }
    node.children.iter().for_each(|child| flatten(child, workers));
}

fn flatten_all(node: &Node, supervisors: &mut Vec<Node>) {
    if node.kind == Kind::Supervisor {
        supervisors.push(node.clone());
    }
    node.children.iter().for_each(|child| flatten_all(child, supervisors));
}

/// Positions in the table; children of one pool share theirs.
fn ranks(paths: &[String], table: &[String]) -> Vec<usize> {
    let group = |path: &str| {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let pool = above.rsplit('/').next().unwrap_or_default();
        let member = name.strip_prefix(pool).is_some_and(|rest| rest.starts_with('-'));
        if member { above.to_owned() } else { path.to_owned() }
    };
    paths
        .iter()
        .map(|path| table.iter().position(|row| group(row) == group(path)).unwrap_or(usize::MAX))
        .collect()
}

fn sorted(mut values: Vec<usize>) -> Vec<usize> {
    values.sort_unstable();
    values
}
