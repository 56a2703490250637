//! A client on a bare socket: it sees fields, interim responses, framing and trailers as they are.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// No answer takes longer, or the test is told so.
const LIMIT: Duration = Duration::from_secs(20);

pub struct Client {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// An answer, read whole.
#[derive(Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Status of each interim response.
    pub interim: Vec<u16>,
    pub trailers: Vec<(String, String)>,
    /// The body ended before its framing said so.
    pub cut: bool,
}

impl Answer {
    pub fn get(&self, name: &str) -> Option<&str> {
        self.fields
            .iter()
            .find(|(found, _)| found.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e} in {:?}", self.text()))
    }

    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    #[track_caller]
    pub fn expect_body(self, body: &str) -> Self {
        assert_eq!(self.text(), body, "{self:?}");
        self
    }

    /// `Cache-Status` has this parameter or value: `hit`, `fwd=stale`, `stored`.
    #[track_caller]
    pub fn expect_cache(self, what: &str) -> Self {
        let said = self.get("cache-status").unwrap_or_default();
        let own = said.rsplit(", ").next().unwrap_or_default();
        assert!(own.split("; ").any(|part| part == what), "{what} is not in {said:?}: {self:?}");
        self
    }

    /// Seconds of freshness in `Cache-Status`.
    pub fn ttl(&self) -> i64 {
        let said = self.get("cache-status").unwrap_or_default();
        said.split("; ").find_map(|part| part.strip_prefix("ttl=")).unwrap().parse().unwrap()
    }
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.request("GET", path, "", b"").await
    }

    /// `lines`: further field lines, each with CRLF.
    pub async fn get_with(&mut self, path: &str, lines: &str) -> Answer {
        self.request("GET", path, lines, b"").await
    }

    pub async fn request(&mut self, method: &str, path: &str, lines: &str, body: &[u8]) -> Answer {
        self.send(method, path, lines, body).await;
        self.answer(method).await
    }

    pub async fn send(&mut self, method: &str, path: &str, lines: &str, body: &[u8]) {
        let length =
            if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
        let has_host = lines.starts_with("Host: ") || lines.contains("\r\nHost: ");
        let host = if has_host { "" } else { "Host: a.example\r\n" };
        let mut request = format!("{method} {path} HTTP/1.1\r\n{host}{lines}{length}\r\n").into_bytes();
        request.extend_from_slice(body);
        self.stream.write_all(&request).await.unwrap();
    }

    /// Reads the next answer.
    pub async fn answer(&mut self, method: &str) -> Answer {
        tokio::time::timeout(LIMIT, self.read_answer(method)).await.expect("an answer in time")
    }

    async fn read_answer(&mut self, method: &str) -> Answer {
        let mut interim = Vec::new();
        loop {
            let (status, fields) = self.head().await;
            if (100..200).contains(&status) {
                interim.push(status);
                continue;
            }
            let mut answer = Answer { status, fields, interim, ..Answer::default() };
            if method != "HEAD" && !matches!(status, 204 | 304) {
                self.body(&mut answer).await;
            }
            return answer;
        }
    }

    /// Reads head of a final or interim response.
    pub async fn head(&mut self) -> (u16, Vec<(String, String)>) {
        let end = loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break at;
            }
            assert!(self.more().await, "closed within a head: {:?}", String::from_utf8_lossy(&self.buffer));
        };
        let head = String::from_utf8(self.buffer.drain(..end + 4).collect()).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        (status, lines.filter(|line| !line.is_empty()).map(field).collect())
    }

    async fn body(&mut self, answer: &mut Answer) {
        if answer.get("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk(answer).await {
                answer.body.extend_from_slice(&chunk);
            }
            return;
        }
        let length = answer.get("content-length").map(|length| length.parse::<usize>().unwrap());
        while length.is_none_or(|length| self.buffer.len() < length) {
            if !self.more().await {
                answer.cut = length.is_some();
                break;
            }
        }
        let length = length.unwrap_or(self.buffer.len()).min(self.buffer.len());
        answer.body = self.buffer.drain(..length).collect();
    }

    /// One chunk; `None` at the end, with the trailers read.
    async fn chunk(&mut self, answer: &mut Answer) -> Option<Vec<u8>> {
        let Some(size) = self.line().await else {
            answer.cut = true;
            return None;
        };
        let size = usize::from_str_radix(size.split(';').next().unwrap(), 16).unwrap();
        if size == 0 {
            while let Some(line) = self.line().await.filter(|line| !line.is_empty()) {
                answer.trailers.push(field(&line));
            }
            return None;
        }
        while self.buffer.len() < size + 2 {
            if !self.more().await {
                answer.cut = true;
                return None;
            }
        }
        let chunk = self.buffer.drain(..size).collect();
        self.buffer.drain(..2);
        Some(chunk)
    }

    /// What of a chunked body has come by now, decoded; waits for at least one chunk.
    pub async fn next_chunk(&mut self) -> Vec<u8> {
        let chunk = async { self.chunk(&mut Answer::default()).await };
        tokio::time::timeout(LIMIT, chunk).await.expect("a chunk in time").unwrap_or_default()
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|window| window == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return Some(String::from_utf8(line[..at].to_vec()).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    async fn more(&mut self) -> bool {
        let mut part = vec![0; 64 << 10];
        let read = self.stream.read(&mut part).await.unwrap_or(0);
        self.buffer.extend_from_slice(&part[..read]);
        read > 0
    }
}

fn field(line: &str) -> (String, String) {
    let (name, value) = line.split_once(':').unwrap_or((line, ""));
    (name.to_owned(), value.trim().to_owned())
}
