//! Which member gets the next request: pure pickers over the seats of one snapshot.
//!
//! Each answers in O(1) or O(log n), reads atomics only, and takes `now`, a key and dice from outside. A picker is
//! rebuilt with the snapshot; what must go on over snapshots (whose turn it is, how many are in flight) is in
//! [`Common`] and in the members' [`Vitals`].

mod least;
mod ring;
mod stride;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::dice::Dice;
use crate::vitals::Vitals;

use least::Tournament;
use ring::Ring;
use stride::Stride;

/// How a pool chooses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    /// One after the other; by weight where weights differ.
    RoundRobin,
    /// By weight, spread evenly in time.
    Weighted,
    /// Who has the fewest requests in flight for its weight.
    LeastConnections,
    /// The same client address, the same member.
    IpHash,
    /// The less loaded of two taken at random.
    #[default]
    TwoChoices,
    /// The cheaper of two by expected latency and load; failures count as slow answers.
    Ewma,
    /// The same key, the same member, unless that has more than its bounded share.
    ConsistentHash,
}

/// What a pool's pickers share over all snapshots.
#[derive(Debug, Default)]
pub struct Common {
    turn: AtomicU64,
    active: AtomicU32,
}

impl Common {
    /// One more in flight in the pool.
    pub fn entered(&self) {
        self.active.fetch_add(1, Relaxed);
    }

    /// One less.
    pub fn left(&self) {
        self.active.fetch_sub(1, Relaxed);
    }

    /// In flight in the pool.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Relaxed)
    }

    fn turn(&self) -> u64 {
        self.turn.fetch_add(1, Relaxed)
    }
}

/// One usable member, as the pickers see it.
#[derive(Clone, Debug)]
pub struct Seat {
    /// Its counters.
    pub vitals: Arc<Vitals>,
    /// Its share now: what it was given, less while it starts slowly. At least 1.
    pub weight: u32,
    /// Its share when it does not start slowly; a ring is built by it, for a key must not move twice.
    pub full_weight: u32,
    /// Hash of its identity: its place on a ring.
    pub place: u64,
}

impl Seat {
    /// Load for its weight, of the request to come included; comparable between seats.
    fn load(&self) -> f64 {
        f64::from(self.vitals.active() + 1) / f64::from(self.weight)
    }

    fn cost(&self, now: Instant) -> f64 {
        self.vitals.latency(now) * self.load()
    }
}

/// What one choice depends on.
pub struct Ask<'a> {
    /// Hash of what the request is recognised by.
    pub key: u64,
    /// Time of the choice.
    pub now: Instant,
    /// The worker's dice.
    pub dice: &'a mut Dice,
}

/// So many seats are looked at, at most, when those chosen first cannot be taken: a bound on the work of one request.
const SCAN_MAX: usize = 64;
/// So many pairs are drawn before the scan.
const DRAWS: usize = 3;

/// A picker over the seats of one snapshot.
#[derive(Debug)]
pub struct Picker {
    seats: Vec<Seat>,
    common: Arc<Common>,
    rule: Rule,
    urn: Urn,
}

#[derive(Debug)]
enum Rule {
    Turns,
    Stride(Stride),
    Least(Tournament),
    Ring(Ring),
    TwoChoices,
    Ewma,
}

/// Draws a seat by its weight.
#[derive(Debug)]
enum Urn {
    Even(usize),
    Weighted(Stride),
}

impl Urn {
    fn draw(&self, dice: &mut Dice) -> usize {
        match self {
            Self::Even(seats) => dice.below(*seats),
            Self::Weighted(stride) => stride.owner(dice.next()),
        }
    }
}

impl Picker {
    /// Over `seats`, which are in the order of their identity. `bound` is the bounded load of a consistent hash: a
    /// member takes at most that many times its even share; none: it takes all that it is due.
    #[must_use]
    pub fn new(algorithm: Algorithm, seats: Vec<Seat>, common: Arc<Common>, bound: Option<f64>) -> Self {
        let even = seats.windows(2).all(|two| two[0].weight == two[1].weight);
        let rule = match algorithm {
            Algorithm::RoundRobin if even => Rule::Turns,
            Algorithm::RoundRobin | Algorithm::Weighted => Rule::Stride(Stride::new(&seats)),
            Algorithm::LeastConnections => Rule::Least(Tournament::new(&seats)),
            Algorithm::IpHash => Rule::Ring(Ring::new(&seats, None)),
            Algorithm::ConsistentHash => Rule::Ring(Ring::new(&seats, bound)),
            Algorithm::TwoChoices => Rule::TwoChoices,
            Algorithm::Ewma => Rule::Ewma,
        };
        let urn = if even { Urn::Even(seats.len()) } else { Urn::Weighted(Stride::new(&seats)) };
        Self { seats, common, rule, urn }
    }

    /// How many may be chosen.
    #[must_use]
    pub fn len(&self) -> usize {
        self.seats.len()
    }

    /// Nobody may be chosen.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.seats.is_empty()
    }

    /// Chooses a seat that `admits` does not refuse. None if there is none, or none was found in a bounded search.
    pub fn pick(&self, ask: &mut Ask<'_>, admits: impl Fn(usize) -> bool) -> Option<usize> {
        let n = self.seats.len();
        if n == 0 {
            return None;
        }
        let chosen = match &self.rule {
            Rule::Turns => {
                let turns = || scaled_turn(self.common.turn(), n);
                std::iter::repeat_with(turns).take(n.min(SCAN_MAX)).find(|seat| admits(*seat))
            }
            Rule::Stride(stride) => {
                let turns = || stride.at(self.common.turn());
                std::iter::repeat_with(turns).take(n.min(SCAN_MAX)).find(|seat| admits(*seat))
            }
            Rule::Least(tree) => Some(tree.least(ask.dice)).filter(|seat| admits(*seat)),
            Rule::Ring(ring) => ring.find(ask.key, &self.seats, self.common.active(), &admits),
            Rule::TwoChoices => self.of_two(ask.dice, Seat::load, &admits),
            Rule::Ewma => {
                let now = ask.now;
                self.of_two(ask.dice, |seat| seat.cost(now), &admits)
            }
        };
        chosen.or_else(|| {
            let first = ask.dice.below(n);
            (0..n.min(SCAN_MAX)).map(|step| (first + step) % n).find(|seat| admits(*seat))
        })
    }

    /// The cheaper of two different ones at random: with it the longest queue is O(log log n), where one at random
    /// has O(log n) (Mitzenmacher, "The power of two choices").
    fn of_two(
        &self,
        dice: &mut Dice,
        cost: impl Fn(&Seat) -> f64,
        admits: &impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let n = self.seats.len();
        if n == 1 {
            return admits(0).then_some(0);
        }
        for _ in 0..DRAWS {
            let one = self.urn.draw(dice);
            let two = match self.urn.draw(dice) {
                // Rare among many. Among few the neighbour is as good a second choice as any.
                two if two == one => (one + 1 + dice.below(n - 1)) % n,
                two => two,
            };
            let cheaper_first = cost(&self.seats[one]) <= cost(&self.seats[two]);
            let (first, second) = if cheaper_first { (one, two) } else { (two, one) };
            if let Some(seat) = [first, second].into_iter().find(|seat| admits(*seat)) {
                return Some(seat);
            }
        }
        None
    }

    /// The number of requests in flight at `seat` has changed.
    pub fn touch(&self, seat: usize) {
        if let Rule::Least(tree) = &self.rule {
            tree.touch(seat);
        }
    }

    /// Whether it wants to be told by [`Picker::touch`].
    #[must_use]
    pub fn wants_touch(&self) -> bool {
        matches!(self.rule, Rule::Least(_))
    }

    /// Looks at all loads again: a request that ended while the snapshot was replaced may have told the earlier one.
    pub fn settle(&self) {
        (0..self.seats.len()).for_each(|seat| self.touch(seat));
    }
}

#[allow(clippy::cast_possible_truncation, reason = "below n")]
const fn scaled_turn(turn: u64, n: usize) -> usize {
    (turn % n as u64) as usize
}

#[cfg(test)]
mod tests;
