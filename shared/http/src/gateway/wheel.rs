//! A timer wheel for deadlines that nearly always move before they are due.
//!
//! Each entry has a deadline, which is only a number: moving it later touches nothing else. The entry sits in the slot
//! where it was last put; when that slot comes up and the deadline has moved, it is put where it belongs now. So a
//! connection that is busy costs one move per time-out, not one per request.
//!
//! Pure: it is told which tick it is and says whom to wake.

use std::task::Waker;

/// Length of the wheel in ticks; longer deadlines go round more than once.
const SLOTS: usize = 512;

/// A number of ticks since the wheel was made.
pub(crate) type Tick = u64;

/// Not due at any time.
pub(crate) const NEVER: Tick = Tick::MAX;

/// Names an entry. Of no use after [`Wheel::remove`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    index: u32,
    life: u32,
}

struct Entry {
    /// Counts who had this place, so that what is left of the last one in a slot is known as such.
    life: u32,
    used: bool,
    deadline: Tick,
    /// Where its valid place in the wheel is.
    placed: Tick,
    waker: Option<Waker>,
}

pub(crate) struct Wheel {
    now: Tick,
    slots: Vec<Vec<(Key, Tick)>>,
    entries: Vec<Entry>,
    free: Vec<u32>,
}

impl Wheel {
    pub(crate) fn new() -> Self {
        Self { now: 0, slots: vec![Vec::new(); SLOTS], entries: Vec::new(), free: Vec::new() }
    }

    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(crate) fn now(&self) -> Tick {
        self.now
    }

    /// A new entry, never due.
    pub(crate) fn insert(&mut self) -> Key {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push(Entry { life: 0, used: false, deadline: NEVER, placed: NEVER, waker: None });
            u32::try_from(self.entries.len() - 1).expect("fewer connections than 2^32")
        });
        let entry = &mut self.entries[index as usize];
        entry.used = true;
        Key { index, life: entry.life }
    }

    pub(crate) fn remove(&mut self, key: Key) {
        let entry = &mut self.entries[key.index as usize];
        *entry = Entry {
            life: entry.life.wrapping_add(1),
            used: false,
            deadline: NEVER,
            placed: NEVER,
            waker: None,
        };
        self.free.push(key.index);
    }

    /// The entry is due at `deadline`, no longer when it was before.
    pub(crate) fn set(&mut self, key: Key, deadline: Tick) {
        let now = self.now;
        let entry = &mut self.entries[key.index as usize];
        entry.deadline = deadline;
        if deadline < entry.placed {
            entry.placed = deadline.max(now + 1); // the slot of the present tick has been emptied already
            self.slots[slot(entry.placed)].push((key, entry.placed));
        }
    }

    pub(crate) fn is_due(&self, key: Key) -> bool {
        self.entries[key.index as usize].deadline <= self.now
    }

    /// Who is woken when it is due.
    pub(crate) fn wakes(&mut self, key: Key, waker: &Waker) {
        match &mut self.entries[key.index as usize].waker {
            Some(known) => known.clone_from(waker), // does nothing if it would wake the same task
            unknown => *unknown = Some(waker.clone()),
        }
    }

    /// Goes on to `now` and adds to `wake` who is due.
    pub(crate) fn advance(&mut self, now: Tick, wake: &mut Vec<Waker>) {
        let turns = (now.saturating_sub(self.now)).min(SLOTS as u64);
        let first = now + 1 - turns;
        self.now = self.now.max(now);
        for tick in first..=now {
            let mut list = std::mem::take(&mut self.slots[slot(tick)]);
            list.retain(|(key, at)| *at > now || !self.take_out(*key, *at, wake));
            let again = &mut self.slots[slot(tick)];
            list.append(again); // what `take_out` has put into this very slot, for a later turn
            *again = list;
        }
    }

    /// The turn of `key`, placed at `at`, has come. True: it leaves the slot.
    fn take_out(&mut self, key: Key, at: Tick, wake: &mut Vec<Waker>) -> bool {
        let now = self.now;
        let entry = &mut self.entries[key.index as usize];
        if entry.life != key.life || entry.placed != at {
            return true; // the remains of a former entry or place
        }
        entry.placed = NEVER;
        if entry.deadline <= now {
            wake.extend(entry.waker.clone());
        } else if entry.deadline != NEVER {
            let deadline = entry.deadline;
            self.set(key, deadline);
        }
        true
    }

    /// Everyone who waits, due or not: something of all has changed.
    pub(crate) fn all(&self) -> Vec<Waker> {
        self.entries.iter().filter(|entry| entry.used).filter_map(|entry| entry.waker.clone()).collect()
    }
}

fn slot(tick: Tick) -> usize {
    usize::try_from(tick % SLOTS as u64).expect("less than SLOTS")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    use std::task::Wake;

    use proptest::prelude::*;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU64);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    fn advance(wheel: &mut Wheel, now: Tick) -> usize {
        let mut wake = Vec::new();
        wheel.advance(now, &mut wake);
        wake.into_iter().map(Waker::wake).count()
    }

    #[test]
    fn a_deadline_that_moves_is_not_due_before() {
        let mut wheel = Wheel::new();
        let key = wheel.insert();
        wheel.wakes(key, &Waker::from(Arc::new(Count::default())));
        wheel.set(key, 10);
        assert_eq!(advance(&mut wheel, 9), 0);
        wheel.set(key, 2000);
        assert_eq!(advance(&mut wheel, 1999), 0);
        assert!(!wheel.is_due(key));
        assert_eq!(advance(&mut wheel, 2000), 1);
        assert!(wheel.is_due(key));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Insert(u64),
        Set(usize, u64),
        Remove(usize),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (1..3000_u64).prop_map(Step::Insert),
            (0..20_usize, 1..3000_u64).prop_map(|(who, after)| Step::Set(who, after)),
            (0..20_usize).prop_map(Step::Remove),
            (0..1500_u64).prop_map(Step::Advance),
        ]
    }

    proptest! {
        /// Against the plainest model: a map from entry to deadline.
        #[test]
        fn each_is_woken_when_it_is_due_and_not_before(steps in prop::collection::vec(step(), 1..120)) {
            let mut wheel = Wheel::new();
            let mut model: Vec<(Key, u64, Arc<Count>)> = Vec::new();
            let mut woken: HashMap<u32, u64> = HashMap::new();
            let mut now = 0;
            for step in steps {
                match step {
                    Step::Insert(after) => {
                        let (key, count) = (wheel.insert(), Arc::new(Count::default()));
                        wheel.wakes(key, &Waker::from(Arc::clone(&count)));
                        wheel.set(key, now + after);
                        woken.insert(key.index, 0);
                        model.push((key, now + after, count));
                    }
                    Step::Set(who, after) if !model.is_empty() => {
                        let at = who % model.len();
                        let (key, deadline, count) = &mut model[at];
                        *deadline = now + after;
                        wheel.set(*key, *deadline);
                        woken.insert(key.index, count.0.load(Relaxed));
                    }
                    Step::Remove(who) if !model.is_empty() => {
                        let (key, ..) = model.swap_remove(who % model.len());
                        wheel.remove(key);
                    }
                    Step::Advance(by) => {
                        now += by;
                        advance(&mut wheel, now);
                    }
                    _ => {}
                }
                prop_assert_eq!(wheel.len(), model.len());
                for (key, deadline, count) in &model {
                    prop_assert_eq!(wheel.is_due(*key), *deadline <= now);
                    let since = count.0.load(Relaxed) - woken[&key.index];
                    prop_assert_eq!(since, u64::from(*deadline <= now), "deadline {} now {}", deadline, now);
                }
            }
        }
    }
}
