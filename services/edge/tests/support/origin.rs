//! An origin that does as it is told, and remembers what it was asked.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

/// How it answers a path.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: u16,
    /// Field lines, each with CRLF.
    pub lines: String,
    pub body: Vec<u8>,
    /// Sent before the final response, whole.
    pub interim: String,
    /// Trailer lines: then it is chunked.
    pub trailers: Option<String>,
    /// It answers 304 to a request with this entity tag, with these lines.
    pub not_modified: Option<(String, String)>,
    /// Close after so many bytes of the body.
    pub cut_after: Option<usize>,
    /// These bytes instead of all that, then it closes.
    pub raw: Option<Vec<u8>>,
    /// The body waits for a permit after the head, and for another one in its middle.
    pub held: bool,
}

impl Reply {
    pub fn new(lines: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            status: 200,
            lines: lines.to_owned(),
            body: body.into(),
            interim: String::new(),
            trailers: None,
            not_modified: None,
            cut_after: None,
            raw: None,
            held: false,
        }
    }

    /// These bytes, whatever they mean.
    pub fn raw(bytes: &str) -> Self {
        Self { raw: Some(bytes.into()), ..Self::new("", "") }
    }

    pub fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }
}

/// One request it had.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub path: String,
    pub head: String,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.head.split("\r\n").skip(1).find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

struct Shared {
    replies: Mutex<HashMap<String, Reply>>,
    seen: Mutex<Vec<Seen>>,
    heads: Semaphore,
    held: AtomicBool,
    waiting: AtomicUsize,
    bodies: Semaphore,
    down: watch::Sender<bool>,
}

pub struct Origin {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Origin {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            replies: Mutex::default(),
            seen: Mutex::default(),
            heads: Semaphore::new(0),
            held: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
            bodies: Semaphore::new(0),
            down: watch::Sender::new(false),
        });
        let serving = Arc::clone(&shared);
        tokio::task::spawn_local(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                tokio::task::spawn_local(connection(stream, Arc::clone(&serving)));
            }
        });
        Self { address, shared }
    }

    /// Answers this path so from now on.
    pub fn answer(&self, path: &str, reply: Reply) {
        self.shared.replies.lock().unwrap().insert(path.to_owned(), reply);
    }

    /// Every request it had for a path.
    pub fn seen(&self, path: &str) -> Vec<Seen> {
        self.shared.seen.lock().unwrap().iter().filter(|seen| seen.path == path).cloned().collect()
    }

    pub fn count(&self, path: &str) -> usize {
        self.seen(path).len()
    }

    /// From now on requests wait for [`release`](Self::release).
    pub fn hold(&self) {
        self.shared.held.store(true, SeqCst);
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.shared.waiting.load(SeqCst)
    }

    pub fn release(&self, requests: usize) {
        self.shared.heads.add_permits(requests);
    }

    /// Lets one part of a held body go.
    pub fn let_body_go(&self) {
        self.shared.bodies.add_permits(1);
    }

    /// Closes every connection, now and on each further request.
    pub fn go_down(&self) {
        self.shared.down.send_replace(true);
    }

    pub fn come_back(&self) {
        self.shared.down.send_replace(false);
    }
}

async fn connection(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut down = shared.down.subscribe();
    tokio::select! {
        biased;
        _ = down.wait_for(|down| *down) => {}
        () = async { while exchange(&mut stream, &shared).await.is_some() {} } => {}
    }
}

async fn exchange(stream: &mut TcpStream, shared: &Shared) -> Option<()> {
    let seen = request(stream).await?;
    let reply = shared.replies.lock().unwrap().get(&seen.path).cloned();
    let reply = reply.unwrap_or_else(|| Reply::new("", "").status(404));
    shared.seen.lock().unwrap().push(seen.clone());
    if shared.held.load(SeqCst) {
        shared.waiting.fetch_add(1, SeqCst);
        shared.heads.acquire().await.ok()?.forget();
        shared.waiting.fetch_sub(1, SeqCst);
    }
    if let Some(raw) = &reply.raw {
        stream.write_all(raw).await.ok()?;
        return None;
    }
    stream.write_all(reply.interim.as_bytes()).await.ok()?;
    if let Some((tag, lines)) = &reply.not_modified
        && seen.get("if-none-match").is_some_and(|asked| asked.split(", ").any(|asked| asked == tag))
    {
        let head = format!("HTTP/1.1 304 Not Modified\r\n{lines}\r\n");
        return stream.write_all(head.as_bytes()).await.ok();
    }
    let framing = match &reply.trailers {
        Some(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
        None => format!("Content-Length: {}\r\n", reply.body.len()),
    };
    let head = format!("HTTP/1.1 {} X\r\n{}{framing}\r\n", reply.status, reply.lines);
    stream.write_all(head.as_bytes()).await.ok()?;
    if seen.method == "HEAD" || matches!(reply.status, 204 | 304) {
        return Some(());
    }
    body(stream, shared, &reply).await
}

async fn body(stream: &mut TcpStream, shared: &Shared, reply: &Reply) -> Option<()> {
    if let Some(trailers) = &reply.trailers {
        let chunk = format!(
            "{:x}\r\n{}\r\n0\r\n{trailers}\r\n",
            reply.body.len(),
            String::from_utf8_lossy(&reply.body)
        );
        return stream.write_all(chunk.as_bytes()).await.ok();
    }
    if reply.held {
        let (first, second) = reply.body.split_at(reply.body.len() / 2);
        for part in [first, second] {
            shared.bodies.acquire().await.ok()?.forget();
            stream.write_all(part).await.ok()?;
        }
        return Some(());
    }
    let end = reply.cut_after.unwrap_or(reply.body.len());
    stream.write_all(&reply.body[..end]).await.ok()?;
    (end == reply.body.len()).then_some(())
}

async fn request(stream: &mut TcpStream) -> Option<Seen> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(at) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break at;
        }
        read(stream, &mut bytes).await?;
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut words = head.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut seen = Seen { method, path, head, body: Vec::new() };
    let length = seen.get("content-length").map_or(0, |length| length.parse().unwrap());
    while bytes.len() < end + 4 + length {
        read(stream, &mut bytes).await?;
    }
    seen.body = bytes[end + 4..].to_vec();
    Some(seen)
}

async fn read(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Option<()> {
    let mut part = [0; 16 << 10];
    let read = stream.read(&mut part).await.ok()?;
    bytes.extend_from_slice(&part[..read]);
    (read > 0).then_some(())
}
