//! A client who does its worst at the front door: not with what it asks, but with how it sends, reads, waits and leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Connections that it holds at once: more event streams than one client may have, and room for the rest.
pub const CONNECTIONS: u64 = 700;

/// How long one connection is held; then it leaves without a word.
const HELD: Duration = Duration::from_secs(6);
/// Between two crumbs of what is sent or read.
const CRUMB: Duration = Duration::from_millis(200);

/// The ways, and how many of twelve connections take them.
#[derive(Clone, Copy)]
enum Way {
    /// An event stream or a wait that is never answered.
    Waits,
    /// A body that comes byte by byte.
    Uploads,
    /// A head that comes byte by byte.
    Begins,
    /// Requests in a row whose answers are not read.
    TakesNothing,
    /// A large body where none is wanted, sent to its end.
    Floods,
    /// It leaves at once.
    Leaves,
}

const WAYS: [Way; 12] = [
    Way::Waits,
    Way::Waits,
    Way::Waits,
    Way::Waits,
    Way::Waits,
    Way::Waits,
    Way::Waits,
    Way::Uploads,
    Way::Begins,
    Way::TakesNothing,
    Way::Floods,
    Way::Leaves,
];

/// One connection after the other, until `stop`. `job` never ends.
pub async fn attack(address: String, job: String, seed: u64, stop: Arc<AtomicBool>, count: Arc<AtomicUsize>) {
    let mut rng = StdRng::seed_from_u64(seed);
    while !stop.load(Relaxed) {
        let way = WAYS[rng.random_range(0..WAYS.len())];
        let held = async {
            let mut stream = TcpStream::connect(&address).await?;
            misuse(&mut stream, way, &job).await
        };
        let _ = tokio::time::timeout(HELD, held).await; // however it ended, it was meant badly
        count.fetch_add(1, Relaxed);
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..200))).await;
    }
}

async fn misuse(stream: &mut TcpStream, way: Way, job: &str) -> std::io::Result<()> {
    match way {
        Way::Waits => {
            let head = format!("GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: localhost\r\n\r\n");
            stream.write_all(head.as_bytes()).await?;
            read_in_crumbs(stream, 4096).await
        }
        Way::Uploads => {
            stream.write_all(b"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\n").await?;
            stream.write_all(b"Content-Type: application/json\r\nContent-Length: 90000\r\n\r\n").await?;
            in_crumbs(stream, b'x').await
        }
        Way::Begins => {
            stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ").await?;
            in_crumbs(stream, b'y').await
        }
        Way::TakesNothing => {
            let requests = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(500);
            stream.write_all(&requests).await?;
            read_in_crumbs(stream, 1).await
        }
        Way::Floods => {
            stream.write_all(b"PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 8000000\r\n\r\n").await?;
            stream.write_all(&vec![b'z'; 8_000_000]).await?;
            read_in_crumbs(stream, 64).await
        }
        Way::Leaves => stream.write_all(b"GET /v1/jobs?limit=100 HTTP/1.1\r\nHost: localhost\r\n\r\n").await,
    }
}

async fn in_crumbs(stream: &mut TcpStream, crumb: u8) -> std::io::Result<()> {
    loop {
        stream.write_all(&[crumb]).await?;
        tokio::time::sleep(CRUMB).await;
    }
}

async fn read_in_crumbs(stream: &mut TcpStream, len: usize) -> std::io::Result<()> {
    let mut crumb = vec![0; len];
    while stream.read(&mut crumb).await? > 0 {
        tokio::time::sleep(CRUMB).await;
    }
    Ok(())
}
