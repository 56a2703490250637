//! Transitions told as a person would: who went down, why, and how fast it came back.

use std::collections::VecDeque;

use clock::WallMs;
use supervision::view::{ExitReason, State, Transition};

/// One end of a life, and what became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// Whose.
    pub path: String,
    /// When it ended.
    pub at: WallMs,
    /// How.
    pub reason: ExitReason,
    /// In words.
    pub detail: String,
    /// The life that came after, once it is ready.
    pub back: Option<Back>,
}

/// A child that is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Back {
    /// Which life.
    pub incarnation: u64,
    /// Microseconds from the exit to ready.
    pub after_us: Option<u64>,
}

/// The last incidents of the stack, newest first.
#[derive(Debug)]
pub struct Incidents {
    list: VecDeque<Incident>,
    capacity: usize,
}

impl Incidents {
    /// Keeps the last `capacity`.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { list: VecDeque::new(), capacity: capacity.max(1) }
    }

    /// Newest first.
    pub fn iter(&self) -> impl Iterator<Item = &Incident> {
        self.list.iter()
    }

    /// Takes a transition in.
    pub fn apply(&mut self, t: &Transition) {
        if let Some(exit) = &t.exit
            && !matches!(exit.reason, ExitReason::Normal | ExitReason::Shutdown)
            && !self.list.iter().any(|i| i.path == t.path && i.at == exit.at && i.back.is_none())
        {
            self.list.push_front(Incident {
                path: t.path.clone(),
                at: exit.at,
                reason: exit.reason,
                detail: exit.detail.clone(),
                back: None,
            });
            self.list.truncate(self.capacity);
        }
        if t.to == State::Running
            && let Some(incident) = self.list.iter_mut().find(|i| i.path == t.path && i.back.is_none())
        {
            incident.back = Some(Back { incarnation: t.incarnation, after_us: t.recovered_us });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use supervision::view::Exit;

    fn transition(path: &str, to: State, exit: Option<ExitReason>) -> Transition {
        Transition {
            id: 1,
            path: path.into(),
            at: WallMs(5),
            from: State::Running,
            to,
            incarnation: 2,
            restarts: 1,
            exit: exit.map(|reason| Exit { reason, detail: "boom".into(), at: WallMs(4) }),
            recovered_us: (to == State::Running).then_some(34),
            waiting_for: None,
        }
    }

    #[test]
    fn an_exit_and_its_recovery_are_one_incident() {
        let mut all = Incidents::new(2);
        all.apply(&transition("/a", State::Restarting, Some(ExitReason::Panic)));
        all.apply(&transition("/a", State::Starting, Some(ExitReason::Panic)));
        all.apply(&transition("/b", State::Restarting, Some(ExitReason::Hung)));
        all.apply(&transition("/a", State::Running, None));
        let told: Vec<_> = all.iter().map(|i| (i.path.as_str(), i.back.map(|b| b.after_us))).collect();
        assert_eq!(told, [("/b", None), ("/a", Some(Some(34)))]);
        all.apply(&transition("/c", State::Restarting, Some(ExitReason::Error)));
        assert_eq!(all.iter().count(), 2, "bounded");
    }

    #[test]
    fn an_orderly_stop_is_none() {
        let mut all = Incidents::new(2);
        all.apply(&transition("/a", State::Stopped, Some(ExitReason::Shutdown)));
        assert_eq!(all.iter().count(), 0);
    }
}
