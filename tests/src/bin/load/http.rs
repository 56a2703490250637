//! HTTP at a fixed rate: how long answers take when requests come whether or not the last one was answered.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::say;

/// Each sends at its own moments, evenly shifted against the others'.
const CLIENTS: u32 = 64;
/// The first part of a run is not counted: connections are made, pages touched.
const WARM_UP: Duration = Duration::from_millis(500);

/// `GET url` at `rate` requests per second for `seconds`, each on a new connection if `close`.
pub async fn at_rate(url: &str, rate: u32, seconds: u64, close: bool) {
    let rest = url.strip_prefix("http://").expect("an http URL");
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address: SocketAddr = authority.parse().expect("address:port");
    let connection = if close { "Connection: close\r\n" } else { "" };
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {authority}\r\n{connection}\r\n");
    let run = Arc::new(Run {
        address,
        request,
        close,
        interval: Duration::from_secs(1) * CLIENTS / rate,
        from: clock::now() + WARM_UP,
        until: clock::now() + WARM_UP + Duration::from_secs(seconds),
        took: Mutex::default(),
    });
    let clients = (0..CLIENTS).map(|n| tokio::spawn(Arc::clone(&run).client(n)));
    let mut failed = 0;
    for client in clients.collect::<Vec<_>>() {
        failed += client.await.expect("no client panics");
    }
    let mut took = std::mem::take(&mut *run.took.lock().expect("nobody panics with it"));
    took.sort_unstable();
    let at =
        |share: usize| took.get(took.len() * share / 1000).copied().unwrap_or_default().as_secs_f64() * 1e6;
    say("p50_us", at(500));
    say("p99_us", at(990));
    say("failed", f64::from(failed));
}

struct Run {
    address: SocketAddr,
    request: String,
    close: bool,
    interval: Duration,
    from: Instant,
    until: Instant,
    took: Mutex<Vec<Duration>>,
}

impl Run {
    /// Sends at its moments. Where an answer took so long that the next moment passed, that request counts from its
    /// moment, not from when it could be sent: a stall is felt by all who would have come.
    async fn client(self: Arc<Self>, number: u32) -> u32 {
        let (mut stream, mut took, mut failed) = (None, Vec::new(), 0);
        let mut due = self.from - WARM_UP + self.interval * number / CLIENTS;
        let mut buffer = vec![0; 1 << 16];
        while due < self.until {
            let late = clock::now() > due;
            tokio::time::sleep_until(due.into()).await;
            let since = if late { due } else { clock::now() }; // the timer's own ticks are no latency
            match self.ask(&mut stream, &mut buffer).await {
                Ok(()) if since >= self.from => took.push(clock::now() - since),
                Ok(()) => {}
                Err(_) => (stream, failed) = (None, failed + 1),
            }
            due += self.interval;
        }
        self.took.lock().expect("nobody panics with it").append(&mut took);
        failed
    }

    async fn ask(&self, kept: &mut Option<TcpStream>, buffer: &mut [u8]) -> std::io::Result<()> {
        let mut stream = match kept.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.address).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        stream.write_all(self.request.as_bytes()).await?;
        let mut filled = 0;
        while !is_whole(&buffer[..filled]) {
            let read = stream.read(&mut buffer[filled..]).await?;
            if read == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            filled += read;
        }
        if !buffer.starts_with(b"HTTP/1.1 200") {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        if !self.close {
            *kept = Some(stream);
        }
        Ok(())
    }
}

/// A head and as many bytes as its `Content-Length` says, or the last chunk.
fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
    let length = head
        .split("\r\n")
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    match length {
        Some(length) => answer.len() >= end + 4 + length,
        None => answer.ends_with(b"\r\n0\r\n\r\n"),
    }
}
