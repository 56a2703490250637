//! Who belongs to which pool: turns discovery, configuration, checks and failures into snapshots.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use messages::service::{Announcement, Health};
use supervision::{Life, StartError, Started};

use crate::config::{MemberConfig, PoolConfig, weight};
use crate::pool::{Pool, Roster, Standing, Wanted};
use crate::shared::{Balancer, Table};

/// By name of the pool.
pub(crate) type Rosters = HashMap<Arc<str>, Roster>;

/// News within so short a time are looked at together.
const TOGETHER: Duration = Duration::from_millis(10);

/// Starts the membership. The first snapshot is out before it is ready, and with it before a worker takes a request.
///
/// # Errors
/// None.
pub fn start(life: Life) -> Result<Started, StartError> {
    let balancer = life.env::<Balancer>();
    let names = Arc::clone(&balancer);
    life.spawn_linked(async move { names.names.keep(&names.news).await });
    Ok(Started::task(async move {
        let mut picture = balancer.registry.version();
        let mut stopping = std::pin::pin!(life.stopping());
        loop {
            picture.mark_unchanged();
            let now = clock::now();
            let next = renew(&balancer, now);
            life.ready();
            let until = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Ok(()) = picture.changed() => {}
                () = balancer.news.notified() => {}
                () = until => {}
                () = &mut stopping => return Ok(()),
            }
            tokio::time::sleep(TOGETHER).await; // bounds how often snapshots are built, whatever fails how often
        }
    }))
}

/// Looks at everything and publishes what follows; says when to look again.
fn renew(balancer: &Balancer, now: Instant) -> Option<Instant> {
    let table = balancer.table.load_full();
    let picture = balancer.registry.snapshot();
    let mut rosters = balancer.rosters();
    rosters.retain(|name, _| table.pool(name).is_some());
    let mut next: Option<Instant> = None;
    for pool in &table.pools {
        let roster = rosters
            .entry(Arc::clone(&pool.name))
            .or_insert_with(|| Roster::new(pool.config.clone(), pool.key.clone()));
        let wanted = wanted(&pool.config, &picture, |authority| balancer.names.get(authority, now));
        let at = renew_pool(pool, roster, wanted, now);
        next = next.into_iter().chain(at).min();
    }
    balancer.names.sweep();
    announce(balancer, &table, &rosters);
    balancer.looks.send_modify(|looks| *looks += 1);
    next
}

fn renew_pool(pool: &Pool, roster: &mut Roster, wanted: Vec<Wanted>, now: Instant) -> Option<Instant> {
    if *roster.config() != pool.config {
        roster.reconfigure(pool.config.clone());
    }
    let mut events = roster.update(wanted, now);
    events.extend(roster.review(now));
    for (member, event) in &events {
        pool.telemetry.member(member, event);
    }
    let (snapshot, next) = roster.snapshot(pool.common(), now);
    pool.telemetry.states(roster.states().map(|(.., state)| state), snapshot.panics);
    pool.publish(snapshot);
    next
}

/// What others see of it without asking: `pools` is `default 2/3` (usable of all), one after the other.
fn announce(balancer: &Balancer, table: &Table, rosters: &Rosters) {
    let of_pool = |pool: &Arc<Pool>| {
        let all = rosters.get(&pool.name).map_or(0, |roster| roster.states().count());
        format!("{} {}/{all}", pool.name, pool.snapshot().len())
    };
    let pools: Vec<String> = table.pools.iter().take(16).map(of_pool).collect();
    balancer.announcer.set_fact("pools", pools.join(", "));
}

/// The members by configuration, then those of the first tier that has an instance.
fn wanted(
    config: &PoolConfig,
    picture: &[Announcement],
    address_of: impl Fn(&str) -> Option<std::net::SocketAddr>,
) -> Vec<Wanted> {
    let fixed = |member: &MemberConfig| {
        Some(Wanted {
            id: member.address.as_str().into(),
            address: address_of(&member.address)?,
            h2c: member.h2c,
            weight: member.weight,
            labels: member.labels.clone(),
            standing: Standing::Ready,
        })
    };
    let found = |it: &Announcement| {
        Some(Wanted {
            id: it.instance.as_str().into(),
            address: address_of(it.address.as_deref()?.strip_prefix("http://")?.trim_end_matches('/'))?,
            h2c: false,
            weight: weight_of(it.capacity),
            labels: it.facts.clone(),
            standing: match it.health {
                Health::Ready => Standing::Ready,
                Health::Degraded => Standing::Degraded,
                Health::Draining | Health::Gone => Standing::Draining,
            },
        })
    };
    let of_tier = |tier: &String| picture.iter().any(|it| it.tier == *tier && it.address.is_some());
    let tier = config.tiers.iter().find(|tier| of_tier(tier));
    let instances = picture.iter().filter(|it| Some(&it.tier) == tier).filter_map(found);
    let mut all: BTreeMap<Arc<str>, Wanted> = BTreeMap::new(); // one of each name, in the order of names
    for wanted in config.members.iter().filter_map(fixed).chain(instances) {
        all.entry(Arc::clone(&wanted.id)).or_insert(wanted);
    }
    all.into_values().collect()
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped before")]
fn weight_of(capacity: f64) -> u32 {
    if capacity.is_finite() { (capacity * f64::from(weight())).clamp(1.0, 1_000.0) as u32 } else { weight() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(tier: &str, instance: &str, address: Option<&str>, capacity: f64) -> Announcement {
        Announcement {
            node: "n".into(),
            life: "1".into(),
            tier: tier.into(),
            instance: instance.into(),
            address: address.map(str::to_owned),
            health: Health::Ready,
            capacity,
            facts: BTreeMap::from([("version".to_owned(), "2".to_owned())]),
        }
    }

    fn of(config: &PoolConfig, picture: &[Announcement]) -> Vec<(String, u32)> {
        let wanted = wanted(config, picture, |authority| authority.parse().ok());
        wanted.into_iter().map(|it| (it.id.to_string(), it.weight)).collect()
    }

    #[test]
    fn the_first_tier_with_an_instance_is_taken_and_fixed_members_are_there_in_any_case() {
        let mut config = PoolConfig { tiers: vec!["web".into(), "app".into()], ..PoolConfig::default() };
        let app = says("app", "app-1", Some("http://127.0.0.1:1"), 2.5);
        assert_eq!(of(&config, std::slice::from_ref(&app)), [("app-1".to_owned(), 250)]);
        let picture = [app, says("web", "web-1", Some("http://127.0.0.1:2/"), 0.0)];
        assert_eq!(of(&config, &picture), [("web-1".to_owned(), 1)]);
        assert_eq!(of(&config, &[says("web", "web-1", None, 1.0), picture[0].clone()]).len(), 1);
        config.members = serde_json::from_str(r#"[{"address": "127.0.0.1:3"}]"#).unwrap();
        assert_eq!(of(&config, &picture), [("127.0.0.1:3".to_owned(), 100), ("web-1".to_owned(), 1)]);
        assert_eq!(of(&config, &[]), [("127.0.0.1:3".to_owned(), 100)]);
        let named = says("web", "web-1", Some("http://unknown:80"), 1.0);
        assert_eq!(of(&config, &[named]).len(), 1, "one whose address is not known yet is left out");
    }
}
