//! Records of FastCGI (specification section 3.3): eight bytes of header, content, padding.

/// The only request on a connection.
const REQUEST_ID: u16 = 1;
const VERSION: u8 = 1;
/// Longest content of one record.
const CONTENT_MAX: usize = 65_535;
const HEADER: usize = 8;

/// Types of records (section 8).
const BEGIN_REQUEST: u8 = 1;
const END_REQUEST: u8 = 3;
const PARAMS: u8 = 4;
const STDIN: u8 = 5;
const STDOUT: u8 = 6;
const STDERR: u8 = 7;

/// Begins a request in the role of a responder; the server closes the connection after it.
pub(super) fn begin(out: &mut Vec<u8>) {
    const RESPONDER: u8 = 1;
    record(BEGIN_REQUEST, &[0, RESPONDER, 0, 0, 0, 0, 0, 0], out);
}

/// The whole parameter stream.
pub(super) fn params(content: &[u8], out: &mut Vec<u8>) {
    stream(PARAMS, content, out);
    record(PARAMS, &[], out);
}

/// A part of the request's body.
pub(super) fn stdin(content: &[u8], out: &mut Vec<u8>) {
    stream(STDIN, content, out);
}

/// The end of the request's body.
pub(super) fn end_of_stdin(out: &mut Vec<u8>) {
    record(STDIN, &[], out);
}

/// One name and its value (section 3.4): lengths from 128 on take four bytes.
pub(super) fn pair(name: &[u8], value: &[u8], out: &mut Vec<u8>) {
    for length in [name.len(), value.len()] {
        match u8::try_from(length) {
            Ok(short) if short < 128 => out.push(short),
            _ => {
                let long = u32::try_from(length).unwrap_or(u32::MAX) | 1 << 31;
                out.extend_from_slice(&long.to_be_bytes());
            }
        }
    }
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

fn stream(kind: u8, content: &[u8], out: &mut Vec<u8>) {
    content.chunks(CONTENT_MAX).for_each(|part| record(kind, part, out));
}

fn record(kind: u8, content: &[u8], out: &mut Vec<u8>) {
    let length = u16::try_from(content.len()).expect("a record is cut to its length");
    let (id, length) = (REQUEST_ID.to_be_bytes(), length.to_be_bytes());
    out.extend_from_slice(&[VERSION, kind, id[0], id[1], length[0], length[1], 0, 0]);
    out.extend_from_slice(content);
}

/// What a server sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Received<'b> {
    /// A part of the response.
    Output(&'b [u8]),
    /// A part of what the program complained about.
    Complaint(&'b [u8]),
    /// The request is over: whether the server took it at all.
    End { taken: bool },
    /// A record that means nothing here.
    Other,
}

/// The first record in `bytes`, and how many bytes it takes; `None`: it is not all there.
///
/// # Errors
/// It is no record of this version.
pub(super) fn read(bytes: &[u8]) -> Result<Option<(Received<'_>, usize)>, &'static str> {
    let Some(header) = bytes.get(..HEADER) else { return Ok(None) };
    if header[0] != VERSION {
        return Err("it does not speak FastCGI 1.0");
    }
    let content = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let total = HEADER + content + usize::from(header[6]);
    let Some(content) = bytes.get(HEADER..HEADER + content) else { return Ok(None) };
    if bytes.len() < total {
        return Ok(None);
    }
    let received = match header[1] {
        STDOUT => Received::Output(content),
        STDERR => Received::Complaint(content),
        END_REQUEST if content.len() < 8 => return Err("its end of a request is cut short"),
        END_REQUEST => Received::End { taken: content[4] == 0 },
        _ => Received::Other,
    };
    Ok(Some((received, total)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_cut_to_their_length_and_read_back() {
        let mut out = Vec::new();
        stream(STDOUT, &[7; 70_000], &mut out);
        assert_eq!(out.len(), 70_000 + 2 * HEADER);
        let (first, length) = read(&out).unwrap().unwrap();
        assert_eq!(first, Received::Output(&[7; CONTENT_MAX]));
        let (second, rest) = read(&out[length..]).unwrap().unwrap();
        assert_eq!((second, rest), (Received::Output(&[7; 4_465]), 4_465 + HEADER));
        assert!((0..length).all(|cut| read(&out[..cut]) == Ok(None)), "not all there");
    }

    #[test]
    fn padding_is_skipped_and_other_protocols_are_noticed() {
        let end = [1, 3, 0, 1, 0, 8, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 9, 1];
        assert_eq!(read(&end), Ok(Some((Received::End { taken: true }, 18))));
        let mut refused = end;
        refused[12] = 2; // FCGI_OVERLOADED
        assert_eq!(read(&refused), Ok(Some((Received::End { taken: false }, 18))));
        assert!(read(b"HTTP/1.1 400 Bad Request").is_err());
        assert!(read(&[1, 3, 0, 1, 0, 1, 0, 0, 0]).is_err());
    }

    #[test]
    fn names_and_values_have_short_and_long_lengths() {
        let mut out = Vec::new();
        pair(b"A", &[b'x'; 300], &mut out);
        assert_eq!(out[..6], [1, 0x80, 0, 1, 44, b'A']);
        assert_eq!(out.len(), 6 + 300);
    }
}
