//! A client and an origin that know just enough HTTP to be sure of what they see. Nothing of the crate under test.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Longer than anything here takes, far shorter than a person waits.
const LIMIT: Duration = Duration::from_secs(10);

/// One end of a connection, with what was read and not used.
pub struct Wire {
    pub stream: TcpStream,
    read: Vec<u8>,
}

/// A message as it came, its body still framed.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub start: String,
    /// Names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line")
    }

    pub fn path(&self) -> &str {
        self.start.split(' ').nth(1).expect("a request line")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body without its chunks.
    pub fn content(&self) -> Vec<u8> {
        if self.get("transfer-encoding").is_none() {
            return self.body.clone();
        }
        let (mut rest, mut content) = (&self.body[..], Vec::new());
        loop {
            let end = rest.windows(2).position(|two| two == b"\r\n").unwrap();
            let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).unwrap(), 16).unwrap();
            if size == 0 {
                return content;
            }
            content.extend_from_slice(&rest[end + 2..end + 2 + size]);
            rest = &rest[end + 2 + size + 2..];
        }
    }

    /// Checks that it is problem details (RFC 9457), and returns the slug of its type.
    pub fn problem(&self) -> String {
        assert_eq!(self.get("content-type"), Some("application/problem+json"), "{self:?}");
        let problem: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status());
        problem["type"].as_str().unwrap().strip_prefix("/problems/").unwrap().to_owned()
    }
}

impl Wire {
    pub fn new(stream: TcpStream) -> Self {
        Self { stream, read: Vec::new() }
    }

    pub async fn connect(address: std::net::SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).await.expect("nobody is refused"))
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.expect("the other side is there");
    }

    /// Reads some more. False: the other side has ended.
    async fn more(&mut self) -> bool {
        let mut buffer = vec![0; 65_536];
        let read = tokio::time::timeout(LIMIT, self.stream.read(&mut buffer)).await;
        let read =
            read.unwrap_or_else(|_| panic!("nothing came; so far {:?}", String::from_utf8_lossy(&self.read)));
        let read = read.unwrap_or(0); // a reset is an end too
        self.read.extend_from_slice(&buffer[..read]);
        read > 0
    }

    async fn at_least(&mut self, len: usize) {
        while self.read.len() < len {
            assert!(self.more().await, "ended after {} of {len} bytes", self.read.len());
        }
    }

    /// The next `len` bytes.
    pub async fn take(&mut self, len: usize) -> Vec<u8> {
        self.at_least(len).await;
        self.read.drain(..len).collect()
    }

    /// How much was read and not taken.
    pub fn buffered(&self) -> usize {
        self.read.len()
    }

    /// All up to and with `end`.
    pub async fn take_until(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|part| part == end) {
                return self.take(at + end.len()).await;
            }
            assert!(self.more().await, "ended before {end:?}: {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// All until the other side ends.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.read)
    }

    /// Whether it has been closed in order, and nothing was left to read.
    pub async fn is_closed(&mut self) -> bool {
        self.rest().await.is_empty()
    }

    pub async fn head(&mut self) -> Message {
        let head = String::from_utf8(self.take_until(b"\r\n\r\n").await).unwrap();
        let mut lines = head.trim_end().split("\r\n");
        let start = lines.next().unwrap().to_owned();
        let field = |line: &str| {
            let (name, value) = line.split_once(':').unwrap();
            (name.to_ascii_lowercase(), value.trim().to_owned())
        };
        Message { start, fields: lines.map(field).collect(), body: Vec::new() }
    }

    async fn body(&mut self, mut message: Message, until_close: bool) -> Message {
        let length = message.get("content-length").map(|length| length.parse().unwrap());
        message.body = if message.get("transfer-encoding").is_some() {
            self.chunks().await
        } else if let Some(length) = length {
            self.take(length).await
        } else if until_close {
            self.rest().await
        } else {
            Vec::new()
        };
        message
    }

    async fn chunks(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            let size = self.take_until(b"\r\n").await;
            let digits = std::str::from_utf8(&size[..size.len() - 2]).unwrap();
            let length = usize::from_str_radix(digits.split(';').next().unwrap(), 16).unwrap();
            all.extend(size);
            if length == 0 {
                break;
            }
            all.extend(self.take(length + 2).await);
        }
        loop {
            let line = self.take_until(b"\r\n").await;
            all.extend(&line);
            if line == b"\r\n" {
                return all;
            }
        }
    }

    /// A request with its body.
    pub async fn request(&mut self) -> Message {
        let head = self.head().await;
        self.body(head, false).await
    }

    /// A response with its body; a 1xx, 204 or 304 has none.
    pub async fn response(&mut self) -> Message {
        let head = self.head().await;
        match head.status() {
            100..200 | 204 | 304 => head,
            _ => self.body(head, true).await,
        }
    }

    /// Sends `word` so many times while reading as many bytes.
    pub async fn flood(&mut self, word: &[u8], times: usize) -> Vec<u8> {
        let all = word.repeat(times);
        let (mut read, mut write) = self.stream.split();
        let sending = write.write_all(&all);
        let receiving = async {
            let mut got = Vec::new();
            while got.len() < all.len() {
                let count =
                    tokio::time::timeout(LIMIT, read.read_buf(&mut got)).await.expect("in time").unwrap();
                assert!(count > 0, "ended after {} bytes", got.len());
            }
            got
        };
        let (sent, got) = tokio::join!(sending, receiving);
        sent.unwrap();
        got
    }

    /// Asks for `path` on this connection.
    pub async fn get(&mut self, path: &str) -> Message {
        self.send(get(path)).await;
        self.response().await
    }
}

/// A plain request.
pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: example.org\r\n\r\n")
}

/// A plain response.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// An origin: `serve` is given each connection with its number, from 1.
pub async fn origin<F>(serve: impl Fn(Wire, usize) -> F + 'static) -> std::net::SocketAddr
where
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    actix_web::rt::spawn(async move {
        for number in 1.. {
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            actix_web::rt::spawn(serve(Wire::new(stream), number));
        }
    });
    address
}

/// An origin that answers each request on each connection with `answer(request)`.
pub async fn answering(answer: impl Fn(&Message) -> String + Clone + 'static) -> std::net::SocketAddr {
    origin(move |mut wire, _| {
        let answer = answer.clone();
        async move {
            while !wire.at_end().await {
                let request = wire.request().await;
                wire.send(answer(&request)).await;
            }
        }
    })
    .await
}

impl Wire {
    /// Whether the other side has ended, and nothing is left of it. Waits until one or the other is known.
    pub async fn at_end(&mut self) -> bool {
        self.read.is_empty() && {
            let mut buffer = vec![0; 65_536];
            let read = self.stream.read(&mut buffer).await.unwrap_or(0);
            self.read.extend_from_slice(&buffer[..read]);
            read == 0
        }
    }
}

/// Waits for `condition`.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = clock::now();
    while !condition() {
        assert!(clock::now() - began < LIMIT, "{what}: not within {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
