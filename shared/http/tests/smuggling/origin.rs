//! An origin that reads HTTP its own way, on purpose not with the codec under test, and remembers what it has seen.

use crate::table::Seen;

/// A complete request.
#[derive(Clone, Debug)]
pub struct Request {
    pub line: String,
    fields: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// Takes a complete request from the front of `bytes`; `None` if it is not complete. What a gateway sends is
    /// canonical, so there is nothing to be lenient about.
    pub fn take(bytes: &mut Vec<u8>) -> Result<Option<Self>, String> {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
        let head: String = bytes[..end].iter().map(|&byte| char::from(byte)).collect(); // obs-text as Latin-1
        let mut lines = head.split("\r\n");
        let line =
            lines.next().and_then(|line| line.strip_suffix(" HTTP/1.1")).ok_or("not HTTP/1.1")?.to_owned();
        let fields = lines.map(field).collect::<Result<Vec<_>, _>>()?;
        let of = |name| {
            fields.iter().find(|(have, _): &&(String, String)| have == name).map(|(_, value)| value.as_str())
        };
        let rest = &bytes[end + 4..];
        let body = match (of("content-length"), of("transfer-encoding")) {
            (Some(_), Some(_)) => return Err("two framings".to_owned()),
            (Some(length), None) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
                let length = length.parse().map_err(|_| "a length beyond all")?;
                rest.get(..length).map(|body| (body.to_vec(), length))
            }
            (None, Some("chunked")) => dechunk(rest)?,
            (None, None) => Some((Vec::new(), 0)),
            (length, coding) => return Err(format!("framing {length:?} {coding:?}")),
        };
        Ok(body.map(|(body, taken)| {
            bytes.drain(..end + 4 + taken);
            Self { line, fields, body }
        }))
    }

    /// Whether it is the expected one.
    pub fn is(&self, expected: &Seen) -> Result<(), String> {
        if self.line != expected.line {
            return Err(format!("the origin saw {:?}, not {:?}", self.line, expected.line));
        }
        for field in expected.with {
            let (name, value) = field.split_once(": ").unwrap();
            let have: Vec<_> =
                self.fields.iter().filter(|(have, _)| have == name).map(|(_, v)| v.as_str()).collect();
            if have != [value] {
                return Err(format!("{name} is {have:?}, not {value:?}"));
            }
        }
        if let Some(name) =
            expected.without.iter().find(|name| self.fields.iter().any(|(have, _)| have == *name))
        {
            return Err(format!("{name} was forwarded"));
        }
        if self.body != expected.body {
            return Err(format!("the body is {:?}", self.body.escape_ascii().to_string()));
        }
        Ok(())
    }
}

fn field(line: &str) -> Result<(String, String), String> {
    let (name, value) = line.split_once(':').ok_or("a field without a colon")?;
    if line.contains(['\r', '\n', '\0'])
        || name.ends_with([' ', '\t'])
        || name.is_empty()
        || line.starts_with([' ', '\t'])
    {
        return Err(format!("the field line {line:?}"));
    }
    Ok((name.to_ascii_lowercase(), value.trim_matches([' ', '\t']).to_owned()))
}

/// The content and the length of a chunked body, if it is complete.
fn dechunk(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut body, mut at) = (Vec::new(), 0);
    let line = |at: usize| bytes.get(at..)?.windows(2).position(|window| window == b"\r\n");
    loop {
        let Some(length) = line(at) else { return Ok(None) };
        let size = String::from_utf8_lossy(&bytes[at..at + length]);
        if size.is_empty() || !size.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(format!("the chunk size {size:?}"));
        }
        let size = usize::from_str_radix(&size, 16).map_err(|_| "a size beyond all")?;
        at += length + 2;
        if size == 0 {
            break;
        }
        let Some(data) = bytes.get(at..at.saturating_add(size).saturating_add(2)) else { return Ok(None) };
        body.extend_from_slice(data.strip_suffix(b"\r\n").ok_or("a chunk without CRLF")?);
        at += size + 2;
    }
    loop {
        let Some(length) = line(at) else { return Ok(None) };
        at += length + 2;
        if length == 0 {
            return Ok(Some((body, at)));
        }
    }
}
