//! Addresses of members that are named by host: looked up beside the membership, never on a request's way.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;

/// A look-up may take so long.
const LOOK_UP: Duration = Duration::from_secs(3);
/// A name is looked up again after so long; one that was not found, sooner.
pub(crate) const KEPT: Duration = Duration::from_secs(60);
const NOT_FOUND_KEPT: Duration = Duration::from_secs(2);
/// So many names are kept; a pool has no more members.
const NAMES_MAX: usize = 10_000;

/// `host:port` → address.
#[derive(Default)]
pub(crate) struct Names(Mutex<HashMap<String, Known>>);

#[derive(Clone, Copy)]
struct Known {
    address: Option<SocketAddr>,
    until: Instant,
}

impl Names {
    /// Where `authority` is, as last known. An address is itself; a name that is new has to be looked up first, and
    /// one that cannot be found now is still where it was.
    pub fn get(&self, authority: &str, now: Instant) -> Option<SocketAddr> {
        if let Ok(address) = authority.parse() {
            return Some(address);
        }
        let mut known = self.known();
        if let Some(known) = known.get(authority) {
            return known.address;
        }
        if known.len() < NAMES_MAX {
            known.insert(authority.to_owned(), Known { address: None, until: now });
        }
        None
    }

    /// When a name has to be looked up, if any.
    pub fn due(&self) -> Option<Instant> {
        self.known().values().map(|known| known.until).min()
    }

    /// Looks up what is due; true if an address is another now.
    pub async fn refresh(&self, now: Instant) -> bool {
        let due = |(name, known): (&String, &Known)| (known.until <= now).then(|| name.clone());
        let names: Vec<String> = self.known().iter().filter_map(due).collect();
        let found = join_all(names.iter().map(|name| look_up(name))).await;
        let mut known = self.known();
        let mut changed = false;
        for (name, found) in names.into_iter().zip(found) {
            let before = known.get(&name).and_then(|known| known.address);
            let address = found.or(before);
            let kept = if found.is_some() { KEPT } else { NOT_FOUND_KEPT };
            known.insert(name, Known { address, until: clock::now() + kept });
            changed |= address != before;
        }
        changed
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn look_up(name: &str) -> Option<SocketAddr> {
    let found = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host(name)).await;
    match found {
        Ok(Ok(mut addresses)) => addresses.next(),
        Ok(Err(error)) => {
            tracing::debug!(tier = "balancer", name, %error, "member not found by name");
            None
        }
        Err(_) => None,
    }
}
