//! A small HTTP/1.1 client over one keep-alive connection.
//!
//! Load is measured with it on the machine that serves, so it does as little as it can; and a test of lost
//! connections must know what it sent, so it never repeats a request by itself.

use std::io;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Largest head of a response.
const HEAD_MAX: usize = 64 * 1024;

/// Why there is no response.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nothing was sent: there is no connection.
    #[error("connect to {0}")]
    Connect(String, #[source] io::Error),
    /// The connection broke: whether the request was handled is not known.
    #[error("the connection broke")]
    Broken(#[from] io::Error),
    /// Not HTTP, or more than this client reads.
    #[error("a response that cannot be read: {0}")]
    Malformed(&'static str),
    /// No response in time: whether the request was handled is not known.
    #[error("no response within {0:?}")]
    Deadline(Duration),
}

/// A client of one server. Not shared: each concurrent user has its own.
pub struct Http {
    address: String,
    limit: Duration,
    connection: Option<Connection>,
}

struct Connection {
    socket: TcpStream,
    buffer: Vec<u8>,
}

/// A whole response.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header lines; names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Response {
    /// First header of this name, in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// When it is not that.
    pub fn json<T: DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_slice(&self.body)
    }

    /// Status and the beginning of the body, for a message.
    #[must_use]
    pub fn brief(&self) -> String {
        let text = String::from_utf8_lossy(&self.body[..self.body.len().min(300)]);
        format!("{} {text}", self.status)
    }
}

impl Http {
    /// A client of `http://host:port`; connects when first used. A response may take 30 s.
    #[must_use]
    pub fn new(base: &str) -> Self {
        let address = base.trim_start_matches("http://").trim_end_matches('/').to_owned();
        Self { address, limit: Duration::from_secs(30), connection: None }
    }

    /// Sets how long a response may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn get(&mut self, path: &str) -> Result<Response, HttpError> {
        self.send("GET", path, &[], b"").await
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn post(&mut self, path: &str, json: &serde_json::Value) -> Result<Response, HttpError> {
        self.send("POST", path, &[("content-type", "application/json")], json.to_string().as_bytes()).await
    }

    /// One request and its whole response.
    ///
    /// # Errors
    /// [`HttpError`]; the next request then connects anew.
    pub async fn send(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, HttpError> {
        let limit = self.limit;
        let answer = tokio::time::timeout(limit, self.exchange(method, path, headers, body)).await;
        answer.unwrap_or(Err(HttpError::Deadline(limit)))
    }

    /// A request with these fields and no others, not even `Host`, and without a body.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn raw(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Result<Response, HttpError> {
        let limit = self.limit;
        let answer = tokio::time::timeout(limit, self.exchange_raw(method, path, fields)).await;
        answer.unwrap_or(Err(HttpError::Deadline(limit)))
    }

    /// A request whose body is read as it comes: server-sent events.
    ///
    /// # Errors
    /// [`HttpError`].
    pub async fn stream(
        mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<(Response, Body), HttpError> {
        let mut connection = self.connect().await?;
        connection.write("GET", path, &self.address, headers, b"").await?;
        let response = tokio::time::timeout(self.limit, connection.head())
            .await
            .map_err(|_| HttpError::Deadline(self.limit))??;
        let framing = Framing::of(&response)?;
        Ok((response, Body { connection, framing }))
    }

    async fn connect(&mut self) -> Result<Connection, HttpError> {
        let fail = |e| HttpError::Connect(self.address.clone(), e);
        let socket = TcpStream::connect(&self.address).await.map_err(fail)?;
        socket.set_nodelay(true)?;
        Ok(Connection { socket, buffer: Vec::with_capacity(8192) })
    }

    async fn exchange_raw(
        &mut self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
    ) -> Result<Response, HttpError> {
        let mut connection = self.connect().await?;
        let fields = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
        let head =
            format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n{}\r\n", fields.collect::<String>());
        connection.socket.write_all(head.as_bytes()).await?;
        let mut response = connection.head().await?;
        let mut body = Body { framing: Framing::of(&response)?, connection };
        while let Some(chunk) = body.next().await? {
            response.body.extend_from_slice(&chunk);
        }
        Ok(response)
    }

    async fn exchange(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Response, HttpError> {
        // Taken out while in use: after an error or a dropped future it is not used again.
        let mut connection = match self.connection.take().filter(Connection::is_idle) {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        connection.write(method, path, &self.address, headers, body).await?;
        let mut response = connection.head().await?;
        let mut body = Body { framing: Framing::of(&response)?, connection };
        while let Some(chunk) = body.next().await? {
            response.body.extend_from_slice(&chunk);
        }
        let close = response.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
        if !close && body.framing != Framing::UntilClose {
            self.connection = Some(body.connection);
        }
        Ok(response)
    }
}

impl Connection {
    /// A server that restarted has closed it, and that is seen without sending anything.
    fn is_idle(&self) -> bool {
        self.buffer.is_empty()
            && matches!(self.socket.try_read(&mut [0; 1]), Err(e) if e.kind() == io::ErrorKind::WouldBlock)
    }

    async fn write(
        &mut self,
        method: &str,
        path: &str,
        host: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<()> {
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        head.push_str("\r\n");
        let mut message = head.into_bytes();
        message.extend_from_slice(body);
        self.socket.write_all(&message).await
    }

    async fn fill(&mut self) -> io::Result<()> {
        if self.socket.read_buf(&mut self.buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Bytes up to and without `\r\n`.
    async fn line(&mut self) -> Result<String, HttpError> {
        let mut from = 0;
        let end = loop {
            if let Some(at) = find(&self.buffer[from..], b"\r\n") {
                break from + at;
            }
            if self.buffer.len() > HEAD_MAX {
                return Err(HttpError::Malformed("an endless line"));
            }
            from = self.buffer.len().saturating_sub(1);
            self.fill().await?;
        };
        let line = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
        self.buffer.drain(..end + 2);
        Ok(line)
    }

    async fn head(&mut self) -> Result<Response, HttpError> {
        let status = self.line().await?;
        let status = status
            .split(' ')
            .nth(1)
            .and_then(|s| s.parse().ok())
            .ok_or(HttpError::Malformed("status line"))?;
        let mut headers = Vec::with_capacity(8);
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok(Response { status, headers, body: Vec::new() });
            }
            let (name, value) = line.split_once(':').ok_or(HttpError::Malformed("header line"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(usize),
    Chunked,
    UntilClose,
    Done,
}

impl Framing {
    /// RFC 9112 section 6.3.
    fn of(response: &Response) -> Result<Self, HttpError> {
        if response.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
            return Ok(Self::Chunked);
        }
        if matches!(response.status, 204 | 304) {
            return Ok(Self::Done);
        }
        match response.header("content-length").map(str::parse) {
            Some(Ok(length)) => Ok(Self::Length(length)),
            Some(Err(_)) => Err(HttpError::Malformed("content-length")),
            None => Ok(Self::UntilClose),
        }
    }
}

/// The rest of a response.
pub struct Body {
    connection: Connection,
    framing: Framing,
}

impl Body {
    /// The next bytes; `None` at the end. Waits without limit.
    ///
    /// # Errors
    /// The connection broke, or the framing is wrong.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, HttpError> {
        match self.framing {
            Framing::Done | Framing::Length(0) => Ok(None),
            Framing::Length(left) => {
                let bytes = self.some(left).await?;
                self.framing = Framing::Length(left - bytes.len());
                Ok(Some(bytes))
            }
            Framing::UntilClose => match self.some(usize::MAX).await {
                Err(HttpError::Broken(e)) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
                other => other.map(Some),
            },
            Framing::Chunked => self.chunk().await,
        }
    }

    async fn some(&mut self, at_most: usize) -> Result<Vec<u8>, HttpError> {
        if self.connection.buffer.is_empty() {
            self.connection.fill().await?;
        }
        let n = self.connection.buffer.len().min(at_most);
        Ok(self.connection.buffer.drain(..n).collect())
    }

    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, HttpError> {
        let size = self.connection.line().await?;
        let size = size.split(';').next().and_then(|s| usize::from_str_radix(s.trim(), 16).ok());
        let size = size.ok_or(HttpError::Malformed("chunk size"))?;
        while self.connection.buffer.len() < size + 2 {
            self.connection.fill().await?;
        }
        let bytes = self.connection.buffer.drain(..size).collect();
        self.connection.buffer.drain(..2);
        if size == 0 {
            self.framing = Framing::Done;
            return Ok(None);
        }
        Ok(Some(bytes))
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|w| w == needle)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// Answers each request on one connection with the next of `answers`, byte by byte if `slow`.
    async fn server(answers: &'static [&'static str], slow: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.expect("a client");
            for answer in answers {
                let mut request = vec![0; 4096];
                let _ = socket.read(&mut request).await;
                for piece in answer.as_bytes().chunks(if slow { 1 } else { answer.len() }) {
                    socket.write_all(piece).await.expect("client reads");
                    if slow {
                        tokio::task::yield_now().await;
                    }
                }
            }
        });
        base
    }

    #[tokio::test]
    async fn lengths_chunks_and_empty_answers_are_read_on_one_connection() {
        const ANSWERS: &[&str] = &[
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nx-a: b\r\n\r\n",
        ];
        for slow in [false, true] {
            let mut http = Http::new(&server(ANSWERS, slow).await);
            assert_eq!(http.get("/").await.expect("length").body, b"hello");
            assert_eq!(http.get("/").await.expect("chunks").body, b"abcde");
            assert_eq!(http.get("/").await.expect("empty").status, 204);
            let last = http.get("/").await.expect("not found");
            assert_eq!((last.status, last.header("x-a")), (404, Some("b")));
        }
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_told_and_never_repeated() {
        let mut http = Http::new(&server(&["HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"], false).await);
        assert!(matches!(http.get("/").await, Err(HttpError::Broken(_))));
        assert!(matches!(http.get("/").await, Err(HttpError::Connect(..) | HttpError::Broken(_))));
    }
}
