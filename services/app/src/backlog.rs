//! How many jobs wait in each queue, whether one more may, and whether a further name may.
//!
//! The counters are read from the database now and then and counted up in between by what this instance accepts.
//! Counting inside the insert would be exact and would make each submit as slow as its queue is long; so a cap may
//! be overshot by what all instances accept within one refresh.
//!
//! A name is in use while jobs wait under it or it has settings, and free again after. All clients share `queues_max`
//! names, and one client cannot take them all: the second half is for those who opened few of them here.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use http_support::Error;
use jobstore::{DEFAULT_QUEUE, Queue};

/// Once half of the names are in use, a client may open further ones while it has opened less than this share of all.
const FEW_PER: usize = 100;

/// A name is free again when so many counts in a row did not find it in use: what was admitted may be on its way to the
/// database, and the replica that counts may be a little behind.
const FORGOTTEN_AFTER: u8 = 3;

/// Counters per queue.
#[derive(Debug)]
pub struct Backlog {
    queues: Mutex<Queues>,
    default_max: u64,
    names_max: usize,
}

#[derive(Debug, Default)]
struct Queues {
    levels: HashMap<String, Level>,
    /// How many names in use each client has opened here.
    opened: HashMap<IpAddr, usize>,
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
    /// Who used the name here first, if it was not in use then.
    opener: Option<IpAddr>,
    /// Counts in a row in which it was not.
    missed: u8,
}

/// What was accepted up to the moment a count began.
pub struct Mark(HashMap<String, u64>);

impl Backlog {
    /// `default_max` is the cap of a queue without one of its own, `names_max` that of names in use.
    pub fn new(default_max: u64, names_max: usize) -> Self {
        Self { queues: Mutex::default(), default_max, names_max }
    }

    /// Whether `n` more jobs of `client` may enter `queue`.
    ///
    /// # Errors
    /// 429 + `Retry-After`.
    pub fn admit(&self, queue: &str, n: u64, client: IpAddr) -> Result<(), Error> {
        self.admit_name(queue, client)?;
        let level = self.level(queue);
        let (waiting, max) = (level.waiting(), self.max_of(level));
        if waiting + n <= max {
            return Ok(());
        }
        let detail = format!("queue {queue:?} has {waiting} jobs waiting and takes {max}; come back later");
        Err(Error::too_many("queue-full", detail, 2)
            .with("queue", queue)
            .with("backlog", waiting)
            .with("backlog_max", max))
    }

    /// How many jobs may still enter a queue.
    pub fn room(&self, queue: &str) -> u64 {
        let level = self.level(queue);
        self.max_of(level).saturating_sub(level.waiting())
    }

    /// Whether the queue may have this name: one in use, or one more, which is in use from now on until a count says
    /// otherwise. So what is admitted and not yet stored counts too, however much of it there is.
    ///
    /// # Errors
    /// 429 + `Retry-After`.
    pub fn admit_name(&self, queue: &str, client: IpAddr) -> Result<(), Error> {
        let mut queues = self.lock();
        let (used, max, client) = (queues.levels.len(), self.names_max, network_of(client));
        // Whoever names no queue is never in the way of a cap on names: clients that use them all up stop nobody else.
        if queue == DEFAULT_QUEUE || queues.levels.contains_key(queue) {
            return Ok(());
        }
        let opened = queues.opened.get(&client).copied().unwrap_or(0);
        let few = (max / FEW_PER).max(1);
        let refused = if used >= max {
            format!(
                "{max} queues have waiting jobs or settings, and `queues_max` is {max}: {queue:?} would be one more"
            )
        } else if used >= max / 2 && opened >= few {
            format!(
                "more than half of the {max} names of queues (`queues_max`) are in use, {opened} of them opened by this \
                 client: the others are for clients that opened less than {few}"
            )
        } else {
            queues.levels.insert(queue.to_owned(), Level { opener: Some(client), ..Level::default() });
            queues.opened.insert(client, opened + 1);
            return Ok(());
        };
        Err(Error::too_many("too-many-queues", refused, 2)
            .with("queue", queue)
            .with("queues_max", max as u64))
    }

    /// `n` jobs of `queue` were stored.
    pub fn accepted(&self, queue: &str, n: u64) {
        let mut queues = self.lock();
        match queues.levels.get_mut(queue) {
            Some(level) => level.since += n,
            None => drop(queues.levels.insert(queue.to_owned(), Level { since: n, ..Level::default() })),
        }
    }

    /// Whether anything was accepted since the last count.
    pub fn moved(&self) -> bool {
        self.lock().levels.values().any(|level| level.since > 0)
    }

    /// To be taken before the database is asked to count.
    pub fn mark(&self) -> Mark {
        Mark(self.lock().levels.iter().map(|(queue, level)| (queue.clone(), level.since)).collect())
    }

    /// Takes over a count: every queue that has settings or jobs that wait, and how many. What was accepted while it ran
    /// may be in it or not: it is counted on top, so that the error is on the safe side. A count that failed is not taken
    /// over: what is accepted goes on being counted on top of the last one.
    pub fn counted(&self, mark: &Mark, counts: &[(Queue, u64)]) {
        let mut queues = self.lock();
        for (queue, level) in &mut queues.levels {
            level.since -= mark.0.get(queue).copied().unwrap_or(0).min(level.since);
            (level.counted, level.max, level.is_set) = (0, None, false);
        }
        for (queue, waiting) in counts {
            let is_set = queue.paused || queue.concurrency.is_some() || queue.backlog_max.is_some();
            if is_set || *waiting > 0 {
                let level = queues.levels.entry(queue.name.clone()).or_default();
                (level.counted, level.max, level.is_set) = (*waiting, queue.backlog_max, is_set);
            }
        }
        queues.levels.retain(|_, level| {
            let in_use = level.waiting() > 0 || level.is_set;
            level.missed = if in_use { 0 } else { level.missed + 1 };
            level.missed < FORGOTTEN_AFTER
        });
        let mut opened = HashMap::new();
        for opener in queues.levels.values().filter_map(|level| level.opener) {
            *opened.entry(opener).or_default() += 1;
        }
        queues.opened = opened;
    }

    fn level(&self, queue: &str) -> Level {
        self.lock().levels.get(queue).copied().unwrap_or_default()
    }

    fn max_of(&self, level: Level) -> u64 {
        level.max.unwrap_or(self.default_max)
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Level {
    fn waiting(&self) -> u64 {
        self.counted + self.since
    }
}

/// One client has all addresses of its /64 (RFC 6177), and one of version 4.
fn network_of(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::from([a, b, c, d, 0, 0, 0, 0])
        }
        version_4 => version_4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(name: &str, n: u64) -> (Queue, u64) {
        (Queue { name: name.into(), ..Queue::default() }, n)
    }

    fn client(n: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, n])
    }

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

    #[test]
    fn a_full_queue_refuses_until_a_count_says_otherwise() {
        let backlog = Backlog::new(3, 99);
        let mail = Queue { name: "mail".into(), backlog_max: Some(1), ..Queue::default() };
        assert!(backlog.admit("a", 3, A).is_ok() && backlog.admit("a", 4, A).is_err());
        backlog.accepted("a", 2);
        let mark = backlog.mark();
        backlog.accepted("a", 1); // while the database counts
        backlog.counted(&mark, &[waiting("a", 2), (mail, 0)]);
        assert_eq!(backlog.admit("a", 1, A).unwrap_err().problem().status, 429, "2 counted and 1 since");
        assert_eq!((backlog.room("a"), backlog.room("mail"), backlog.room("new")), (0, 1, 3));
        assert!(backlog.admit("mail", 1, A).is_ok() && backlog.admit("mail", 2, A).is_err(), "its own cap");
        backlog.counted(&backlog.mark(), &[]);
        assert!(backlog.admit("a", 3, A).is_ok() && !backlog.moved());
    }

    /// 10,500 names in one bulk call: lists of queues failed, and with them every cap and `/readyz`.
    #[test]
    fn names_in_use_have_a_cap_and_a_name_that_is_free_again_makes_room() {
        let backlog = Backlog::new(9, 4);
        for n in 0..4 {
            assert!(backlog.admit(&format!("q{n}"), 1, client(n)).is_ok());
        }
        let refused = backlog.admit("c", 1, client(9)).unwrap_err();
        assert_eq!(
            (refused.problem().status, refused.problem().kind.ends_with("too-many-queues")),
            (429, true)
        );
        assert!(
            backlog.admit(DEFAULT_QUEUE, 1, A).is_ok(),
            "who names no queue is not stopped by those who name many"
        );
        assert!(backlog.admit_name("c", A).is_err() && backlog.admit("q1", 1, A).is_ok());
        backlog.accepted("q2", 1);
        for _ in 0..FORGOTTEN_AFTER {
            backlog.counted(&backlog.mark(), &[waiting("q1", 1), waiting("only running", 0)]);
        }
        assert!(backlog.admit("c", 1, A).is_ok(), "of four names one is left");
    }

    /// One client could use up the names of all: by jobs, by pausing what nobody uses, and by one bulk request before
    /// anything of it was stored.
    #[test]
    fn one_client_cannot_take_the_names_of_the_others() {
        let backlog = Backlog::new(9, 1_000);
        let open = |name: String, who: IpAddr| backlog.admit_name(&name, who).is_ok();
        let taken = (0..2_000).filter(|n| open(format!("greedy-{n}"), client(1))).count();
        assert_eq!(taken, 500, "while there is room for everybody, nobody is refused");
        assert!(open("greedy-7".into(), client(1)), "what it has it may go on using");
        for who in 2..=9 {
            let few = (0..20).filter(|n| open(format!("modest-{who}-{n}"), client(who))).count();
            assert_eq!(few, 10);
        }
        // From one network of version 6 all addresses are one client; a mapped one is one of version 4.
        let six = |n: u16| IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, n]);
        assert_eq!((0..20).filter(|n| open(format!("six-{n}"), six(*n))).count(), 10);
        assert!(!open("mapped".into(), "::ffff:192.0.2.1".parse().unwrap()));
        // What is given back may be taken again, by anybody: half of the names are free then.
        (0..FORGOTTEN_AFTER).for_each(|_| backlog.counted(&backlog.mark(), &[]));
        assert!(open("again".into(), client(1)));
    }

    /// A name that was admitted and not yet stored, or stored and not yet to be seen at the replica that counts, was
    /// forgotten by the next count, and with it who had opened it: one bulk request went on opening names.
    #[test]
    fn a_name_is_forgotten_by_the_third_count_in_a_row_that_does_not_find_it() {
        let backlog = Backlog::new(9, 200);
        let open = |name: &str| backlog.admit_name(name, client(1)).is_ok();
        for n in 0..100_usize {
            assert!(open(&format!("q{n}")));
            backlog.counted(&backlog.mark(), &[]);
            backlog.accepted(&format!("q{n}"), 1);
            let seen: Vec<_> = (0..=n).map(|i| waiting(&format!("q{i}"), 1)).collect();
            backlog.counted(&backlog.mark(), &seen[..n.saturating_sub(1)]);
            backlog.counted(&backlog.mark(), &seen);
        }
        assert!(!open("q100"), "it has half of all, and all of them are known to be its own");
        for _ in 0..2 {
            backlog.counted(&backlog.mark(), &[]);
            assert!(!open("q100"));
        }
        backlog.counted(&backlog.mark(), &[]);
        assert!(open("q100"));
    }
}
