//! Weighted turns, spread evenly in time, without state but a counter.
//!
//! Lay the members along a line, each as long as its weight, W in all. Turn t takes whoever is at `t · step mod W`.
//! With a step that has no divisor in common with W, W turns visit each place once: the weights are exact. With a step
//! near W/φ each next place falls into the largest gap left (the three-distance theorem): no member gets a burst. nginx's smooth round
//! robin does the same in O(n) a turn, under a lock; this is one addition and a binary search.

use super::Seat;

#[derive(Debug)]
pub(super) struct Stride {
    /// Where each seat's part ends.
    ends: Vec<u64>,
    step: u64,
}

impl Stride {
    pub(super) fn new(seats: &[Seat]) -> Self {
        let common = seats.iter().fold(0, |divisor, seat| gcd(divisor, u64::from(seat.weight))).max(1);
        let ends: Vec<u64> = seats
            .iter()
            .scan(0, |end, seat| {
                *end += u64::from(seat.weight) / common;
                Some(*end)
            })
            .collect();
        let total = ends.last().copied().unwrap_or(1);
        Self { ends, step: golden_step(total) }
    }

    /// Whose turn `turn` is.
    #[allow(clippy::cast_possible_truncation, reason = "a remainder of a u64")]
    pub(super) fn at(&self, turn: u64) -> usize {
        let place = u128::from(turn) * u128::from(self.step) % u128::from(self.total());
        self.of(place as u64)
    }

    /// Whose place it is that 64 even bits fall on.
    #[allow(clippy::cast_possible_truncation, reason = "below the total")]
    pub(super) fn owner(&self, bits: u64) -> usize {
        self.of(((u128::from(bits) * u128::from(self.total())) >> 64) as u64)
    }

    fn of(&self, place: u64) -> usize {
        self.ends.partition_point(|end| *end <= place)
    }

    fn total(&self) -> u64 {
        self.ends.last().copied().unwrap_or(1)
    }
}

const fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// The number nearest to `total / φ` that has no divisor in common with it. 1 has none, so the search ends.
fn golden_step(total: u64) -> u64 {
    let ideal = (u128::from(total) * 618_034 / 1_000_000).try_into().unwrap_or(1_u64).max(1);
    (ideal..=total.max(1)).find(|step| gcd(*step, total) == 1).unwrap_or(1)
}
