//! Turns an HTTP/1 request, as it is written, into records.

use std::io;

use super::params::{self, Head};
use super::record;
use super::script::{FastCgiRoot, Script};

/// Longest head that is written: what the data plane accepts, and what it adds.
const HEAD_MAX: usize = 256 << 10;
/// CGI wants a body's length before the body (RFC 3875 section 4.1.2). One of unknown length is held up to this.
const HELD_MAX: usize = 1 << 20;

/// How far a request has come.
enum State {
    Head(Vec<u8>),
    /// So many bytes of the body are still to come.
    Body(u64),
    /// A body of unknown length: chunks, until it is all there.
    Chunked(Chunks, Held),
    Done,
    /// It is answered here.
    Refused,
}

/// A request whose body is not all there: the head's text and the body so far.
struct Held {
    head: String,
    script: Script,
    body: Vec<u8>,
}

/// The request on one connection.
pub(super) struct Request {
    root: FastCgiRoot,
    state: State,
    /// Its method, once the head is there.
    pub method: String,
}

impl Request {
    pub fn new(root: FastCgiRoot) -> Self {
        Self { root, state: State::Head(Vec::new()), method: String::new() }
    }

    /// Takes bytes of the HTTP/1 request and appends records to `out`. `Some`: the request is answered with this, and never
    /// reaches the server.
    ///
    /// # Errors
    /// The bytes are no request, which is a fault of ours.
    pub fn take(&mut self, mut data: &[u8], out: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        while !data.is_empty() {
            match std::mem::replace(&mut self.state, State::Done) {
                State::Head(mut head) => {
                    let before = head.len().saturating_sub(3);
                    head.extend_from_slice(data);
                    let Some(end) = memchr::memmem::find(&head[before..], b"\r\n\r\n") else {
                        if head.len() > HEAD_MAX {
                            return Err(invalid("a head beyond every bound"));
                        }
                        self.state = State::Head(head);
                        return Ok(None);
                    };
                    let body = head.split_off(before + end + 4);
                    if let Some(answer) = self.begin(&head, out)? {
                        self.state = State::Refused;
                        return Ok(Some(answer));
                    }
                    return self.take(&body, out);
                }
                State::Body(left) => {
                    let part = &data[..data.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
                    record::stdin(part, out);
                    data = &data[part.len()..];
                    self.state = self.body(left - part.len() as u64, out);
                }
                State::Chunked(mut chunks, mut held) => {
                    let used = chunks.take(data, &mut held.body)?;
                    if held.body.len() > HELD_MAX {
                        self.state = State::Refused;
                        return Ok(Some(answer("411 Length Required", "content-length: 0\r\n")));
                    }
                    data = &data[used..];
                    if chunks.done() {
                        self.send_held(&held, out)?;
                    } else {
                        self.state = State::Chunked(chunks, held);
                    }
                }
                State::Refused => {
                    self.state = State::Refused;
                    return Ok(None);
                }
                State::Done => return Err(invalid("more than one request")),
            }
        }
        Ok(None)
    }

    fn begin(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        // Field values may hold bytes beyond ASCII in any encoding (RFC 9110 section 5.5).
        let text: String = String::from_utf8_lossy(bytes).into_owned();
        let head = Head::read(&text).ok_or_else(|| invalid("a malformed head"))?;
        head.method.clone_into(&mut self.method);
        let script = self.root.script(&head.path());
        if script == Script::AddSlash {
            let to = format!("location: {}\r\ncontent-length: 0\r\n", head.with_slash());
            return Ok(Some(answer("301 Moved Permanently", &to)));
        }
        if head.get("transfer-encoding").is_some() {
            let held = Held { head: text, script, body: Vec::new() };
            self.state = State::Chunked(Chunks::default(), held);
            return Ok(None);
        }
        let length = head.get("content-length").map_or(Ok(0), str::parse);
        let length = length.map_err(|_| invalid("a malformed length"))?;
        params::begin(&head, &self.root, &script, length, out);
        self.state = self.body(length, out);
        Ok(None)
    }

    fn send_held(&mut self, held: &Held, out: &mut Vec<u8>) -> io::Result<()> {
        let head = Head::read(&held.head).ok_or_else(|| invalid("a malformed head"))?;
        params::begin(&head, &self.root, &held.script, held.body.len() as u64, out);
        record::stdin(&held.body, out);
        self.state = self.body(0, out);
        Ok(())
    }

    fn body(&self, left: u64, out: &mut Vec<u8>) -> State {
        if left == 0 {
            record::end_of_stdin(out);
            return State::Done;
        }
        State::Body(left)
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// An answer of ours.
fn answer(status: &str, lines: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{lines}connection: close\r\n\r\n").into_bytes()
}

/// Takes chunks apart that the data plane has written (RFC 9112 section 7.1).
#[derive(Default)]
struct Chunks {
    line: Vec<u8>,
    /// Bytes of the chunk that are still to come, its line end included.
    left: usize,
    last: bool,
    done: bool,
}

impl Chunks {
    fn done(&self) -> bool {
        self.done
    }

    /// Appends content to `body`; returns how many bytes were used: all of them, unless the body ends before.
    fn take(&mut self, data: &[u8], body: &mut Vec<u8>) -> io::Result<usize> {
        let mut at = 0;
        while at < data.len() && !self.done && body.len() <= HELD_MAX {
            if self.left > 2 {
                let part = (self.left - 2).min(data.len() - at);
                body.extend_from_slice(&data[at..at + part]);
                (self.left, at) = (self.left - part, at + part);
            } else if self.left > 0 {
                (self.left, at) = (self.left - 1, at + 1); // the line end behind it
            } else {
                self.line.push(data[at]);
                at += 1;
                if self.line.ends_with(b"\r\n") {
                    self.end_line()?;
                }
                if self.line.len() > HEAD_MAX {
                    return Err(invalid("a chunk's line beyond every bound"));
                }
            }
        }
        Ok(at)
    }

    fn end_line(&mut self) -> io::Result<()> {
        let line = std::mem::take(&mut self.line);
        let line = &line[..line.len() - 2];
        if self.last {
            self.done = line.is_empty(); // else a trailer field: CGI has no place for it
            return Ok(());
        }
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let size =
            std::str::from_utf8(digits).ok().and_then(|digits| usize::from_str_radix(digits.trim(), 16).ok());
        match size.ok_or_else(|| invalid("a malformed chunk"))? {
            0 => self.last = true,
            size => self.left = size.checked_add(2).ok_or_else(|| invalid("a chunk beyond every bound"))?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request::new(FastCgiRoot { root: "/srv/site".into(), index: "index.php".to_owned() })
    }

    /// The content of all records of type STDIN, and whether their end was said.
    fn body(mut records: &[u8]) -> (Vec<u8>, bool) {
        let (mut body, mut ended) = (Vec::new(), false);
        while let [_, kind, _, _, high, low, padding, _, ..] = *records {
            let length = usize::from(u16::from_be_bytes([high, low]));
            if kind == 5 {
                ended = length == 0;
                body.extend_from_slice(&records[8..8 + length]);
            }
            records = &records[8 + length + usize::from(padding)..];
        }
        (body, ended)
    }

    #[test]
    fn a_request_cut_anywhere_is_the_same_request() {
        let plain = b"POST /a.php HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\nhello".as_slice();
        let chunked =
            b"POST /a.php HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nt: 1\r\n\r\n";
        for text in [plain, chunked] {
            for cut in 0..text.len() {
                let (mut request, mut out) = (request(), Vec::new());
                assert_eq!(request.take(&text[..cut], &mut out).unwrap(), None);
                assert_eq!(request.take(&text[cut..], &mut out).unwrap(), None);
                assert_eq!(body(&out), (b"hello".to_vec(), true), "cut at {cut}");
                assert_eq!(request.method, "POST");
                assert!(request.take(b"x", &mut out).is_err(), "one request to a connection");
            }
        }
    }

    #[test]
    fn a_body_of_unknown_length_is_held_within_its_bound() {
        let (mut request, mut out) = (request(), Vec::new());
        request.take(b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n", &mut out).unwrap();
        let chunk = [b"10000\r\n".as_slice(), &[b'x'; 0x10000], b"\r\n"].concat();
        let refused = (0..17).find_map(|_| request.take(&chunk, &mut out).unwrap());
        assert!(refused.unwrap().starts_with(b"HTTP/1.1 411 "));
        assert!(out.is_empty(), "nothing of it was sent");
        assert_eq!(request.take(&chunk, &mut out).unwrap(), None);
    }
}
