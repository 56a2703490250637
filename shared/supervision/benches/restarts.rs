//! Crash → replacement answers, and restarts per second. `infra/bench/supervision` runs it beside Erlang/OTP doing
//! the same (`infra/bench/supervision.escript`) and prints the ratios.
//!
//! Output: one line per case, `case p50_us p99_us` or `case value`.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use actix::{Actor, Context, Handler, Message};
use supervision::Restart::Permanent;
use supervision::Shutdown::Within;
use supervision::Strategy::{OneForAll, OneForOne};
use supervision::{
    ActorRef, Backoff, Child, Env, Intensity, Life, PoolSize, Root, RootOptions, StartError, Started, Tree,
    pool, secs, worker,
};
use tokio::sync::oneshot;

/// Crashes measured per case.
const ROUNDS: usize = 20_000;

struct Worker;
impl Actor for Worker {
    type Context = Context<Self>;
}

#[derive(Message)]
#[rtype(result = "u32")]
struct Ask;

#[derive(Message)]
#[rtype(result = "()")]
struct Crash;

impl Handler<Ask> for Worker {
    type Result = u32;
    fn handle(&mut self, _: Ask, _: &mut Self::Context) -> u32 {
        1
    }
}

impl Handler<Crash> for Worker {
    type Result = ();
    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("crash");
    }
}

fn start(_: Life) -> Result<Started, StartError> {
    Ok(Started::actor(Worker))
}

/// Sends itself a crash as soon as it runs, as often as the fuse allows.
struct Bomb {
    me: ActorRef<Bomb>,
    fuse: Arc<Fuse>,
}

struct Fuse {
    lives: AtomicU32,
    burnt: Mutex<Option<oneshot::Sender<Instant>>>,
}

impl Actor for Bomb {
    type Context = Context<Self>;
    fn started(&mut self, _: &mut Self::Context) {
        if self.fuse.lives.fetch_sub(1, Relaxed) > 1 {
            self.me.try_send(Crash).expect("there is room");
        } else if let Some(burnt) = self.fuse.burnt.lock().expect("one thread").take() {
            let _ = burnt.send(clock::now());
        }
    }
}

impl Handler<Crash> for Bomb {
    type Result = ();
    fn handle(&mut self, _: Crash, _: &mut Self::Context) {
        panic!("crash");
    }
}

fn bomb(life: Life) -> Result<Started, StartError> {
    Ok(Started::actor(Bomb { me: life.sibling("bomb"), fuse: life.env() }))
}

const fn quick(id: &'static str) -> Child {
    worker(id, start, Permanent, Within(secs(5))).with_backoff(Backoff::NONE)
}

const MANY: Intensity = Intensity { restarts: u32::MAX, period: secs(1) };

static ALONE: Tree = Tree { name: "alone", strategy: OneForOne, intensity: MANY, children: &[quick("w-1")] };
static OWN: Tree =
    Tree { name: "own", strategy: OneForOne, intensity: MANY, children: &[quick("w-1").on_own_arbiter()] };
static ALL: Tree = Tree {
    name: "all",
    strategy: OneForAll,
    intensity: MANY,
    children: &[
        quick("w-1"),
        quick("w-2"),
        quick("w-3"),
        quick("w-4"),
        quick("w-5"),
        quick("w-6"),
        quick("w-7"),
        quick("w-8"),
        quick("w-9"),
        quick("w-10"),
    ],
};
static BOMBS: Tree = Tree {
    name: "bombs",
    strategy: OneForOne,
    intensity: MANY,
    children: &[worker("bomb", bomb, Permanent, Within(secs(5))).with_backoff(Backoff::NONE)],
};

/// Crashes the first, then asks the first and the last of them until both replacements have answered.
async fn crash_and_ask(first: ActorRef<Worker>, last: Option<ActorRef<Worker>>, rounds: usize) -> Vec<u64> {
    let mut times = Vec::with_capacity(rounds);
    let warm_up = rounds / 10;
    for round in 0..rounds + warm_up {
        let from = clock::now();
        first.try_send(Crash).expect("there is room");
        assert_eq!(first.send(Ask).await, Ok(1));
        if let Some(last) = &last {
            assert_eq!(last.send(Ask).await, Ok(1));
        }
        if round >= warm_up {
            times.push(u64::try_from(from.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
    }
    times
}

fn report(case: &str, mut times: Vec<u64>) {
    times.sort_unstable();
    let at = |permille: usize| times[(times.len() - 1) * permille / 1000] as f64 / 1000.0;
    println!("{case} {:.1} {:.1}", at(500), at(990));
}

/// Measures on the victims' own arbiter (`beside`), or from another thread.
async fn latency(root: &Root, case: &str, tree: &'static Tree, rounds: usize, beside: bool) {
    root.add_instance("bench", case, tree, Env::new()).await.expect("starts");
    let worker = |id: &str| root.actor::<Worker>(&format!("/n/bench/{case}/{id}"));
    let (first, last) = (worker("w-1").expect("is there"), worker("w-10"));
    let times = if beside {
        let (done, times) = oneshot::channel();
        first.try_send(Measure { first: first.clone(), last, rounds, done }).expect("there is room");
        times.await.expect("measured")
    } else {
        crash_and_ask(first, last, rounds).await
    };
    report(case, times);
    root.remove_instance("bench", case).await;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Measure {
    first: ActorRef<Worker>,
    last: Option<ActorRef<Worker>>,
    rounds: usize,
    done: oneshot::Sender<Vec<u64>>,
}

impl Handler<Measure> for Worker {
    type Result = ();
    fn handle(&mut self, measure: Measure, _: &mut Self::Context) {
        let Measure { first, last, rounds, done } = measure;
        // A plain task of this arbiter, not linked to the actor: it has to outlive it.
        actix::spawn(async move {
            let _ = done.send(crash_and_ask(first, last, rounds).await);
        });
    }
}

async fn restarts_per_second(root: &Root, lives: u32) {
    let (burnt, done) = oneshot::channel();
    let fuse = Fuse { lives: lives.into(), burnt: Mutex::new(Some(burnt)) };
    let from = clock::now();
    root.add_instance("bench", "bombs", &BOMBS, Env::new().with(fuse)).await.expect("starts");
    let took = done.await.expect("burnt") - from;
    println!("restarts_per_second {:.0}", f64::from(lives) / took.as_secs_f64());
    root.remove_instance("bench", "bombs").await;
}

/// CPU this process has used, in clock ticks of 10 ms, and its resident memory in bytes.
fn used() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<u64> = stat.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
    (fields[13] + fields[14], fields[23] * 4096)
}

static POOL: Tree = Tree {
    name: "pool",
    strategy: OneForOne,
    intensity: MANY,
    children: &[pool("w", start, Permanent, Within(secs(5)))],
};

/// What `count` children that have nothing to do cost, with the default liveness checks.
async fn idle(root: &Root, count: usize) {
    let before = used();
    root.add_instance("bench", "idle", &POOL, Env::new().with(PoolSize("w", count))).await.expect("starts");
    let started = used();
    tokio::time::sleep(secs(5)).await;
    let percent = (used().0 - started.0) as f64 / 5.0; // 100 ticks a second are 100 %
    println!("idle_percent_of_a_core_{count} {percent:.2}");
    println!("bytes_per_actor_{count} {}", (started.1 - before.1) / count as u64);
    root.remove_instance("bench", "idle").await;
}

/// A question and its answer on one arbiter, without any crash.
async fn round_trips(root: &Root) {
    root.add_instance("bench", "asks", &ALONE, Env::new()).await.expect("starts");
    let actor = root.actor::<Worker>("/n/bench/asks/w-1").expect("is there");
    let (done, took) = oneshot::channel();
    actor.try_send(Asks { actor: actor.clone(), done }).expect("there is room");
    println!("ask_ns_same_arbiter {}", took.await.expect("measured"));
    root.remove_instance("bench", "asks").await;
}

#[derive(Message)]
#[rtype(result = "()")]
struct Asks {
    actor: ActorRef<Worker>,
    done: oneshot::Sender<u64>,
}

impl Handler<Asks> for Worker {
    type Result = ();
    fn handle(&mut self, Asks { actor, done }: Asks, _: &mut Self::Context) {
        actix::spawn(async move {
            let from = clock::now();
            for _ in 0..200_000 {
                assert_eq!(actor.send(Ask).await, Ok(1));
            }
            let _ = done.send(u64::try_from(from.elapsed().as_nanos()).unwrap_or(u64::MAX) / 200_000);
        });
    }
}

fn main() {
    actix::System::new().block_on(async {
        let root = Root::start("n", RootOptions::default());
        root.add_tier("bench", MANY).await;
        latency(&root, "one_for_one_same_arbiter", &ALONE, ROUNDS, true).await;
        latency(&root, "one_for_one_own_arbiter", &OWN, ROUNDS / 4, false).await;
        latency(&root, "one_for_all_10", &ALL, ROUNDS / 4, true).await;
        restarts_per_second(&root, 200_000).await;
        round_trips(&root).await;
        idle(&root, 300).await;
        root.stop().await;
    });
}
