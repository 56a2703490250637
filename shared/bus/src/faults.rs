//! Faults of one link, for experiments: each ends by itself at its deadline. Free when unused: one relaxed load.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
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
    /// queue comes again when the fault ends (at least once); a lost event or request is gone; a log loses no
    /// entry on the way to its reader, by its promise.
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
pub(crate) struct Fate {
    /// Wait first.
    pub delay: Option<Duration>,
    /// Then lose it,
    pub drop: bool,
    /// or send it twice.
    pub duplicate: bool,
}

/// How the link stands: what its users watch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Grows with every cut: what was held over an older connection is lost.
    pub epoch: u64,
    /// Whether it is cut now.
    pub partitioned: bool,
}

/// The fault switches of one link ([`crate::Bus::link`]). Clones are the same switches.
#[derive(Clone)]
pub struct LinkFaults(Arc<Inner>);

type Hook = Box<dyn Fn(Cut) + Send + Sync>;

struct Inner {
    armed: AtomicBool,
    active: Mutex<Vec<(LinkFault, Instant)>>,
    cut: watch::Sender<Cut>,
    /// Told of every change before anybody who watches.
    hook: Hook,
}

impl std::fmt::Debug for LinkFaults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LinkFaults").field("active", &self.active()).finish()
    }
}

impl LinkFaults {
    pub(crate) fn new(hook: Hook) -> Self {
        Self(Arc::new(Inner {
            armed: AtomicBool::new(false),
            active: Mutex::default(),
            cut: watch::Sender::new(Cut::default()),
            hook,
        }))
    }

    /// Sets a fault until `until`. Several may be active at once.
    pub fn set(&self, fault: LinkFault, until: Instant) {
        if fault == LinkFault::Disconnect {
            return self.0.cut(|cut| cut.epoch += 1);
        }
        let now = clock::now();
        if until <= now {
            return;
        }
        self.0.lock().push((fault, until));
        self.0.armed.store(true, Relaxed);
        if fault == LinkFault::Partition {
            self.0.cut(|cut| *cut = Cut { epoch: cut.epoch + 1, partitioned: true });
        }
        end_at(Arc::downgrade(&self.0), until - now);
    }

    /// Ends every fault now.
    pub fn clear(&self) {
        self.0.lock().clear();
        self.0.refresh();
    }

    /// What is active now, and until when.
    #[must_use]
    pub fn active(&self) -> Vec<(LinkFault, Instant)> {
        if !self.0.armed.load(Relaxed) {
            return Vec::new();
        }
        let now = clock::now();
        self.0.lock().iter().filter(|(_, until)| *until > now).copied().collect()
    }

    /// Whether any fault may be active.
    pub(crate) fn any(&self) -> bool {
        self.0.armed.load(Relaxed)
    }

    /// The fate of one message now.
    pub(crate) fn judge(&self) -> Fate {
        let mut fate = Fate::default();
        if !self.0.armed.load(Relaxed) {
            return fate;
        }
        for (fault, _) in self.active() {
            match fault {
                LinkFault::Drop { p } => fate.drop |= rand::random::<f64>() < p,
                LinkFault::Duplicate { p } => fate.duplicate |= rand::random::<f64>() < p,
                LinkFault::Delay(d) => fate.delay = Some(fate.delay.unwrap_or_default().max(d)),
                LinkFault::Disconnect | LinkFault::Partition => {}
            }
        }
        fate
    }

    /// Whether a fault that loses messages is active.
    pub(crate) fn drops(&self) -> bool {
        self.active().iter().any(|(fault, _)| matches!(fault, LinkFault::Drop { .. }))
    }

    /// Whether the link is cut now.
    pub(crate) fn is_cut(&self) -> bool {
        self.0.armed.load(Relaxed) && self.active().iter().any(|(f, _)| *f == LinkFault::Partition)
    }

    /// Resolves when the link is not cut.
    pub(crate) async fn whole(&self) {
        if self.is_cut() {
            // The sender lives as long as we do.
            drop(self.watch().wait_for(|cut| !cut.partitioned).await);
        }
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Cut> {
        self.0.cut.subscribe()
    }
}

impl Inner {
    fn cut(&self, change: impl FnOnce(&mut Cut)) {
        let mut after = *self.cut.borrow();
        change(&mut after);
        if after != *self.cut.borrow() {
            (self.hook)(after);
            self.cut.send_replace(after);
        }
    }

    fn refresh(&self) {
        let now = clock::now();
        let partitioned = {
            let mut active = self.lock();
            active.retain(|(_, until)| *until > now);
            self.armed.store(!active.is_empty(), Relaxed);
            active.iter().any(|(f, _)| *f == LinkFault::Partition)
        };
        self.cut(|cut| cut.partitioned = partitioned);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(LinkFault, Instant)>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread of its own, so that a fault ends even if every runtime of the process hangs: that may be the experiment.
fn end_at(faults: Weak<Inner>, after: Duration) {
    let end = clock::now() + after;
    let wait = move || {
        while let Some(left) = end.checked_duration_since(clock::now()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(left);
        }
        if let Some(faults) = faults.upgrade() {
            faults.refresh();
        }
    };
    if let Err(error) = std::thread::Builder::new().name("fault ends".to_owned()).spawn(wait) {
        // Judging a message compares with the deadline itself; only those who wait for the end learn it late.
        tracing::warn!(%error, "no thread to end a link fault");
    }
}
