//! A client that sends bytes as they are and reads answers in its own way.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// A final response.
#[derive(PartialEq, Eq)]
pub struct Response {
    pub status: u16,
    pub body: Vec<u8>,
    /// It came to the end it announced.
    pub whole: bool,
    /// Until the server closes, nothing says where it ends.
    pub by_close: bool,
}

impl std::fmt::Debug for Response {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let end = if self.by_close {
            "by close"
        } else if self.whole {
            "whole"
        } else {
            "cut short"
        };
        let body = &self.body[..self.body.len().min(60)];
        write!(f, "{} {end} {:?}", self.status, body.escape_ascii().to_string())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The server closed.
    Closed,
    /// Nothing came for the whole wait.
    Quiet,
    /// As many responses as wanted.
    Enough,
}

pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the server accepts");
        stream.set_nodelay(true).expect("a socket");
        Self { stream, received: Vec::new() }
    }

    /// Sends all of it, or as much as a server takes that has refused and closed: that is seen when reading.
    pub fn send(&mut self, bytes: &[u8]) -> &mut Self {
        let _ = self.stream.write_all(bytes);
        self
    }

    /// Sends until the server takes no more for `wait` or has closed; how much it took.
    pub fn flood(&mut self, piece: &[u8], bytes_max: usize, wait: Duration) -> usize {
        self.stream.set_write_timeout(Some(wait)).expect("a duration");
        let mut sent = 0;
        while sent < bytes_max {
            match self.stream.write(piece) {
                Ok(length) => sent += length,
                Err(_) => break,
            }
        }
        sent
    }

    pub fn finish(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Reads until there are `count` final responses, the server closes, or nothing comes for `wait`.
    pub fn read(&mut self, count: usize, methods: &[&str], wait: Duration) -> (Vec<Response>, End) {
        self.stream.set_read_timeout(Some(wait)).expect("a duration");
        let mut buffer = [0; 16 * 1024];
        loop {
            let responses = parse(&self.received, methods, false);
            if responses.iter().filter(|response| response.whole).count() >= count {
                return (responses, End::Enough);
            }
            match self.stream.read(&mut buffer) {
                Ok(0) => return (parse(&self.received, methods, true), End::Closed),
                Ok(length) => self.received.extend_from_slice(&buffer[..length]),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return (responses, End::Quiet);
                }
                Err(_) => return (parse(&self.received, methods, true), End::Closed),
            }
        }
    }
}

/// The final responses in what was received. `methods` are those of the requests, GET if there are fewer.
fn parse(mut bytes: &[u8], methods: &[&str], closed: bool) -> Vec<Response> {
    let mut responses = Vec::new();
    while let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&bytes[..end]).to_ascii_lowercase();
        let status = head.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
        bytes = &bytes[end + 4..];
        if (100..200).contains(&status) && status != 101 {
            continue;
        }
        let head_only = methods.get(responses.len()) == Some(&"HEAD") || matches!(status, 101 | 204 | 304);
        let response = if head_only {
            Response { status, body: Vec::new(), whole: true, by_close: false }
        } else {
            body(status, &head, &mut bytes, closed)
        };
        let whole = response.whole;
        responses.push(response);
        if !whole {
            break;
        }
    }
    responses
}

fn body(status: u16, head: &str, bytes: &mut &[u8], closed: bool) -> Response {
    let field = |name: &str| head.split("\r\n").find_map(|line| line.strip_prefix(name)).map(str::trim);
    let (body, whole, by_close) = match (field("content-length:"), field("transfer-encoding:")) {
        (_, Some(_)) => {
            let (body, taken) = dechunk(bytes);
            *bytes = taken.map_or(&[], |taken| &bytes[taken..]);
            (body, taken.is_some(), false)
        }
        (Some(length), None) => {
            let length: usize = length.parse().unwrap_or(usize::MAX);
            let (body, rest) = bytes.split_at(length.min(bytes.len()));
            *bytes = rest;
            (body.to_vec(), body.len() == length, false)
        }
        (None, None) => (std::mem::take(bytes).to_vec(), closed, true),
    };
    Response { status, body, whole, by_close }
}

/// The content so far, and the length of the whole if it is complete.
fn dechunk(bytes: &[u8]) -> (Vec<u8>, Option<usize>) {
    let (mut body, mut at) = (Vec::new(), 0);
    while let Some(line) = bytes[at..].windows(2).position(|window| window == b"\r\n") {
        let text = String::from_utf8_lossy(&bytes[at..at + line]).into_owned();
        at += line + 2;
        let Ok(size) = usize::from_str_radix(text.split(';').next().unwrap_or_default().trim(), 16) else {
            break;
        };
        if size == 0 {
            let rest = &bytes[at..];
            let end = if rest.starts_with(b"\r\n") { Some(2) } else { None };
            let end =
                end.or_else(|| rest.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4));
            return (body, end.map(|end| at + end));
        }
        let available = bytes.len().saturating_sub(at).min(size);
        body.extend_from_slice(&bytes[at..at + available]);
        at += size + 2;
        if at > bytes.len() {
            break;
        }
    }
    (body, None)
}
