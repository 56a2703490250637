//! This thread's connections to the replicas.
//!
//! hyper's bare connection and a pool of our own instead of a client library: every job passes here three times, and the
//! rest of such a library (redirects, proxies, cookies, parsing the address each time) is code that a single job finds cold.
//! A connection's events are handled on the thread that opened it, so each thread has connections of its own: an answer
//! then goes to whoever waits for it without a detour over another thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use messages::sql::{KEY_HEADER, OFFSET_HEADER};
use tokio::net::TcpStream;

use crate::endpoints::Endpoint;

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(1);
/// A connection that was not used for so long is closed.
const IDLE_TIME: Duration = Duration::from_secs(20);
/// Idle connections to one replica that are kept.
const IDLE_MAX: usize = 64;

/// What came back.
pub(crate) struct Answer {
    pub status: u16,
    /// Position in the database's history; empty if it names none.
    pub offset: String,
    pub body: Bytes,
}

/// There is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    /// And nothing of the request was sent.
    NothingSent,
    /// The request may have arrived.
    OnTheWay,
}

type Sender = SendRequest<Full<Bytes>>;

struct Idle {
    sender: Sender,
    since: Instant,
}

thread_local! {
    /// By authority; the most recently used last.
    static IDLE: RefCell<HashMap<String, Vec<Idle>>> = RefCell::default();
}

/// Sends JSON to a replica. A connection that turns out to be closed is replaced. Dropped early, the
/// connection is closed: the replica knows then that nobody waits.
///
/// # Errors
/// See [`Lost`].
pub(crate) async fn post(
    to: &Endpoint,
    target: &str,
    after: Option<&str>,
    body: Bytes,
) -> Result<Answer, Lost> {
    exchange(to, Method::POST, target, after, body).await
}

/// Asks a replica for something that is no SQL; otherwise as [`post`].
///
/// # Errors
/// See [`Lost`].
pub(crate) async fn get(from: &Endpoint, target: &str) -> Result<Answer, Lost> {
    exchange(from, Method::GET, target, None, Bytes::new()).await
}

async fn exchange(
    to: &Endpoint,
    method: Method,
    target: &str,
    after: Option<&str>,
    body: Bytes,
) -> Result<Answer, Lost> {
    let base = &*to.url;
    let authority = base.strip_prefix("http://").unwrap_or(base).trim_end_matches('/');
    loop {
        let (mut sender, reused) = match idle(authority).await {
            Some(sender) => (sender, true),
            None => (connect(authority).await.ok_or(Lost::NothingSent)?, false),
        };
        let mut request = Request::builder().method(&method).uri(target);
        request = request.header(HOST, authority).header(CONTENT_TYPE, "application/json");
        if let Some(key) = &to.key {
            request = request.header(KEY_HEADER, key.expose());
        }
        if let Some(after) = after {
            request = request.header(OFFSET_HEADER, after);
        }
        // An address that is none cannot be sent to.
        let request = request.body(Full::new(body.clone())).map_err(|_| Lost::NothingSent)?;
        let response = match sender.try_send_request(request).await {
            Ok(response) => response,
            // hyper hands back what it has not begun to send.
            Err(mut error) => match error.take_message() {
                Some(_) if reused => continue,
                Some(_) => return Err(Lost::NothingSent),
                None => return Err(Lost::OnTheWay),
            },
        };
        let status = response.status().as_u16();
        let offset = response.headers().get(OFFSET_HEADER).and_then(|value| value.to_str().ok());
        let offset = offset.unwrap_or_default().to_owned();
        let body = response.into_body().collect().await.map_err(|_| Lost::OnTheWay)?.to_bytes();
        keep(authority, sender);
        return Ok(Answer { status, offset, body });
    }
}

async fn connect(authority: &str) -> Option<Sender> {
    let stream = tokio::time::timeout(CONNECT, TcpStream::connect(authority)).await.ok()?.ok()?;
    stream.set_nodelay(true).ok()?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    // It ends with the last sender, or when the replica closes; how, its requests are told.
    tokio::spawn(async move { drop(connection.await) });
    Some(sender)
}

/// One that is open and was used not long ago.
async fn idle(authority: &str) -> Option<Sender> {
    loop {
        let last = IDLE.with_borrow_mut(|idle| {
            let idle = idle.get_mut(authority)?;
            let now = clock::now();
            idle.retain(|one| now < one.since + IDLE_TIME && !one.sender.is_closed());
            idle.pop()
        });
        let Idle { mut sender, .. } = last?;
        if sender.ready().await.is_ok() {
            return Some(sender);
        }
    }
}

fn keep(authority: &str, sender: Sender) {
    IDLE.with_borrow_mut(|idle| {
        if !idle.contains_key(authority) {
            // A replica that came back elsewhere has another address; what is left of the old one goes.
            idle.retain(|_, of| {
                of.retain(|one| !one.sender.is_closed());
                !of.is_empty()
            });
            idle.insert(authority.to_owned(), Vec::new());
        }
        if let Some(idle) = idle.get_mut(authority)
            && idle.len() < IDLE_MAX
        {
            idle.push(Idle { sender, since: clock::now() });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}";

    async fn listen() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        (listener, base)
    }

    async fn ask(base: &str) -> Result<u16, Lost> {
        let to = Endpoint { url: base.to_owned(), primary: false, key: None };
        post(&to, "/db/batch", None, Bytes::from_static(b"[]")).await.map(|answer| answer.status)
    }

    /// Reads a request's head and short body; false at the end of the connection.
    async fn read(stream: &mut TcpStream) -> bool {
        stream.read(&mut [0; 4096]).await.is_ok_and(|n| n > 0)
    }

    #[tokio::test]
    async fn a_connection_carries_one_request_after_the_other() {
        let (listener, base) = listen().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            for _ in 0..3 {
                assert!(read(&mut stream).await);
                stream.write_all(ANSWER).await.unwrap();
            }
        });
        for _ in 0..3 {
            assert_eq!(ask(&base).await, Ok(200));
        }
        server.await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_one_is_replaced_and_nothing_is_sent_twice() {
        let (listener, base) = listen().await;
        let server = tokio::spawn(async move {
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().await.unwrap();
                assert!(read(&mut stream).await);
                stream.write_all(ANSWER).await.unwrap();
            } // closed after each answer, unannounced
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(read(&mut stream).await);
            drop(stream); // without an answer
            listener
        });
        assert_eq!(ask(&base).await, Ok(200));
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(ask(&base).await, Ok(200), "on a new connection");
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(ask(&base).await, Err(Lost::OnTheWay));
        drop(server.await.unwrap());
        assert_eq!(ask(&base).await, Err(Lost::NothingSent), "nobody listens");
        assert_eq!(ask("http://not an address").await, Err(Lost::NothingSent));
    }

    #[tokio::test]
    async fn who_goes_away_closes_the_connection() {
        let (listener, base) = listen().await;
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(read(&mut stream).await);
            read(&mut stream).await
        });
        let left = tokio::time::timeout(Duration::from_millis(50), ask(&base)).await;
        assert!(left.is_err());
        assert!(!server.await.unwrap(), "the connection has ended");
    }
}
