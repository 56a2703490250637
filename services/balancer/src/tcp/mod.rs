//! Layer 4: accepts connections and copies bytes to a member and back.

mod copy;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http_support::proxy_header::{self, Ends};
use http_support::wire::covers;
use supervision::{Life, StartError, Started};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use upstream::dice::{Dice, hash};
use upstream::{Place, Pool, Tried, Wish, client_key};

use crate::config::TcpConfig;
use crate::shared::Balancer;

/// Pause after the process ran out of file descriptors: connections wait in the backlog meanwhile.
const NO_DESCRIPTOR_PAUSE: Duration = Duration::from_millis(100);

/// A PROXY protocol header must be there in this time.
const HEADER_MAX: Duration = Duration::from_secs(5);

/// Starts a TCP worker: it serves all TCP listeners.
///
/// # Errors
/// When a socket cannot be registered with this thread's reactor.
pub fn start(life: Life) -> Result<Started, StartError> {
    let balancer = life.env::<Balancer>();
    Ok(Started::task(async move {
        let mut seed = hash(life.path().as_bytes()) ^ life.incarnation();
        let mut accepting = Vec::new();
        for (config, listener) in &balancer.tcp {
            seed = seed.wrapping_add(1);
            let front = Rc::new(Front { balancer: Arc::clone(&balancer), config: config.clone() });
            accepting.push((front, listener.on_this_thread()?, Dice::new(seed)));
        }
        life.ready();
        let slots: Vec<_> =
            accepting.iter().map(|(it, ..)| Arc::new(Semaphore::new(it.config.connections_max))).collect();
        let accept = accepting.into_iter().zip(&slots).map(|((front, socket, dice), slots)| {
            accept(front, socket, dice, Arc::clone(slots), life.clone())
        });
        tokio::select! {
            _ = futures_util::future::join_all(accept) => {}
            () = life.stopping() => {}
        }
        // Each connection holds a slot until it ends; those that last are ended with the shutdown time.
        for ((config, _), slots) in balancer.tcp.iter().zip(slots) {
            drop(slots.acquire_many(u32::try_from(config.connections_max).unwrap_or(u32::MAX)).await);
        }
        Ok(())
    }))
}

/// One listener, as one worker serves it.
struct Front {
    balancer: Arc<Balancer>,
    config: TcpConfig,
}

async fn accept(front: Rc<Front>, socket: TcpListener, mut dice: Dice, slots: Arc<Semaphore>, life: Life) {
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        match socket.accept().await {
            Ok((client, peer)) => {
                let (front, dice) = (Rc::clone(&front), Dice::new(dice.next()));
                life.spawn_linked(async move {
                    let _slot = slot;
                    if let Err(error) = front.serve(client, peer, dice).await {
                        tracing::debug!(tier = "balancer", %peer, %error, "connection ended early");
                    }
                });
            }
            Err(error) if is_of_the_peer(&error) => {}
            Err(error) => {
                tracing::warn!(tier = "balancer", %error, "cannot accept connections; they wait in the backlog");
                tokio::time::sleep(NO_DESCRIPTOR_PAUSE).await;
            }
        }
    }
}

impl Front {
    async fn serve(&self, mut client: TcpStream, peer: SocketAddr, mut dice: Dice) -> io::Result<()> {
        client.set_nodelay(true)?;
        let local = client.local_addr()?;
        let ends = self.announced(&mut client, peer).await?;
        let Ends { client: source, server: destination } =
            ends.unwrap_or(Ends { client: peer, server: local });
        let table = self.balancer.table.load_full();
        let pool = table.pool(&self.config.pool).ok_or_else(|| io::Error::other("its pool is no more"))?;
        pool.took_one();
        let (mut member, place) = connect(pool, client_key(source.ip()), &mut dice).await?;
        if let Some(version) = self.config.proxy_to {
            member.write_all(&version.header(source, destination)).await?;
        }
        copy::both_ways(&mut client, &mut member, Duration::from_millis(self.config.idle_ms)).await?;
        drop(place);
        Ok(())
    }

    /// Who the client is and where it wanted to go, where a PROXY protocol header is required.
    async fn announced(&self, client: &mut TcpStream, peer: SocketAddr) -> io::Result<Option<Ends>> {
        if self.config.proxy_from.is_empty() {
            return Ok(None);
        }
        if !covers(&self.config.proxy_from, peer.ip()) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "its network may not connect"));
        }
        let header = tokio::time::timeout(HEADER_MAX, proxy_header::read(client)).await;
        header.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

/// A connection to a member: another one is tried while none of the client's bytes have been sent, which is always safe.
async fn connect<'p>(pool: &'p Pool, client: u64, dice: &mut Dice) -> io::Result<(TcpStream, Place<'p>)> {
    let mut tried = Tried::new();
    loop {
        let now = clock::now();
        let mut wish = Wish { key: client, client, stick: None, tried: &tried, now, dice };
        let place = pool.place(&mut wish).await.map_err(|refused| {
            pool.refuses(refused);
            io::Error::other(refused)
        })?;
        let address = place.member.origin.address().tcp().ok_or(io::ErrorKind::Unsupported)?;
        let connected = tokio::time::timeout(pool.timeouts.connect, TcpStream::connect(address)).await;
        let took = clock::now().saturating_duration_since(now);
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(member) => {
                pool.succeeded(&place.member, took, clock::now());
                member.set_nodelay(true)?;
                return Ok((member, place));
            }
            Err(error) => {
                pool.failed(&place.member, took.max(Duration::from_secs(1)), clock::now());
                if tried.len() >= pool.config.retry.attempts as usize || !pool.has_another(tried.len()) {
                    return Err(error);
                }
                pool.tries_again();
                tried.push(Arc::clone(&place.member));
            }
        }
    }
}

/// The connection that was to be accepted is gone; the next one may be fine.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
