//! What a supervision tree is made of: the static table a tier writes, and the check it passes before it starts.

use std::collections::HashSet;
use std::time::Duration;

use crate::life::Life;
use crate::start::{StartError, Started};

/// Starts one life of a child. Runs on the child's arbiter, once per life, and must not block it:
/// what takes long belongs into the task or into [`Life::blocking`].
pub type StartFn = fn(Life) -> Result<Started, StartError>;

/// A supervisor and its children, as one static table.
#[derive(Debug)]
pub struct Tree {
    /// Name for people; the last part of the path is the instance's, not this.
    pub name: &'static str,
    /// Who else restarts when one child does.
    pub strategy: Strategy,
    /// How many restarts are too many.
    pub intensity: Intensity,
    /// Started first to last, stopped last to first.
    pub children: &'static [Child],
}

/// Who else restarts when one child does (OTP's words).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strategy {
    /// Nobody else.
    OneForOne,
    /// Everybody.
    OneForAll,
    /// Those started after it.
    RestForOne,
}

impl Strategy {
    /// As shown in the tree: `one_for_one`, …
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OneForOne => "one_for_one",
            Self::OneForAll => "one_for_all",
            Self::RestForOne => "rest_for_one",
        }
    }
}

/// Which ends of a child lead to another life (OTP's words).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Restart {
    /// Every end.
    Permanent,
    /// Every end but `normal` and `shutdown`.
    Transient,
    /// None; not even when the strategy restarts its siblings.
    Temporary,
}

/// How long a child may take to stop when asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shutdown {
    /// None: it is dropped at once.
    Brutal,
    /// That long, then it is killed.
    Within(Duration),
    /// As long as it takes; what every supervisor has.
    Infinity,
}

/// A supervisor gives up when more than `restarts` happen within `period`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// Restarts allowed within `period`; at least 1.
    pub restarts: u32,
    /// The sliding window.
    pub period: Duration,
}

/// Delay before a restart. The first is at once; the n-th after it waits `first · 2^(n-1)`, at most `max`,
/// with up to half of it taken off at random. A life longer than the supervisor's period starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Before the second restart in a row.
    pub first: Duration,
    /// The longest delay.
    pub max: Duration,
}

impl Backoff {
    /// 10 ms, doubling up to 1 s.
    pub const DEFAULT: Self = Self { first: Duration::from_millis(10), max: Duration::from_secs(1) };
    /// Every restart at once, as OTP does.
    pub const NONE: Self = Self { first: Duration::ZERO, max: Duration::ZERO };
}

/// One row of a [`Tree`]. Made by [`worker`], [`subtree`] and [`pool`].
#[derive(Clone, Copy, Debug)]
pub struct Child {
    pub(crate) id: &'static str,
    pub(crate) what: What,
    pub(crate) restart: Restart,
    pub(crate) shutdown: Shutdown,
    pub(crate) own_arbiter: bool,
    pub(crate) ping: Duration,
    pub(crate) deadline: Duration,
    pub(crate) start_deadline: Duration,
    pub(crate) mailbox: usize,
    pub(crate) backoff: Backoff,
    pub(crate) intensity: Option<Intensity>,
}

#[derive(Clone, Copy)]
pub(crate) enum What {
    Worker(StartFn),
    Pool(StartFn),
    Subtree(&'static Tree),
}

impl std::fmt::Debug for What {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Worker(_) => "worker",
            Self::Pool(_) => "pool",
            Self::Subtree(_) => "subtree",
        })
    }
}

const fn row(id: &'static str, what: What, restart: Restart, shutdown: Shutdown) -> Child {
    Child {
        id,
        what,
        restart,
        shutdown,
        own_arbiter: false,
        ping: Duration::from_millis(500),
        deadline: secs(2),
        start_deadline: secs(30),
        mailbox: 256,
        backoff: Backoff::DEFAULT,
        intensity: None,
    }
}

/// A child that does work: an actor or a task.
#[must_use]
pub const fn worker(id: &'static str, start: StartFn, restart: Restart, shutdown: Shutdown) -> Child {
    row(id, What::Worker(start), restart, shutdown)
}

/// A supervisor below this one. Permanent; has all the time it needs to stop.
#[must_use]
pub const fn subtree(id: &'static str, tree: &'static Tree) -> Child {
    row(id, What::Subtree(tree), Restart::Permanent, Shutdown::Infinity)
}

/// Any number of children alike, `<id>/<id>-1` to `-n`, under a one_for_one supervisor of their own.
/// As many as [`PoolSize`](crate::PoolSize) in the [`Env`](crate::Env) says, or 1; resizable while it runs.
#[must_use]
pub const fn pool(id: &'static str, start: StartFn, restart: Restart, shutdown: Shutdown) -> Child {
    row(id, What::Pool(start), restart, shutdown)
}

impl Child {
    /// Runs on a thread of its own, so that it can hang without stopping its siblings.
    #[must_use]
    pub const fn on_own_arbiter(mut self) -> Self {
        self.own_arbiter = true;
        self
    }

    /// Is asked for a sign of life every `ping`; without one within `deadline` it is hung. Default 500 ms and 2 s.
    /// One that has not run since its last answer, and has no linked task, is asked an eighth as often.
    #[must_use]
    pub const fn with_liveness(mut self, ping: Duration, deadline: Duration) -> Self {
        self.ping = ping;
        self.deadline = deadline;
        self
    }

    /// Must be ready within this time of its start, time spent `waiting` not counted. Default 30 s.
    #[must_use]
    pub const fn with_start_deadline(mut self, deadline: Duration) -> Self {
        self.start_deadline = deadline;
        self
    }

    /// Bound of an actor's mailbox. Default 256.
    #[must_use]
    pub const fn mailbox(mut self, capacity: usize) -> Self {
        self.mailbox = capacity;
        self
    }

    /// Delay between restarts in a row.
    #[must_use]
    pub const fn with_backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Of a pool: when its own supervisor gives up. Default: as many restarts within 5 s as it has children, at least 10.
    #[must_use]
    pub const fn with_intensity(mut self, intensity: Intensity) -> Self {
        self.intensity = Some(intensity);
        self
    }

    /// The last part of its path.
    #[must_use]
    pub const fn id(&self) -> &'static str {
        self.id
    }
}

/// `n` seconds, for tables.
#[must_use]
pub const fn secs(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Why a [`Tree`] is refused before anything starts.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("supervision tree `{tree}`: {fault}")]
pub struct SpecError {
    /// Name of the tree at fault.
    pub tree: String,
    /// What is wrong, with the child's id.
    pub fault: String,
}

impl Tree {
    /// Checks the whole tree: names, unique ids, intensity, supervisors that stop with [`Shutdown::Infinity`].
    ///
    /// # Errors
    /// The first fault found, top to bottom.
    pub fn check(&self) -> Result<(), SpecError> {
        self.check_at(0)
    }

    fn check_at(&self, depth: usize) -> Result<(), SpecError> {
        let refuse = |fault: String| Err(SpecError { tree: self.name.to_owned(), fault });
        if depth > 16 {
            return refuse("is more than 16 levels deep; does it contain itself?".to_owned());
        }
        if !valid_name(self.name) {
            return refuse("name must be 1 to 64 of a-z, 0-9, `-`, `_`, `.`".to_owned());
        }
        if self.intensity.restarts == 0 || self.intensity.period.is_zero() {
            return refuse("intensity must allow at least 1 restart in a period above zero".to_owned());
        }
        let mut seen = HashSet::new();
        for child in self.children {
            if !seen.insert(child.id) {
                return refuse(format!("id `{}` is there twice", child.id));
            }
            if let Some(fault) = child.fault() {
                return refuse(format!("child `{}`: {fault}", child.id));
            }
            if let What::Subtree(tree) = child.what {
                tree.check_at(depth + 1)?;
            }
        }
        Ok(())
    }
}

impl Child {
    fn fault(&self) -> Option<&'static str> {
        let supervisor = matches!(self.what, What::Subtree(_));
        if !valid_name(self.id) {
            Some("id must be 1 to 64 of a-z, 0-9, `-`, `_`, `.`")
        } else if supervisor && self.shutdown != Shutdown::Infinity {
            Some("a supervisor stops with Shutdown::Infinity")
        } else if supervisor && self.own_arbiter {
            Some("a supervisor has no arbiter of its own; its children may")
        } else if self.mailbox == 0 {
            Some("mailbox capacity must be at least 1")
        } else if self.ping.is_zero() || self.deadline.is_zero() || self.start_deadline.is_zero() {
            Some("ping, deadline and start deadline must be above zero")
        } else if self.backoff.first > self.backoff.max {
            Some("backoff.first must not exceed backoff.max")
        } else if self.intensity.is_some_and(|i| i.restarts == 0 || i.period.is_zero()) {
            Some("intensity must allow at least 1 restart in a period above zero")
        } else {
            None
        }
    }
}

/// Names are path segments and metric labels.
pub(crate) fn valid_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    !name.is_empty() && name.len() <= 64 && name.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(_: Life) -> Result<Started, StartError> {
        Err(StartError::new("never called"))
    }

    const GOOD: Intensity = Intensity { restarts: 3, period: secs(5) };
    const ROW: Child = worker("a", start, Restart::Permanent, Shutdown::Brutal);

    fn fault_of(intensity: Intensity, children: Vec<Child>) -> Option<String> {
        let children: &'static [Child] = Box::leak(children.into_boxed_slice());
        let tree = Tree { name: "t", strategy: Strategy::OneForOne, intensity, children };
        tree.check().err().map(|error| error.fault)
    }

    #[test]
    fn a_good_tree_passes_and_each_mistake_is_named() {
        static BELOW: Tree =
            Tree { name: "below", strategy: Strategy::OneForAll, intensity: GOOD, children: &[ROW] };
        static BAD: Tree =
            Tree { name: "no name", strategy: Strategy::OneForAll, intensity: GOOD, children: &[] };
        assert_eq!(fault_of(GOOD, vec![ROW, subtree("b", &BELOW)]), None);
        assert_eq!(fault_of(GOOD, vec![]), None, "no children, as OTP allows");
        let mut timed = subtree("b", &BELOW);
        timed.shutdown = Shutdown::Within(secs(1));
        let cases: [(Intensity, Vec<Child>, &str); 9] = [
            (Intensity { restarts: 0, ..GOOD }, vec![ROW], "at least 1 restart"),
            (Intensity { period: secs(0), ..GOOD }, vec![ROW], "period above zero"),
            (GOOD, vec![ROW, ROW], "`a` is there twice"),
            (GOOD, vec![worker("a/b", start, Restart::Permanent, Shutdown::Brutal)], "id must be"),
            (GOOD, vec![timed], "Infinity"),
            (GOOD, vec![subtree("b", &BELOW).on_own_arbiter()], "arbiter"),
            (GOOD, vec![subtree("b", &BAD)], "name must be"),
            (GOOD, vec![ROW.mailbox(0)], "mailbox"),
            (GOOD, vec![ROW.with_liveness(secs(0), secs(1))], "above zero"),
        ];
        for (intensity, children, expected) in cases {
            let fault = fault_of(intensity, children).unwrap_or_default();
            assert!(fault.contains(expected), "`{fault}` says `{expected}`");
        }
    }

    #[test]
    fn a_tree_that_contains_itself_is_refused() {
        static LOOP: Tree = Tree {
            name: "loop",
            strategy: Strategy::OneForAll,
            intensity: GOOD,
            children: &[subtree("again", &LOOP)],
        };
        assert!(LOOP.check().is_err_and(|error| error.fault.contains("contain itself")));
    }
}
