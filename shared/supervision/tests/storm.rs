//! Random faults on a nested tree, many at a time, while pools are resized. What must hold is read from the events.

mod support;

use std::collections::HashMap;
use std::time::Duration;

use proptest::prelude::{ProptestConfig, any, prop_oneof, proptest};
use proptest::strategy::{Just, Strategy as _};
use supervision::Restart::{Permanent, Transient};
use supervision::Shutdown::{Brutal, Within};
use supervision::Strategy::{OneForAll, OneForOne, RestForOne};
use supervision::view::{State, Transition};
use supervision::{
    Backoff, Child, Env, Intensity, Intervention, Life, PoolSize, StartError, Started, Tree, pool, secs,
    subtree, worker,
};
use support::{MANY, Stage};

const QUICK: Backoff = Backoff { first: Duration::from_millis(1), max: Duration::from_millis(5) };

/// Ready after a moment, sometimes waiting first; stops after a moment; starts badly now and then.
fn moody(life: Life) -> Result<Started, StartError> {
    let mood = life.incarnation().wrapping_mul(31) ^ life.path().len() as u64;
    if mood % 7 == 3 && life.incarnation() > 1 {
        return Err(StartError::new("in a bad mood"));
    }
    Ok(Started::task(async move {
        tokio::time::sleep(Duration::from_micros(mood % 5 * 300)).await;
        if mood.is_multiple_of(3) {
            life.waiting("the sun");
            tokio::time::sleep(Duration::from_micros(300)).await;
        }
        life.ready();
        let linked = life.clone();
        life.spawn_linked(async move { linked.stopping().await });
        life.stopping().await;
        tokio::time::sleep(Duration::from_micros(mood % 4 * 500)).await;
        Ok(())
    }))
}

const fn child(id: &'static str) -> Child {
    worker(id, moody, Permanent, Within(secs(5)))
        .with_backoff(QUICK)
        .with_liveness(Duration::from_millis(20), Duration::from_millis(400))
}

static ALL: Tree = Tree {
    name: "all",
    strategy: OneForAll,
    intensity: Intensity { restarts: 4, period: Duration::from_millis(50) },
    children: &[child("a1"), child("a2").on_own_arbiter(), child("a3")],
};

static REST: Tree = Tree {
    name: "rest",
    strategy: RestForOne,
    intensity: Intensity { restarts: 6, period: Duration::from_millis(50) },
    children: &[
        child("r1"),
        subtree("all", &ALL),
        pool("p", moody, Permanent, Brutal).with_backoff(QUICK),
        worker("r4", moody, Transient, Within(secs(5))).with_backoff(QUICK).on_own_arbiter(),
        child("r5"),
    ],
};

static TOP: Tree = Tree {
    name: "top",
    strategy: OneForOne,
    intensity: Intensity { restarts: 10, period: Duration::from_millis(50) },
    children: &[child("o1").on_own_arbiter(), subtree("rest", &REST), child("o3")],
};

/// Who is ordered among each other: the children of `rest` and of `all`, first to last.
const ORDERED: [&[&str]; 2] = [
    &["/n/t/i/rest/r1", "/n/t/i/rest/all", "/n/t/i/rest/p", "/n/t/i/rest/r4", "/n/t/i/rest/r5"],
    &["/n/t/i/rest/all/a1", "/n/t/i/rest/all/a2", "/n/t/i/rest/all/a3"],
];

/// Follows the events, and fails at the first that must not be.
#[derive(Default)]
struct Judge {
    state: HashMap<String, State>,
    incarnation: HashMap<String, u64>,
    /// Has been ready in its present life.
    up: HashMap<String, bool>,
    last_id: u64,
}

impl Judge {
    fn see(&mut self, t: &Transition) {
        assert!(t.id > self.last_id, "events come in order");
        self.last_id = t.id;
        if !t.path.starts_with("/n/t/i") {
            return; // had started before we listened
        }
        let before = *self.state.get(&t.path).unwrap_or(&State::Stopped);
        assert_eq!(t.from, before, "no transition is missing: {t:?}");
        let life = self.incarnation.entry(t.path.clone()).or_insert(t.incarnation.saturating_sub(1));
        if t.to == State::Starting {
            if t.path.contains("/p/") && before == State::Stopped && t.incarnation == 1 {
                *life = 0; // another one: the pool had shrunk, and grows again
            }
            assert_eq!(t.incarnation, *life + 1, "one life after the other: {t:?}");
            *life = t.incarnation;
            assert!(matches!(before, State::Stopped | State::Restarting), "{t:?}");
            self.earlier_siblings_are_up(t);
        } else {
            assert_eq!(t.incarnation, *life, "{t:?}");
        }
        if let Some(exit) = &t.exit {
            assert!(matches!(t.to, State::Restarting | State::Stopped), "an end is an end: {t:?}");
            assert!(exit.detail.len() < 3000, "reports are capped");
        }
        self.up.insert(
            t.path.clone(),
            t.to == State::Running || (t.to == State::Waiting && self.is_up(&t.path)),
        );
        self.state.insert(t.path.clone(), t.to);
    }

    fn is_up(&self, path: &str) -> bool {
        self.up.get(path).copied().unwrap_or(false)
    }

    /// Each starts when those before it are ready, or have ended for good (`r4` may).
    fn earlier_siblings_are_up(&self, t: &Transition) {
        for siblings in ORDERED {
            for earlier in siblings.iter().take_while(|path| **path != t.path) {
                if siblings.contains(&t.path.as_str()) {
                    let state = self.state.get(*earlier);
                    assert!(
                        self.is_up(earlier) || (earlier.ends_with("r4") && state == Some(&State::Stopped)),
                        "{} starts while {earlier} is {state:?}",
                        t.path
                    );
                }
            }
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Blow {
    Fault(&'static str, Intervention),
    Resize(usize),
    Pause(u64),
}

fn any_blow() -> impl proptest::strategy::Strategy<Value = Blow> {
    let targets = [
        "o1",
        "o3",
        "rest/r1",
        "rest/all/a1",
        "rest/all/a2",
        "rest/p/p-1",
        "rest/r4",
        "rest/r5",
        "**",
        "rest/**",
    ];
    let fault = prop_oneof![
        4 => Just(Intervention::Panic),
        3 => Just(Intervention::Exit),
        2 => Just(Intervention::Stop),
        1 => Just(Intervention::Hang),
        1 => Just(Intervention::Slow(Duration::from_millis(3))),
    ];
    prop_oneof![
        8 => (0..targets.len(), fault).prop_map(move |(at, fault)| Blow::Fault(targets[at], fault)),
        1 => (0..9_usize).prop_map(Blow::Resize),
        6 => (0..4000_u64).prop_map(Blow::Pause),
    ]
}

async fn storm(blows: &[Blow], stop_at_once: bool) {
    let mut stage = Stage::empty(MANY).await;
    stage.add(&TOP, Env::new().with(PoolSize("p", 4))).await.expect("starts");
    let mut judge = Judge::default();
    for blow in blows {
        match *blow {
            Blow::Fault(target, fault) => {
                let until = clock::now() + Duration::from_millis(300);
                stage.root.intervene(&format!("/n/t/i/{target}"), fault, until);
            }
            Blow::Resize(size) => {
                if let Some(pool) = stage.root.pool("/n/t/i/rest/p") {
                    pool.resize(size);
                }
            }
            Blow::Pause(us) => tokio::time::sleep(Duration::from_micros(us)).await,
        }
        stage.drain();
    }
    if !stop_at_once {
        stage.root.clear("**");
        stage.until("all run again", all_run).await;
    }
    tokio::time::timeout(support::LIMIT, stage.root.stop()).await.expect("stops in time");
    stage.drain();
    stage.seen.iter().for_each(|transition| judge.see(transition));
    let left: Vec<_> = judge.state.iter().filter(|(_, state)| **state != State::Stopped).collect();
    assert!(left.is_empty(), "after the stop nothing lives: {left:?}");
}

fn all_run(stage: &mut Stage) -> bool {
    let paths = ["o1", "o3", "rest/r1", "rest/all/a1", "rest/all/a2", "rest/all/a3", "rest/r5", "rest", ""];
    let up = |node: supervision::view::Node| matches!(node.state, State::Running);
    let pool = stage.find("rest/p").is_some_and(|pool| pool.children.into_iter().all(up));
    pool && paths.iter().all(|path| stage.find(path).is_some_and(up))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_storm_of_faults_ends_in_a_whole_tree_or_a_clean_stop(
        blows in proptest::collection::vec(any_blow(), 1..60),
        stop_at_once in any::<bool>(),
    ) {
        actix::System::new().block_on(storm(&blows, stop_at_once));
    }
}
