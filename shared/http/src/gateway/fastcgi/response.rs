//! Turns records that come back into an HTTP/1 response (RFC 3875 section 6).

use std::io;

use super::record::{self, Received};

/// Longest header of a response.
const HEADER_MAX: usize = 64 << 10;
/// So much of a complaint is logged.
const COMPLAINT_MAX: usize = 1_000;

/// The response on one connection.
#[derive(Default)]
pub(super) struct Response {
    /// What came and is no whole record yet.
    raw: Vec<u8>,
    /// The header so far; `None`: it has been passed on.
    header: Option<Vec<u8>>,
    begun: bool,
    framing: Framing,
    /// The response is whole.
    pub over: bool,
}

/// How the length of the body is told.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Framing {
    /// By the application, or there is none.
    #[default]
    AsItIs,
    Chunked,
    /// The response has no body, whatever the application writes.
    NoBody,
}

impl Response {
    /// Takes bytes from the server and appends the HTTP/1 response to `out`.
    ///
    /// # Errors
    /// They are no FastCGI, or no response of a CGI program.
    pub fn take(&mut self, data: &[u8], method: &str, out: &mut Vec<u8>) -> io::Result<()> {
        let mut raw = std::mem::take(&mut self.raw);
        raw.extend_from_slice(data);
        let mut at = 0;
        while !self.over
            && let Some((received, length)) = record::read(&raw[at..]).map_err(invalid)?
        {
            match received {
                Received::Output(content) => self.output(content, method, out)?,
                Received::Complaint(content) => complain(content),
                Received::End { taken } => self.end(taken, out)?,
                Received::Other => {}
            }
            at += length;
        }
        raw.drain(..at);
        self.raw = raw;
        Ok(())
    }

    fn output(&mut self, content: &[u8], method: &str, out: &mut Vec<u8>) -> io::Result<()> {
        if content.is_empty() {
            return Ok(());
        }
        if self.begun {
            self.body(content, out);
            return Ok(());
        }
        let mut header = self.header.take().unwrap_or_default();
        let before = header.len().saturating_sub(3);
        header.extend_from_slice(content);
        let Some(end) = end_of_header(&header, before) else {
            if header.len() > HEADER_MAX {
                return Err(invalid("its header is too long"));
            }
            self.header = Some(header);
            return Ok(());
        };
        self.framing = head(&header[..end], method, out)?;
        self.begun = true;
        self.body(&header[end..], out);
        Ok(())
    }

    fn body(&self, content: &[u8], out: &mut Vec<u8>) {
        match self.framing {
            Framing::NoBody => {}
            Framing::AsItIs => out.extend_from_slice(content),
            Framing::Chunked if content.is_empty() => {}
            Framing::Chunked => {
                out.extend_from_slice(format!("{:x}\r\n", content.len()).as_bytes());
                out.extend_from_slice(content);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    fn end(&mut self, taken: bool, out: &mut Vec<u8>) -> io::Result<()> {
        if !self.begun && !taken {
            const BUSY: &[u8] =
                b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            out.extend_from_slice(BUSY);
        } else if !self.begun {
            return Err(invalid("the program ended without a response"));
        } else if self.framing == Framing::Chunked {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        self.over = true;
        Ok(())
    }
}

/// Where the header ends, its empty line included. Programs end lines as they like.
fn end_of_header(bytes: &[u8], from: usize) -> Option<usize> {
    let ends = |at: usize| {
        let rest = &bytes[at..];
        rest.strip_prefix(b"\n\n").map(|_| at + 2).or_else(|| rest.strip_prefix(b"\n\r\n").map(|_| at + 3))
    };
    memchr::memchr_iter(b'\n', &bytes[from..]).find_map(|at| ends(from + at))
}

/// Writes the head of the response; every line of it is checked by whoever reads an upstream server's head.
fn head(header: &[u8], method: &str, out: &mut Vec<u8>) -> io::Result<Framing> {
    let (mut status, mut located, mut has_length) = (None, false, false);
    let mut lines = Vec::new();
    for line in
        header.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).filter(|line| !line.is_empty())
    {
        let colon = memchr::memchr(b':', line).ok_or_else(|| invalid("a line of its header is no field"))?;
        let (name, value) = (line[..colon].to_ascii_lowercase(), line[colon + 1..].trim_ascii());
        match &name[..] {
            b"status" => status = Some(value.to_vec()),
            b"connection" | b"keep-alive" | b"transfer-encoding" => {}
            _ => {
                located |= name == b"location";
                has_length |= name == b"content-length";
                lines.extend_from_slice(&name);
                lines.extend_from_slice(b": ");
                lines.extend_from_slice(value);
                lines.extend_from_slice(b"\r\n");
            }
        }
    }
    // RFC 3875 section 6.2.3: a location without a status is a redirect.
    let status = status.unwrap_or_else(|| if located { b"302 Found".to_vec() } else { b"200 OK".to_vec() });
    let code = status.get(..3).filter(|code| code.iter().all(u8::is_ascii_digit));
    let code = code.ok_or_else(|| invalid("its status is no number"))?;
    let no_body = method == "HEAD" || code[0] == b'1' || code == b"204" || code == b"304";
    let framing = match (no_body, has_length) {
        (true, _) => Framing::NoBody,
        (false, true) => Framing::AsItIs,
        (false, false) => Framing::Chunked,
    };
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(&status);
    if status.len() == 3 {
        out.push(b' ');
    }
    out.extend_from_slice(b"\r\nconnection: close\r\n");
    out.extend_from_slice(&lines);
    out.extend_from_slice(if framing == Framing::Chunked {
        b"transfer-encoding: chunked\r\n\r\n"
    } else {
        b"\r\n"
    });
    Ok(framing)
}

fn complain(content: &[u8]) {
    let text = String::from_utf8_lossy(&content[..content.len().min(COMPLAINT_MAX)]);
    let text = text.trim();
    if !text.is_empty() {
        tracing::debug!(text, "a FastCGI program complains");
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(content: &str) -> Vec<u8> {
        let length = u16::try_from(content.len()).unwrap().to_be_bytes();
        let mut record = vec![1, 6, 0, 1, length[0], length[1], 0, 0];
        record.extend_from_slice(content.as_bytes());
        record
    }

    const END: [u8; 16] = [1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    fn answer(records: &[u8], method: &str) -> io::Result<String> {
        let (mut response, mut out) = (Response::default(), Vec::new());
        for byte in records {
            response.take(&[*byte], method, &mut out)?; // as slowly as can be
        }
        assert!(response.over);
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_a_program_writes_becomes_a_response() {
        let of = |text: &str, method: &str| answer(&[output(text), END.to_vec()].concat(), method).unwrap();
        assert_eq!(
            of("Content-Type: text/html\r\nX-A: b\r\n\r\nhello", "GET"),
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: text/html\r\nx-a: b\r\n\
             transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
        );
        assert_eq!(
            of("Status: 404 Not Found\nContent-Length: 2\n\nno", "GET"),
            "HTTP/1.1 404 Not Found\r\nconnection: close\r\ncontent-length: 2\r\n\r\nno"
        );
        assert!(of("Location: /x\r\n\r\n", "GET").starts_with("HTTP/1.1 302 Found\r\n"));
        assert!(of("Status: 500\r\n\r\n", "GET").starts_with("HTTP/1.1 500 \r\n"));
        assert!(of("Content-Type: a/b\r\n\r\nbody", "HEAD").ends_with("content-type: a/b\r\n\r\n"));
        assert!(of("Status: 304 Not Modified\r\n\r\nbody", "GET").ends_with("close\r\n\r\n"));
        let smuggled = of("Transfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\nx", "GET");
        assert_eq!(smuggled.matches("chunked").count(), 1);
    }

    #[test]
    fn what_is_no_response_is_an_error_and_a_full_server_is_busy() {
        let refused = [1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0];
        assert!(answer(&refused, "GET").unwrap().starts_with("HTTP/1.1 503 "));
        for records in [
            END.to_vec(),
            [output("no header"), END.to_vec()].concat(),
            output("not a field\r\n\r\n"),
            output("Status: abc\r\n\r\n"),
            b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        ] {
            let (mut response, mut out) = (Response::default(), Vec::new());
            assert!(response.take(&records, "GET", &mut out).is_err(), "{records:?}");
        }
    }
}
