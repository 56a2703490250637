//! How many jobs wait in each queue, and whether one more may.
//!
//! The counters are read from the database now and then and counted up in between by what this instance accepts.
//! Counting inside the insert would be exact and would make each submit as slow as its queue is long; so a cap may
//! be overshot by what all instances accept within one refresh.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http_support::Error;
use jobstore::{Counts, DEFAULT_QUEUE, Queue};

/// Counters per queue.
#[derive(Debug)]
pub struct Backlog {
    queues: Mutex<HashMap<String, Level>>,
    default_max: u64,
    names_max: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Level {
    /// As the database last said.
    counted: u64,
    /// Accepted here since the count was begun.
    since: u64,
    /// The queue's own cap.
    max: Option<u64>,
    /// It has settings.
    is_set: bool,
}

/// What was accepted up to the moment a count began.
pub struct Mark(HashMap<String, u64>);

impl Backlog {
    /// `default_max` is the cap of a queue without one of its own, `names_max` that of names in use.
    pub fn new(default_max: u64, names_max: usize) -> Self {
        Self { queues: Mutex::default(), default_max, names_max }
    }

    /// Whether `n` more jobs may enter `queue`.
    ///
    /// # Errors
    /// 429 + `Retry-After`.
    pub fn admit(&self, queue: &str, n: u64) -> Result<(), Error> {
        self.admit_name(queue)?;
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

    /// Whether the queue may have this name: one in use, or one more.
    ///
    /// # Errors
    /// 429 + `Retry-After`.
    pub fn admit_name(&self, queue: &str) -> Result<(), Error> {
        let queues = self.lock();
        // Whoever names no queue is never in the way of a cap on names: one client that uses them all up stops nobody else.
        if queue == DEFAULT_QUEUE || queues.len() < self.names_max || queues.contains_key(queue) {
            return Ok(());
        }
        let max = self.names_max;
        let detail = format!(
            "{max} queues have waiting jobs or settings, and `queues_max` is {max}: {queue:?} would be one more"
        );
        Err(Error::too_many("too-many-queues", detail, 2).with("queue", queue).with("queues_max", max as u64))
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

    /// Takes over a count: every queue that has jobs or settings. What was accepted while it ran may be in it or not: it
    /// is counted on top, so that the error is on the safe side. A count that failed is not taken over: what is accepted
    /// goes on being counted on top of the last one.
    pub fn counted(&self, mark: &Mark, counts: &[(Queue, Counts)]) {
        let mut queues = self.lock();
        for (queue, level) in queues.iter_mut() {
            level.since -= mark.0.get(queue).copied().unwrap_or(0).min(level.since);
            (level.counted, level.max, level.is_set) = (0, None, false);
        }
        for (queue, counts) in counts {
            let is_set = queue.paused || queue.concurrency.is_some() || queue.backlog_max.is_some();
            let level = queues.entry(queue.name.clone()).or_default();
            (level.counted, level.max, level.is_set) = (counts.backlog(), queue.backlog_max, is_set);
        }
        queues.retain(|_, level| level.counted > 0 || level.since > 0 || level.is_set);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Level>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(name: &str, counts: Counts) -> (Queue, Counts) {
        (Queue { name: name.into(), ..Queue::default() }, counts)
    }

    #[test]
    fn a_full_queue_refuses_until_a_count_says_otherwise() {
        let backlog = Backlog::new(3, 9);
        let mail = Queue { name: "mail".into(), backlog_max: Some(1), ..Queue::default() };
        assert!(backlog.admit("a", 3).is_ok() && backlog.admit("a", 4).is_err());
        backlog.accepted("a", 2);
        let mark = backlog.mark();
        backlog.accepted("a", 1); // while the database counts
        let counts = [
            waiting("a", Counts { available: 1, retryable: 1, ..Counts::default() }),
            (mail, Counts::default()),
        ];
        backlog.counted(&mark, &counts);
        assert_eq!(backlog.admit("a", 1).unwrap_err().problem().status, 429, "2 counted and 1 since");
        assert!(backlog.admit("mail", 1).is_ok() && backlog.admit("mail", 2).is_err(), "its own cap");
        backlog.counted(&backlog.mark(), &[]);
        assert!(backlog.admit("a", 3).is_ok() && !backlog.moved());
    }

    /// 10,500 names in one bulk call: lists of queues failed, and with them every cap and `/readyz`.
    #[test]
    fn names_in_use_have_a_cap_and_a_name_that_is_free_again_makes_room() {
        let backlog = Backlog::new(9, 2);
        backlog.accepted("a", 1);
        backlog.counted(&backlog.mark(), &[waiting("b", Counts { scheduled: 1, ..Counts::default() })]);
        backlog.accepted("a", 1);
        let refused = backlog.admit("c", 1).unwrap_err();
        assert_eq!(
            (refused.problem().status, refused.problem().kind.ends_with("too-many-queues")),
            (429, true)
        );
        assert!(
            backlog.admit(DEFAULT_QUEUE, 1).is_ok(),
            "who names no queue is not stopped by those who name many"
        );
        assert!(
            backlog.admit_name("c").is_err()
                && backlog.admit("a", 1).is_ok()
                && backlog.admit("b", 1).is_ok()
        );
        backlog.counted(&backlog.mark(), &[waiting("a", Counts { running: 1, ..Counts::default() })]);
        assert!(backlog.admit("c", 1).is_ok());
    }
}
