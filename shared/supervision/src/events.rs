//! Every transition is told once: to the log, to those who subscribed, and to the hooks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::broadcast;

use crate::view::{ExitReason, State, Transition};

/// Transitions kept for a slow subscriber; who falls further behind is told how many it missed.
const BACKLOG: usize = 4096;

type Hook = Arc<dyn Fn(&Transition) + Send + Sync>;

/// Where transitions go.
pub(crate) struct Events {
    channel: broadcast::Sender<Transition>,
    hooks: RwLock<Vec<Hook>>,
    hooked: AtomicBool,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            channel: broadcast::Sender::new(BACKLOG),
            hooks: RwLock::new(Vec::new()),
            hooked: AtomicBool::new(false),
        }
    }

    pub(crate) fn subscribe(&self) -> broadcast::Receiver<Transition> {
        self.channel.subscribe()
    }

    pub(crate) fn hook(&self, hook: Hook) {
        self.hooks.write().unwrap_or_else(PoisonError::into_inner).push(hook);
        self.hooked.store(true, Ordering::Relaxed);
    }

    /// Whether anybody would be told: with no subscriber, hook or log there is nothing to build.
    pub(crate) fn are_wanted(&self) -> bool {
        self.hooked.load(Ordering::Relaxed)
            || self.channel.receiver_count() > 0
            || tracing::enabled!(tracing::Level::WARN)
    }

    /// To the subscribers, under the tree's lock, so that they see transitions in order.
    pub(crate) fn broadcast(&self, transition: &Transition) {
        if self.channel.receiver_count() > 0 {
            let _ = self.channel.send(transition.clone());
        }
    }

    /// To the log and the hooks, outside the lock.
    pub(crate) fn tell(&self, transition: &Transition) {
        log(transition);
        for hook in self.hooks.read().unwrap_or_else(PoisonError::into_inner).iter() {
            hook(transition);
        }
    }
}

fn log(t: &Transition) {
    let abnormal = |reason| !matches!(reason, ExitReason::Normal | ExitReason::Shutdown);
    let recovered_us = t.recovered_us;
    match (&t.exit, t.to) {
        (Some(exit), State::Restarting | State::Stopped) if abnormal(exit.reason) => tracing::warn!(
            child = %t.path, from = ?t.from, to = ?t.to, incarnation = t.incarnation, restarts = t.restarts,
            reason = ?exit.reason, detail = %exit.detail, "child exited"
        ),
        // A stop that was asked for: a node has two hundred children.
        (Some(exit), State::Stopped) => tracing::debug!(
            child = %t.path, incarnation = t.incarnation, reason = ?exit.reason, "child stopped"
        ),
        (Some(exit), State::Restarting) => tracing::info!(
            child = %t.path, from = ?t.from, to = ?t.to, incarnation = t.incarnation, restarts = t.restarts,
            reason = ?exit.reason, detail = %exit.detail, "child ended"
        ),
        (_, State::Waiting) => tracing::warn!(
            child = %t.path, incarnation = t.incarnation, waiting_for = t.waiting_for.as_deref(), "child waits"
        ),
        (_, State::Running) if recovered_us.is_some() || t.restarts > 0 => tracing::info!(
            child = %t.path, incarnation = t.incarnation, restarts = t.restarts, recovered_us, "child runs again"
        ),
        (_, State::Running) => {
            tracing::debug!(child = %t.path, incarnation = t.incarnation, "child runs");
        }
        _ => {
            tracing::debug!(child = %t.path, from = ?t.from, to = ?t.to, incarnation = t.incarnation, "child")
        }
    }
}
