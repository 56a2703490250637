//! The limits of neighbouring tiers, as one chain.
//!
//! A request passes edge, balancer, web and app. Whoever is nearer to the client waits longer than the one behind it: so
//! it is always the one who knows why that answers, and what was answered is not thrown away for being late. What the
//! operator leaves open follows from what lies behind; what is set and does not fit is refused at start.

use upstream::{OPEN_MS, PoolConfig, TimeoutConfig};

use crate::settings::Settings;

/// What a hop needs beside the time of the hop behind: to connect, to wait for a place, to choose anew. Milliseconds.
const HOP_MS: u64 = 15_000;
/// What an app server needs beside the time that its client asked to wait. Milliseconds.
const APP_MS: u64 = 5_000;

/// Fills in what was left open: 0 in the times of web, balancer and edge.
pub fn follow(settings: &mut Settings) {
    let app_ms = app_needs(settings);
    for pool in settings.web.pools.values_mut() {
        let least = if is_of(pool, "app") { OPEN_MS.max(app_ms) } else { OPEN_MS };
        fill(&mut pool.timeouts, least, OPEN_MS);
    }
    let (behind, idle) = slowest_web(settings);
    let pools = std::iter::once(&mut settings.balancer.pool).chain(settings.balancer.pools.values_mut());
    for pool in pools {
        fill(&mut pool.timeouts, behind + HOP_MS, idle + HOP_MS);
    }
    let (behind, idle) =
        slowest(std::iter::once(&settings.balancer.pool).chain(settings.balancer.pools.values()));
    let edge = &mut settings.edge;
    or_else(&mut edge.first_byte_timeout_ms, behind + HOP_MS);
    or_else(&mut edge.idle_timeout_ms, idle + HOP_MS);
}

/// Refuses a hop that gives up before the one behind it, and a tier that lets more through than the next one takes. What was
/// left open fits by itself.
///
/// # Errors
/// The first pair that does not fit: both keys, their values, and what is allowed.
pub fn check(settings: &Settings) -> Result<(), String> {
    let mut whole = settings.clone();
    follow(&mut whole);
    check_times(&whole)?;
    check_lasting(settings)
}

fn is_of(pool: &PoolConfig, tier: &str) -> bool {
    pool.tiers.iter().any(|it| it == tier)
}

/// What an app server may take, and a little more.
fn app_needs(settings: &Settings) -> u64 {
    let wait_ms = settings.app.wait_max_s.saturating_mul(1_000);
    wait_ms.saturating_add(settings.app.submit_deadline_ms).saturating_add(APP_MS)
}

/// The longest times of these pools: to the first byte, and between two pieces.
fn slowest<'p>(pools: impl Iterator<Item = &'p PoolConfig>) -> (u64, u64) {
    pools.map(|pool| &pool.timeouts).fold((0, 0), |(first_byte, idle), times| {
        (first_byte.max(times.first_byte_ms), idle.max(times.idle_ms))
    })
}

/// What the web tier may take. The pool of the app servers is there also if it is not named.
fn slowest_web(settings: &Settings) -> (u64, u64) {
    let (first_byte, idle) = slowest(settings.web.pools.values());
    (first_byte.max(OPEN_MS), idle.max(OPEN_MS))
}

fn fill(times: &mut TimeoutConfig, first_byte: u64, idle: u64) {
    or_else(&mut times.first_byte_ms, first_byte);
    or_else(&mut times.idle_ms, idle);
}

fn or_else(open: &mut u64, follows: u64) {
    if *open == 0 {
        *open = follows;
    }
}

/// `key` is longer than what is `behind` it.
fn longer(key: &str, value: u64, behind: &str, least: u64) -> Result<(), String> {
    if value > least {
        return Ok(());
    }
    Err(format!(
        "{key} = {value}: allowed is more than {least}, which is {behind}, or 0, which follows from that"
    ))
}

fn check_times(settings: &Settings) -> Result<(), String> {
    let app_ms = app_needs(settings);
    let unnamed = (!settings.web.pools.contains_key("app")).then_some(("app", OPEN_MS));
    let named = settings.web.pools.iter().filter(|(_, pool)| is_of(pool, "app"));
    let named = named.map(|(name, pool)| (name.as_str(), pool.timeouts.first_byte_ms));
    if let Some((name, value)) = unnamed.into_iter().chain(named).find(|(_, value)| *value < app_ms) {
        let key = format!("web.pools.{name}.timeouts.first_byte_ms = {value}");
        return Err(format!(
            "{key}: allowed is {app_ms} or more, for app.wait_max_s and app.submit_deadline_ms"
        ));
    }
    let times = &settings.balancer.pool.timeouts;
    // Only the default pool leads to web servers; others have members of their own.
    if is_of(&settings.balancer.pool, "web") {
        let (first_byte, idle) = slowest_web(settings);
        let key = "balancer.pool.timeouts.first_byte_ms";
        longer(key, times.first_byte_ms, "the longest timeouts.first_byte_ms of web.pools", first_byte)?;
        let key = "balancer.pool.timeouts.idle_ms";
        longer(key, times.idle_ms, "the longest timeouts.idle_ms of web.pools", idle)?;
    }
    let edge = &settings.edge;
    // An edge with origins of its own has no balancer behind it.
    if edge.origins.is_empty() {
        let balancer = &settings.balancer;
        let (first_byte, idle) = slowest(std::iter::once(&balancer.pool).chain(balancer.pools.values()));
        let behind = "the longest timeouts.first_byte_ms of the balancer's pools";
        longer("edge.first_byte_timeout_ms", edge.first_byte_timeout_ms, behind, first_byte)?;
        let behind = "the longest timeouts.idle_ms of the balancer's pools";
        longer("edge.idle_timeout_ms", edge.idle_timeout_ms, behind, idle)?;
    }
    Ok(())
}

/// Requests that last hold a connection at each hop: who is nearer to the client lets no more through than the next takes.
fn check_lasting(settings: &Settings) -> Result<(), String> {
    let hops = [
        ("edge.limits.lasting_max", settings.edge.limits.lasting_max),
        ("balancer.limits.lasting_max", settings.balancer.limits.lasting_max),
        ("web.limits.lasting_max", settings.web.limits.lasting_max),
        ("app.waiters_max", u32::try_from(settings.app.waiters_max).unwrap_or(u32::MAX)),
    ];
    for pair in hops.windows(2) {
        let ((key, value), (behind, least)) = (pair[0], pair[1]);
        if least > 0 && (value == 0 || value > least) {
            return Err(format!("{key} = {value}: allowed is 1 to {least}, which is {behind}"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(change: impl Fn(&mut Settings)) -> Settings {
        let mut settings = Settings::default();
        change(&mut settings);
        settings
    }

    fn pool(tier: &str, first_byte_ms: u64) -> PoolConfig {
        let mut pool = PoolConfig { tiers: vec![tier.to_owned()], ..PoolConfig::default() };
        pool.timeouts.first_byte_ms = first_byte_ms;
        pool
    }

    #[test]
    fn each_hop_waits_longer_than_the_one_behind_it_and_a_slow_pool_lengthens_them_all() {
        for slowest in [0, 90_000, 300_000, 3_600_000] {
            let mut settings =
                settings(|it| drop(it.web.pools.insert("slow".to_owned(), pool("x", slowest))));
            assert_eq!(check(&settings), Ok(()));
            follow(&mut settings);
            let web = settings.web.pools["slow"].timeouts.first_byte_ms;
            let balancer = settings.balancer.pool.timeouts.first_byte_ms;
            let edge = settings.edge.first_byte_timeout_ms;
            assert!(app_needs(&settings) < web && web < balancer && balancer < edge, "{slowest}");
            assert_eq!(check(&settings), Ok(()), "what follows fits");
        }
        let mut patient = settings(|it| {
            it.app.wait_max_s = 600;
            it.web.pools.insert("app".to_owned(), pool("app", 0));
        });
        follow(&mut patient);
        assert!(
            patient.edge.first_byte_timeout_ms > 600_000,
            "the wait of the app servers is behind them all"
        );
    }

    #[test]
    fn a_hop_that_gives_up_before_the_one_behind_it_is_refused_by_name() {
        let refused = |change: fn(&mut Settings), begins: &str| {
            let error = check(&settings(change)).expect_err("it does not fit");
            assert!(error.starts_with(begins), "{error}");
        };
        refused(
            |it| it.balancer.pool.timeouts.first_byte_ms = 60_000,
            "balancer.pool.timeouts.first_byte_ms = 60000: allowed is more than 90000",
        );
        refused(
            |it| it.balancer.pool.timeouts.idle_ms = 90_000,
            "balancer.pool.timeouts.idle_ms = 90000: allowed is more than 90000",
        );
        refused(
            |it| it.edge.first_byte_timeout_ms = 100_000,
            "edge.first_byte_timeout_ms = 100000: allowed is more than 105000",
        );
        refused(
            |it| drop(it.web.pools.insert("app".to_owned(), pool("app", 60_000))),
            "web.pools.app.timeouts.first_byte_ms = 60000: allowed is 75000 or more",
        );
        refused(
            |it| it.app.wait_max_s = 600,
            "web.pools.app.timeouts.first_byte_ms = 90000: allowed is 615000",
        );
        refused(
            |it| it.edge.limits.lasting_max = 5_000,
            "edge.limits.lasting_max = 5000: allowed is 1 to 4096",
        );
        let own = settings(|it| {
            it.edge.origins = vec!["127.0.0.1:1".parse().unwrap()];
            it.edge.first_byte_timeout_ms = 500;
        });
        assert_eq!(check(&own), Ok(()), "an edge with origins of its own has no balancer behind it");
    }
}
