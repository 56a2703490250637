use std::collections::BTreeMap;

use super::*;
use crate::config::{CanaryConfig, LimitConfig};
use crate::pick::Algorithm;

/// A pool of `n` members, of which those with an odd number are of version 2.
fn pool(n: usize, config: PoolConfig) -> (Pool, Roster) {
    let (key, now) = (Key::of_this_process(), clock::now());
    let pool = Pool::new("test", "test", config.clone(), key.clone(), Arc::default(), None);
    let mut roster = Roster::new(config, key, None);
    let wanted = (0..n).map(|name| Wanted {
        id: format!("m{name:05}").into(),
        address: std::net::SocketAddr::from(([127, 0, 0, 1], 80)).into(),
        scheme: crate::url::Scheme::Http,
        host: "127.0.0.1".into(),
        is_ours: false,
        weight: 100,
        labels: BTreeMap::from([("version".to_owned(), (name % 2 + 1).to_string())]),
        standing: Standing::Ready,
    });
    roster.update(wanted.collect(), now);
    pool.publish(roster.snapshot(pool.common(), now).0);
    (pool, roster)
}

fn place<'p>(
    pool: &'p Pool,
    client: u64,
    stick: Option<u64>,
    tried: &[Arc<Member>],
) -> Result<Place<'p>, Refused> {
    let mut dice = Dice::new(client);
    let key = hash(&client.to_be_bytes());
    pool.try_place(&mut Wish { key, client: key, stick, tried, now: clock::now(), dice: &mut dice })
}

#[test]
fn a_place_is_given_back_and_the_least_loaded_is_known() {
    let config = PoolConfig { algorithm: Algorithm::LeastConnections, ..PoolConfig::default() };
    let (pool, _roster) = pool(10, config);
    let held: Vec<_> = (0..20).map(|n| place(&pool, n, None, &[]).unwrap()).collect();
    assert!(pool.snapshot().iter().all(|member| member.vitals.active() == 2));
    assert_eq!(pool.common().active(), 20);
    let freed = Arc::clone(&held[7].member);
    drop(held.into_iter().nth(7)); // and all the others
    assert_eq!((freed.vitals.active(), pool.common().active()), (0, 0));
}

#[test]
fn places_of_an_earlier_snapshot_are_counted_in_the_next() {
    let config = PoolConfig { algorithm: Algorithm::LeastConnections, ..PoolConfig::default() };
    let (pool, roster) = pool(2, config);
    let (one, two) = (place(&pool, 1, None, &[]).unwrap(), place(&pool, 2, None, &[]).unwrap());
    pool.publish(roster.snapshot(pool.common(), clock::now()).0);
    let freed = Arc::clone(&one.member);
    drop(one);
    assert!((0..20).all(|n| place(&pool, n, None, &[]).unwrap().member.is_same(&freed)));
    drop(two);
}

/// Each member's breaker opens at `requests_max`; when all are open the caller is told, not queued without bound.
#[test]
fn a_full_member_is_passed_over_and_a_full_pool_says_so() {
    let limit = LimitConfig { requests_max: 3, ..LimitConfig::default() };
    for algorithm in
        [Algorithm::RoundRobin, Algorithm::TwoChoices, Algorithm::LeastConnections, Algorithm::IpHash]
    {
        let (pool, _roster) =
            pool(4, PoolConfig { algorithm, limit: limit.clone(), ..PoolConfig::default() });
        let held: Vec<_> = (0..12).map(|n| place(&pool, n, None, &[]).unwrap()).collect();
        assert!(pool.snapshot().iter().all(|member| member.vitals.active() == 3), "{algorithm:?}");
        assert_eq!(place(&pool, 1, None, &[]).err(), Some(Refused::Full));
        drop(held);
    }
}

#[tokio::test]
async fn those_who_wait_get_the_next_place_in_bounds() {
    let limit = LimitConfig { requests_max: 1, waiting_max: 1, wait_ms: 60_000, ..LimitConfig::default() };
    let (pool, _roster) = pool(1, PoolConfig { limit, ..PoolConfig::default() });
    let held = place(&pool, 1, None, &[]).unwrap();
    let (mut dice, now) = (Dice::new(1), clock::now());
    let mut wish = Wish { key: 1, client: 1, stick: None, tried: &[], now, dice: &mut dice };
    let waits = pool.place(&mut wish);
    let others = async {
        tokio::task::yield_now().await;
        let mut dice = Dice::new(2);
        let mut wish = Wish { key: 1, client: 1, stick: None, tried: &[], now, dice: &mut dice };
        assert_eq!(pool.place(&mut wish).await.err(), Some(Refused::Full), "the queue holds one");
        drop(held);
    };
    let (placed, ()) = tokio::join!(waits, others);
    assert!(placed.is_ok());
}

#[test]
fn who_was_tried_is_never_chosen_again() {
    let (pool, _roster) = pool(3, PoolConfig::default());
    let mut tried = Tried::new();
    for n in 0..3 {
        assert!(pool.has_another(n) == (n < 2));
        let place = place(&pool, 1, None, &tried).unwrap();
        assert!(!tried.iter().any(|it| it.is_same(&place.member)));
        tried.push(Arc::clone(&place.member));
    }
    assert_eq!(place(&pool, 1, None, &tried).err(), Some(Refused::AllTried));
    let (empty, _roster) = self::pool(0, PoolConfig::default());
    assert_eq!(place(&empty, 1, None, &[]).err(), Some(Refused::NoMember));
}

#[test]
fn a_cookie_names_its_member_while_that_may_be_asked() {
    let (pool, mut roster) = pool(50, PoolConfig::default());
    let tag = pool.snapshot().iter().nth(17).unwrap().tag;
    assert!((0..100).all(|n| place(&pool, n, Some(tag), &[]).unwrap().member.tag == tag));
    assert!(place(&pool, 1, Some(tag ^ 1), &[]).is_ok(), "an unknown one is no error");
    roster.update(Vec::new(), clock::now());
    pool.publish(roster.snapshot(pool.common(), clock::now()).0);
    assert!(place(&pool, 1, Some(tag), &[]).is_err());
}

#[test]
fn the_canary_gets_its_share_and_a_client_stays_with_its_version() {
    let canary = |percent: f64, by: &str| {
        let text = format!(r#"{{"value": "2", "percent": {percent:.1}, "by": "{by}"}}"#);
        serde_json::from_str::<CanaryConfig>(&text).ok()
    };
    for by in ["client", "request"] {
        let (pool, mut roster) = pool(10, PoolConfig { canary: canary(10.0, by), ..PoolConfig::default() });
        let version = |client| place(&pool, client, None, &[]).unwrap().member.canary;
        let canaries: Vec<u64> = (0..10_000).filter(|client| version(*client)).collect();
        assert!((800..1_200).contains(&canaries.len()), "{by}: {}", canaries.len());
        if by == "client" {
            roster.reconfigure(PoolConfig { canary: canary(20.0, by), ..PoolConfig::default() }, None);
            pool.publish(roster.snapshot(pool.common(), clock::now()).0);
            assert!(canaries.iter().all(|client| version(*client)), "the share grows, none goes back");
        }
    }
    let (lone, _roster) = pool(1, PoolConfig { canary: canary(50.0, "client"), ..PoolConfig::default() });
    assert!(
        (0..100).all(|client| place(&lone, client, None, &[]).is_ok()),
        "a version without members is no outage"
    );
}
