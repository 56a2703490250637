//! Which deliveries of a channel are answered: gathers acks so that one frame answers for many.

use std::collections::BTreeSet;

/// One frame to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The delivery tag,
    pub tag: u64,
    /// or all unanswered ones up to it.
    pub multiple: bool,
}

/// Pure bookkeeping of one channel.
#[derive(Debug, Default)]
pub struct Acks {
    /// Handed out and not answered.
    unanswered: BTreeSet<u64>,
    /// Answered with an ack that is not sent.
    unsent: BTreeSet<u64>,
}

impl Acks {
    /// A delivery was handed out.
    pub fn delivered(&mut self, tag: u64) {
        self.unanswered.insert(tag);
    }

    /// How many are handed out and not answered.
    pub fn unanswered(&self) -> usize {
        self.unanswered.len()
    }

    /// How many acks wait.
    pub fn unsent(&self) -> usize {
        self.unsent.len()
    }

    /// An ack of `tag`, or of all up to it.
    pub fn ack(&mut self, tag: u64, through: bool) {
        if through {
            let rest = self.unanswered.split_off(&(tag + 1));
            self.unsent.append(&mut self.unanswered);
            self.unanswered = rest;
        } else if self.unanswered.remove(&tag) {
            self.unsent.insert(tag);
        }
    }

    /// A nack, which the caller sends itself. False if `tag` was answered before.
    pub fn nack(&mut self, tag: u64) -> bool {
        self.unanswered.remove(&tag)
    }

    /// The frames that send all acks: one for the run before the oldest unanswered delivery, one for each after it.
    pub fn flush(&mut self) -> Vec<Ack> {
        let mut frames = Vec::new();
        let oldest = self.unanswered.first().copied().unwrap_or(u64::MAX);
        let mut after = self.unsent.split_off(&oldest);
        if let Some(tag) = self.unsent.last().copied() {
            frames.push(Ack { tag, multiple: self.unsent.len() > 1 });
        }
        self.unsent.clear();
        frames.extend(std::mem::take(&mut after).into_iter().map(|tag| Ack { tag, multiple: false }));
        frames
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The frames, read as a broker reads them, ack exactly what was acked.
        #[test]
        fn frames_ack_what_was_acked(steps in prop::collection::vec((0u8..4, 1u64..40), 0..120)) {
            let (mut acks, mut next) = (Acks::default(), 1);
            let mut broker: BTreeSet<u64> = BTreeSet::new();
            let mut expected: BTreeSet<u64> = BTreeSet::new();
            for (step, tag) in steps {
                match step {
                    0 => {
                        acks.delivered(next);
                        broker.insert(next);
                        expected.insert(next);
                        next += 1;
                    }
                    1 => {
                        acks.ack(tag, false);
                        expected.remove(&tag);
                    }
                    2 => {
                        acks.ack(tag, true);
                        expected.retain(|t| *t > tag);
                    }
                    _ => {
                        if acks.nack(tag) {
                            broker.remove(&tag);
                        }
                        expected.remove(&tag);
                    }
                }
                prop_assert_eq!(acks.unanswered(), expected.len());
                if tag % 5 == 0 {
                    for frame in acks.flush() {
                        prop_assert!(broker.contains(&frame.tag), "acked twice");
                        broker.retain(|t| if frame.multiple { *t > frame.tag } else { *t != frame.tag });
                    }
                    prop_assert_eq!(&broker, &expected);
                }
            }
        }
    }
}
