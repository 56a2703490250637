//! Who belongs to which pool: turns discovery, configuration, checks and failures into snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_support::gateway::Address;
use messages::service::{Announcement, Health};
use supervision::{BoxError, Life};

use crate::config::{MemberConfig, PoolConfig, weight};
use crate::names::Addresses;
use crate::pool::{Pool, Roster, Standing, Wanted};
use crate::pools::Pools;
use crate::url::{At, Scheme};

/// News within so short a time are looked at together.
const TOGETHER: Duration = Duration::from_millis(10);

/// Keeps the snapshots of `pools` until the child is to stop; calls `renewed` after each look. The first snapshot is out
/// before the child is ready, and with it before a worker takes a request.
///
/// # Errors
/// None.
pub async fn keep(pools: Arc<Pools>, life: Life, renewed: impl Fn(&Pools)) -> Result<(), BoxError> {
    let names = Arc::clone(&pools);
    life.spawn_linked(async move { names.names.keep(&names.news).await });
    let mut picture = pools.registry.version();
    let mut stopping = std::pin::pin!(life.stopping());
    loop {
        picture.mark_unchanged();
        let next = renew(&pools, clock::now());
        renewed(&pools);
        life.ready();
        let until = async {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Ok(()) = picture.changed() => {}
            () = pools.news.notified() => {}
            () = until => {}
            () = &mut stopping => return Ok(()),
        }
        tokio::time::sleep(TOGETHER).await; // bounds how often snapshots are built, whatever fails how often
    }
}

/// Looks at everything and publishes what follows; says when to look again.
fn renew(pools: &Pools, now: Instant) -> Option<Instant> {
    let list = pools.list();
    let picture = pools.registry.snapshot();
    let mut rosters = pools.rosters();
    rosters.retain(|name, _| list.iter().any(|pool| pool.name == *name));
    let mut next: Option<Instant> = None;
    for pool in list.iter() {
        let roster = rosters
            .entry(Arc::clone(&pool.name))
            .or_insert_with(|| Roster::new(pool.config.clone(), pool.key.clone(), pool.tls.clone()));
        let wanted = wanted(&pool.config, &picture, |authority| pools.names.get(authority, now));
        let at = renew_pool(pool, roster, wanted, now);
        next = next.into_iter().chain(at).min();
    }
    pools.names.sweep();
    drop(rosters);
    pools.looks.send_modify(|looks| *looks += 1);
    next
}

fn renew_pool(pool: &Pool, roster: &mut Roster, wanted: Vec<Wanted>, now: Instant) -> Option<Instant> {
    if *roster.config() != pool.config {
        roster.reconfigure(pool.config.clone(), pool.tls.clone());
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

/// The members by configuration, then those of the first tier that has an instance.
fn wanted(
    config: &PoolConfig,
    picture: &[Announcement],
    addresses_of: impl Fn(&str) -> Addresses,
) -> Vec<Wanted> {
    // Each address of a name is a member of its own.
    let fixed = |member: &MemberConfig| -> Vec<Wanted> {
        let addresses: Vec<Address> = match &member.url.at {
            At::Authority(authority) => addresses_of(authority).into_iter().map(Address::from).collect(),
            At::Socket(path) => vec![Address::Unix(Arc::clone(path))],
        };
        let several = addresses.len() > 1;
        let wanted = |address: Address| Wanted {
            id: if several { format!("{} {address}", member.url).into() } else { member.url.as_str().into() },
            address,
            scheme: member.url.scheme,
            host: member.url.host().unwrap_or_default().into(),
            is_ours: false,
            weight: member.weight,
            labels: member.labels.clone(),
            standing: Standing::Ready,
        };
        addresses.into_iter().map(wanted).collect()
    };
    let found = |it: &Announcement| {
        let authority = it.address.as_deref()?.strip_prefix("http://")?.trim_end_matches('/');
        Some(Wanted {
            id: it.instance.as_str().into(),
            address: (*addresses_of(authority).first()?).into(),
            scheme: Scheme::Http,
            host: "".into(),
            is_ours: true,
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
    for wanted in config.members.iter().flat_map(fixed).chain(instances) {
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
        let wanted = wanted(config, picture, |authority| authority.parse().into_iter().collect());
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
        config.members = serde_json::from_str(r#"["127.0.0.1:3"]"#).unwrap();
        assert_eq!(of(&config, &picture), [("127.0.0.1:3".to_owned(), 100), ("web-1".to_owned(), 1)]);
        assert_eq!(of(&config, &[]), [("127.0.0.1:3".to_owned(), 100)]);
        let several =
            |_: &str| ["127.0.0.1:3", "127.0.0.2:3"].map(|it| it.parse().unwrap()).into_iter().collect();
        let ids: Vec<_> = wanted(&config, &[], several).into_iter().map(|it| it.id.to_string()).collect();
        assert_eq!(ids, ["127.0.0.1:3 127.0.0.1:3", "127.0.0.1:3 127.0.0.2:3"], "each address of a name");
        let named = says("web", "web-1", Some("http://unknown:80"), 1.0);
        assert_eq!(of(&config, &[named]).len(), 1, "one whose address is not known yet is left out");
    }
}
