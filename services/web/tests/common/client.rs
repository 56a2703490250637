//! A client that sends exactly the bytes it is told to, and reads answers strictly.

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::LIMIT;

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Interim answers that came before it.
    pub interim: Vec<u16>,
    pub fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn fields(&self, name: &str) -> Vec<&str> {
        self.fields.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str()).collect()
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// A connection.
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub async fn connect(address: &str) -> Self {
        let stream =
            timeout(LIMIT, TcpStream::connect(address)).await.expect("in time").expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        Self { stream: BufReader::new(stream) }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await
    }

    /// A whole request; `host` may be among the fields.
    pub async fn request(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        self.ask(method, target, fields, body).await.expect("an answer")
    }

    pub async fn ask(
        &mut self,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let mut text = format!("{method} {target} HTTP/1.1\r\n");
        if !fields.iter().any(|(name, _)| *name == "host") {
            text += "host: localhost\r\n";
        }
        for (name, value) in fields {
            text += &format!("{name}: {value}\r\n");
        }
        if !body.is_empty() {
            text += &format!("content-length: {}\r\n", body.len());
        }
        text += "\r\n";
        self.send([text.as_bytes(), body].concat()).await?;
        self.answer(method == "HEAD").await
    }

    pub async fn answer(&mut self, to_head: bool) -> std::io::Result<Answer> {
        timeout(LIMIT, self.read(to_head)).await.expect("an answer in time")
    }

    async fn read(&mut self, to_head: bool) -> std::io::Result<Answer> {
        let mut interim = Vec::new();
        loop {
            let (status, fields) = self.head().await?;
            if (100..200).contains(&status) && status != 101 {
                interim.push(status);
                continue;
            }
            let mut answer = Answer { status, interim, fields, body: Vec::new() };
            if to_head || status == 204 || status == 304 || status == 101 {
                return Ok(answer);
            }
            answer.body = match answer.field("content-length") {
                Some(length) => {
                    assert!(answer.field("transfer-encoding").is_none(), "two framings: {answer:?}");
                    self.exactly(length.parse().expect("a number")).await?
                }
                None if answer.field("transfer-encoding") == Some("chunked") => self.chunks().await?,
                None => panic!("no framing: {answer:?}"),
            };
            return Ok(answer);
        }
    }

    async fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line).await?;
        match line.strip_suffix("\r\n") {
            Some(line) => Ok(line.to_owned()),
            None => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }

    async fn head(&mut self) -> std::io::Result<(u16, Vec<(String, String)>)> {
        let status = self.line().await?;
        let status = status.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line");
        let mut fields = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                return Ok((status, fields));
            }
            let (name, value) = line.split_once(':').expect("a field line");
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    pub async fn exactly(&mut self, length: usize) -> std::io::Result<Vec<u8>> {
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        Ok(body)
    }

    async fn chunks(&mut self) -> std::io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk().await?;
            if chunk.is_empty() {
                while !self.line().await?.is_empty() {}
                return Ok(body);
            }
            body.extend(chunk);
        }
    }

    /// One chunk; empty: the last.
    pub async fn chunk(&mut self) -> std::io::Result<Vec<u8>> {
        let size = usize::from_str_radix(&self.line().await?, 16).expect("a chunk size");
        let chunk = self.exactly(size).await?;
        if size > 0 {
            assert_eq!(self.line().await?, "");
        }
        Ok(chunk)
    }

    /// The head of an answer whose body is read by [`chunk`](Self::chunk).
    pub async fn begin(&mut self, target: &str, fields: &[(&str, &str)]) -> u16 {
        let mut text = format!("GET {target} HTTP/1.1\r\nhost: localhost\r\n");
        for (name, value) in fields {
            text += &format!("{name}: {value}\r\n");
        }
        self.send(text + "\r\n").await.expect("sent");
        timeout(LIMIT, self.head()).await.expect("in time").expect("a head").0
    }

    /// Whether the server closed the connection, within the limit.
    pub async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        timeout(LIMIT, self.stream.read(&mut byte)).await.is_ok_and(|read| !matches!(read, Ok(1..)))
    }
}

/// One request on a connection of its own.
pub async fn get(address: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
    Client::connect(address).await.request("GET", target, fields, b"").await
}
