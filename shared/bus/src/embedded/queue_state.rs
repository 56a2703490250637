//! Which messages of a queue are ready and who holds which: a pure state machine.
//!
//! A message is either ready (in its priority's order) or held by one consumer. It leaves by an ack or as a dead
//! letter. The numbers are handed out by the caller and only grow; a message that comes back goes to its old place.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::message::PRIORITY_MAX;

/// Number of a message in its queue.
pub type Seq = u64;
/// Number of a consumer in its queue; never used twice.
pub type ConsumerId = u64;
/// Number of a delivery in its queue; never used twice. A late answer names a delivery that is no more.
pub type Tag = u64;

/// A message as it is handed to a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Which.
    pub seq: Seq,
    /// Which delivery of it.
    pub tag: Tag,
    /// How often it came back before.
    pub delivery_count: u32,
    /// Whether it may have been handed out before.
    pub redelivered: bool,
}

/// What becomes of a message that came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Returned {
    /// Ready again, with this many returns.
    Ready(Seq, u32),
    /// It came back more often than allowed, or was given up. Nobody gets it any more; it counts until
    /// [`QueueState::remove`].
    Dead(Seq),
}

#[derive(Debug)]
struct Entry {
    priority: u8,
    delivery_count: u32,
    redelivered: bool,
    at: At,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Ready,
    Held(ConsumerId, Tag),
    Dead,
}

/// See the module.
#[derive(Debug)]
pub struct QueueState {
    ready: [BTreeSet<Seq>; PRIORITY_MAX as usize + 1],
    ready_len: usize,
    entries: HashMap<Seq, Entry>,
    held: HashMap<ConsumerId, BTreeMap<Tag, Seq>>,
    next_tag: Tag,
    delivery_limit: u32,
}

impl QueueState {
    /// An empty queue. A message may come back `delivery_limit` times.
    pub fn new(delivery_limit: u32) -> Self {
        Self {
            ready: Default::default(),
            ready_len: 0,
            entries: HashMap::new(),
            held: HashMap::new(),
            next_tag: 0,
            delivery_limit,
        }
    }

    /// Messages that are ready, held and dead.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Messages that are ready.
    pub fn ready_len(&self) -> usize {
        self.ready_len
    }

    /// How many `consumer` holds.
    pub fn held_by(&self, consumer: ConsumerId) -> usize {
        self.held.get(&consumer).map_or(0, BTreeMap::len)
    }

    /// How often it came back so far.
    pub fn returns(&self, seq: Seq) -> u32 {
        self.entries.get(&seq).map_or(0, |e| e.delivery_count)
    }

    /// Adds a message. `returns` and `redelivered` are not zero for one that was there before a restart.
    pub fn put(&mut self, seq: Seq, priority: u8, returns: u32, redelivered: bool) {
        let priority = priority.min(PRIORITY_MAX);
        let entry = Entry { priority, delivery_count: returns, redelivered, at: At::Ready };
        if self.entries.insert(seq, entry).is_none() {
            self.ready[usize::from(priority)].insert(seq);
            self.ready_len += 1;
        }
    }

    /// Hands the first ready message, highest priority first, to `consumer`.
    pub fn take(&mut self, consumer: ConsumerId) -> Option<Taken> {
        let seq = self.ready.iter_mut().rev().find_map(BTreeSet::pop_first)?;
        self.ready_len -= 1;
        let entry = self.entries.get_mut(&seq).expect("ready messages have an entry");
        let tag = self.next_tag;
        self.next_tag += 1;
        entry.at = At::Held(consumer, tag);
        self.held.entry(consumer).or_default().insert(tag, seq);
        Some(Taken { seq, tag, delivery_count: entry.delivery_count, redelivered: entry.redelivered })
    }

    /// What `consumer` holds by `tag`; with `through`, by all tags up to it, in the order of delivery.
    pub fn held(&self, consumer: ConsumerId, tag: Tag, through: bool) -> Vec<Seq> {
        let Some(held) = self.held.get(&consumer) else { return Vec::new() };
        if through {
            return held.range(..=tag).map(|(_, seq)| *seq).collect();
        }
        held.get(&tag).copied().into_iter().collect()
    }

    /// The message is done with: acked, or stored elsewhere. False if it was not there.
    pub fn remove(&mut self, seq: Seq) -> bool {
        let Some(entry) = self.entries.remove(&seq) else { return false };
        match entry.at {
            At::Held(consumer, tag) => drop(self.unhold(consumer, tag)),
            At::Ready => {
                self.ready[usize::from(entry.priority)].remove(&seq);
                self.ready_len -= 1;
            }
            At::Dead => {}
        }
        true
    }

    /// `consumer` gives back what it holds by `tag`. `None` if it holds nothing by it.
    pub fn give_back(&mut self, consumer: ConsumerId, tag: Tag) -> Option<Returned> {
        let seq = self.unhold(consumer, tag)?;
        let entry = self.entries.get_mut(&seq).expect("held messages have an entry");
        entry.delivery_count += 1;
        entry.redelivered = true;
        if entry.delivery_count > self.delivery_limit {
            entry.at = At::Dead;
            return Some(Returned::Dead(seq));
        }
        entry.at = At::Ready;
        let (priority, count) = (entry.priority, entry.delivery_count);
        self.ready[usize::from(priority)].insert(seq);
        self.ready_len += 1;
        Some(Returned::Ready(seq, count))
    }

    /// `consumer` gives up what it holds by `tag`. `None` if it holds nothing by it.
    pub fn give_up(&mut self, consumer: ConsumerId, tag: Tag) -> Option<Returned> {
        let seq = self.unhold(consumer, tag)?;
        self.entries.get_mut(&seq).expect("held messages have an entry").at = At::Dead;
        Some(Returned::Dead(seq))
    }

    /// The consumer is gone: all it held comes back.
    pub fn drop_consumer(&mut self, consumer: ConsumerId) -> Vec<Returned> {
        let held: Vec<Tag> = self.held.get(&consumer).into_iter().flat_map(BTreeMap::keys).copied().collect();
        held.into_iter().filter_map(|tag| self.give_back(consumer, tag)).collect()
    }

    fn unhold(&mut self, consumer: ConsumerId, tag: Tag) -> Option<Seq> {
        let held = self.held.get_mut(&consumer)?;
        let seq = held.remove(&tag);
        if held.is_empty() {
            self.held.remove(&consumer);
        }
        seq
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Put(u8),
        Take(ConsumerId),
        Ack(ConsumerId, Tag, bool),
        GiveBack(ConsumerId, Tag),
        GiveUp(ConsumerId, Tag),
        Drop(ConsumerId),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let (consumer, tag) = (0u64..3, 0u64..30);
        let step = prop_oneof![
            3 => (0u8..=9).prop_map(Step::Put),
            4 => consumer.clone().prop_map(Step::Take),
            3 => (consumer.clone(), tag.clone(), any::<bool>()).prop_map(|(c, t, all)| Step::Ack(c, t, all)),
            2 => (consumer.clone(), tag.clone()).prop_map(|(c, t)| Step::GiveBack(c, t)),
            1 => (consumer.clone(), tag).prop_map(|(c, t)| Step::GiveUp(c, t)),
            1 => consumer.prop_map(Step::Drop),
        ];
        prop::collection::vec(step, 0..200)
    }

    /// The queue as a plain list.
    #[derive(Default)]
    struct Model {
        messages: Vec<Held>,
        delivered: u64,
    }

    struct Held {
        seq: Seq,
        priority: u8,
        returns: u32,
        by: Option<(ConsumerId, Tag)>,
    }

    const LIMIT: u32 = 2;

    impl Model {
        fn take(&mut self, consumer: ConsumerId) -> Option<(Seq, Tag, u32)> {
            let ready = self.messages.iter_mut().filter(|m| m.by.is_none());
            let best = ready.max_by_key(|m| (m.priority, std::cmp::Reverse(m.seq)))?;
            best.by = Some((consumer, self.delivered));
            self.delivered += 1;
            Some((best.seq, self.delivered - 1, best.returns))
        }

        /// Some(true): it is dead, and gone.
        fn give_back(&mut self, consumer: ConsumerId, tag: Tag) -> Option<bool> {
            let at = self.messages.iter().position(|m| m.by == Some((consumer, tag)))?;
            self.messages[at].returns += 1;
            self.messages[at].by = None;
            let dead = self.messages[at].returns > LIMIT;
            if dead {
                self.messages.remove(at);
            }
            Some(dead)
        }

        fn held(&self, consumer: ConsumerId) -> Vec<(Tag, Seq)> {
            let mine = self.messages.iter().filter_map(|m| Some((m.by?, m.seq)));
            let mut tags: Vec<_> =
                mine.filter(|(by, _)| by.0 == consumer).map(|(by, seq)| (by.1, seq)).collect();
            tags.sort_unstable();
            tags
        }
    }

    fn settle(state: &mut QueueState, returned: Returned) -> bool {
        let Returned::Dead(seq) = returned else { return false };
        assert!(state.remove(seq), "a dead letter is there until it is removed");
        true
    }

    proptest! {
        #[test]
        fn agrees_with_a_plain_list(steps in steps()) {
            let (mut state, mut model, mut next) = (QueueState::new(LIMIT), Model::default(), 0);
            for step in steps {
                match step {
                    Step::Put(priority) => {
                        state.put(next, priority, 0, false);
                        model.messages.push(Held { seq: next, priority, returns: 0, by: None });
                        next += 1;
                    }
                    Step::Take(c) => {
                        let taken = state.take(c);
                        prop_assert_eq!(taken.map(|t| (t.seq, t.tag, t.delivery_count)), model.take(c));
                        prop_assert!(taken.is_none_or(|t| t.redelivered == (t.delivery_count > 0)));
                    }
                    Step::Ack(c, tag, through) => {
                        let held = model.held(c).into_iter();
                        let acked: Vec<_> = held.filter(|(t, _)| *t == tag || through && *t < tag).map(|h| h.1).collect();
                        prop_assert_eq!(&state.held(c, tag, through), &acked);
                        acked.iter().for_each(|seq| assert!(state.remove(*seq)));
                        model.messages.retain(|m| !acked.contains(&m.seq));
                    }
                    Step::GiveBack(c, tag) => {
                        let dead = state.give_back(c, tag).map(|r| settle(&mut state, r));
                        prop_assert_eq!(dead, model.give_back(c, tag));
                    }
                    Step::GiveUp(c, tag) => {
                        let dead = state.give_up(c, tag).map(|r| settle(&mut state, r));
                        let at = model.messages.iter().position(|m| m.by == Some((c, tag)));
                        prop_assert_eq!(dead, at.map(|at| { model.messages.remove(at); true }));
                    }
                    Step::Drop(c) => {
                        let returned = state.drop_consumer(c);
                        let held = model.held(c);
                        prop_assert_eq!(returned.len(), held.len());
                        for (r, (tag, _)) in returned.into_iter().zip(held) {
                            prop_assert_eq!(Some(settle(&mut state, r)), model.give_back(c, tag));
                        }
                        prop_assert_eq!(state.held_by(c), 0);
                    }
                }
                prop_assert_eq!(state.len(), model.messages.len());
                prop_assert_eq!(state.ready_len(), model.messages.iter().filter(|m| m.by.is_none()).count());
            }
        }
    }
}
