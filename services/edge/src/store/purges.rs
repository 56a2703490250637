//! What was purged lately: a response that was on its way meanwhile must not be stored as if it were news.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use crate::rules::key::target_of;

use crate::rules::key::uri_of;

/// Purges that are remembered. A fetch that has seen more of them go by is not stored: nobody knows what they were.
const KEPT: usize = 4096;

/// What a purge is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// One URI, whatever else trusted proxies say.
    Key(Arc<str>),
    /// Every URI that begins so.
    Prefix(Arc<str>),
    /// This path at every host, scheme and port; without a query with all of them.
    Path(Arc<str>),
    /// Every path that begins so, likewise.
    PathPrefix(Arc<str>),
    /// Every response with this tag.
    Tag(Arc<str>),
}

impl Target {
    /// Whether it is about this response.
    pub fn is_about(&self, key: &str, tags: &[Arc<str>]) -> bool {
        match self {
            Self::Key(this) => **this == *uri_of(key),
            Self::Prefix(prefix) => key.starts_with(&**prefix),
            Self::Path(path) => {
                let rest = target_of(key).strip_prefix(&**path);
                rest.is_some_and(|rest| rest.is_empty() || (rest.starts_with('?') && !path.contains('?')))
            }
            Self::PathPrefix(path) => target_of(key).starts_with(&**path),
            Self::Tag(tag) => tags.contains(tag),
        }
    }
}

/// A moment in the row of purges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(u64);

/// The row of purges.
#[derive(Debug, Default)]
pub struct Purges(Mutex<Row>);

#[derive(Debug, Default)]
struct Row {
    latest: VecDeque<Target>,
    count: u64,
}

impl Purges {
    /// Now, before a fetch begins.
    pub fn moment(&self) -> Moment {
        Moment(self.with(|row| row.count))
    }

    /// Notes a purge, before anything is removed.
    pub fn note(&self, target: Target) {
        self.with(|row| {
            if row.latest.len() == KEPT {
                row.latest.pop_front();
            }
            row.latest.push_back(target);
            row.count += 1;
        });
    }

    /// Whether a response fetched since then has been purged, as far as is known.
    pub fn since(&self, moment: Moment, key: &str, tags: &[Arc<str>]) -> bool {
        self.with(|row| {
            let seen = usize::try_from(row.count - moment.0).unwrap_or(usize::MAX);
            seen > row.latest.len()
                || row.latest.iter().rev().take(seen).any(|target| target.is_about(key, tags))
        })
    }

    fn with<R>(&self, f: impl FnOnce(&mut Row) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_that_was_on_its_way_during_its_purge_is_known() {
        let purges = Purges::default();
        purges.note(Target::Key("http://a/x".into()));
        let moment = purges.moment();
        assert!(!purges.since(moment, "http://a/x", &[]), "that was before");
        purges.note(Target::Prefix("http://a/b/".into()));
        purges.note(Target::Tag("t".into()));
        assert!(purges.since(moment, "http://a/b/c", &[]));
        assert!(purges.since(moment, "http://a/z", &["t".into()]));
        assert!(!purges.since(moment, "http://a/z", &["u".into()]));
    }

    #[test]
    fn a_path_is_one_at_every_host_with_every_query_unless_it_has_its_own() {
        let about = |target: &Target, key: &str| target.is_about(key, &[]);
        let path = Target::Path("/news".into());
        for key in ["http://a/news", "https://b:8443/news?page=2"] {
            assert!(about(&path, key), "{key}");
        }
        for key in ["http://a/news/1", "http://a/newspaper", "http://a/old?x=/news", "http://news/"] {
            assert!(!about(&path, key), "{key}");
        }
        let with_query = Target::Path("/news?page=2".into());
        assert!(about(&with_query, "http://a/news?page=2") && !about(&with_query, "http://a/news?page=20"));
        assert!(about(&Target::PathPrefix("/news/".into()), "http://a/news/1?x"));
    }

    #[test]
    fn after_more_purges_than_are_remembered_nothing_is_trusted() {
        let purges = Purges::default();
        let moment = purges.moment();
        for n in 0..=KEPT {
            purges.note(Target::Key(n.to_string().into()));
        }
        assert!(purges.since(moment, "http://a/", &[]));
    }
}
