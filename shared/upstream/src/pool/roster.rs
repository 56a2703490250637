//! Who belongs to a pool and how each is doing: a state machine that is told what was heard, checked and counted, and
//! what time it is. The membership keeps one per pool and publishes its snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_support::gateway::{Address, ClientTls, FastCgiRoot, Origin, OriginLimits, Protocol};

use super::snapshot::{Member, Snapshot, State};
use crate::config::PoolConfig;
use crate::health::{Cause, Ejection, Probe, may_eject, panics, ramp};
use crate::pick::Common;
use crate::sticky::Key;
use crate::url::Scheme;
use crate::vitals::Vitals;

/// Whoever was away for less than this comes back to its full share at once: its caches are warm.
const WARM: Duration = Duration::from_secs(1);

/// What a member says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Ready, or it says nothing.
    Ready,
    /// Not well, or not ready yet.
    Degraded,
    /// It leaves.
    Draining,
}

/// A member as configuration or discovery name it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Unique in the pool.
    pub id: Arc<str>,
    /// Where it is.
    pub address: Address,
    /// What it speaks.
    pub scheme: Scheme,
    /// The name that its certificate must be valid for, if it speaks TLS.
    pub host: Arc<str>,
    /// Found by discovery.
    pub is_ours: bool,
    /// Share relative to the others.
    pub weight: u32,
    /// Labels and facts.
    pub labels: BTreeMap<String, String>,
    /// What it says of itself.
    pub standing: Standing,
}

/// What happened to a member: one log line and one metric each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Now a member.
    Joined,
    /// No member any more.
    Left,
    /// It finishes what it has.
    Draining,
    /// Its checks pass again.
    Up,
    /// Its checks fail.
    Down,
    /// Left out for so long.
    Ejected(Cause, Duration),
    /// Back after an ejection.
    Returned,
}

/// The members of one pool.
pub struct Roster {
    config: PoolConfig,
    key: Key,
    tls: Option<Arc<ClientTls>>,
    records: BTreeMap<Arc<str>, Record>,
}

struct Record {
    wanted: Wanted,
    member: Arc<Member>,
    probe: Probe,
    ejection: Ejection,
    /// Since when it may be asked without a break; None: it may not.
    usable_since: Option<Instant>,
    /// When it last stopped being usable.
    out_since: Option<Instant>,
}

impl Record {
    fn state(&self) -> State {
        match self.wanted.standing {
            Standing::Draining => State::Draining,
            _ if self.ejection.until().is_some() => State::Ejected,
            _ if !self.probe.passes() => State::Failing,
            Standing::Degraded => State::Degraded,
            Standing::Ready => State::Usable,
        }
    }
}

/// Events with the member they concern.
type Events = Vec<(Arc<str>, Event)>;

impl Roster {
    /// Without members. `tls` is for those that speak it.
    #[must_use]
    pub fn new(config: PoolConfig, key: Key, tls: Option<Arc<ClientTls>>) -> Self {
        Self { config, key, tls, records: BTreeMap::new() }
    }

    /// Goes on under another configuration: whoever stays keeps its counters.
    pub fn reconfigure(&mut self, config: PoolConfig, tls: Option<Arc<ClientTls>>) {
        let same_probe = self.config.check == config.check;
        (self.config, self.tls) = (config, tls);
        for record in self.records.values_mut() {
            if !same_probe {
                record.probe = Probe::new(self.config.check.rise, self.config.check.fall);
            }
            let vitals = Arc::clone(&record.member.vitals);
            record.member =
                Arc::new(member(&record.wanted, vitals, &self.config, &self.key, self.tls.as_ref()));
        }
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> &PoolConfig {
        &self.config
    }

    /// Whether the checks of `id` pass.
    #[must_use]
    pub fn passes(&self, id: &str) -> bool {
        self.records.get(id).is_some_and(|record| record.probe.passes())
    }

    /// These are the members at `now`.
    pub fn update(&mut self, wanted: Vec<Wanted>, now: Instant) -> Events {
        let mut events = Events::new();
        let mut gone = std::mem::take(&mut self.records);
        for wanted in wanted {
            let id = Arc::clone(&wanted.id);
            let record = match gone.remove(&id) {
                Some(record) => self.changed(record, wanted, &mut events),
                None => {
                    events.push((Arc::clone(&id), Event::Joined));
                    self.joined(wanted, now)
                }
            };
            self.records.insert(id, record);
        }
        events.extend(gone.into_keys().map(|id| (id, Event::Left)));
        self.note_usable(now);
        events
    }

    fn joined(&self, wanted: Wanted, now: Instant) -> Record {
        let member = member(&wanted, Arc::new(Vitals::new(now)), &self.config, &self.key, self.tls.as_ref());
        Record {
            wanted,
            member: Arc::new(member),
            probe: Probe::new(self.config.check.rise, self.config.check.fall),
            ejection: Ejection::default(),
            usable_since: None,
            out_since: None,
        }
    }

    fn changed(&self, mut record: Record, wanted: Wanted, events: &mut Events) -> Record {
        if wanted.standing == Standing::Draining && record.wanted.standing != Standing::Draining {
            events.push((Arc::clone(&wanted.id), Event::Draining));
        }
        let moved = wanted.address != record.wanted.address || wanted.scheme != record.wanted.scheme;
        let claims = wanted.labels != record.wanted.labels || wanted.is_ours != record.wanted.is_ours;
        if moved || claims {
            let vitals = Arc::clone(&record.member.vitals);
            record.member = Arc::new(member(&wanted, vitals, &self.config, &self.key, self.tls.as_ref()));
        }
        if moved {
            // Another process: what was held against the earlier one is not its fault.
            record.probe = Probe::new(self.config.check.rise, self.config.check.fall);
            record.ejection = Ejection::default();
            record.member.vitals.forgive();
        }
        record.wanted = wanted;
        record
    }

    /// A check of `id` at `address` had this outcome.
    pub fn checked(&mut self, id: &str, address: &Address, good: bool, now: Instant) -> Option<Event> {
        let record = self.records.get_mut(id).filter(|it| it.wanted.address == *address)?;
        let first_and_good = good && record.probe.is_new();
        let passes = record.probe.record(good)?;
        self.note_usable(now);
        (!first_and_good).then_some(if passes { Event::Up } else { Event::Down })
    }

    /// Looks at everybody's counters: who failed too often, whose ejection is over.
    pub fn review(&mut self, now: Instant) -> Events {
        let rules = self.config.eject.rules();
        let mut events = Events::new();
        let total = self.records.values().filter(|it| it.state() != State::Draining).count();
        let mut ejected = self.records.values().filter(|it| it.state() == State::Ejected).count();
        for (id, record) in &mut self.records {
            let vitals = &record.member.vitals;
            if record.ejection.returns(vitals.totals(), now) {
                vitals.forgive();
                ejected -= usize::from(record.wanted.standing != Standing::Draining);
                events.push((Arc::clone(id), Event::Returned));
            }
            let cause = record.ejection.judge(vitals.failures_in_row(), vitals.totals(), &rules);
            let Some(cause) =
                cause.filter(|_| may_eject(ejected, total, self.config.eject.share_max_percent))
            else {
                continue;
            };
            let time = record.ejection.eject(now, &rules);
            ejected += 1;
            events.push((Arc::clone(id), Event::Ejected(cause, time)));
        }
        self.note_usable(now);
        events
    }

    fn note_usable(&mut self, now: Instant) {
        // The first of a pool has nobody to relieve it while it starts slowly.
        let alone = self.records.values().all(|record| record.usable_since.is_none());
        let length = Duration::from_millis(self.config.slow_start_ms);
        for record in self.records.values_mut() {
            let usable = record.state() == State::Usable;
            match (usable, record.usable_since) {
                (true, None) => {
                    let warm = record.out_since.is_some_and(|out| now.saturating_duration_since(out) < WARM);
                    let began = if warm || alone { now.checked_sub(length).unwrap_or(now) } else { now };
                    record.usable_since = Some(began);
                }
                (false, Some(_)) => (record.usable_since, record.out_since) = (None, Some(now)),
                _ => {}
            }
        }
    }

    /// Who may be asked at `now`, and when to look again though nothing was heard: an ejection ends, a share grows.
    #[must_use]
    pub fn snapshot(&self, common: &Arc<Common>, now: Instant) -> (Snapshot, Option<Instant>) {
        let staying = || self.records.values().filter(|record| record.state() != State::Draining);
        let usable = staying().filter(|record| record.state() == State::Usable).count();
        let panics = panics(usable, staying().count(), self.config.panic_percent);
        let length = Duration::from_millis(self.config.slow_start_ms);
        let mut next: Option<Instant> = None;
        let mut look_at = |at: Option<Instant>| next = next.into_iter().chain(at).min();
        let mut chosen = Vec::new();
        for record in staying() {
            look_at(record.ejection.until());
            let full = record.wanted.weight;
            if panics {
                chosen.push((Arc::clone(&record.member), full, full));
            } else if let Some(since) = record.usable_since {
                let (percent, grows) = ramp(since, length, now);
                look_at(grows);
                chosen.push((Arc::clone(&record.member), full * percent / 100, full));
            }
        }
        let Self { config, .. } = self;
        let bound = (config.hash_bound_percent > 0).then_some(f64::from(config.hash_bound_percent) / 100.0);
        let share = config.canary.as_ref().map_or(0.0, |canary| canary.percent / 100.0);
        (Snapshot::new(chosen, config.algorithm, common, bound, share, panics), next)
    }

    /// Everybody and their state, by name.
    pub fn states(&self) -> impl Iterator<Item = (&Wanted, &Arc<Member>, State)> {
        self.records.values().map(|record| (&record.wanted, &record.member, record.state()))
    }
}

fn member(
    wanted: &Wanted,
    vitals: Arc<Vitals>,
    config: &PoolConfig,
    key: &Key,
    tls: Option<&Arc<ClientTls>>,
) -> Member {
    let limits = OriginLimits {
        connections_max: config.limit.requests_max as usize,
        // A place at the member is taken before a connection is asked for: nobody has to wait for one.
        waiting_max: config.limit.requests_max as usize,
        idle_max: config.limit.idle_connections_max,
        idle_timeout: Duration::from_millis(config.limit.idle_connection_ms),
    };
    let is_canary = |it: &crate::config::CanaryConfig| wanted.labels.get(&it.label) == Some(&it.value);
    Member {
        id: Arc::clone(&wanted.id),
        origin: Origin::new(wanted.address.clone(), protocol(wanted, config, tls)).with_limits(limits),
        tag: key.tag(&wanted.id),
        is_ours: wanted.is_ours,
        canary: config.canary.as_ref().is_some_and(is_canary),
        vitals,
    }
}

fn protocol(wanted: &Wanted, config: &PoolConfig, tls: Option<&Arc<ClientTls>>) -> Protocol {
    match (wanted.scheme, tls, &config.fastcgi) {
        (Scheme::Https, Some(client), _) => {
            let name = config.tls.name.as_deref().map_or_else(|| Arc::clone(&wanted.host), Arc::from);
            Protocol::Tls { name, client: Arc::clone(client) }
        }
        (Scheme::FastCgi, _, Some(fastcgi)) => {
            let root = FastCgiRoot { root: fastcgi.root.clone(), index: fastcgi.index.clone() };
            Protocol::FastCgi(Arc::new(root))
        }
        (Scheme::H2c, ..) => Protocol::H2c,
        // The check of the configuration refuses the other two without what they need.
        (Scheme::Http | Scheme::Https | Scheme::FastCgi, ..) => Protocol::Http1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(port: u16) -> Address {
        std::net::SocketAddr::from(([127, 0, 0, 1], port)).into()
    }

    fn wanted(name: &str, standing: Standing) -> Wanted {
        Wanted {
            id: name.into(),
            address: at(80),
            scheme: Scheme::Http,
            host: "127.0.0.1".into(),
            is_ours: false,
            weight: 100,
            labels: BTreeMap::new(),
            standing,
        }
    }

    fn ready(names: &[&str]) -> Vec<Wanted> {
        names.iter().map(|name| wanted(name, Standing::Ready)).collect()
    }

    fn roster(names: &[&str], now: Instant) -> Roster {
        let mut roster = Roster::new(PoolConfig::default(), Key::of_this_process(), None);
        let joined = roster.update(ready(names), now);
        assert!(joined.iter().all(|(_, event)| *event == Event::Joined));
        roster
    }

    fn asked(roster: &Roster, now: Instant) -> Vec<String> {
        roster.snapshot(&Arc::default(), now).0.iter().map(|member| member.id.to_string()).collect()
    }

    fn vitals(roster: &Roster, name: &str) -> Arc<Vitals> {
        Arc::clone(&roster.records[name].member.vitals)
    }

    #[test]
    fn a_member_that_stays_keeps_its_counters_whoever_comes_and_goes() {
        let now = clock::now();
        let mut roster = roster(&["a", "b"], now);
        let before = vitals(&roster, "a");
        assert!(before.enter(9));
        let events = roster.update(ready(&["a", "c"]), now);
        assert_eq!(events, [("c".into(), Event::Joined), ("b".into(), Event::Left)]);
        assert!(Arc::ptr_eq(&before, &vitals(&roster, "a")));
        assert_eq!(asked(&roster, now), ["a", "c"]);
    }

    #[test]
    fn who_drains_gets_nothing_new() {
        let now = clock::now();
        let mut roster = roster(&["a", "b"], now);
        let events = roster.update(vec![wanted("a", Standing::Draining), wanted("b", Standing::Ready)], now);
        assert_eq!(events, [("a".into(), Event::Draining)]);
        assert_eq!(asked(&roster, now), ["b"]);
        roster.update(vec![wanted("a", Standing::Draining)], now);
        assert!(asked(&roster, now).is_empty(), "also when it is the last");
    }

    #[test]
    fn who_fails_is_ejected_and_comes_back_slowly() {
        let now = clock::now();
        let mut roster = roster(&["a", "b", "c"], now);
        (0..5).for_each(|_| assert!(vitals(&roster, "a").failed(MS, now) > 0));
        let first = roster.review(now);
        assert_eq!(first, [("a".into(), Event::Ejected(Cause::Consecutive, 1_000 * MS))]);
        let (snapshot, next) = roster.snapshot(&Arc::default(), now);
        assert_eq!((snapshot.len(), next), (2, Some(now + 1_000 * MS)));
        let back = now + 1_000 * MS;
        assert_eq!(roster.review(back), [("a".into(), Event::Returned)]);
        let (snapshot, next) = roster.snapshot(&Arc::default(), back);
        assert_eq!((snapshot.len(), next), (3, Some(back + 500 * MS)), "its share grows next");
        assert!(roster.review(back + MS).is_empty(), "what it was ejected for is forgiven");
    }

    #[test]
    fn no_more_are_ejected_than_may_be_and_too_few_left_is_panic() {
        let now = clock::now();
        let names: Vec<String> = (0..10).map(|n| format!("m{n}")).collect();
        let mut roster = roster(&names.iter().map(String::as_str).collect::<Vec<_>>(), now);
        for name in &names {
            (0..9).for_each(|_| assert!(vitals(&roster, name).failed(MS, now) > 0));
        }
        assert_eq!(roster.review(now).len(), 5, "half of them");
        assert_eq!(asked(&roster, now).len(), 5);
        for name in &names[5..] {
            for _ in 0..3 {
                roster.checked(name, &at(80), false, now);
            }
        }
        let (snapshot, _) = roster.snapshot(&Arc::default(), now);
        assert!(snapshot.panics && snapshot.len() == 10, "nobody is usable: all are asked");
    }

    #[test]
    fn checks_take_down_and_bring_up_and_of_another_address_say_nothing() {
        let now = clock::now();
        let mut roster = roster(&["a", "b"], now);
        let at_80 = at(80);
        assert_eq!(roster.checked("a", &at(81), false, now), None);
        assert_eq!(roster.checked("a", &at_80, true, now), None, "as was taken for granted");
        assert_eq!(roster.checked("b", &at_80, false, now), Some(Event::Down), "the first decides alone");
        assert_eq!(asked(&roster, now), ["a"]);
        assert_eq!(roster.checked("b", &at_80, true, now), None);
        assert_eq!(roster.checked("b", &at_80, true, now), Some(Event::Up));
        assert_eq!(asked(&roster, now), ["a", "b"]);
    }

    #[test]
    fn a_hiccup_costs_no_slow_start() {
        let now = clock::now();
        let mut roster = roster(&["a", "b"], now);
        let mut degraded = ready(&["a", "b"]);
        degraded[0].standing = Standing::Degraded;
        roster.update(degraded.clone(), now);
        assert_eq!(asked(&roster, now), ["b"]);
        roster.update(ready(&["a", "b"]), now + 100 * MS);
        assert_eq!(roster.snapshot(&Arc::default(), now + 100 * MS).1, None, "at its full share");
        roster.update(degraded, now + 200 * MS);
        roster.update(ready(&["a", "b"]), now + 2_000 * MS);
        let (_, next) = roster.snapshot(&Arc::default(), now + 2_000 * MS);
        assert_eq!(next, Some(now + 2_500 * MS), "its share grows");
    }

    #[test]
    fn a_member_at_a_new_address_starts_without_its_past() {
        let now = clock::now();
        let mut roster = roster(&["a", "b"], now);
        (0..9).for_each(|_| assert!(vitals(&roster, "a").failed(MS, now) > 0));
        roster.review(now);
        assert_eq!(asked(&roster, now), ["b"]);
        let mut moved = ready(&["a", "b"]);
        moved[0].address = at(81);
        roster.update(moved, now);
        assert_eq!(asked(&roster, now), ["a", "b"]);
    }
}
