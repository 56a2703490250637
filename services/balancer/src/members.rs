//! The children that look after the pools: who belongs to them, and who passes its checks.

use std::sync::Arc;

use supervision::{Life, StartError, Started};
use upstream::Pools;

use crate::shared::Balancer;

/// Pools that are told of in discovery.
const TOLD_MAX: usize = 16;

/// Starts the membership. What others see of it without asking: `pools` is `default 2/3` (usable of all), one after the other.
///
/// # Errors
/// None.
pub fn keep(life: Life) -> Result<Started, StartError> {
    let balancer = life.env::<Balancer>();
    let pools = Arc::clone(&balancer.pools);
    Ok(Started::task(upstream::keep(pools, life, move |pools: &Pools| {
        let counts: Vec<String> = pools.counts().into_iter().take(TOLD_MAX).collect();
        balancer.announcer.set_fact("pools", counts.join(", "));
    })))
}

/// Starts the checker.
///
/// # Errors
/// None.
pub fn check(life: Life) -> Result<Started, StartError> {
    let balancer = life.env::<Balancer>();
    Ok(Started::task(async move {
        life.ready();
        tokio::select! {
            () = upstream::check(&balancer.pools, &balancer.instance) => {}
            () = life.stopping() => {}
        }
        Ok(())
    }))
}
