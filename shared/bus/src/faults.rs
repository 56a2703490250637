//! Faults of one link, for experiments: each ends by itself at its deadline. Free when unused: one relaxed load.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// What is wrong with a link.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkFault {
    /// The connection is cut once, now. It may reconnect at once.
    Disconnect,
    /// The connection is cut and stays so until the fault ends.
    Partition,
    /// Each message is lost with this probability. A lost publish or append ends as `Unknown`; a lost delivery of a
    /// queue comes again (at least once); a lost event or request is gone; a log loses no delivery, by its promise.
    Drop {
        /// 0 to 1.
        p: f64,
    },
    /// Each message waits this long, at publish and at delivery.
    Delay(Duration),
    /// Each message is sent twice with this probability, under one id. Appends to a log are never sent again, and
    /// so never doubled.
    Duplicate {
        /// 0 to 1.
        p: f64,
    },
}

/// What happens to the message in hand.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Verdict {
    /// Wait first.
    pub delay: Option<Duration>,
    /// Then lose it,
    pub drop: bool,
    /// or send it twice.
    pub duplicate: bool,
}

/// How the link stands: what its users watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Grows with every cut: what was held over an older connection is lost.
    pub epoch: u64,
    /// Whether it is cut now.
    pub partitioned: bool,
}

/// The fault switches of one link ([`crate::Bus::link`]).
#[derive(Debug)]
pub struct LinkFaults {
    armed: AtomicBool,
    active: Mutex<Vec<(LinkFault, Instant)>>,
    cut: watch::Sender<Cut>,
}

impl Default for LinkFaults {
    fn default() -> Self {
        Self {
            armed: AtomicBool::new(false),
            active: Mutex::new(Vec::new()),
            cut: watch::Sender::new(Cut { epoch: 0, partitioned: false }),
        }
    }
}

impl LinkFaults {
    /// Sets a fault until `until`. Several may be active at once.
    pub fn set(&self, fault: LinkFault, until: Instant) {
        let now = clock::now();
        if fault == LinkFault::Disconnect {
            self.cut.send_modify(|cut| cut.epoch += 1);
            return;
        }
        if until <= now {
            return;
        }
        self.lock().push((fault, until));
        self.armed.store(true, Relaxed);
        if fault == LinkFault::Partition {
            self.cut.send_modify(|cut| *cut = Cut { epoch: cut.epoch + 1, partitioned: true });
        }
    }

    /// Ends every fault now.
    pub fn clear(&self) {
        self.lock().clear();
        self.refresh();
    }

    /// What is active now, and until when.
    #[must_use]
    pub fn active(&self) -> Vec<(LinkFault, Instant)> {
        if !self.armed.load(Relaxed) {
            return Vec::new();
        }
        let now = clock::now();
        self.lock().iter().filter(|(_, until)| *until > now).copied().collect()
    }

    /// The fate of one message now.
    pub(crate) fn judge(&self) -> Verdict {
        if !self.armed.load(Relaxed) {
            return Verdict::default();
        }
        let mut verdict = Verdict::default();
        for (fault, _) in self.active() {
            match fault {
                LinkFault::Drop { p } => verdict.drop |= rand::random::<f64>() < p,
                LinkFault::Duplicate { p } => verdict.duplicate |= rand::random::<f64>() < p,
                LinkFault::Delay(d) => verdict.delay = Some(verdict.delay.unwrap_or_default().max(d)),
                LinkFault::Disconnect | LinkFault::Partition => {}
            }
        }
        verdict
    }

    /// The end of the last active partition, if there is one.
    pub(crate) fn partitioned_until(&self) -> Option<Instant> {
        if !self.armed.load(Relaxed) {
            return None;
        }
        self.active().iter().filter(|(f, _)| *f == LinkFault::Partition).map(|(_, until)| *until).max()
    }

    /// Forgets what has ended, and says so to those who watch.
    pub(crate) fn refresh(&self) {
        let now = clock::now();
        let (empty, partitioned) = {
            let mut active = self.lock();
            active.retain(|(_, until)| *until > now);
            (active.is_empty(), active.iter().any(|(f, _)| *f == LinkFault::Partition))
        };
        if empty {
            self.armed.store(false, Relaxed);
        }
        self.cut.send_if_modified(|cut| {
            let changed = cut.partitioned != partitioned;
            cut.partitioned = partitioned;
            changed
        });
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Cut> {
        self.cut.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(LinkFault, Instant)>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
