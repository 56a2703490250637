//! Every child of every front tier is killed under load, with keep-alive and without.
//!
//! What must hold: no connection is refused, a client loses at most the one request that was inside the child, and
//! afterwards everything runs again.

#![allow(clippy::print_stdout, reason = "the table of what was killed and lost is the point")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use supervision::view::{Kind, Node, State};
use teststack::{Http, HttpError, TestStack, until};
use tokio::task::JoinSet;

/// Clients that keep their connection, and clients that open one for each request.
const KEEPING: usize = 12;
const OPENING: usize = 6;
/// Travels through edge, balancer and web to the app, and is stored nowhere.
const PATH: &str = "/healthz";
/// A child that hangs is found by its liveness deadline; a debug build on a busy machine needs longer for all of it.
const RECOVERS: Duration = Duration::from_secs(30);
/// Longer than it takes to find a child that hangs.
const HANGS: Duration = Duration::from_secs(20);

/// What the clients have seen.
#[derive(Default)]
struct Seen {
    answered: AtomicUsize,
    refused: AtomicUsize,
    /// Requests that were sent and got no answer, or an answer that says that a tier failed.
    lost: AtomicUsize,
    last: std::sync::Mutex<String>,
}

impl Seen {
    fn lose(&self, why: String) {
        self.lost.fetch_add(1, Relaxed);
        *self.last.lock().expect("no client panics while it holds this") = why;
    }

    async fn answers_more(&self, n: usize) {
        let before = self.answered.load(Relaxed);
        until("the front door answers", RECOVERS, async || {
            let more = self.answered.load(Relaxed) - before;
            if more >= n { Ok(()) } else { Err(format!("{more} more answers")) }
        })
        .await;
    }
}

struct Clients {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Clients {
    fn start(front: &str) -> Self {
        let (seen, stop, mut tasks) = (Arc::<Seen>::default(), Arc::<AtomicBool>::default(), JoinSet::new());
        for n in 0..KEEPING + OPENING {
            tasks.spawn(client(front.to_owned(), n < KEEPING, Arc::clone(&seen), Arc::clone(&stop)));
        }
        Self { seen, stop, tasks }
    }

    async fn finish(self) -> Arc<Seen> {
        self.stop.store(true, Relaxed);
        self.tasks.join_all().await;
        self.seen
    }
}

async fn client(front: String, keeps: bool, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    let limit = Duration::from_secs(15);
    let mut http = Http::new(&front).limit(limit);
    while !stop.load(Relaxed) {
        if !keeps {
            http = Http::new(&front).limit(limit);
        }
        match http.get(PATH).await {
            Ok(answer) if answer.status == 200 => drop(seen.answered.fetch_add(1, Relaxed)),
            Ok(answer) => seen.lose(answer.brief()),
            Err(HttpError::Connect(..)) => drop(seen.refused.fetch_add(1, Relaxed)),
            Err(error) => seen.lose(format!("{error}: {:?}", std::error::Error::source(&error))),
        }
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scenario_killing_any_child_of_a_front_tier_refuses_nobody_and_loses_only_what_was_inside() {
    let stack = TestStack::one_process().start().await;
    let tree = stack.all_running(RECOVERS).await;
    let mut wrong = Vec::new();
    for kind in ["panic", "hang"] {
        for child in children(&tree) {
            wrong.extend(kill(&stack, kind, &child).await);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// One child that serves and each of its helpers, of the instances that a request to the front door passes.
fn children(tree: &Node) -> Vec<String> {
    let (mut open, mut found) = (vec![tree], Vec::new());
    while let Some(node) = open.pop() {
        open.extend(&node.children);
        let level = |n: usize| node.path.split('/').nth(n).unwrap_or_default();
        let passes = ["edge", "balancer", "web"].contains(&level(2)) && level(3).ends_with("-1");
        let first_of_its_pool = !node.path.ends_with("-2") && !node.path.ends_with("-3");
        if node.kind == Kind::Worker && passes && first_of_its_pool && node.state == State::Running {
            found.push(node.path.clone());
        }
    }
    found.sort_unstable();
    assert!(found.len() >= 3, "{found:?}");
    found
}

/// Kills the child under load; answers what was not as it must be.
async fn kill(stack: &TestStack, kind: &str, child: &str) -> Option<String> {
    let clients = Clients::start(&stack.fronts[0]);
    clients.seen.answers_more(2 * (KEEPING + OPENING)).await;
    let quiet = clients.seen.lost.load(Relaxed);
    let before = life(&stack.all_running(RECOVERS).await, child);
    let lasts = if kind == "hang" { HANGS } else { Duration::from_secs(1) };
    stack.inject(child, kind, lasts).await.unwrap_or_else(|error| panic!("{child}: {error}"));
    until(&format!("{child} is replaced after {kind}"), RECOVERS, async || {
        let now = life(&stack.tree().await?, child);
        if now > before { Ok(()) } else { Err(format!("life {now}")) }
    })
    .await;
    stack.all_running(RECOVERS).await;
    clients.seen.answers_more(2 * (KEEPING + OPENING)).await;
    let seen = clients.finish().await;
    let (answered, lost, refused) =
        (seen.answered.load(Relaxed), seen.lost.load(Relaxed), seen.refused.load(Relaxed));
    println!("{kind:>6} × {child:<45} {answered:>6} answered, {lost:>3} lost, {refused} refused");
    let last = seen.last.lock().expect("no client panics while it holds this").clone();
    let fine = quiet == 0 && refused == 0 && lost <= KEEPING + OPENING;
    (!fine).then(|| format!("{kind} × {child}: {quiet} lost before, {lost} lost ({last}), {refused} refused"))
}

fn life(tree: &Node, path: &str) -> u64 {
    let mut open = vec![tree];
    while let Some(node) = open.pop() {
        if node.path == path {
            return node.incarnation;
        }
        open.extend(&node.children);
    }
    0
}
