//! A pair of balancers: which of them is active, by heartbeats. Pure: it is told what was heard and what time it is.
//!
//! An active balancer says so twice a second, with the epoch of its reign. A passive one that hears nothing for
//! [`Timing::silence`] begins a reign of its own, with the next epoch. Two that are active at once (the bus was cut
//! between them) find out with the first heartbeat that passes: the higher epoch stays, of equals the smaller
//! name. That both serve meanwhile does no harm, for a balancer keeps no state; so no consensus is needed, and a bus
//! that is down takes no balancer out of service.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// What balancers say to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heartbeat {
    /// Who says it.
    pub instance: String,
    /// Which process: two under one instance name must not take each other for themselves.
    pub life: String,
    /// Of which reign.
    pub epoch: u64,
    /// It stops, and calls on the others to take over now.
    #[serde(default)]
    pub resigns: bool,
}

/// Which part it plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Announced as the one to be asked.
    Active,
    /// Ready to take over.
    Passive,
}

impl Role {
    /// As discovery announces it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Passive => "passive",
        }
    }
}

/// How fast it goes.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two heartbeats of the active one.
    pub interval: Duration,
    /// So long nothing was heard before a passive one takes over. At least two intervals.
    pub silence: Duration,
}

/// One balancer's view of the pair.
#[derive(Debug)]
pub struct Pair {
    instance: String,
    life: String,
    timing: Timing,
    role: Role,
    /// The highest reign known.
    epoch: u64,
    /// When the active one was last heard, or the watch began.
    heard: Instant,
    /// Added to the silence, so that several passive ones do not take over at once.
    patience: Duration,
    bus_down: bool,
    /// When an active one speaks next.
    speaks: Instant,
}

impl Pair {
    /// Passive at first: somebody may be active already. `seed` spreads the patience of several.
    #[must_use]
    pub fn new(instance: &str, life: &str, timing: Timing, seed: u64, now: Instant) -> Self {
        let spread = u32::try_from(upstream::dice::scaled(seed, 256)).unwrap_or(0);
        Self {
            instance: instance.to_owned(),
            life: life.to_owned(),
            timing,
            role: Role::Passive,
            epoch: 0,
            heard: now,
            patience: timing.interval * spread / 512,
            bus_down: false,
            speaks: now,
        }
    }

    /// Goes on in the part it had before its child was restarted.
    pub fn resume(&mut self, role: Role, epoch: u64) {
        (self.role, self.epoch) = (role, epoch);
    }

    /// Its part.
    #[must_use]
    pub const fn role(&self) -> Role {
        self.role
    }

    /// The reign it knows of, its own if it is active.
    #[must_use]
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What it has to say at `now`, if it is active and its interval is over.
    pub fn says(&mut self, now: Instant) -> Option<Heartbeat> {
        let due = self.role == Role::Active && now >= self.speaks;
        due.then(|| {
            self.speaks = now + self.timing.interval;
            self.heartbeat()
        })
    }

    /// What an active one says.
    #[must_use]
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat {
            instance: self.instance.clone(),
            life: self.life.clone(),
            epoch: self.epoch,
            resigns: false,
        }
    }

    /// Somebody was heard; true if that changed the role.
    pub fn hear(&mut self, heartbeat: &Heartbeat, now: Instant) -> bool {
        if heartbeat.life == self.life && heartbeat.instance == self.instance {
            return false;
        }
        if heartbeat.resigns {
            return self.role == Role::Passive && heartbeat.epoch >= self.epoch && {
                self.epoch = heartbeat.epoch;
                self.reign(now)
            };
        }
        let theirs = (heartbeat.epoch, std::cmp::Reverse((&*heartbeat.instance, &*heartbeat.life)));
        let ours = (self.epoch, std::cmp::Reverse((&*self.instance, &*self.life)));
        match self.role {
            Role::Active if theirs < ours => false, // it will hear us, and step down
            Role::Active => {
                self.epoch = heartbeat.epoch;
                self.heard = now;
                self.role = Role::Passive;
                true
            }
            Role::Passive => {
                if heartbeat.epoch >= self.epoch {
                    self.epoch = heartbeat.epoch;
                    self.heard = now;
                }
                false
            }
        }
    }

    /// The bus was lost or is back. While it is down silence says nothing, and whoever plays a part goes on in it.
    pub fn bus(&mut self, up: bool, now: Instant) {
        if up && self.bus_down {
            self.heard = now;
        }
        self.bus_down = !up;
    }

    /// Time passes; true if that changed the role.
    pub fn tick(&mut self, now: Instant) -> bool {
        let silent = now.saturating_duration_since(self.heard) >= self.timing.silence + self.patience;
        self.role == Role::Passive && !self.bus_down && silent && self.reign(now)
    }

    /// When to look again.
    #[must_use]
    pub fn wakes(&self, now: Instant) -> Instant {
        match self.role {
            Role::Active => self.speaks.max(now),
            Role::Passive if self.bus_down => now + self.timing.silence,
            Role::Passive => (self.heard + self.timing.silence + self.patience).max(now),
        }
    }

    /// Speaks at once: the others are to know.
    fn reign(&mut self, now: Instant) -> bool {
        self.epoch += 1;
        self.speaks = now;
        self.role = Role::Active;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use upstream::dice::Dice;

    const TIMING: Timing =
        Timing { interval: Duration::from_millis(500), silence: Duration::from_millis(1_100) };
    const MS: Duration = Duration::from_millis(1);

    fn pair(name: &str, now: Instant) -> Pair {
        Pair::new(name, name, TIMING, upstream::dice::hash(name.as_bytes()), now)
    }

    #[test]
    fn one_takes_over_when_the_other_falls_silent_and_in_under_two_seconds() {
        let start = clock::now();
        let (mut one, mut two) = (pair("balancer-1", start), pair("balancer-2", start));
        let first = one.wakes(start);
        assert!(one.tick(first) && one.role() == Role::Active && one.epoch() == 1);
        assert!(!two.hear(&one.heartbeat(), first));
        let last = first + 500 * MS;
        assert!(!two.hear(&one.heartbeat(), last)); // and now it dies
        assert!(!two.tick(last + 1_099 * MS));
        assert!(two.wakes(last) <= last + 1_400 * MS, "with an interval before it: under 2 s");
        assert!(two.tick(two.wakes(last)) && two.epoch() == 2);
    }

    /// An active one hears its own heartbeat too: that must not make it speak again.
    #[test]
    fn it_speaks_once_in_an_interval() {
        let now = clock::now();
        let mut one = pair("a", now);
        let began = one.wakes(now);
        assert!(one.says(began).is_none() && one.tick(began));
        let mut said = 0;
        for ms in 0..5_000 {
            let now = began + ms * MS;
            if let Some(heartbeat) = one.says(now) {
                said += 1;
                assert!(!one.hear(&heartbeat, now) && one.wakes(now) == now + 500 * MS);
            }
        }
        assert_eq!(said, 10);
    }

    #[test]
    fn who_resigns_is_followed_at_once() {
        let now = clock::now();
        let (mut one, mut two) = (pair("a", now), pair("b", now));
        one.tick(one.wakes(now));
        two.hear(&one.heartbeat(), now);
        assert!(two.hear(&Heartbeat { resigns: true, ..one.heartbeat() }, now));
        assert_eq!((two.role(), two.epoch()), (Role::Active, 2));
    }

    #[test]
    fn of_two_that_are_active_the_later_reign_stays() {
        let now = clock::now();
        let (mut one, mut two) = (pair("a", now), pair("b", now));
        let later = now + 10_000 * MS;
        assert!(one.tick(later) && two.tick(later), "the bus was cut between them");
        assert!(!one.hear(&two.heartbeat(), later), "of equals the smaller name");
        assert!(two.hear(&one.heartbeat(), later) && two.role() == Role::Passive);
        assert!(two.tick(later + 10_000 * MS) && two.epoch() == 2);
        assert!(
            one.hear(&two.heartbeat(), later) && one.role() == Role::Passive,
            "it hung, and wakes up late"
        );
    }

    #[test]
    fn a_bus_that_is_down_changes_no_role() {
        let now = clock::now();
        let (mut one, mut two) = (pair("a", now), pair("b", now));
        one.tick(one.wakes(now));
        two.hear(&one.heartbeat(), now);
        for balancer in [&mut one, &mut two] {
            balancer.bus(false, now);
            assert!(!balancer.tick(now + 60_000 * MS));
            balancer.bus(true, now + 60_000 * MS);
            assert!(!balancer.tick(now + 61_000 * MS), "the other has its full time to be heard");
        }
        assert_eq!((one.role(), two.role()), (Role::Active, Role::Passive));
    }

    /// Three balancers over a bus that loses half of the messages and is cut now and then: once it works, there is
    /// one active and it stays.
    #[test]
    fn whatever_happened_in_the_end_one_is_active() {
        for seed in 0..200 {
            let (mut dice, mut now) = (Dice::new(seed), clock::now());
            let mut all: Vec<_> = ["a", "b", "c"].iter().map(|name| pair(name, now)).collect();
            for round in 0..400 {
                now += 50 * MS;
                let works = round > 300;
                for speaker in 0..all.len() {
                    if !works && dice.below(40) == 0 {
                        let up = dice.below(2) == 0;
                        all[speaker].bus(up, now);
                    } else if works {
                        all[speaker].bus(true, now);
                    }
                    all[speaker].tick(now);
                    let Some(heartbeat) = all[speaker].says(now) else { continue };
                    for hearer in &mut all {
                        if works || dice.below(2) == 0 {
                            hearer.hear(&heartbeat, now);
                        }
                    }
                }
            }
            let active = all.iter().filter(|one| one.role() == Role::Active).count();
            assert_eq!(active, 1, "seed {seed}: {all:?}");
        }
    }
}
