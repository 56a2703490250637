//! What a child can rely on in its lives: its mailbox, its links, its time to stop, its state `waiting`.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Message, ResponseActFuture};
use supervision::Restart::{Permanent, Transient};
use supervision::Shutdown::{Brutal, Within};
use supervision::Strategy::{OneForAll, OneForOne, RestForOne};
use supervision::view::{ExitReason, State};
use supervision::{
    ActorRef, Backoff, BoxError, CallError, Env, Intensity, Intervention, Life, PoolSize, StartError,
    Started, Tree, pool, secs, subtree, worker,
};
use support::{How, LIMIT, MANY, Stage, obedient};

/// Remembers what it was told in this life.
struct Clerk {
    life: Life,
    heard: Vec<u32>,
}

impl Actor for Clerk {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "Vec<u32>")]
struct Note(u32);

#[derive(Message)]
#[rtype(result = "()")]
enum Do {
    Panic,
    Stop,
    Fail,
    PanicLater,
    PanicLinked,
    PanicBlocking,
    WaitForEver,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Never;

impl Handler<Note> for Clerk {
    type Result = Vec<u32>;
    fn handle(&mut self, note: Note, _: &mut Self::Context) -> Vec<u32> {
        self.heard.push(note.0);
        self.heard.clone()
    }
}

impl Handler<Never> for Clerk {
    type Result = ResponseActFuture<Self, ()>; // not ResponseFuture, which actix spawns beside the actor
    fn handle(&mut self, _: Never, _: &mut Self::Context) -> Self::Result {
        Box::pin(actix::fut::wrap_future(std::future::pending()))
    }
}

impl Handler<Do> for Clerk {
    type Result = ();
    fn handle(&mut self, what: Do, context: &mut Self::Context) {
        let life = self.life.clone();
        match what {
            Do::Panic => panic!("at once"),
            Do::Stop => context.stop(),
            Do::Fail => life.fail("cannot go on"),
            Do::PanicLater => drop(context.run_later(Duration::from_millis(1), |_, _| panic!("later"))),
            Do::PanicLinked => life.spawn_linked(async { panic!("linked") }),
            Do::PanicBlocking => {
                let blocking = life.clone();
                life.spawn_linked(async move { blocking.blocking(|| panic!("blocking")).await });
            }
            Do::WaitForEver => {
                let for_ever = actix::fut::wrap_future::<_, Self>(std::future::pending());
                context.wait(for_ever);
            }
        }
    }
}

fn clerk(life: Life) -> Result<Started, StartError> {
    Ok(Started::actor(Clerk { life, heard: Vec::new() }))
}

static CLERKS: Tree = Tree {
    name: "clerks",
    strategy: OneForOne,
    intensity: MANY,
    children: &[
        worker("same", clerk, Permanent, Within(secs(5))).with_backoff(Backoff::NONE).mailbox(4),
        worker("own", clerk, Permanent, Within(secs(5)))
            .with_backoff(Backoff::NONE)
            .on_own_arbiter()
            .with_liveness(Duration::from_millis(20), Duration::from_millis(200)),
        worker("passing", clerk, Transient, Within(secs(5))),
    ],
};

fn actor(stage: &Stage, id: &str) -> ActorRef<Clerk> {
    stage.root.actor(&format!("/n/t/i/{id}")).expect("is there")
}

/// Queued while the crash is handled, and handled by the next life; only the one in hand fails.
#[actix::test]
async fn queued_messages_outlive_a_crash_and_the_one_in_hand_fails() {
    let stage = Stage::new(&CLERKS).await;
    for id in ["same", "own"] {
        let clerk = actor(&stage, id);
        assert_eq!(clerk.send(Note(1)).await, Ok(vec![1]));
        let (pending, in_hand, queued, more) = futures_util::join!(
            clerk.send(Never), // in hand: its answer is not there yet
            clerk.send(Do::Panic),
            clerk.send(Note(2)),
            clerk.send(Note(3))
        );
        assert_eq!((pending, in_hand), (Err(CallError::Crashed), Err(CallError::Crashed)));
        assert_eq!((queued, more), (Ok(vec![2]), Ok(vec![2, 3])), "a fresh actor, and nothing lost");
    }
    stage.root.stop().await;
}

#[actix::test]
async fn a_mailbox_is_bounded_and_says_full() {
    let stage = Stage::new(&CLERKS).await;
    let clerk = actor(&stage, "same");
    clerk.send(Do::WaitForEver).await.expect("handled; from now on it takes no message");
    for n in 0..4 {
        assert_eq!(clerk.try_send(Note(n)), Ok(()));
    }
    assert_eq!(clerk.try_send(Note(4)), Err(CallError::Full));
    assert_eq!(clerk.send(Note(4)).await, Err(CallError::Full));
    assert_eq!(stage.node("same").mailbox.map(|mailbox| (mailbox.depth, mailbox.capacity)), Some((4, 4)));
    assert_eq!(
        actor(&stage, "own").send_within(Never, Duration::from_millis(20)).await,
        Err(CallError::Deadline)
    );
    stage.root.stop().await;
    assert_eq!(clerk.send(Note(5)).await, Err(CallError::Stopped));
}

/// Panics in timers, linked tasks and blocking work are the child's exit, each told once.
#[actix::test]
async fn a_panic_anywhere_in_a_child_is_its_exit() {
    let mut stage = Stage::new(&CLERKS).await;
    let clerk = actor(&stage, "same");
    let panics = [(Do::PanicLater, "later"), (Do::PanicLinked, "linked"), (Do::PanicBlocking, "blocking")];
    for (n, (what, text)) in panics.into_iter().enumerate() {
        clerk.send(what).await.expect("the handler itself is fine");
        stage.until_is("same", State::Running, n as u64 + 2).await;
        let exit = stage.node("same").last_exit.expect("it crashed");
        assert_eq!(exit.reason, ExitReason::Panic);
        assert!(exit.detail.contains(text), "{exit:?}");
    }
    let exits = stage.seen.iter().filter(|t| t.to == State::Restarting).count();
    assert_eq!(exits, 3, "one report for each: {:#?}", stage.seen);
    stage.root.stop().await;
}

#[actix::test]
async fn an_actor_ends_as_it_says() {
    let mut stage = Stage::new(&CLERKS).await;
    let clerk = actor(&stage, "same");
    let _ = clerk.send(Do::Fail).await;
    stage.until_is("same", State::Running, 2).await;
    assert_eq!(stage.node("same").last_exit.map(|exit| exit.reason), Some(ExitReason::Error));
    let _ = clerk.send(Do::Stop).await;
    stage.until_is("same", State::Running, 3).await;
    assert_eq!(stage.node("same").last_exit.map(|exit| exit.reason), Some(ExitReason::Normal));
    let passing = actor(&stage, "passing");
    let _ = passing.send(Do::Stop).await;
    stage.until_is("passing", State::Stopped, 1).await;
    assert_eq!(passing.send(Note(1)).await, Err(CallError::Stopped), "it will not come back");
    stage.root.stop().await;
}

/// A handler that never ends keeps its thread free, and its mailbox shut.
#[actix::test]
async fn an_actor_that_waits_for_ever_is_hung_and_its_queue_goes_on_in_the_next_life() {
    let mut stage = Stage::new(&CLERKS).await;
    let clerk = actor(&stage, "own");
    let (waiting, queued) =
        futures_util::join!(clerk.send(Do::WaitForEver), clerk.send_within(Note(5), LIMIT));
    assert_eq!((waiting, queued), (Ok(()), Ok(vec![5])));
    stage.until_is("own", State::Running, 2).await;
    assert_eq!(stage.node("own").last_exit.map(|exit| exit.reason), Some(ExitReason::Hung));
    stage.root.stop().await;
}

// --- starting and stopping ---

/// Ready, not ready or failing, as its counter of lives says.
#[derive(Default)]
struct Script {
    starts: AtomicU32,
    /// Lives from this one on fail to start.
    fails_from: AtomicU32,
    /// And until this one.
    fails_until: AtomicU32,
}

fn scripted(life: Life) -> Result<Started, StartError> {
    let script = life.env::<Script>();
    let n = script.starts.fetch_add(1, SeqCst) + 1;
    if n >= script.fails_from.load(SeqCst) && n < script.fails_until.load(SeqCst) {
        return Err(StartError::new("the script says no"));
    }
    obedient(life)
}

fn script(fails_from: u32, fails_until: u32) -> Env {
    Env::new().with(Script {
        starts: 0.into(),
        fails_from: fails_from.into(),
        fails_until: fails_until.into(),
    })
}

static SCRIPTED: Tree = Tree {
    name: "scripted",
    strategy: OneForOne,
    intensity: Intensity { restarts: 5, period: secs(60) },
    children: &[
        worker("before", obedient, Permanent, Within(secs(5))),
        worker("scripted", scripted, Permanent, Within(secs(5))).with_backoff(Backoff::NONE),
    ],
};

/// OTP: a supervisor whose child fails at first start fails itself, and stops those it had started.
#[actix::test]
async fn a_failed_first_start_is_the_callers_error_and_leaves_nothing() {
    let mut stage = Stage::empty(MANY).await;
    let error = stage.add(&SCRIPTED, script(1, 2)).await.expect_err("the first start fails");
    assert!(error.to_string().contains("the script says no"), "{error}");
    assert!(stage.find("").is_none(), "not in the tree");
    stage.drain();
    let before = stage.seen.iter().rfind(|t| t.path.ends_with("/before")).expect("it had started");
    assert_eq!(before.to, State::Stopped);
    stage.add(&SCRIPTED, script(9, 9)).await.expect("the name is free again");
    stage.root.stop().await;
}

/// Failed starts burn the budget as crashes do; within it, the child comes back.
#[actix::test]
async fn a_failed_restart_is_tried_again_and_burns_the_budget() {
    let mut stage = Stage::with(&SCRIPTED, script(2, 4)).await;
    stage.orders.give("scripted", How::Error);
    stage.until_is("scripted", State::Running, 4).await;
    assert_eq!(stage.state("before"), (State::Running, 1));
    stage.root.stop().await;

    let mut stage = Stage::with(&SCRIPTED, script(2, 7)).await;
    stage.orders.give("scripted", How::Error);
    stage.until("the supervisor gave up and came back", |stage| stage.state("") == (State::Running, 2)).await;
    assert_eq!(stage.node("").last_exit.map(|exit| exit.reason), Some(ExitReason::Intensity));
    stage.until_is("before", State::Running, 2).await;
    stage.root.stop().await;
}

fn never_ready(_: Life) -> Result<Started, StartError> {
    Ok(Started::task(std::future::pending()))
}

#[actix::test]
async fn a_child_that_is_not_ready_in_time_has_failed_to_start() {
    static TREE: Tree = Tree {
        name: "late",
        strategy: OneForOne,
        intensity: Intensity { restarts: 1, period: secs(5) },
        children: &[worker("late", never_ready, Permanent, Within(secs(5)))
            .with_start_deadline(Duration::from_millis(30))],
    };
    let error = Stage::empty(MANY).await.add(&TREE, Env::new()).await.expect_err("it never is");
    assert!(error.to_string().contains("start deadline"), "{error}");
}

/// Looks at `stopping`, and then takes its time.
fn stubborn(life: Life) -> Result<Started, StartError> {
    Ok(Started::task(async move {
        life.ready();
        life.stopping().await;
        std::future::pending().await
    }))
}

/// Never looks at `stopping`: there is nothing to wait for.
fn deaf(life: Life) -> Result<Started, StartError> {
    Ok(Started::task(async move {
        life.ready();
        std::future::pending().await
    }))
}

#[actix::test]
async fn each_child_has_its_shutdown_time_and_not_more() {
    static TREE: Tree = Tree {
        name: "ends",
        strategy: OneForOne,
        intensity: MANY,
        children: &[
            worker("stubborn", stubborn, Permanent, Within(Duration::from_millis(60))),
            worker("brutal", stubborn, Permanent, Brutal),
            worker("deaf", deaf, Permanent, Within(secs(600))),
        ],
    };
    let mut stage = Stage::new(&TREE).await;
    tokio::time::timeout(LIMIT, stage.root.stop()).await.expect("nobody waits for ten minutes");
    stage.drain();
    let ends: Vec<_> =
        stage.seen.iter().filter(|t| t.to == State::Stopped && t.path.matches('/').count() == 4).collect();
    let reasons: Vec<_> = ends
        .iter()
        .map(|t| (t.path.rsplit('/').next().unwrap_or_default(), t.exit.as_ref().map(|e| e.reason)))
        .collect();
    let shutdown = Some(ExitReason::Shutdown);
    assert_eq!(reasons, [("deaf", shutdown), ("brutal", shutdown), ("stubborn", Some(ExitReason::Hung))]);
}

/// Stopping while a restart is under way, in each of its stages, ends it for good.
#[actix::test]
async fn stop_in_mid_restart() {
    static TREE: Tree = Tree {
        name: "mid",
        strategy: OneForAll,
        intensity: MANY,
        children: &[
            worker("a", slow_to_stop, Permanent, Within(secs(5))),
            worker("b", slow_to_start, Permanent, Within(secs(5)))
                .with_backoff(Backoff { first: secs(60), max: secs(60) }),
        ],
    };
    type Reached = fn(&mut Stage) -> bool;
    let stages: [(&str, Reached); 3] = [
        ("stopping siblings", |stage| stage.state("a").0 == State::Stopping),
        ("starting", |stage| stage.state("b") == (State::Starting, 2)),
        ("waiting for the delay", |stage| stage.state("b") == (State::Restarting, 2)),
    ];
    for (what, reached) in stages {
        let mut stage = Stage::new(&TREE).await;
        stage.orders.give("b", How::Panic);
        if what == "waiting for the delay" {
            stage.until_is("b", State::Running, 2).await;
            stage.orders.give("b", How::Panic);
        }
        stage.until(what, reached).await;
        tokio::time::timeout(LIMIT, stage.root.stop()).await.expect(what);
        stage.drain();
        let states: Vec<_> = stage.node("").children.iter().map(|child| child.state).collect();
        assert_eq!(states, [State::Stopped, State::Stopped], "{what}");
    }
}

fn slow_to_stop(life: Life) -> Result<Started, StartError> {
    Ok(Started::task(async move {
        life.ready();
        life.stopping().await;
        tokio::time::sleep(Duration::from_millis(30)).await;
        Ok(())
    }))
}

fn slow_to_start(life: Life) -> Result<Started, StartError> {
    let orders = life.env::<Arc<support::Orders>>().as_ref().clone();
    Ok(Started::task(async move {
        tokio::time::sleep(Duration::from_millis(30)).await;
        life.ready();
        tokio::select! {
            () = life.stopping() => Ok(()),
            _ = orders.wait_for("b") => panic!("told to panic"),
        }
    }))
}

// --- escalation ---

#[actix::test]
async fn escalation_goes_up_level_by_level_and_at_the_top_the_process_is_told() {
    static LOW: Tree = Tree {
        name: "low",
        strategy: OneForOne,
        intensity: Intensity { restarts: 1, period: secs(60) },
        children: &[worker("x", obedient, Permanent, Within(secs(5))).with_backoff(Backoff::NONE)],
    };
    static HIGH: Tree = Tree {
        name: "high",
        strategy: RestForOne,
        intensity: Intensity { restarts: 1, period: secs(60) },
        children: &[
            worker("above", obedient, Permanent, Within(secs(5))),
            subtree("low", &LOW),
            worker("below", obedient, Permanent, Within(secs(5))),
        ],
    };
    let mut stage = Stage::empty(Intensity { restarts: 1, period: secs(60) }).await;
    stage.add(&HIGH, Env::new()).await.expect("starts");
    let mut lives = Vec::new();
    for _ in 0..64 {
        let before = stage.seen.iter().filter(|t| t.path.ends_with("/x") && t.exit.is_some()).count();
        stage.orders.give("x", How::Panic);
        let crashed = |stage: &mut Stage| {
            stage.seen.iter().filter(|t| t.path.ends_with("/x") && t.exit.is_some()).count() > before
        };
        stage.until("x crashed", crashed).await;
        stage
            .until("x runs, or all is over", |stage| {
                let snapshot = stage.root.snapshot();
                let x = stage.find("low/x").map(|x| x.state);
                snapshot.state == State::Stopped
                    || (x == Some(State::Running) && stage.state("below").0 == State::Running)
            })
            .await;
        if stage.root.snapshot().state == State::Stopped {
            break;
        }
        lives.push((stage.state("above").1, stage.state("low").1, stage.state("low/x").1, stage.state("").1));
    }
    // above, low, x and the instance: x alone, then low (and what is below it), then all of the instance, and so on.
    assert_eq!(lives[..4], [(1, 1, 2, 1), (1, 2, 3, 1), (1, 2, 4, 1), (2, 3, 5, 2)], "{lives:?}");
    let exited = tokio::time::timeout(LIMIT, stage.root.exited()).await.expect("the process is told");
    assert_eq!(exited, ExitReason::Intensity);
}

// --- hung threads ---

fn blocks_when_told(life: Life) -> Result<Started, StartError> {
    let orders = life.env::<Arc<support::Orders>>().as_ref().clone();
    let woke = life.env::<Woke>();
    Ok(Started::task(async move {
        life.ready();
        let _ = orders.wait_for("blocker").await;
        #[allow(clippy::disallowed_methods, reason = "the thread has to block")]
        std::thread::sleep(Duration::from_millis(1500));
        if life.is_revoked() {
            woke.0.fetch_add(1, SeqCst);
        }
        std::future::pending().await
    }))
}

/// Old lives that came back and saw that they were replaced.
#[derive(Clone, Default)]
struct Woke(Arc<AtomicUsize>);

/// The blocked thread is given up with all who lived on it; only the guilty one is counted.
#[actix::test]
async fn a_blocked_shared_arbiter_is_replaced_with_everybody_on_it() {
    const SOON: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(250));
    static TREE: Tree = Tree {
        name: "shared",
        strategy: OneForOne,
        intensity: Intensity { restarts: 1, period: secs(60) },
        children: &[
            worker("a", obedient, Permanent, Within(secs(5))).with_liveness(SOON.0, SOON.1),
            worker("blocker", blocks_when_told, Permanent, Within(secs(5))).with_liveness(SOON.0, SOON.1),
            worker("clerk", clerk, Permanent, Within(secs(5))).with_liveness(SOON.0, SOON.1),
            worker("elsewhere", obedient, Permanent, Within(secs(5))).on_own_arbiter(),
        ],
    };
    let mut stage = Stage::with(&TREE, Env::new().with(Woke::default())).await;
    stage.orders.give("blocker", How::Normal);
    let clerk = actor(&stage, "clerk");
    for id in ["a", "blocker", "clerk"] {
        stage.until_is(id, State::Running, 2).await;
        assert_eq!(stage.node(id).last_exit.map(|exit| exit.reason), Some(ExitReason::Hung), "{id}");
    }
    let text = stage.node("a").last_exit.map(|exit| exit.detail).unwrap_or_default();
    assert!(text.contains("/n/t/i/blocker"), "the guilty one is named: {text}");
    assert_eq!(clerk.send(Note(1)).await, Ok(vec![1]), "the reference is still good");
    assert_eq!(stage.state("elsewhere"), (State::Running, 1));
    assert_eq!(stage.state(""), (State::Running, 1), "one restart was counted, not three");
    stage.root.stop().await;
}

#[actix::test]
async fn a_life_that_was_replaced_finds_itself_revoked() {
    static TREE: Tree = Tree {
        name: "revoked",
        strategy: OneForOne,
        intensity: MANY,
        children: &[worker("blocker", blocks_when_told, Permanent, Within(secs(5)))
            .on_own_arbiter()
            .with_liveness(Duration::from_millis(20), Duration::from_millis(200))],
    };
    let woke = Woke::default();
    let mut stage = Stage::with(&TREE, Env::new().with(woke.clone())).await;
    stage.orders.give("blocker", How::Normal);
    stage.until_is("blocker", State::Running, 2).await;
    stage.until("the old life woke up", |_| woke.0.load(SeqCst) == 1).await;
    stage.root.stop().await;
}

// --- waiting ---

/// How long [`dependent`] may take to start, time spent waiting not counted.
const START: Duration = Duration::from_secs(1);

/// Fails as long as its dependency is down, then waits for it longer than a start may take.
fn dependent(life: Life) -> Result<Started, StartError> {
    let script = life.env::<Script>();
    let n = script.starts.fetch_add(1, SeqCst) + 1;
    Ok(Started::task(async move {
        life.waiting("the bus");
        if n < script.fails_until.load(SeqCst) {
            return Err(BoxError::from("connection refused"));
        }
        tokio::time::sleep(START + START / 4).await;
        life.ready();
        life.stopping().await;
        Ok(())
    }))
}

#[actix::test]
async fn waiting_burns_no_restarts() {
    static TREE: Tree = Tree {
        name: "waits",
        strategy: OneForOne,
        intensity: Intensity { restarts: 1, period: secs(3600) },
        children: &[
            worker("dependent", dependent, Permanent, Within(secs(5)))
                .with_backoff(Backoff { first: Duration::from_millis(1), max: Duration::from_millis(2) })
                .with_start_deadline(START),
            worker("after", obedient, Permanent, Within(secs(5))),
        ],
    };
    let mut stage = Stage::with(&TREE, script(0, 20)).await;
    stage.drain();
    assert_eq!(stage.state("dependent"), (State::Running, 20), "19 lives more than its intensity allows");
    assert_eq!(stage.state("after"), (State::Running, 1), "started once, when the one before was ready");
    assert!(stage.seen.iter().any(|t| t.to == State::Waiting && t.waiting_for.as_deref() == Some("the bus")));
    stage.root.stop().await;
}

// --- pools ---

#[actix::test]
async fn a_pool_grows_and_shrinks_while_it_runs() {
    static TREE: Tree = Tree {
        name: "pools",
        strategy: OneForOne,
        intensity: MANY,
        children: &[pool("workers", obedient, Permanent, Within(secs(5)))],
    };
    let mut stage = Stage::with(&TREE, Env::new().with(PoolSize("workers", 256))).await;
    let running = |stage: &mut Stage| {
        let pool = stage.node("workers");
        pool.children.iter().filter(|child| child.state == State::Running).count()
    };
    assert_eq!(running(&mut stage), 256);
    let workers = stage.root.pool("/n/t/i/workers").expect("is there");
    workers.resize(3);
    stage.until("three", |stage| stage.node("workers").children.len() == 3).await;
    let names: Vec<_> = stage.node("workers").children.into_iter().map(|child| child.path).collect();
    assert_eq!(names, ["/n/t/i/workers/workers-1", "/n/t/i/workers/workers-2", "/n/t/i/workers/workers-3"]);
    assert_eq!(stage.node("workers").children[0].incarnation, 1, "the others are left alone");
    for size in [5, 2, 7, 4] {
        workers.resize(size); // also while the one before is under way
    }
    assert_eq!(workers.size(), 4);
    stage.until("four", |stage| stage.node("workers").children.len() == 4 && running(stage) == 4).await;
    workers.resize(0);
    stage.until("none", |stage| stage.node("workers").children.is_empty()).await;
    workers.resize(2);
    stage.until("two", |stage| running(stage) == 2).await;
    stage.orders.give("workers-2", How::Panic);
    stage.until_is("workers/workers-2", State::Running, 2).await;
    stage.root.stop().await;
}

// --- faults ---

#[actix::test]
async fn a_fault_ends_by_itself_and_when_cleared() {
    let mut stage = Stage::new(&CLERKS).await;
    let clerk = actor(&stage, "same");
    let slow = Intervention::Slow(Duration::from_millis(60));
    assert_eq!(stage.root.intervene("**/same", slow, clock::now() + secs(60)), ["/n/t/i/same"]);
    assert_eq!(stage.node("same").faults, ["slow"]);
    let from = clock::now();
    clerk.send(Note(1)).await.expect("slow, not down");
    assert!(from.elapsed() >= Duration::from_millis(55), "{:?}", from.elapsed());
    let _ = clerk.send(Do::Panic).await;
    stage.until_is("same", State::Running, 2).await;
    assert_eq!(stage.node("same").faults, ["slow"], "holds over a restart");
    stage.root.clear("**");
    assert_eq!(stage.node("same").faults, [""; 0]);
    let hang_until = clock::now() + Duration::from_millis(80);
    stage.root.intervene("/n/t/i/*", Intervention::Hang, hang_until);
    for id in ["same", "own"] {
        actor(&stage, id).send_within(Note(2), LIMIT).await.expect("it ends by itself");
        assert!(clock::now() >= hang_until, "{id}");
    }
    stage.root.stop().await;
}
