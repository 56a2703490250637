//! Consistent hashing on a ring, with bounded load.
//!
//! Each member has points on a circle in proportion to its weight, at places that depend on its identity alone; a key
//! belongs to the next point clockwise. So a member that leaves hands on its own keys and no others, and one that joins takes only keys that
//! become its own. With a bound c (Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads") a
//! member that has c times its even share of what is in flight is passed over, and a hot key spills to the next ones.

use super::Seat;
use crate::dice::mix;

/// Points of a member of the mean weight, in a pool of few: shares differ by about a tenth.
const POINTS: usize = 160;
/// Points of a whole ring, at most: 4 MiB, sorted in some 20 ms. A pool of 10,000 has 52 for each.
const POINTS_MAX: usize = 1 << 19;
/// So many points are passed over, at most, before the bound is given up for this request.
const WALK_MAX: usize = 512;

#[derive(Debug)]
pub(super) struct Ring {
    /// A place in the upper half, the seat in the lower; sorted.
    points: Vec<u64>,
    bound: Option<f64>,
    weight: f64,
}

impl Ring {
    pub(super) fn new(seats: &[Seat], bound: Option<f64>) -> Self {
        let weight: f64 = seats.iter().map(|seat| f64::from(seat.full_weight)).sum();
        let mut points = Vec::new();
        for (number, seat) in seats.iter().enumerate() {
            let unit = points_of_unit(seats.len());
            let share = usize::try_from(seat.full_weight).unwrap_or(1) * unit / 100;
            points.extend((0..share.clamp(1, POINTS_MAX)).map(|n| point(seat.place, n, number)));
        }
        points.sort_unstable();
        Self { points, bound, weight }
    }

    /// The seat that `key` belongs to among those that are admitted and within their bound; if none is within it, the
    /// first that is admitted.
    pub(super) fn find(
        &self,
        key: u64,
        seats: &[Seat],
        active: u32,
        admits: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let start = self.start(key);
        let clockwise = self.points[start..].iter().chain(&self.points[..start]).take(WALK_MAX);
        let mut over = None;
        let mut last = usize::MAX;
        for seat in clockwise.map(|point| seat_of(*point)) {
            if std::mem::replace(&mut last, seat) == seat || !admits(seat) {
                continue;
            }
            if self.has_room(&seats[seat], active) {
                return Some(seat);
            }
            over.get_or_insert(seat);
        }
        over
    }

    /// The first point at or after the key. Places are even, so the guess is near and the walk from it short.
    fn start(&self, key: u64) -> usize {
        let place = key & PLACE;
        let mut at = crate::dice::scaled(key, self.points.len());
        while at > 0 && self.points[at - 1] >= place {
            at -= 1;
        }
        while at < self.points.len() && self.points[at] < place {
            at += 1;
        }
        if at == self.points.len() { 0 } else { at }
    }

    fn has_room(&self, seat: &Seat, active: u32) -> bool {
        self.bound.is_none_or(|bound| {
            let share = f64::from(seat.full_weight) / self.weight;
            f64::from(seat.vitals.active()) < (bound * share * f64::from(active + 1)).ceil()
        })
    }
}

/// The bits of a point that are its place on the circle.
const PLACE: u64 = !0 << 24;

/// Points of a member of weight 100. It must not change by steps as members come and go, or all keys would move: it halves
/// each time the pool doubles beyond what [`POINTS_MAX`] allows, which moves half of the keys once.
fn points_of_unit(members: usize) -> usize {
    let mut points = POINTS;
    while points > 1 && points * members > POINTS_MAX {
        points /= 2;
    }
    points
}

const fn point(place: u64, n: usize, seat: usize) -> u64 {
    mix(place ^ mix(n as u64 + 1)) & PLACE | seat as u64
}

#[allow(clippy::cast_possible_truncation, reason = "24 bits")]
const fn seat_of(point: u64) -> usize {
    (point & !PLACE) as usize
}
