//! Comparing the content of all replicas at one position, while they run.
//!
//! An entry in the log says where. Each replica reads its whole content as of that entry, beside everything else, and says
//! its digest in discovery; what follows from that is [`crate::agreement`]'s: the odd one out is rebuilt.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Mutex;

use crate::agreement::{self, NONE};
use crate::entry::Op;
use crate::peers;
use crate::position::Token;
use crate::restore::commit;
use crate::state::{Role, Shared, WriteError};

/// By itself it takes at most this part of the time: after one that took a minute the next one waits for twenty.
const SHARE: u32 = 20;
/// How often the role is looked at while there is nothing to do.
const LOOK: Duration = Duration::from_secs(1);

/// At most one comparison at a time; all who come meanwhile share the next one.
#[derive(Default)]
pub struct Verified {
    /// How many had asked when the latest one began, and what it found. Who holds it compares, or takes that.
    latest: Mutex<Option<(u64, Report)>>,
    /// Counts those who ask; a comparison that began after one asked is good for that one.
    asked: AtomicU64,
}

/// What a comparison found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether all that are there said the same.
    pub agreed: bool,
    /// Where in the history: `<generation>-<sequence>`.
    pub offset: String,
    /// Each replica, by name.
    pub replicas: BTreeMap<String, Said>,
}

/// What one replica said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Said {
    /// SHA-256 of its content; none if it has not said.
    pub digest: Option<String>,
    /// `agrees`, `differs` from what most have, or `silent`.
    pub verdict: &'static str,
}

/// Compares all replicas now. Called at the primary.
///
/// # Errors
/// There is no primary here, or the log takes no entry.
pub async fn verify(shared: &Arc<Shared>) -> Result<Report, WriteError> {
    let number = shared.verified.asked.fetch_add(1, Relaxed);
    let mut latest = shared.verified.latest.lock().await;
    if let Some((_, report)) = latest.as_ref().filter(|(began, _)| number < *began) {
        return Ok(report.clone());
    }
    let began = shared.verified.asked.load(Relaxed);
    let report = compare(shared).await?;
    *latest = Some((began, report.clone()));
    Ok(report)
}

async fn compare(shared: &Arc<Shared>) -> Result<Report, WriteError> {
    let at = commit(shared, Op::Compare).await?;
    let until = clock::now() + Duration::from_millis(shared.config.verify_time_ms);
    let (mut own, mut news) = (shared.status(), shared.registry.version());
    let mut said = BTreeMap::new();
    loop {
        own.mark_unchanged();
        news.mark_unchanged();
        collect(shared, at, &mut said);
        if said.values().all(Option::is_some) || clock::now() >= until {
            return Ok(report(at, &said));
        }
        tokio::select! {
            _ = own.changed() => {}
            _ = news.changed() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Notes what each replica says of this position. What one has said stands, whatever becomes of it.
fn collect(shared: &Shared, at: Token, said: &mut BTreeMap<String, Option<String>>) {
    let others = peers::others(shared);
    said.retain(|name, words| {
        words.is_some() || *name == shared.config.instance || others.iter().any(|it| it.instance == *name)
    });
    let mut note = |name: &str, words: &str| {
        let digest = agreement::of(words, at).map(str::to_owned);
        let known = said.entry(name.to_owned()).or_default();
        *known = known.take().or(digest);
    };
    note(&shared.config.instance, &shared.status().borrow().digest.clone());
    for it in &others {
        note(&it.instance, it.facts.get("digest").map_or("", String::as_str));
    }
}

fn report(at: Token, said: &BTreeMap<String, Option<String>>) -> Report {
    let mut counts = BTreeMap::<&str, usize>::new();
    for digest in said.values().flatten().filter(|digest| *digest != NONE) {
        *counts.entry(digest).or_default() += 1;
    }
    let most = counts.values().copied().max().unwrap_or(0);
    // Of two that are as many nobody knows which is right: then all differ.
    let right = counts.iter().filter(|(_, n)| **n == most).map(|(digest, _)| *digest).collect::<Vec<_>>();
    let verdict = |digest: Option<&str>| match (digest, &right[..]) {
        (None, _) => "silent",
        (Some(digest), [right]) if digest == *right => "agrees",
        _ => "differs",
    };
    let replicas = said.iter().map(|(name, digest)| {
        let digest = digest.as_deref().filter(|digest| *digest != NONE);
        (name.clone(), Said { digest: digest.map(str::to_owned), verdict: verdict(digest) })
    });
    let replicas: BTreeMap<_, _> = replicas.collect();
    let agreed = replicas.values().all(|said| said.verdict == "agrees");
    Report { agreed, offset: at.to_string(), replicas }
}

/// As primary, compares from time to time, for ever.
pub(crate) async fn keep(shared: &Arc<Shared>) {
    let every = Duration::from_millis(shared.config.verify_every_ms);
    let mut due = clock::now() + every;
    loop {
        tokio::time::sleep(LOOK.min(every)).await;
        if clock::now() < due || shared.status().borrow().role != Role::Primary {
            continue;
        }
        let began = clock::now();
        match verify(shared).await {
            Ok(report) if !report.agreed => tracing::warn!(
                instance = shared.config.instance, offset = report.offset, replicas = ?report.replicas,
                "replicas differ in content, or have not said what theirs is"
            ),
            Ok(report) => tracing::debug!(offset = report.offset, "all replicas have the same content"),
            Err(error) => tracing::debug!(%error, "the replicas were not compared"),
        }
        due = clock::now() + every.max((clock::now() - began) * SHARE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(said: &[(&str, Option<&str>)]) -> (bool, Vec<&'static str>) {
        let said =
            said.iter().map(|(name, digest)| ((*name).to_owned(), digest.map(str::to_owned))).collect();
        let report = report(Token { generation: 1, seq: 7 }, &said);
        (report.agreed, report.replicas.values().map(|said| said.verdict).collect())
    }

    #[test]
    fn what_most_replicas_have_is_taken_for_right() {
        assert_eq!(judge(&[("a", Some("x")), ("b", Some("x")), ("c", Some("x"))]), (true, vec!["agrees"; 3]));
        assert_eq!(
            judge(&[("a", Some("y")), ("b", Some("x")), ("c", Some("x"))]),
            (false, vec!["differs", "agrees", "agrees"])
        );
        assert_eq!(judge(&[("a", Some("x")), ("b", Some("y"))]), (false, vec!["differs"; 2]));
    }

    #[test]
    fn who_has_not_said_what_its_content_is_agrees_with_nobody() {
        assert_eq!(judge(&[("a", Some("x")), ("b", None)]), (false, vec!["agrees", "silent"]));
        assert_eq!(judge(&[("a", Some("x")), ("b", Some(NONE))]), (false, vec!["agrees", "silent"]));
        assert_eq!(judge(&[("a", Some("x"))]), (true, vec!["agrees"]), "one replica agrees with itself");
    }
}
