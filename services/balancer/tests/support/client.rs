//! A plain HTTP/1.1 client on one connection: tests see exactly what is sent and what comes back.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub struct Client {
    pub stream: TcpStream,
    read: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// In lower case.
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        value(&self.head, name)
    }

    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }

    /// A problem of this kind, that says when to come back.
    pub fn expect_unavailable(self, kind: &str) -> Self {
        let answer = self.expect(503);
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{answer:?}");
        assert!(answer.header("retry-after").is_some(), "{answer:?}");
        assert!(answer.body.contains(&format!("/problems/{kind}\"")), "{answer:?}");
        answer
    }
}

impl Client {
    pub async fn connect(to: SocketAddr) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::new() }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.try_get(path).await.unwrap()
    }

    pub async fn try_get(&mut self, path: &str) -> io::Result<Answer> {
        self.ask(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await
    }

    pub async fn with(&mut self, lines: &str) -> Answer {
        self.ask(&format!("GET / HTTP/1.1\r\nHost: test\r\n{lines}\r\n")).await.unwrap()
    }

    pub async fn post(&mut self, body: &str) -> Answer {
        let length = body.len();
        self.ask(&format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n\r\n{body}"))
            .await
            .unwrap()
    }

    /// Sends as it is, and reads one answer.
    pub async fn ask(&mut self, request: &str) -> io::Result<Answer> {
        self.stream.write_all(request.as_bytes()).await?;
        self.answer().await
    }

    pub async fn answer(&mut self) -> io::Result<Answer> {
        let end = read_head(&mut self.stream, &mut self.read).await?;
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let head = String::from_utf8_lossy(&self.read[..end]).to_ascii_lowercase();
        self.read.drain(..end);
        let status =
            head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
        let body = if status == 101 {
            Vec::new()
        } else {
            read_body(&mut self.stream, &mut self.read, &head).await?
        };
        Ok(Answer { status, head, body: String::from_utf8_lossy(&body).into_owned() })
    }

    /// After an upgrade: sends and expects it back.
    pub async fn echo(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        let mut back = vec![0; text.len()];
        self.stream.read_exact(&mut back).await.unwrap();
        assert_eq!(back, text.as_bytes());
    }
}

pub fn value<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let line =
        head.split("\r\n").find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(':')))?;
    Some(line[name.len() + 1..].trim())
}

/// Reads until a head is whole; where it ends. None: nothing came.
pub async fn read_head(from: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> io::Result<Option<usize>> {
    loop {
        if let Some(at) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            return Ok(Some(at + 4));
        }
        if from.read_buf(read).await? == 0 {
            return if read.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

/// Reads the body that the head (in lower case) announces, by length or chunked.
pub async fn read_body(
    from: &mut (impl AsyncRead + Unpin),
    read: &mut Vec<u8>,
    head: &str,
) -> io::Result<Vec<u8>> {
    if value(head, "transfer-encoding") == Some("chunked") {
        let mut body = Vec::new();
        loop {
            while !read.windows(2).any(|two| two == b"\r\n") {
                more(from, read).await?;
            }
            let line = read.windows(2).position(|two| two == b"\r\n").unwrap();
            let size = String::from_utf8_lossy(&read[..line]).into_owned();
            let size = usize::from_str_radix(&size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
            while read.len() < line + 2 + size + 2 {
                more(from, read).await?;
            }
            body.extend_from_slice(&read[line + 2..line + 2 + size]);
            read.drain(..line + 2 + size + 2);
            if size == 0 {
                return Ok(body);
            }
        }
    }
    let length = value(head, "content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
    while read.len() < length {
        more(from, read).await?;
    }
    Ok(read.drain(..length).collect())
}

async fn more(from: &mut (impl AsyncRead + Unpin), read: &mut Vec<u8>) -> io::Result<()> {
    if from.read_buf(read).await? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
}
