//! Addresses of members that are named by host: looked up beside the membership, never on a request's way.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use smallvec::SmallVec;
use tokio::sync::Notify;

/// A look-up may take so long.
const LOOK_UP: Duration = Duration::from_secs(3);
/// A name is looked up again after so long; one that was not found, sooner.
const KEPT: Duration = Duration::from_secs(60);
const NOT_FOUND_KEPT: Duration = Duration::from_secs(2);
/// So many names are kept; a pool has no more members.
const NAMES_MAX: usize = 10_000;

/// Addresses of one name that are used.
const ADDRESSES_MAX: usize = 16;

/// The addresses of a name; mostly one.
pub(crate) type Addresses = SmallVec<[SocketAddr; 1]>;

/// `host:port` → addresses.
#[derive(Default)]
pub(crate) struct Names {
    known: Mutex<HashMap<String, Known>>,
    added: Notify,
}

#[derive(Clone)]
struct Known {
    addresses: Addresses,
    until: Instant,
    /// Asked for since the last sweep.
    wanted: bool,
}

impl Names {
    /// Where `authority` is, as last known. An address is itself; a name that is new has to be looked up first, and
    /// one that cannot be found now is still where it was.
    pub fn get(&self, authority: &str, now: Instant) -> Addresses {
        if let Ok(address) = authority.parse() {
            return Addresses::from([address]);
        }
        let mut known = self.known();
        if let Some(known) = known.get_mut(authority) {
            known.wanted = true;
            return known.addresses.clone();
        }
        if known.len() < NAMES_MAX {
            known.insert(
                authority.to_owned(),
                Known { addresses: Addresses::new(), until: now, wanted: true },
            );
            self.added.notify_one();
        }
        Addresses::new()
    }

    /// Forgets the names that nobody asked for since the last sweep.
    pub fn sweep(&self) {
        self.known().retain(|_, known| std::mem::take(&mut known.wanted));
    }

    /// Looks names up when they are due, for ever; tells `changed` when an address is another.
    pub async fn keep(&self, changed: &Notify) {
        loop {
            let due = async {
                match self.due() {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { () = due => {}, () = self.added.notified() => {} }
            if self.refresh(clock::now()).await {
                changed.notify_one();
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        self.known().values().map(|known| known.until).min()
    }

    /// Looks up what is due; true if an address is another now.
    async fn refresh(&self, now: Instant) -> bool {
        let due = |(name, known): (&String, &Known)| (known.until <= now).then(|| name.clone());
        let names: Vec<String> = self.known().iter().filter_map(due).collect();
        let found = join_all(names.iter().map(|name| look_up(name))).await;
        let mut known = self.known();
        let mut changed = false;
        for (name, found) in names.into_iter().zip(found) {
            let Some(known) = known.get_mut(&name) else { continue };
            known.until = clock::now() + if found.is_empty() { NOT_FOUND_KEPT } else { KEPT };
            if !found.is_empty() && found != known.addresses {
                known.addresses = found;
                changed = true;
            }
        }
        changed
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// In the order of their numbers: a name server turns its answers round.
async fn look_up(name: &str) -> Addresses {
    let found = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host(name)).await;
    match found {
        Ok(Ok(found)) => {
            let mut found: Addresses = found.collect();
            found.sort_unstable();
            found.dedup();
            found.truncate(ADDRESSES_MAX);
            found
        }
        Ok(Err(error)) => {
            tracing::debug!(name, %error, "member not found by name");
            Addresses::new()
        }
        Err(_) => Addresses::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_looked_up_beside_and_forgotten_when_nobody_wants_it() {
        let (names, now) = (Names::default(), clock::now());
        assert_eq!(
            names.get("127.0.0.1:80", now)[..],
            ["127.0.0.1:80".parse().unwrap()],
            "an address is itself"
        );
        assert_eq!(names.due(), None);
        assert!(names.get("localhost:80", now).is_empty(), "not known yet");
        assert!(names.due() == Some(now) && names.refresh(now).await);
        let found = names.get("localhost:80", now);
        assert!(!found.is_empty() && found.iter().all(|it| it.ip().is_loopback() && it.port() == 80));
        assert!(names.due() > Some(now + KEPT / 2));
        names.sweep(); // it was wanted
        assert_eq!(names.get("localhost:80", now), found);
        names.sweep();
        names.sweep(); // and now it was not
        assert_eq!(names.due(), None);
    }

    #[tokio::test]
    async fn one_that_is_not_found_is_tried_again_soon_and_no_error() {
        let (names, now) = (Names::default(), clock::now());
        assert!(names.get("no.such.host.invalid:80", now).is_empty()); // RFC 6761 section 6.4: never exists
        assert!(!names.refresh(now).await);
        let due = names.due().expect("it is tried again");
        assert!(due < now + KEPT / 2);
    }
}
