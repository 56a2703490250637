//! What to do when the log is not the one that was followed: pure.
//!
//! Intuition. A broker that lost power may come back with a log that is shorter than what replicas have applied. Nobody can
//! put the lost entries back, so the history goes on in a new log that begins where the longest replica is. Until that is
//! decided nobody may become primary on the shorter log: what it acknowledged there would be lost.

use crate::position::{Chain, Position};

/// What another replica says of itself in discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub instance: String,
    /// Of the log it follows.
    pub generation: u64,
    /// How far it is.
    pub seq: u64,
    /// Whether it takes writes.
    pub primary: bool,
}

/// What a replica that cannot follow the log does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Another one has more, or as much and comes first by name: it decides.
    Wait,
    /// Begin the next generation here.
    Begin,
    /// A later generation has begun: go there.
    Join(u64),
    /// The stack went on without this replica: there is a primary on the log that it cannot follow, and nobody becomes
    /// that while it knows of somebody who has more. Put the file aside and take a snapshot.
    Yield,
}

/// Decides for the replica `instance` at `mine`.
#[must_use]
pub fn step(instance: &str, mine: &Position, peers: &[Peer]) -> Step {
    if let Some(later) = later_generation(mine.generation, peers) {
        return Step::Join(later);
    }
    // An empty history never outvotes a full one, whoever is primary of it.
    if peers.iter().any(|p| p.primary && p.generation == mine.generation && (p.seq > 0 || mine.seq == 0)) {
        return Step::Yield;
    }
    let same = peers.iter().filter(|p| p.generation == mine.generation);
    let longer = same
        .clone()
        .any(|p| (p.seq, std::cmp::Reverse(&*p.instance)) > (mine.seq, std::cmp::Reverse(instance)));
    if longer { Step::Wait } else { Step::Begin }
}

/// The latest generation that a peer follows, if it is later than `mine`.
#[must_use]
pub fn later_generation(mine: u64, peers: &[Peer]) -> Option<u64> {
    peers.iter().map(|p| p.generation).max().filter(|latest| *latest > mine)
}

/// Whether a replica that has read the log to its end may try to be primary: not if another has more than the log.
#[must_use]
pub fn may_lead(generation: u64, seq: u64, peers: &[Peer]) -> bool {
    peers
        .iter()
        .all(|p| p.generation < generation || (p.generation == generation && (p.seq <= seq || p.primary)))
}

/// How a replica gets into a generation that began at `seq` and `chain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entrance {
    /// It is where the generation begins: it follows.
    Follow,
    /// It has less: it takes a snapshot.
    Snapshot,
    /// It has what the generation has not: it puts its file aside and takes a snapshot.
    SetAside,
}

/// See [`Entrance`].
#[must_use]
pub fn entrance(mine: &Position, seq: u64, chain: Chain) -> Entrance {
    match mine.seq.cmp(&seq) {
        std::cmp::Ordering::Equal if mine.chain == chain => Entrance::Follow,
        std::cmp::Ordering::Less => Entrance::Snapshot,
        _ => Entrance::SetAside,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn peer(instance: &str, generation: u64, seq: u64) -> Peer {
        Peer { instance: instance.into(), generation, seq, primary: false }
    }

    fn at(generation: u64, seq: u64) -> Position {
        Position { generation, seq, epoch: 1, ..Position::default() }
    }

    #[test]
    fn the_longest_begins_and_the_others_join() {
        let others = [peer("b", 1, 7), peer("c", 1, 9)];
        assert_eq!(step("a", &at(1, 9), &others), Step::Begin, "as long as c, and first by name");
        assert_eq!(step("d", &at(1, 9), &others), Step::Wait);
        assert_eq!(step("a", &at(1, 10), &others), Step::Begin);
        assert_eq!(step("a", &at(1, 8), &others), Step::Wait);
        assert_eq!(step("a", &at(1, 10), &[peer("b", 2, 7)]), Step::Join(2));
    }

    #[test]
    fn one_that_comes_back_late_yields_to_a_stack_that_went_on() {
        let primary = Peer { primary: true, ..peer("b", 1, 5) };
        assert_eq!(step("a", &at(1, 9), &[primary]), Step::Yield);
    }

    #[test]
    fn an_empty_history_never_outvotes_a_full_one() {
        let empty = Peer { primary: true, ..peer("b", 1, 0) };
        assert_eq!(step("a", &at(1, 9), std::slice::from_ref(&empty)), Step::Begin);
        assert_eq!(step("a", &at(1, 9), &[empty.clone(), peer("c", 1, 10)]), Step::Wait, "c has more");
        assert_eq!(step("a", &at(1, 0), &[empty]), Step::Yield);
    }

    #[test]
    fn nobody_leads_while_another_has_more_than_the_log() {
        assert!(may_lead(1, 5, &[peer("b", 1, 5), peer("c", 1, 3)]));
        assert!(!may_lead(1, 5, &[peer("b", 1, 6)]));
        assert!(!may_lead(1, 5, &[peer("b", 2, 5)]));
        assert!(
            may_lead(1, 5, &[Peer { primary: true, ..peer("b", 1, 6) }]),
            "it will read on, or campaign in vain"
        );
    }

    #[test]
    fn what_the_new_generation_lacks_is_set_aside() {
        assert_eq!(entrance(&at(1, 5), 5, Chain::default()), Entrance::Follow);
        assert_eq!(entrance(&at(1, 5), 5, Chain([1; 16])), Entrance::SetAside);
        assert_eq!(entrance(&at(1, 4), 5, Chain::default()), Entrance::Snapshot);
        assert_eq!(entrance(&at(1, 6), 5, Chain::default()), Entrance::SetAside);
    }

    proptest! {
        /// Whatever the lengths, exactly one of those that stand in one generation begins the next.
        #[test]
        fn exactly_one_begins(lengths in prop::collection::vec(0..5_u64, 1..7)) {
            let all: Vec<Peer> = lengths.iter().enumerate().map(|(i, seq)| peer(&format!("r{i}"), 1, *seq)).collect();
            let begins = all.iter().filter(|me| {
                let others: Vec<Peer> = all.iter().filter(|p| p.instance != me.instance).cloned().collect();
                step(&me.instance, &at(1, me.seq), &others) == Step::Begin
            });
            prop_assert_eq!(begins.count(), 1);
        }
    }
}
