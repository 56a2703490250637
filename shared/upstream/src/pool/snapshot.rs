//! The members that may be asked, as one immutable value.

use std::sync::Arc;

use http_support::gateway::Origin;
use serde::Serialize;

use crate::pick::{Algorithm, Common, Picker, Seat};
use crate::vitals::Vitals;

/// One member in one snapshot.
#[derive(Debug)]
pub struct Member {
    /// The instance's name, or the address that the configuration names.
    pub id: Arc<str>,
    /// How it is reached.
    pub origin: Origin,
    /// Stands for it in cookies.
    pub tag: u64,
    /// It is an instance of the stack's own, found by discovery: what it says of failures behind it counts.
    pub is_ours: bool,
    /// Whether it belongs to the canary.
    pub canary: bool,
    /// Its counters.
    pub vitals: Arc<Vitals>,
}

impl Member {
    /// The same member, perhaps of another snapshot.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.vitals, &other.vitals)
    }
}

/// Why a member is asked, or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// It is.
    Usable,
    /// It says that it is degraded, or not ready yet.
    Degraded,
    /// Its checks fail.
    Failing,
    /// It failed too many requests.
    Ejected,
    /// It finishes what it has.
    Draining,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Usable, Self::Degraded, Self::Failing, Self::Ejected, Self::Draining];

    /// For metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Usable => "usable",
            Self::Degraded => "degraded",
            Self::Failing => "failing",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
        }
    }
}

/// Who may be asked, and how it is chosen.
#[derive(Debug)]
pub struct Snapshot {
    lots: [Lot; 2],
    /// By tag, for cookies.
    tags: Vec<(u64, Arc<Member>)>,
    /// Share of the requests for the second lot, 0 to 1.
    pub canary_share: f64,
    /// Too few are usable: all are asked that do not drain.
    pub panics: bool,
}

#[derive(Debug)]
struct Lot {
    members: Vec<Arc<Member>>,
    picker: Picker,
}

/// What a snapshot is made of: a member, its weight now, its full weight.
pub(super) type Chosen = (Arc<Member>, u32, u32);

impl Default for Snapshot {
    fn default() -> Self {
        Self::new(Vec::new(), Algorithm::TwoChoices, &Arc::default(), None, 0.0, false)
    }
}

impl Snapshot {
    /// `members` are in the order of their names.
    pub(super) fn new(
        members: Vec<Chosen>,
        algorithm: Algorithm,
        common: &Arc<Common>,
        bound: Option<f64>,
        canary_share: f64,
        panics: bool,
    ) -> Self {
        let mut tags: Vec<_> = members.iter().map(|(it, ..)| (it.tag, Arc::clone(it))).collect();
        tags.sort_unstable_by_key(|(tag, _)| *tag);
        let lot = |canary: bool| {
            let chosen = members.iter().filter(|(member, ..)| member.canary == canary);
            let (mut lot, mut seats) = (Vec::new(), Vec::new());
            for (seat, (member, weight, full_weight)) in chosen.enumerate() {
                member.vitals.sit(seat);
                lot.push(Arc::clone(member));
                let place = crate::dice::hash(member.id.as_bytes());
                let (weight, full_weight) = ((*weight).max(1), (*full_weight).max(1));
                seats.push(Seat { vitals: Arc::clone(&member.vitals), weight, full_weight, place });
            }
            Lot { members: lot, picker: Picker::new(algorithm, seats, Arc::clone(common), bound) }
        };
        Self { lots: [lot(false), lot(true)], tags, canary_share, panics }
    }

    /// How many may be asked.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tags.len()
    }

    /// Everybody who may be asked.
    #[cfg(test)]
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Member>> {
        self.lots.iter().flat_map(|lot| &lot.members)
    }

    pub(super) fn members(&self, canary: bool) -> &[Arc<Member>] {
        &self.lots[usize::from(canary)].members
    }

    pub(super) fn lot(&self, canary: bool) -> &Picker {
        &self.lots[usize::from(canary)].picker
    }

    /// The member that a cookie names, if it may be asked.
    pub(super) fn tagged(&self, tag: u64) -> Option<&Arc<Member>> {
        let at = self.tags.binary_search_by_key(&tag, |(tag, _)| *tag).ok()?;
        Some(&self.tags[at].1)
    }

    pub(super) fn settle(&self) {
        self.lots.iter().filter(|lot| lot.picker.wants_touch()).for_each(|lot| lot.picker.settle());
    }
}
