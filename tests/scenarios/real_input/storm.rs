//! What is killed, when, and how long it was away.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand::rngs::StdRng;
use teststack::{TestStack, random_worker};

/// A child of any tier.
const CHILD_EVERY: Duration = Duration::from_millis(500);
/// The primary database replica, or a whole node.
const BIG_EVERY: Duration = Duration::from_secs(5);
/// Faults on children, in turn.
const KINDS: [&str; 3] = ["panic", "hang", "exit"];

/// What there is to kill.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Victims {
    /// Children; the primary replica every 5 s; the process twice.
    ChildrenAndTheProcess,
    /// Children; a node every 5 s; the broker once.
    ChildrenNodesAndTheBroker,
}

/// Kills things for some time.
pub struct Storm {
    pub stack: TestStack,
    pub report: Report,
    victims: Victims,
    ends: Instant,
    lasts: Duration,
    rng: StdRng,
}

impl Storm {
    pub fn new(stack: TestStack, victims: Victims, lasts: Duration) -> Self {
        let seed = rand::random();
        let report = Report { seed, ..Report::default() };
        Self { stack, victims, report, ends: clock::now() + lasts, lasts, rng: StdRng::seed_from_u64(seed) }
    }

    /// Kills until the time is over.
    pub async fn rage(mut self) -> Self {
        let began = clock::now();
        let mut child = tokio::time::interval(CHILD_EVERY);
        child.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut big_at, mut strikes, mut kills) = (began + BIG_EVERY, 0, 0);
        while clock::now() < self.ends {
            child.tick().await;
            self.strike_child(KINDS[kills % KINDS.len()]).await;
            kills += 1;
            if clock::now() >= big_at {
                strikes += 1;
                let began = clock::now();
                self.strike_big(strikes).await;
                // What starts again slowly on a busy machine takes nothing from the rest of the storm.
                self.ends += clock::now() - began;
                big_at = clock::now() + BIG_EVERY;
            }
        }
        self
    }

    async fn strike_child(&mut self, kind: &'static str) {
        self.nodes_live();
        let Ok(tree) = self.stack.tree().await else { return self.report.unreachable += 1 };
        let Some(path) = random_worker(&tree, &mut self.rng) else { return self.report.unreachable += 1 };
        match self.stack.inject(&path, kind, Duration::from_secs(10)).await {
            Ok(hit) if !hit.is_empty() => {
                let tier = path.split('/').nth(2).unwrap_or("?").to_owned();
                *self.report.children.entry((tier, kind)).or_default() += 1;
            }
            _ => self.report.unreachable += 1,
        }
    }

    /// Every 5 s: twice in a run the process or once the broker, otherwise the primary or a node.
    async fn strike_big(&mut self, n: u32) {
        let all = u32::try_from(self.lasts.as_secs() / BIG_EVERY.as_secs()).expect("small");
        match self.victims {
            Victims::ChildrenAndTheProcess if n == all / 3 || n == all * 2 / 3 => self.kill_node(0).await,
            Victims::ChildrenAndTheProcess => self.kill_primary().await,
            Victims::ChildrenNodesAndTheBroker if n == all / 2 => {
                let broker = self.stack.broker.as_mut().expect("it runs on RabbitMQ");
                let away = broker.restart().await;
                self.report.away.push(("the broker".to_owned(), away));
            }
            Victims::ChildrenNodesAndTheBroker => {
                // Each in turn, so that every tier is hit also in a short run; the primary is among them.
                let order = [0, 5, 3, 1, 6, 4, 2, 7];
                self.kill_node(order[usize::try_from(n).expect("small") % order.len()]).await;
            }
        }
    }

    /// Of the jobs' database, on which everything here stands; every third time of the clients'.
    async fn kill_primary(&mut self) {
        let found = match self.report.primaries % 3 {
            2 => self.stack.primary().await,
            _ => self.stack.jobs_primary().await,
        };
        let Ok(primary) = found else { return self.report.unreachable += 1 };
        match self.stack.inject(&format!("/*/database/{primary}/**"), "panic", Duration::from_secs(5)).await {
            Ok(hit) if !hit.is_empty() => self.report.primaries += 1,
            _ => self.report.unreachable += 1,
        }
    }

    /// `kill -9`, and starts it again at once.
    async fn kill_node(&mut self, n: usize) {
        let node = &mut self.stack.nodes[n];
        node.note("killed with -9");
        node.kill();
        node.start();
        let away = node.ready(Duration::from_secs(60)).await;
        self.report.away.push((node.name.clone(), away));
    }

    /// Nobody but the storm may end a node.
    fn nodes_live(&mut self) {
        for node in &mut self.stack.nodes {
            if let Some(status) = node.ended() {
                panic!("{} ended by itself with {status}", node.name);
            }
        }
    }
}

/// What was killed.
#[derive(Default)]
pub struct Report {
    seed: u64,
    children: BTreeMap<(String, &'static str), u32>,
    primaries: u32,
    away: Vec<(String, Duration)>,
    unreachable: u32,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "killed (seed {}):", self.seed)?;
        for ((tier, kind), count) in &self.children {
            writeln!(f, "  {count:4} × {kind} of a child of {tier}")?;
        }
        if self.primaries > 0 {
            writeln!(f, "  {:4} × the whole primary replica of a database", self.primaries)?;
        }
        for (name, away) in &self.away {
            writeln!(f, "     1 × {name} with kill -9, ready again after {away:.1?}")?;
        }
        write!(
            f,
            "  {:4} more not set, because the operating API or the child was away itself",
            self.unreachable
        )
    }
}
