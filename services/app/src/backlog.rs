//! How many jobs wait in each queue, and whether one more may.
//!
//! The counters are read from the database now and then and counted up in between by what this instance accepts.
//! Counting inside the insert would be exact and would make each submit as slow as its queue is long; so a cap may
//! be overshot by what all instances accept within one refresh.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use http_support::Error;
use jobstore::{Counts, Queue};

/// Counters per queue.
#[derive(Debug)]
pub struct Backlog {
    queues: Mutex<HashMap<String, Level>>,
    default_max: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// As the database last said.
    counted: u64,
    /// Accepted here since the count was begun.
    since: u64,
    /// The queue's own cap.
    max: Option<u64>,
}

/// What was accepted up to the moment a count began.
pub struct Mark(HashMap<String, u64>);

impl Backlog {
    /// `default_max` is the cap of a queue without one of its own.
    pub fn new(default_max: u64) -> Self {
        Self { queues: Mutex::default(), default_max }
    }

    /// Whether `n` more jobs may enter `queue`.
    ///
    /// # Errors
    /// 429 + `Retry-After`.
    pub fn admit(&self, queue: &str, n: u64) -> Result<(), Error> {
        let level = self.lock().get(queue).copied().unwrap_or_default();
        let (waiting, max) = (level.counted + level.since, level.max.unwrap_or(self.default_max));
        if waiting + n <= max {
            return Ok(());
        }
        let detail = format!("queue {queue:?} has {waiting} jobs waiting and takes {max}; come back later");
        Err(Error::too_many("queue-full", detail, 2)
            .with("queue", queue)
            .with("backlog", waiting)
            .with("backlog_max", max))
    }

    /// `n` jobs of `queue` were stored.
    pub fn accepted(&self, queue: &str, n: u64) {
        let mut queues = self.lock();
        match queues.get_mut(queue) {
            Some(level) => level.since += n,
            None => drop(queues.insert(queue.to_owned(), Level { since: n, ..Level::default() })),
        }
    }

    /// Whether anything was accepted since the last count.
    pub fn moved(&self) -> bool {
        self.lock().values().any(|level| level.since > 0)
    }

    /// To be taken before the database is asked to count.
    pub fn mark(&self) -> Mark {
        Mark(self.lock().iter().map(|(queue, level)| (queue.clone(), level.since)).collect())
    }

    /// Takes over a count. What was accepted while it ran may be in it or not: it is counted on top, so that the
    /// error is on the safe side.
    pub fn counted(&self, mark: &Mark, counts: &BTreeMap<String, Counts>, settings: &[Queue]) {
        let mut queues = self.lock();
        for (queue, level) in queues.iter_mut() {
            level.since -= mark.0.get(queue).copied().unwrap_or(0).min(level.since);
            (level.counted, level.max) = (0, None);
        }
        for (queue, counts) in counts {
            queues.entry(queue.clone()).or_default().counted = counts.backlog();
        }
        for queue in settings {
            queues.entry(queue.name.clone()).or_default().max = queue.backlog_max;
        }
        queues.retain(|_, level| level.counted > 0 || level.since > 0 || level.max.is_some());
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Level>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_refuses_until_a_count_says_otherwise() {
        let backlog = Backlog::new(3);
        let settings = [Queue { name: "mail".into(), backlog_max: Some(1), ..Queue::default() }];
        assert!(backlog.admit("a", 3).is_ok() && backlog.admit("a", 4).is_err());
        backlog.accepted("a", 2);
        let mark = backlog.mark();
        backlog.accepted("a", 1); // while the database counts
        let counts =
            BTreeMap::from([("a".to_owned(), Counts { available: 1, retryable: 1, ..Counts::default() })]);
        backlog.counted(&mark, &counts, &settings);
        assert_eq!(backlog.admit("a", 1).unwrap_err().problem().status, 429, "2 counted and 1 since");
        assert!(backlog.admit("mail", 1).is_ok() && backlog.admit("mail", 2).is_err(), "its own cap");
        backlog.counted(&backlog.mark(), &BTreeMap::new(), &[]);
        assert!(backlog.admit("a", 3).is_ok() && !backlog.moved());
    }
}
