//! What each client holds of a server: connections, requests under way, and requests that last.
//!
//! One registry for all workers of an instance, so that a bound means the same however many threads there are. It is
//! asked once per connection and once per request that has to wait for somebody else; what is answered from memory
//! never asks. An entry lives as long as its client holds something, so the registry is as small as what is held.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::error::{ForwardFailure, Whose};

/// Locks that clients are spread over.
const SHARDS: usize = 32;

/// Who counts as one client: an IPv4 address; of IPv6 the network of 64 bits, which one host has whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct ClientKey(u64);

impl ClientKey {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self(u64::from(v4.to_bits())),
            // No global network begins with 32 zero bits, so it is never mistaken for an IPv4 address.
            IpAddr::V6(v6) => Self((v6.to_bits() >> 64) as u64),
        }
    }
}

/// Bounds of what clients hold of one instance. 0: no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientBounds {
    pub(crate) connections: u32,
    pub(crate) requests: u32,
    pub(crate) lasting: u32,
    /// Of all clients together.
    pub(crate) lasting_of_all: u32,
    /// How long a request waits for its client's turn.
    pub(crate) wait: Duration,
}

/// The kinds of things that are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Connection,
    Request,
    Lasting,
}

/// What one client holds.
#[derive(Debug, Default)]
struct Holding {
    connections: u32,
    requests: u32,
    lasting: u32,
    /// Requests that wait for their turn.
    waiting: u32,
    turn: Option<Arc<Notify>>,
}

impl Holding {
    fn of(&mut self, kind: Kind) -> &mut u32 {
        match kind {
            Kind::Connection => &mut self.connections,
            Kind::Request => &mut self.requests,
            Kind::Lasting => &mut self.lasting,
        }
    }

    fn is_nothing(&self) -> bool {
        self.connections + self.requests + self.lasting + self.waiting == 0
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Clients {
    shards: [Mutex<HashMap<ClientKey, Holding>>; SHARDS],
    hasher: RandomState,
    lasting: AtomicU32,
}

impl Default for Clients {
    fn default() -> Self {
        Self {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: RandomState::new(),
            lasting: AtomicU32::new(0),
        }
    }
}

impl Clients {
    /// One more connection of this client. `None`: it has as many as it may.
    pub(crate) fn connection(self: &Arc<Self>, client: ClientKey, max: u32) -> Option<Held> {
        self.take(client, Kind::Connection, max)
    }

    /// One more request of this client, if it is its turn.
    pub(crate) fn try_request(self: &Arc<Self>, client: ClientKey, bounds: &ClientBounds) -> Option<Held> {
        let mut shard = self.shard(client);
        // A request that waits already goes before one that comes now.
        let nobody_waits = shard.get(&client).is_none_or(|holding| holding.waiting == 0);
        let entered = nobody_waits && Self::enter(&mut shard, client, Kind::Request, bounds.requests);
        entered.then(|| self.held(client, Kind::Request))
    }

    /// The same; waits for its turn while the client has as many as it may.
    ///
    /// # Errors
    /// Its turn did not come in time.
    pub(crate) async fn request(
        self: &Arc<Self>,
        client: ClientKey,
        bounds: &ClientBounds,
    ) -> Result<Held, ForwardFailure> {
        if let Some(held) = self.try_request(client, bounds) {
            return Ok(held);
        }
        let turn = Turn::begin(self, client);
        let taken = tokio::time::timeout(bounds.wait, async {
            loop {
                let notified = turn.notify.notified();
                if let Some(held) = self.take(client, Kind::Request, bounds.requests) {
                    return held;
                }
                notified.await;
            }
        });
        taken.await.map_err(|_| ForwardFailure::Crowded(Whose::Client))
    }

    /// One more request that lasts.
    ///
    /// # Errors
    /// The client, or all of them together, have as many as they may.
    pub(crate) fn lasting(
        self: &Arc<Self>,
        client: ClientKey,
        bounds: &ClientBounds,
    ) -> Result<Held, ForwardFailure> {
        let of_all = bounds.lasting_of_all;
        if self.lasting.fetch_add(1, Relaxed) >= of_all && of_all > 0 {
            self.lasting.fetch_sub(1, Relaxed);
            return Err(ForwardFailure::Crowded(Whose::Everybody));
        }
        self.take(client, Kind::Lasting, bounds.lasting).ok_or_else(|| {
            self.lasting.fetch_sub(1, Relaxed);
            ForwardFailure::Crowded(Whose::Client)
        })
    }

    fn take(self: &Arc<Self>, client: ClientKey, kind: Kind, max: u32) -> Option<Held> {
        let entered = Self::enter(&mut self.shard(client), client, kind, max);
        entered.then(|| self.held(client, kind))
    }

    fn enter(shard: &mut HashMap<ClientKey, Holding>, client: ClientKey, kind: Kind, max: u32) -> bool {
        let held = shard.entry(client).or_default().of(kind);
        if max > 0 && *held >= max {
            return false;
        }
        *held += 1;
        true
    }

    fn held(self: &Arc<Self>, client: ClientKey, kind: Kind) -> Held {
        Held { clients: Arc::clone(self), client, kind }
    }

    fn shard(&self, client: ClientKey) -> MutexGuard<'_, HashMap<ClientKey, Holding>> {
        let at = self.hasher.hash_one(client) as usize % SHARDS;
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what a client holds, and forgets the client if that is nothing any more.
    fn change<R>(&self, client: ClientKey, change: impl FnOnce(&mut Holding) -> R) -> R {
        let mut shard = self.shard(client);
        let holding = shard.entry(client).or_default();
        let result = change(holding);
        if holding.is_nothing() {
            shard.remove(&client);
        }
        result
    }
}

/// Something that a client holds, given back when dropped.
#[derive(Debug)]
pub(crate) struct Held {
    clients: Arc<Clients>,
    client: ClientKey,
    kind: Kind,
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.kind == Kind::Lasting {
            self.clients.lasting.fetch_sub(1, Relaxed);
        }
        let turn = self.clients.change(self.client, |holding| {
            *holding.of(self.kind) -= 1;
            holding.turn.clone().filter(|_| self.kind == Kind::Request && holding.waiting > 0)
        });
        if let Some(turn) = turn {
            turn.notify_one();
        }
    }
}

/// A request that waits for its turn; counted until this is dropped.
struct Turn<'c> {
    clients: &'c Clients,
    client: ClientKey,
    notify: Arc<Notify>,
}

impl<'c> Turn<'c> {
    fn begin(clients: &'c Clients, client: ClientKey) -> Self {
        let notify = clients.change(client, |holding| {
            holding.waiting += 1;
            Arc::clone(holding.turn.get_or_insert_default())
        });
        Self { clients, client, notify }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.clients.change(self.client, |holding| holding.waiting -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds() -> ClientBounds {
        let wait = Duration::from_secs(60);
        ClientBounds { connections: 2, requests: 2, lasting: 2, lasting_of_all: 3, wait }
    }

    fn client(address: &str) -> ClientKey {
        ClientKey::of(address.parse().unwrap())
    }

    fn is_empty(clients: &Clients) -> bool {
        clients.shards.iter().all(|shard| shard.lock().unwrap().is_empty())
    }

    #[test]
    fn one_host_is_one_client_in_every_form_of_its_address() {
        assert_eq!(client("192.0.2.1"), client("::ffff:192.0.2.1"));
        assert_eq!(client("2001:db8::1"), client("2001:db8::ffff:1"));
        assert_ne!(client("2001:db8::1"), client("2001:db8:0:1::1"));
        assert_ne!(client("192.0.2.1"), client("192.0.2.2"));
    }

    #[test]
    fn a_client_has_its_share_and_all_together_theirs() {
        let clients = Arc::<Clients>::default();
        let (one, other) = (client("192.0.2.1"), client("192.0.2.2"));
        let held: Vec<_> = (0..2).map(|_| clients.lasting(one, &bounds()).unwrap()).collect();
        assert!(matches!(clients.lasting(one, &bounds()), Err(ForwardFailure::Crowded(Whose::Client))));
        let third = clients.lasting(other, &bounds()).unwrap();
        assert!(matches!(clients.lasting(other, &bounds()), Err(ForwardFailure::Crowded(Whose::Everybody))));
        assert!(clients.connection(one, 1).is_some(), "each kind has a bound of its own");
        drop((held, third));
        assert!(clients.lasting(other, &bounds()).is_ok());
        assert!(is_empty(&clients), "nobody is remembered who holds nothing");
    }

    #[actix_web::test]
    async fn a_request_beyond_the_bound_waits_for_its_turn_and_others_do_not() {
        let clients = Arc::<Clients>::default();
        let (one, other) = (client("192.0.2.1"), client("192.0.2.2"));
        let first = clients.request(one, &bounds()).await.unwrap();
        let _second = clients.request(one, &bounds()).await.unwrap();
        let (clients_too, all) = (Arc::clone(&clients), bounds());
        let waits = actix_web::rt::spawn(async move { clients_too.request(one, &all).await.is_ok() });
        while clients.change(one, |holding| holding.waiting) == 0 {
            tokio::task::yield_now().await;
        }
        assert!(clients.request(other, &bounds()).await.is_ok());
        drop(first);
        assert!(waits.await.unwrap());
        let impatient = ClientBounds { requests: 1, wait: Duration::from_millis(1), ..bounds() };
        let refused = clients.request(one, &impatient).await;
        assert!(matches!(refused, Err(ForwardFailure::Crowded(Whose::Client))));
    }
}
