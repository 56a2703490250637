//! Which kinds of jobs, and which programs of the kind `command`, the runners know.
//!
//! A typing mistake in `kind` should fail at the submit and not wait for ever, so a kind that nobody announces is
//! refused. But a runner that restarts must not make its kinds unknown: every kind that was ever announced while this
//! process lives stays known, and while no runner is alive at all, everything is taken (the job waits, and `why` says
//! for what).

use std::collections::BTreeSet;

use arc_swap::ArcSwap;
use discovery::Registry;
use http_support::Error;
use serde_json::{Value, json};

/// Distinct kinds, and distinct programs, that are remembered; a fleet has dozens.
const KNOWN_MAX: usize = 10_000;
/// How many an error or an answer lists.
const SHOWN_MAX: usize = 20;

/// The kinds and programs known so far.
#[derive(Debug, Default)]
pub struct Kinds {
    kinds: Known,
    commands: Known,
}

/// What was ever announced under one fact.
#[derive(Debug, Default)]
struct Known(ArcSwap<BTreeSet<String>>);

/// What one runner announces, as far as a job is concerned.
struct Runner {
    place: String,
    kinds: Option<String>,
    /// Nothing: it does not say.
    commands: Option<String>,
}

impl Runner {
    fn takes(&self, kind: &str, command: Option<&str>) -> bool {
        let has =
            |list: &Option<String>, name: &str| list.as_deref().map(|list| items(list).any(|it| it == name));
        has(&self.kinds, kind) == Some(true)
            && command.is_none_or(|name| has(&self.commands, name) != Some(false))
    }
}

impl Kinds {
    /// Refuses a kind that no runner has announced while at least one is alive, and a program likewise.
    ///
    /// # Errors
    /// 422, with those there are.
    pub fn check(&self, kind: &str, needs: Option<&str>, registry: &Registry) -> Result<(), Error> {
        let command = needs.and_then(|needs| needs.split_once(':')).map(|(_, name)| name);
        if self.kinds.has(kind) && command.is_none_or(|name| self.commands.has(name)) {
            return Ok(());
        }
        let runners = runners(registry);
        let kinds = self.kinds.learn(runners.iter().map(|runner| runner.kinds.as_deref()));
        if !known_or_open(kind, &kinds, runners.is_empty()) {
            return Err(unknown("kind", "kind", kind, &kinds));
        }
        let Some(command) = command else { return Ok(()) };
        let commands = self.commands.learn(runners.iter().map(|runner| runner.commands.as_deref()));
        // One that takes the kind and does not say which programs it has may have them all.
        let open = !runners.iter().any(|runner| runner.takes(kind, None))
            || runners.iter().any(|runner| runner.takes(kind, None) && runner.commands.is_none());
        if open || commands.contains(command) {
            return Ok(());
        }
        Err(unknown("command", "payload.name", command, &commands))
    }

    /// Who is alive and would take such a job; for a program that nobody has, also which ones the runners have.
    pub fn takers(kind: &str, command: Option<&str>, registry: &Registry) -> Value {
        let all = runners(registry);
        let takers: Vec<&str> = all
            .iter()
            .filter(|runner| runner.takes(kind, command))
            .map(|runner| runner.place.as_str())
            .collect();
        let mut answer =
            json!({ "runners": takers.len(), "runs_on": &takers[..takers.len().min(SHOWN_MAX)] });
        if command.is_some() && takers.is_empty() {
            let others = all.iter().filter(|runner| runner.takes(kind, None)).take(SHOWN_MAX);
            let other = |runner: &Runner| {
                let commands: Vec<&str> =
                    items(runner.commands.as_deref().unwrap_or("")).take(SHOWN_MAX).collect();
                json!({ "runner": runner.place, "commands": commands })
            };
            answer["other_commands"] = others.map(other).collect();
        }
        answer
    }
}

fn runners(registry: &Registry) -> Vec<Runner> {
    let runner = |mut it: messages::service::Announcement| Runner {
        place: format!("{}/{}", it.node, it.instance),
        kinds: it.facts.remove("kinds"),
        commands: it.facts.remove("commands"),
    };
    registry.of_tier("jobs").into_iter().map(runner).collect()
}

fn items(list: &str) -> impl Iterator<Item = &str> {
    list.split([',', ' ']).filter(|item| !item.is_empty())
}

impl Known {
    fn has(&self, name: &str) -> bool {
        self.0.load().contains(name)
    }

    /// What was ever announced, with what is announced now.
    fn learn<'a>(&self, lists: impl Iterator<Item = Option<&'a str>>) -> BTreeSet<String> {
        let mut known = BTreeSet::clone(&self.0.load());
        let before = known.len();
        let announced = lists.flatten().flat_map(items);
        known.extend(announced.take(KNOWN_MAX.saturating_sub(before)).map(str::to_owned));
        if known.len() > before {
            self.0.store(known.clone().into());
        }
        known
    }
}

/// A runner that announces no kinds at all says nothing about what it takes.
fn known_or_open(kind: &str, known: &BTreeSet<String>, no_runner: bool) -> bool {
    no_runner || known.is_empty() || known.contains(kind)
}

fn unknown(what: &str, field: &str, name: &str, known: &BTreeSet<String>) -> Error {
    let shown: Vec<&str> = known.iter().take(SHOWN_MAX).map(String::as_str).collect();
    let list = if shown.is_empty() { "none".to_owned() } else { shown.join(", ") };
    let detail = format!("`{field}`: no runner knows the {what} {name:?}; known: {list}");
    Error::unprocessable(&format!("unknown-{what}"), detail)
        .with("field", field)
        .with(&format!("{what}s"), shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use discovery::Identity;

    #[test]
    fn only_what_no_runner_ever_announced_is_refused() {
        let known = BTreeSet::from(["digest".to_owned()]);
        assert!(known_or_open("digest", &known, false) && !known_or_open("digset", &known, false));
        assert!(known_or_open("digset", &known, true), "no runner is alive");
        assert!(known_or_open("digest", &BTreeSet::new(), false), "no runner says what it takes");
        assert_eq!(unknown("kind", "kind", "digset", &known).problem().status, 422);
    }

    #[test]
    fn a_command_that_no_runner_ever_announced_is_refused_as_an_unknown_kind_is() {
        let (kinds, registry) = (Kinds::default(), Registry::standalone("n"));
        let check = |needs: &str| {
            kinds.check("command", Some(needs), &registry).map_err(|e| e.problem().kind.clone())
        };
        assert_eq!(check("command:x"), Ok(()), "no runner is alive");
        let first = registry.announce(Identity::new("jobs", "jobs-1"));
        first.set_fact("kinds", "command,noop");
        first.set_fact("commands", "resize,cut");
        assert_eq!(check("command:resize"), Ok(()));
        assert_eq!(check("command:x"), Err("/problems/unknown-command".to_owned()));
        let second = registry.announce(Identity::new("jobs", "jobs-2"));
        second.set_fact("kinds", "command");
        assert_eq!(check("command:x"), Ok(()), "one does not say which it has");
        second.set_fact("commands", "");
        first.set_fact("commands", "cut");
        assert_eq!(check("command:resize"), Ok(()), "it was known: the job waits");
        let takers = Kinds::takers("command", Some("resize"), &registry);
        assert_eq!(
            (&takers["runners"], &takers["other_commands"][0]["commands"]),
            (&json!(0), &json!(["cut"]))
        );
        assert_eq!(Kinds::takers("command", Some("cut"), &registry)["runs_on"], json!(["n/jobs-1"]));
    }
}
