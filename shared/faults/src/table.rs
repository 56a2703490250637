//! What one node was asked to break: the pure core behind the list and the undo.
//!
//! The table never ends a fault: that is done where the fault lives. It remembers which paths a fault was given
//! to, until when, and who has them now: a child has room for one fault, the newest; those of a link add up.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use clock::WallMs;
use uuid::Uuid;

use crate::spec::{Fault, Hits};
use crate::wire::InForce;

/// The faults of one node.
#[derive(Debug, Default)]
pub struct Table {
    entries: Vec<Entry>,
}

/// One fault and what is left of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Names it.
    pub id: Uuid,
    /// What was asked.
    pub fault: Fault,
    /// When it was set.
    pub set_at: WallMs,
    /// When it ends by itself.
    pub until: Instant,
    /// The paths that it holds.
    pub holds: BTreeSet<String>,
}

impl Table {
    /// How many are in force.
    pub fn len(&mut self, now: Instant) -> usize {
        self.sweep(now);
        self.entries.len()
    }

    /// Notes that `fault` was given to `paths`. Whatever it replaces there is no longer held by the older one.
    pub fn set(&mut self, id: Uuid, fault: Fault, paths: &[String], now: Instant, set_at: WallMs) {
        self.sweep(now);
        for older in self.entries.iter_mut().filter(|e| same_place(&e.fault, &fault)) {
            for path in paths {
                older.holds.remove(path);
            }
        }
        let until = now + Duration::from_millis(fault.for_ms);
        self.entries.push(Entry { id, fault, set_at, until, holds: paths.iter().cloned().collect() });
        self.entries.retain(|e| !e.holds.is_empty());
    }

    /// What is in force, oldest first. `holds` is asked whether a path really still has the fault, so that one
    /// that struck already, or whose child is gone, is not shown.
    pub fn in_force(&mut self, now: Instant, holds: impl Fn(&Fault, &str) -> bool) -> Vec<InForce> {
        self.sweep(now);
        for e in &mut self.entries {
            let Entry { fault, holds: paths, .. } = e;
            paths.retain(|path| holds(fault, path));
        }
        self.entries.retain(|e| !e.holds.is_empty());
        self.entries.iter().map(|e| e.view(now)).collect()
    }

    /// Takes out one fault, or all: what is returned is to be undone.
    pub fn clear(&mut self, id: Option<Uuid>, now: Instant) -> Vec<Entry> {
        self.sweep(now);
        self.entries.extract_if(.., |e| id.is_none_or(|id| id == e.id)).collect()
    }

    /// The other faults that hold `path`: to be set again when a place can only be cleared as a whole.
    pub fn holding<'a>(&'a self, path: &'a str, now: Instant) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |e| e.until > now && e.holds.contains(path))
    }

    fn sweep(&mut self, now: Instant) {
        self.entries.retain(|e| e.until > now);
    }
}

impl Entry {
    fn view(&self, now: Instant) -> InForce {
        let left = self.until.saturating_duration_since(now);
        InForce {
            id: self.id,
            target: self.fault.target.clone(),
            kind: self.fault.kind,
            probability: self.fault.probability,
            amount_ms: self.fault.amount_ms,
            set_at: self.set_at,
            ends_in_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            matched: self.holds.iter().cloned().collect(),
        }
    }
}

/// A child has one cell for any fault; a link has room for several.
fn same_place(a: &Fault, b: &Fault) -> bool {
    a.kind.hits() == Hits::Child && b.kind.hits() == Hits::Child
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Kind, Limits, Request};

    fn fault(kind: Kind, for_ms: u64) -> Fault {
        let asked = Request { for_ms: Some(for_ms), ..Request::new("/n/**", kind) };
        asked.check(&Limits::default()).expect("in range")
    }

    fn ids(list: &[InForce]) -> Vec<u128> {
        list.iter().map(|f| f.id.as_u128()).collect()
    }

    /// Sets a fault under the id `id` at `at` milliseconds after `t0`.
    fn set(table: &mut Table, t0: Instant, id: u128, at: u64, fault: Fault, paths: &[&str]) {
        let paths: Vec<String> = paths.iter().map(|p| (*p).to_owned()).collect();
        let now = t0 + Duration::from_millis(at);
        table.set(Uuid::from_u128(id), fault, &paths, now, WallMs(at.try_into().expect("small")));
    }

    #[test]
    fn a_fault_is_listed_until_its_time_is_over() {
        let (mut table, t0) = (Table::default(), clock::now());
        set(&mut table, t0, 1, 0, fault(Kind::Hang, 100), &["/n/a"]);
        let at = |ms| t0 + Duration::from_millis(ms);
        let list = table.in_force(at(60), |_, _| true);
        assert_eq!((ids(&list), list[0].ends_in_ms), (vec![1], 40));
        assert!(table.in_force(at(100), |_, _| true).is_empty());
        assert!(table.clear(None, at(100)).is_empty(), "nothing is undone twice");
    }

    #[test]
    fn a_newer_fault_takes_the_child_over_and_clearing_the_older_leaves_it_alone() {
        let (mut table, t0) = (Table::default(), clock::now());
        set(&mut table, t0, 1, 0, fault(Kind::Slow, 1000), &["/n/a", "/n/b"]);
        set(&mut table, t0, 2, 1, fault(Kind::Hang, 1000), &["/n/a"]);
        let undone = table.clear(Some(Uuid::from_u128(1)), t0);
        assert_eq!(undone.len(), 1);
        assert!(undone[0].holds.iter().eq(["/n/b"]), "{undone:?}");
        assert_eq!(ids(&table.in_force(t0, |_, _| true)), [2]);
    }

    #[test]
    fn link_faults_add_up() {
        let (mut table, t0) = (Table::default(), clock::now());
        set(&mut table, t0, 1, 0, fault(Kind::Drop, 1000), &["/n/t/i"]);
        set(&mut table, t0, 2, 0, fault(Kind::Delay, 1000), &["/n/t/i"]);
        assert_eq!(ids(&table.in_force(t0, |_, _| true)), [1, 2]);
        assert_eq!(table.clear(Some(Uuid::from_u128(1)), t0).len(), 1);
        let left: Vec<Kind> = table.holding("/n/t/i", t0).map(|e| e.fault.kind).collect();
        assert_eq!(left, [Kind::Delay], "the link is cleared as a whole: this one is set again");
    }

    #[test]
    fn what_struck_already_is_not_listed() {
        let (mut table, t0) = (Table::default(), clock::now());
        set(&mut table, t0, 1, 0, fault(Kind::Panic, 1000), &["/n/a", "/n/b"]);
        let list = table.in_force(t0, |_, path| path == "/n/b");
        assert_eq!(list[0].matched, ["/n/b"]);
        assert!(table.in_force(t0, |_, _| false).is_empty());
        assert_eq!(table.len(t0), 0);
    }
}
