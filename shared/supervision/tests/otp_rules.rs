//! OTP's rules, for every strategy and restart type: a live tree against a small model of `supervisor.erl`.
//!
//! The model keeps one list of children, and knows nothing of lives, threads, operations or delays.

mod support;

use std::time::Duration;

use proptest::prelude::{Just, ProptestConfig, prop_oneof, proptest};
use proptest::strategy::Strategy as Strategy_;
use supervision::Restart::{Permanent, Temporary, Transient};
use supervision::Shutdown::Within;
use supervision::Strategy::{OneForAll, OneForOne, RestForOne};
use supervision::view::State;
use supervision::{Backoff, Child, Intensity, Restart, Strategy, Tree, secs, worker};
use support::{How, Stage, obedient};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// What `supervisor.erl` keeps of a child: whether it is alive, and here also how often it was started.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ModelChild {
    restart: Restart,
    alive: bool,
    starts: u64,
}

/// `supervisor.erl`, `handle_info({'EXIT', …})` and on, in words of one syllable.
struct Model {
    strategy: Strategy,
    allowed: usize,
    restarts: usize,
    children: Vec<ModelChild>,
    /// The supervisor's own lives: it gives up, and its parent starts it again.
    lives: u64,
}

impl Model {
    fn new(strategy: Strategy, allowed: usize, types: &[Restart]) -> Self {
        let children = types.iter().map(|&restart| ModelChild { restart, alive: true, starts: 1 }).collect();
        Self { strategy, allowed, restarts: 0, children, lives: 1 }
    }

    fn exit(&mut self, at: usize, how: How) {
        self.children[at].alive = false;
        let restart = match self.children[at].restart {
            Permanent => true,
            Transient => how != How::Normal,
            Temporary => false,
        };
        if !restart {
            return;
        }
        self.restarts += 1;
        if self.restarts > self.allowed {
            return self.give_up();
        }
        let first = match self.strategy {
            OneForOne => return self.start(at),
            OneForAll => 0,
            RestForOne => at,
        };
        for index in first..self.children.len() {
            // terminate_children removes temporary children, start_children starts all that are left,
            // those that had ended normally among them.
            if self.children[index].restart == Temporary {
                self.children[index].alive = false;
            } else {
                self.start(index);
            }
        }
    }

    fn give_up(&mut self) {
        self.lives += 1;
        self.restarts = 0;
        (0..self.children.len()).for_each(|index| self.start(index));
    }

    fn start(&mut self, at: usize) {
        self.children[at].alive = true;
        self.children[at].starts += 1;
    }
}

fn tree(strategy: Strategy, allowed: u32, types: &[Restart]) -> &'static Tree {
    let row = |(index, &restart): (usize, &Restart)| {
        worker(NAMES[index], obedient, restart, Within(secs(5))).with_backoff(Backoff::NONE)
    };
    let children: Vec<Child> = types.iter().enumerate().map(row).collect();
    Box::leak(Box::new(Tree {
        name: "model",
        strategy,
        intensity: Intensity { restarts: allowed, period: secs(3600) },
        children: Box::leak(children.into_boxed_slice()), // a table is static
    }))
}

fn observed(stage: &Stage) -> (u64, Vec<(State, u64)>) {
    let instance = stage.node("");
    (instance.incarnation, instance.children.iter().map(|child| (child.state, child.incarnation)).collect())
}

fn expected(model: &Model) -> (u64, Vec<(State, u64)>) {
    let state = |child: &ModelChild| if child.alive { State::Running } else { State::Stopped };
    (model.lives, model.children.iter().map(|child| (state(child), child.starts)).collect())
}

/// Plays `exits` on a live tree and on the model, and compares after each.
async fn play(strategy: Strategy, allowed: u32, types: &[Restart], exits: &[(usize, How)]) {
    let mut stage = Stage::new(tree(strategy, allowed, types)).await;
    let mut model = Model::new(strategy, allowed as usize, types);
    for &(at, how) in exits {
        if !model.children[at].alive {
            continue;
        }
        model.exit(at, how);
        stage.orders.give(NAMES[at], how);
        let what =
            format!("{strategy:?} {types:?}, {how:?} of {}: expected {:?}", NAMES[at], expected(&model));
        stage.until(&what, |stage| observed(stage) == expected(&model)).await;
    }
    stage.root.stop().await;
}

/// Each strategy × restart type × way to end, with a permanent sibling before and after.
#[actix::test]
async fn each_strategy_and_restart_type_as_otp_does() {
    for strategy in [OneForOne, OneForAll, RestForOne] {
        for restart in [Permanent, Transient, Temporary] {
            for how in [How::Normal, How::Error, How::Panic] {
                play(strategy, 10, &[Permanent, restart, Permanent], &[(1, how), (0, how), (2, how)]).await;
            }
        }
    }
}

#[actix::test]
async fn one_restart_too_many_ends_the_supervisor_and_its_parent_starts_it_again() {
    for strategy in [OneForOne, OneForAll, RestForOne] {
        let exits = [(1, How::Error); 7];
        play(strategy, 2, &[Permanent, Permanent, Transient], &exits).await;
    }
}

fn any_exit() -> impl Strategy_<Value = (usize, How)> {
    (0..4_usize, prop_oneof![Just(How::Normal), Just(How::Error), Just(How::Panic)])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_exits_end_as_in_otp(
        strategy in prop_oneof![Just(OneForOne), Just(OneForAll), Just(RestForOne)],
        types in proptest::collection::vec(prop_oneof![Just(Permanent), Just(Transient), Just(Temporary)], 4),
        allowed in 1..5_u32,
        exits in proptest::collection::vec(any_exit(), 1..25),
    ) {
        actix::System::new().block_on(play(strategy, allowed, &types, &exits));
    }
}

/// The delay is ours, OTP has none: none before the first restart, then growing ones.
#[actix::test]
async fn the_first_restart_is_at_once_and_later_ones_wait() {
    static TREE: Tree = Tree {
        name: "backoff",
        strategy: OneForOne,
        intensity: Intensity { restarts: 10, period: secs(60) },
        children: &[worker("a", obedient, Permanent, Within(secs(5)))
            .with_backoff(Backoff { first: Duration::from_millis(40), max: Duration::from_millis(80) })],
    };
    let mut stage = Stage::new(&TREE).await;
    let mut recovered = Vec::new();
    for incarnation in 2..=4 {
        stage.orders.give("a", How::Panic);
        stage.until_is("a", State::Running, incarnation).await;
        let last = stage.seen.iter().rev().find_map(|t| t.recovered_us);
        recovered.push(last.expect("a restart tells how long it took"));
    }
    assert!(recovered[1] >= 20_000, "half of 40 ms at least: {recovered:?}");
    assert!(recovered[2] >= 40_000, "half of 80 ms at least: {recovered:?}");
    assert!(recovered[0] < recovered[1], "{recovered:?}");
    stage.root.stop().await;
}
