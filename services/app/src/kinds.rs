//! Which kinds of jobs the runners know.
//!
//! A typing mistake in `kind` should fail at the submit and not wait for ever, so a kind that nobody announces is
//! refused. But a runner that restarts must not make its kinds unknown: every kind that was ever announced while this
//! process lives stays known, and while no runner is alive at all, everything is taken (the job waits, and `why` says
//! for what).

use std::collections::BTreeSet;

use arc_swap::ArcSwap;
use discovery::Registry;
use http_support::Error;

/// Distinct kinds that are remembered; a fleet has dozens.
const KINDS_MAX: usize = 10_000;
/// Kinds that an error lists.
const SHOWN_MAX: usize = 20;

/// The kinds known so far.
#[derive(Debug, Default)]
pub struct Kinds(ArcSwap<BTreeSet<String>>);

impl Kinds {
    /// Refuses a kind that no runner has announced while at least one is alive.
    ///
    /// # Errors
    /// 422, with the kinds there are.
    pub fn check(&self, kind: &str, registry: &Registry) -> Result<(), Error> {
        if self.0.load().contains(kind) {
            return Ok(());
        }
        let runners = registry.of_tier("jobs");
        let announced = runners.iter().filter_map(|runner| runner.facts.get("kinds"));
        let announced = announced.flat_map(|list| list.split([',', ' '])).filter(|kind| !kind.is_empty());
        let mut known = BTreeSet::clone(&self.0.load());
        let before = known.len();
        known.extend(announced.take(KINDS_MAX.saturating_sub(before)).map(str::to_owned));
        let verdict = verdict(kind, &known, runners.is_empty());
        if known.len() > before {
            self.0.store(known.into());
        }
        verdict
    }

    /// Runners that are alive and announce `kind`.
    pub fn runners_of(&self, kind: &str, registry: &Registry) -> usize {
        let takes = |list: &String| list.split([',', ' ']).any(|known| known == kind);
        registry.of_tier("jobs").iter().filter(|runner| runner.facts.get("kinds").is_some_and(takes)).count()
    }
}

fn verdict(kind: &str, known: &BTreeSet<String>, no_runner: bool) -> Result<(), Error> {
    // A runner that announces no kinds at all says nothing about what it takes.
    if no_runner || known.is_empty() || known.contains(kind) {
        return Ok(());
    }
    let shown: Vec<&str> = known.iter().take(SHOWN_MAX).map(String::as_str).collect();
    let detail = format!("`kind`: no runner knows {kind:?}; known: {}", shown.join(", "));
    Err(Error::unprocessable("unknown-kind", detail).with("field", "kind").with("kinds", shown))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_no_runner_ever_announced_is_refused() {
        let known = BTreeSet::from(["digest".to_owned()]);
        assert!(verdict("digest", &known, false).is_ok());
        assert_eq!(verdict("digset", &known, false).unwrap_err().problem().status, 422);
        assert!(verdict("digset", &known, true).is_ok(), "no runner is alive");
        assert!(verdict("digest", &BTreeSet::new(), false).is_ok(), "no runner says what it takes");
    }
}
