//! Addresses of members that are named by host: looked up beside the membership, never on a request's way.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use tokio::sync::Notify;

/// A look-up may take so long.
const LOOK_UP: Duration = Duration::from_secs(3);
/// A name is looked up again after so long; one that was not found, sooner.
const KEPT: Duration = Duration::from_secs(60);
const NOT_FOUND_KEPT: Duration = Duration::from_secs(2);
/// So many names are kept; a pool has no more members.
const NAMES_MAX: usize = 10_000;

/// `host:port` → address.
#[derive(Default)]
pub(crate) struct Names {
    known: Mutex<HashMap<String, Known>>,
    added: Notify,
}

#[derive(Clone, Copy)]
struct Known {
    address: Option<SocketAddr>,
    until: Instant,
    /// Asked for since the last sweep.
    wanted: bool,
}

impl Names {
    /// Where `authority` is, as last known. An address is itself; a name that is new has to be looked up first, and
    /// one that cannot be found now is still where it was.
    pub fn get(&self, authority: &str, now: Instant) -> Option<SocketAddr> {
        if let Ok(address) = authority.parse() {
            return Some(address);
        }
        let mut known = self.known();
        if let Some(known) = known.get_mut(authority) {
            known.wanted = true;
            return known.address;
        }
        if known.len() < NAMES_MAX {
            known.insert(authority.to_owned(), Known { address: None, until: now, wanted: true });
            self.added.notify_one();
        }
        None
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
            let address = found.or(known.address);
            changed |= address != known.address;
            known.address = address;
            known.until = clock::now() + if found.is_some() { KEPT } else { NOT_FOUND_KEPT };
        }
        changed
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_looked_up_beside_and_forgotten_when_nobody_wants_it() {
        let (names, now) = (Names::default(), clock::now());
        assert_eq!(names.get("127.0.0.1:80", now), "127.0.0.1:80".parse().ok(), "an address is itself");
        assert_eq!(names.due(), None);
        assert_eq!(names.get("localhost:80", now), None, "not known yet");
        assert!(names.due() == Some(now) && names.refresh(now).await);
        let found = names.get("localhost:80", now).expect("every machine knows itself");
        assert!(found.ip().is_loopback() && found.port() == 80);
        assert!(names.due() > Some(now + KEPT / 2));
        names.sweep(); // it was wanted
        assert_eq!(names.get("localhost:80", now), Some(found));
        names.sweep();
        names.sweep(); // and now it was not
        assert_eq!(names.due(), None);
    }

    #[tokio::test]
    async fn one_that_is_not_found_is_tried_again_soon_and_no_error() {
        let (names, now) = (Names::default(), clock::now());
        assert_eq!(names.get("no.such.host.invalid:80", now), None); // RFC 6761 section 6.4: never exists
        assert!(!names.refresh(now).await);
        let due = names.due().expect("it is tried again");
        assert!(due < now + KEPT / 2);
    }
}
