//! Whose password is checked next.
//!
//! A check takes tens of milliseconds of a core and 19 MiB, and whoever can reach the server can ask for one. So each client
//! has one check at a time, and a wrong password keeps its turn a while longer: however many connections guess, they come
//! to a few guesses a second, and to a small part of one core. The others wait their turn beside it, not behind it.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rate::network_of;

/// Checks that may wait for one client's turn; further ones are told to come again.
const WAITING_MAX: usize = 32;
/// How long a check waits, for its client's turn and for a core.
const WAIT_MAX: Duration = Duration::from_secs(15);
/// After a wrong password the client's next check begins so much later.
const PAUSE: Duration = Duration::from_millis(200);
/// Clients beyond this number are looked through for those that are done.
const CLIENTS_SWEPT: usize = 1_024;

/// The turns of all guards of this process: they share its cores and its memory.
pub static TURNS: LazyLock<Turns> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Turns::new((cores / 2).clamp(1, 4), PAUSE)
});

/// See the module.
pub struct Turns {
    /// Checks that run at once.
    running: Arc<Semaphore>,
    clients: Mutex<HashMap<IpAddr, Arc<Client>>>,
    pause: Duration,
}

/// One client's turns.
struct Client {
    turn: Arc<Semaphore>,
    waiting: Mutex<usize>,
    not_before: Mutex<Instant>,
}

/// The right to check one password.
pub struct Turn {
    client: Arc<Client>,
    pause: Duration,
    _own: OwnedSemaphorePermit,
    _running: OwnedSemaphorePermit,
}

impl Turn {
    /// The password was wrong: the client's next one waits a little.
    pub fn was_wrong(&self) {
        *lock(&self.client.not_before) = clock::now() + self.pause;
    }
}

impl Turns {
    /// `running` checks at once; `pause` after a wrong one.
    #[must_use]
    pub fn new(running: usize, pause: Duration) -> Self {
        Self { running: Arc::new(Semaphore::new(running)), clients: Mutex::default(), pause }
    }

    /// Waits for this client's turn, then for a core. `None`: too many of its checks wait already, or it took too long.
    pub async fn take(&self, client: IpAddr) -> Option<Turn> {
        let client = self.client(network_of(client));
        let _waits = Waits::begin(&client)?;
        let turn = async {
            let own = Arc::clone(&client.turn).acquire_owned().await.ok()?;
            let not_before = *lock(&client.not_before);
            tokio::time::sleep_until(not_before.into()).await;
            let running = Arc::clone(&self.running).acquire_owned().await.ok()?;
            Some(Turn { client: Arc::clone(&client), pause: self.pause, _own: own, _running: running })
        };
        tokio::time::timeout(WAIT_MAX, turn).await.ok().flatten()
    }

    fn client(&self, address: IpAddr) -> Arc<Client> {
        let (mut clients, now) = (lock(&self.clients), clock::now());
        if clients.len() >= CLIENTS_SWEPT {
            clients.retain(|_, it| Arc::strong_count(it) > 1 || *lock(&it.not_before) > now);
        }
        let new = || Client {
            turn: Arc::new(Semaphore::new(1)),
            waiting: Mutex::new(0),
            not_before: Mutex::new(now),
        };
        Arc::clone(clients.entry(address).or_insert_with(|| Arc::new(new())))
    }
}

/// Counted among those that wait until it is dropped.
struct Waits<'c>(&'c Client);

impl<'c> Waits<'c> {
    fn begin(client: &'c Client) -> Option<Self> {
        let mut waiting = lock(&client.waiting);
        if *waiting >= WAITING_MAX {
            return None;
        }
        *waiting += 1;
        Some(Self(client))
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        *lock(&self.0.waiting) -= 1;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures_util::future::poll_immediate;

    use super::*;

    const GUESSER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));
    const OTHER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2));

    #[actix::test]
    async fn a_client_has_one_turn_at_a_time_and_others_have_theirs() {
        let turns = Turns::new(2, Duration::ZERO);
        let first = turns.take(GUESSER).await.expect("nobody waits");
        let mut second = Box::pin(turns.take(GUESSER));
        assert!(poll_immediate(second.as_mut()).await.is_none(), "its client has a turn");
        assert!(turns.take(OTHER).await.is_some());
        drop(first);
        assert!(second.await.is_some());
    }

    #[actix::test]
    async fn a_queue_is_bounded_for_each_client_by_itself() {
        let turns = Turns::new(1, Duration::ZERO);
        let held = turns.take(GUESSER).await;
        let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| Box::pin(turns.take(GUESSER))).collect();
        for one in &mut waiting {
            assert!(poll_immediate(one.as_mut()).await.is_none());
        }
        assert!(turns.take(GUESSER).await.is_none(), "one more is told to come again");
        let mut other = Box::pin(turns.take(OTHER));
        assert!(poll_immediate(other.as_mut()).await.is_none(), "it waits for the core");
        drop(held);
        assert!(other.await.is_some(), "and comes before the others of the guesser");
    }

    #[actix::test]
    async fn a_wrong_password_costs_its_client_time_and_nobody_else() {
        let pause = Duration::from_millis(150);
        let turns = Turns::new(2, pause);
        let began = clock::now();
        turns.take(GUESSER).await.expect("nobody waits").was_wrong();
        assert!(turns.take(OTHER).await.is_some());
        assert!(clock::now() - began < pause, "others do not wait");
        assert!(turns.take(GUESSER).await.is_some());
        assert!(clock::now() - began >= pause);
    }

    /// A /64 is one client, and clients that are done are forgotten.
    #[actix::test]
    async fn networks_are_clients_and_are_forgotten() {
        let turns = Turns::new(1, Duration::ZERO);
        for n in 0..3_000_u32 {
            let address = std::net::Ipv6Addr::from(u128::from(n) << 64 | u128::from(n));
            assert!(turns.take(address.into()).await.is_some());
        }
        assert!(lock(&turns.clients).len() <= CLIENTS_SWEPT);
    }
}
