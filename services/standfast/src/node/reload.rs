//! SIGHUP: reads the configuration again, changes what can be changed while running, and names every other key.

use std::collections::BTreeSet;
use std::sync::PoisonError;

use toml::{Table, Value};

use super::Node;
use crate::settings::{Settings, Source};

/// What is taken while running: these keys and all below them. Any other key waits for the next start.
const TAKEN: &[&str] = &[
    "drain_ms",
    "telemetry.log",
    "app.hosts",
    "app.page_origins",
    "database.hosts",
    "database.page_origins",
    "console.hosts",
    "console.page_origins",
    "edge.hosts",
    "web.hosts",
    "web.sites",
    "web.pools",
    "web.auth",
    "web.access_log",
    "web.tls.certificates",
    "web.tls.directory",
    "web.tls.development_names",
    "balancer.pool",
    "balancer.pools",
    "balancer.routes",
    "balancer.tls.certificates",
    "balancer.tls.directory",
    "balancer.tls.development_names",
    "edge.access_log",
    "edge.tls.certificates",
    "edge.tls.directory",
    "edge.tls.development_names",
];

impl Node {
    /// Reads file, environment and flags again. A mistake changes nothing and is told in the log.
    pub(super) fn reload(&self, running: &mut Settings, source: &Source) {
        let fresh = match source.for_this_host() {
            Ok(fresh) => fresh,
            Err(failure) => {
                tracing::error!(error = failure.text, "configuration not reloaded; the running one stays");
                return;
            }
        };
        let changes = Changes::between(running, &fresh);
        let Some(mut next) = changes.merged(running, &fresh) else {
            tracing::error!(
                "configuration not reloaded: what is taken now does not fit what waits for a restart"
            );
            return;
        };
        let mut refused = self.apply(&next);
        if next.telemetry.log != running.telemetry.log
            && let Err(error) = telemetry::set_filter(&next.telemetry.log)
        {
            tracing::error!(%error, "log filter not changed");
            next.telemetry.log.clone_from(&running.telemetry.log);
            refused.insert("telemetry".to_owned());
        }
        // What a tier refused is still another than what runs, and is tried and told again by the next signal.
        if refused.contains("web") {
            next.web.clone_from(&running.web);
        }
        if refused.contains("balancer") {
            next.balancer.clone_from(&running.balancer);
        }
        if refused.contains("edge") {
            next.edge.clone_from(&running.edge);
        }
        *running = next;
        changes.tell(&refused);
        running.tell_troubles();
    }

    /// Gives the settings to every instance that can take some; the tiers that refused them. Also when nothing changed:
    /// the certificates in the files may have.
    fn apply(&self, settings: &Settings) -> BTreeSet<String> {
        let mut refused = BTreeSet::new();
        for (tier, instance, apply) in self.reloads.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Err(error) = apply(settings) {
                tracing::error!(%instance, error, "configuration not reloaded; the running one stays");
                refused.insert((*tier).to_owned());
            }
        }
        refused
    }
}

/// The keys that two configurations say differently.
#[derive(Debug, Default, PartialEq, Eq)]
struct Changes {
    taken: Vec<String>,
    waiting: Vec<String>,
}

impl Changes {
    fn between(running: &Settings, fresh: &Settings) -> Self {
        let mut keys = Vec::new();
        differing("", &table(running), &table(fresh), &mut keys);
        // Never printed, so never in a table.
        if running.edge.tokens != fresh.edge.tokens {
            keys.push("edge.tokens".to_owned());
        }
        let (taken, waiting) = keys.into_iter().partition(|key| is_taken(key));
        Self { taken, waiting }
    }

    /// What runs, with what is taken from the fresh one. `None` if the two do not fit together.
    fn merged(&self, running: &Settings, fresh: &Settings) -> Option<Settings> {
        let (mut merged, fresh) = (table(running), table(fresh));
        for key in &self.taken {
            let words: Vec<&str> = key.split('.').collect();
            put(&mut merged, &words, find(&fresh, &words).cloned());
        }
        let mut merged: Settings = Value::Table(merged).try_into().ok()?;
        merged.edge.tokens.clone_from(&running.edge.tokens);
        Some(merged)
    }

    fn tell(&self, refused: &BTreeSet<String>) {
        let is_refused = |key: &&String| key.split('.').next().is_some_and(|tier| refused.contains(tier));
        let taken: Vec<_> = self.taken.iter().filter(|key| !is_refused(key)).map(String::as_str).collect();
        if self.waiting.is_empty() {
            tracing::info!(taken = taken.join(", "), "configuration reloaded");
        } else {
            tracing::warn!(
                taken = taken.join(", "),
                keys = self.waiting.join(", "),
                "configuration reloaded; these keys take effect after a restart"
            );
        }
    }
}

fn is_taken(key: &str) -> bool {
    TAKEN
        .iter()
        .any(|taken| key.strip_prefix(taken).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

fn table(settings: &Settings) -> Table {
    Table::try_from(settings).unwrap_or_default()
}

/// Dotted keys of all values that are not tables, and that only one of the two has or that differ. A table of names
/// that the operator chose (pools, commands) is walked like any other.
fn differing(prefix: &str, running: &Table, fresh: &Table, keys: &mut Vec<String>) {
    let names: BTreeSet<&String> = running.keys().chain(fresh.keys()).collect();
    for name in names {
        let key = format!("{prefix}{name}");
        match (running.get(name), fresh.get(name)) {
            (Some(Value::Table(one)), Some(Value::Table(other))) => {
                differing(&format!("{key}."), one, other, keys);
            }
            (one, other) if one != other => keys.push(key),
            _ => {}
        }
    }
}

fn find<'a>(table: &'a Table, words: &[&str]) -> Option<&'a Value> {
    let (last, parents) = words.split_last()?;
    parents.iter().try_fold(table, |table, word| table.get(*word)?.as_table())?.get(*last)
}

fn put(table: &mut Table, words: &[&str], value: Option<Value>) {
    let Some((last, parents)) = words.split_last() else { return };
    let mut here = table;
    for word in parents {
        let below = here.entry(*word).or_insert_with(|| Value::Table(Table::new()));
        let Some(below) = below.as_table_mut() else { return };
        here = below;
    }
    match value {
        Some(value) => drop(here.insert((*last).to_owned(), value)),
        None => drop(here.remove(*last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        config::Loader::new().text("standfast.toml", text).load().expect("it is right")
    }

    fn changes(before: &str, after: &str) -> (Changes, Settings) {
        let (before, after) = (settings(before), settings(after));
        let changes = Changes::between(&before, &after);
        let merged = changes.merged(&before, &after).expect("they fit");
        (changes, merged)
    }

    #[test]
    fn every_key_that_changed_is_taken_or_named() {
        let (changes, merged) = changes(
            "[web]\nworkers = 2\n[web.access_log]\nformat = 'off'\n[jobs]\nlease_ms = 5000\n",
            "[web]\nworkers = 3\n[web.access_log]\nformat = 'json'\n[jobs]\nlease_ms = 4000\n[edge]\n\
             tokens = ['0123456789abcdef']\n[edge.limits]\nfields_max = 50\n[balancer.pool.check]\nkind = 'tcp'\n",
        );
        assert_eq!(changes.taken, ["balancer.pool.check.kind", "web.access_log.format"]);
        assert_eq!(
            changes.waiting,
            ["edge.limits.fields_max", "jobs.lease_ms", "web.workers", "edge.tokens"]
        );
        assert_eq!((merged.web.workers, merged.jobs.lease_ms), (2, 5000), "these wait");
        assert_eq!(merged.web.access_log.format, web::Format::Json);
        assert!(merged.edge.tokens.is_empty());
    }

    #[test]
    fn what_comes_and_what_goes_is_taken_too() {
        let pool = "[web.pools.a]\nmembers = ['http://127.0.0.1:1']\n";
        let (changes_of, merged) = changes("", pool);
        assert_eq!(changes_of.taken, ["web.pools.a"]);
        assert!(merged.web.pools.contains_key("a"));
        let (changes_of, merged) = changes(pool, "");
        assert_eq!((changes_of.taken.len(), merged.web.pools.len()), (1, 0));
        let (changes_of, _) = changes(pool, pool);
        assert_eq!(changes_of, Changes::default());
    }

    #[test]
    fn what_is_said_to_be_taken_are_settings() {
        let defaults = table(&Settings::default());
        let optional = ["directory"]; // not said by default
        for key in TAKEN {
            let words: Vec<&str> = key.split('.').collect();
            let known = find(&defaults, &words).is_some();
            assert!(known || words.last().is_some_and(|last| optional.contains(last)), "{key}");
        }
    }
}
