//! The picture of the stack as a pure state machine: it is told what was heard and what time it is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use messages::service::{Announcement, Health};

use crate::config::Config;

/// A directory holds at most so many instances; announcements of others are dropped until there is room.
pub const ENTRIES_MAX: usize = 20_000;

/// A goodbye is remembered for so many intervals, so that a delayed announcement does not undo it.
const GOODBYE_INTERVALS: u32 = 30;

/// What changed in the picture.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A new instance, or one that was gone.
    Joined(Announcement),
    /// Health, address, capacity or a fact is another.
    Changed(Announcement),
    /// The same name in a new process: nothing the earlier one held in memory is there any more.
    Restarted(Announcement),
    /// Not there any more: what it last said, and why.
    Left(Announcement, LeftBecause),
}

impl Change {
    /// The instance concerned, as it is now or last was.
    #[must_use]
    pub fn announcement(&self) -> &Announcement {
        match self {
            Self::Joined(it) | Self::Changed(it) | Self::Restarted(it) | Self::Left(it, _) => it,
        }
    }
}

/// Why an instance left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftBecause {
    /// It said goodbye.
    Goodbye,
    /// It was silent for [`Config::missed`] intervals.
    Silent,
    /// Our own link was down for longer than [`Config::isolated_ms`].
    Isolated,
}

/// Instances are kept by node and instance: two nodes that use the same instance name by mistake are both found.
type Key = (String, String);

/// Who is there.
#[derive(Debug)]
pub struct Directory {
    interval: Duration,
    silence_max: Duration,
    isolated_max: Duration,
    entries: BTreeMap<Key, Entry>,
    goodbyes: BTreeMap<Key, Goodbye>,
    link_down_since: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    announcement: Announcement,
    heard: Instant,
    /// Held by this process: never expired.
    local: bool,
}

#[derive(Debug)]
struct Goodbye {
    life: String,
    at: Instant,
}

impl Directory {
    /// An empty picture, with the link up.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            interval: config.interval(),
            silence_max: config.silence_max(),
            isolated_max: Duration::from_millis(config.isolated_ms),
            entries: BTreeMap::new(),
            goodbyes: BTreeMap::new(),
            link_down_since: None,
        }
    }

    /// An announcement was heard at `now`. `None` if it changes nothing: it repeats what is known, or belongs to an
    /// earlier life (lives are UUIDv7 and so ordered in time), or was sent before a goodbye that is already here.
    pub fn apply(&mut self, announcement: Announcement, now: Instant) -> Option<Change> {
        self.heard(announcement, now, false)
    }

    /// The same for an instance of this process: it is never expired, only its goodbye removes it.
    pub fn apply_local(&mut self, announcement: Announcement, now: Instant) -> Option<Change> {
        self.heard(announcement, now, true)
    }

    fn heard(&mut self, announcement: Announcement, now: Instant, local: bool) -> Option<Change> {
        let key = (announcement.node.clone(), announcement.instance.clone());
        if self.goodbyes.get(&key).is_some_and(|goodbye| announcement.life <= goodbye.life) {
            return None;
        }
        let known = self.entries.get_mut(&key);
        if known
            .as_ref()
            .is_some_and(|known| announcement.life < known.announcement.life || (known.local && !local))
        {
            return None; // an earlier life, or our own words coming back from the bus
        }
        if announcement.health == Health::Gone {
            self.goodbyes.insert(key.clone(), Goodbye { life: announcement.life.clone(), at: now });
            let left = self.entries.remove(&key)?;
            return Some(Change::Left(left.announcement, LeftBecause::Goodbye));
        }
        let Some(known) = known else {
            if self.entries.len() >= ENTRIES_MAX {
                return None;
            }
            self.entries.insert(key, Entry { announcement: announcement.clone(), heard: now, local });
            return Some(Change::Joined(announcement));
        };
        known.heard = now;
        known.local = local;
        if known.announcement == announcement {
            return None;
        }
        let restarted = known.announcement.life != announcement.life;
        known.announcement = announcement.clone();
        Some(if restarted { Change::Restarted(announcement) } else { Change::Changed(announcement) })
    }

    /// Our own link to the bus was lost: from now on silence says nothing about the others.
    pub fn link_down(&mut self, now: Instant) {
        self.link_down_since.get_or_insert(now);
    }

    /// Our link is back: everybody has the full time again to be heard.
    pub fn link_up(&mut self, now: Instant) {
        if self.link_down_since.take().is_some() {
            self.entries.values_mut().for_each(|entry| entry.heard = now);
        }
    }

    /// Removes who was silent for too long at `now`.
    pub fn expire(&mut self, now: Instant) -> Vec<Change> {
        let remembered = self.interval * GOODBYE_INTERVALS;
        self.goodbyes.retain(|_, goodbye| now.saturating_duration_since(goodbye.at) < remembered);
        let (since_of_all, limit, because) = match self.link_down_since {
            Some(since) => (Some(since), self.isolated_max, LeftBecause::Isolated),
            None => (None, self.silence_max, LeftBecause::Silent),
        };
        let silent = |entry: &Entry| {
            !entry.local && now.saturating_duration_since(since_of_all.unwrap_or(entry.heard)) > limit
        };
        let left = self.entries.extract_if(.., |_, entry| silent(entry));
        left.map(|(_, entry)| Change::Left(entry.announcement, because)).collect()
    }

    /// Everyone who is there, by node and instance.
    pub fn iter(&self) -> impl Iterator<Item = &Announcement> {
        self.entries.values().map(|entry| &entry.announcement)
    }

    /// How many are there.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Nobody is there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn says(instance: &str, life: &str, health: Health) -> Announcement {
        Announcement {
            node: "n".into(),
            tier: "app".into(),
            instance: instance.into(),
            life: life.into(),
            address: Some("http://127.0.0.1:1".into()),
            health,
            capacity: 1.0,
            facts: BTreeMap::new(),
        }
    }

    fn directory() -> Directory {
        Directory::new(&Config::default())
    }

    fn secs(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    #[test]
    fn an_instance_joins_changes_and_says_goodbye() {
        let (mut directory, now) = (directory(), clock::now());
        let ready = says("app-1", "1", Health::Ready);
        assert_eq!(directory.apply(ready.clone(), now), Some(Change::Joined(ready.clone())));
        assert_eq!(directory.apply(ready.clone(), now), None, "it repeats itself");
        let draining = says("app-1", "1", Health::Draining);
        assert_eq!(directory.apply(draining.clone(), now), Some(Change::Changed(draining.clone())));
        let left = directory.apply(says("app-1", "1", Health::Gone), now);
        assert_eq!(left, Some(Change::Left(draining, LeftBecause::Goodbye)));
        assert!(directory.is_empty());
        assert_eq!(directory.apply(ready, now), None, "a delayed announcement does not undo a goodbye");
        let again = says("app-1", "2", Health::Ready);
        assert_eq!(directory.apply(again.clone(), now), Some(Change::Joined(again)), "a new life may come");
    }

    #[test]
    fn three_missed_intervals_expire_and_being_heard_again_joins() {
        let (mut directory, now) = (directory(), clock::now());
        directory.apply(says("app-1", "1", Health::Ready), now);
        directory.apply_local(says("jobs-1", "1", Health::Ready), now);
        assert!(directory.expire(now + secs(3.0)).is_empty());
        let left = directory.expire(now + secs(3.1));
        assert_eq!(left, [Change::Left(says("app-1", "1", Health::Ready), LeftBecause::Silent)]);
        assert_eq!(directory.len(), 1, "an instance of this process is never expired");
        assert!(matches!(directory.apply(says("app-1", "1", Health::Ready), now), Some(Change::Joined(_))));
    }

    #[test]
    fn a_restart_under_the_same_name_is_told_and_the_earlier_life_is_not_heard_again() {
        let (mut directory, now) = (directory(), clock::now());
        directory.apply(says("app-1", "1", Health::Ready), now);
        assert!(matches!(
            directory.apply(says("app-1", "2", Health::Ready), now),
            Some(Change::Restarted(_))
        ));
        assert_eq!(directory.apply(says("app-1", "1", Health::Draining), now), None);
        assert_eq!(directory.apply(says("app-1", "1", Health::Gone), now), None);
        assert_eq!(directory.len(), 1);
    }

    /// When our own link is down, the silence is ours: the picture is kept, for a bounded time.
    #[test]
    fn a_lost_bus_keeps_the_last_known_picture_for_the_documented_time() {
        let (mut directory, now) = (directory(), clock::now());
        directory.apply(says("app-1", "1", Health::Ready), now);
        directory.link_down(now + secs(1.0));
        assert!(directory.expire(now + secs(60.9)).is_empty());
        directory.link_up(now + secs(60.9));
        assert!(directory.expire(now + secs(63.8)).is_empty(), "everybody has the full time again");
        assert_eq!(directory.expire(now + secs(64.0)).len(), 1);

        directory.apply(says("app-1", "1", Health::Ready), now);
        directory.link_down(now);
        let left = directory.expire(now + secs(60.1));
        assert!(matches!(left[..], [Change::Left(_, LeftBecause::Isolated)]), "{left:?}");
    }

    #[test]
    fn it_is_bounded() {
        let (mut directory, now) = (directory(), clock::now());
        for n in 0..ENTRIES_MAX + 10 {
            directory.apply(says(&format!("app-{n}"), "1", Health::Ready), now);
        }
        assert_eq!(directory.len(), ENTRIES_MAX);
    }

    proptest! {
        /// Whatever is heard in whatever order: changes told are exactly the difference of the pictures, and a
        /// life is never followed by an earlier one.
        #[test]
        fn changes_add_up_to_the_picture(heard in prop::collection::vec((0..4u8, 0..4u8, 0..4u8, 0..2500u64), 0..200)) {
            let (mut directory, mut now) = (directory(), clock::now());
            let mut mirror: BTreeMap<String, Announcement> = BTreeMap::new();
            for (instance, life, health, ms) in heard {
                now += Duration::from_millis(ms);
                let health = [Health::Ready, Health::Degraded, Health::Draining, Health::Gone][usize::from(health)];
                let announcement = says(&format!("app-{instance}"), &life.to_string(), health);
                let mut changes = directory.expire(now);
                changes.extend(directory.apply(announcement, now));
                for change in changes {
                    let key = change.announcement().instance.clone();
                    match change {
                        Change::Joined(it) => prop_assert!(mirror.insert(key, it).is_none()),
                        Change::Changed(it) => {
                            let before = mirror.insert(key, it.clone()).expect("it was there");
                            prop_assert_eq!(before.life, it.life);
                        }
                        Change::Restarted(it) => {
                            let before = mirror.insert(key, it.clone()).expect("it was there");
                            prop_assert!(before.life < it.life);
                        }
                        Change::Left(it, _) => prop_assert_eq!(mirror.remove(&key), Some(it)),
                    }
                }
                let picture: Vec<_> = directory.iter().cloned().collect();
                prop_assert_eq!(picture, mirror.values().cloned().collect::<Vec<_>>());
            }
        }
    }
}
