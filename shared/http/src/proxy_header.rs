//! The PROXY protocol header, by which a proxy tells who its client is: versions 1 and 2 of HAProxy's specification.
//!
//! Strict: what is not exactly as specified ends the connection, for a listener that takes such headers must not guess.
//! Whether a peer may say it at all is decided by its address before anything is read.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The longest header of version 1 (its specification, section 2.1).
const V1_MAX: usize = 107;
/// The longest header of version 2 that is taken: addresses and some extensions.
const V2_MAX: usize = 1024;
/// What comes before the addresses in version 2.
const V2_FIXED: usize = 16;

/// Who connected, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub client: SocketAddr,
    /// What it connected to.
    pub server: SocketAddr,
}

/// What bytes that should be a header are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Its beginning.
    Partial,
    /// A header, so many bytes long. No ends: the proxy speaks for itself (a health check) or does not know.
    Complete(usize, Option<Ends>),
}

/// The bytes are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed PROXY protocol header: {0}")]
pub struct Malformed(&'static str);

/// Reads the header at the beginning of `bytes`.
///
/// # Errors
/// As soon as they cannot become one.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let begins = |with: &[u8]| {
        let common = with.len().min(bytes.len());
        bytes[..common] == with[..common]
    };
    if begins(SIGNATURE) {
        return parse_v2(bytes);
    }
    if begins(b"PROXY ") { parse_v1(bytes) } else { Err(Malformed("it is none")) }
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let line = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = line.iter().position(|byte| *byte == b'\n') else {
        return if line.len() < V1_MAX {
            Ok(Parsed::Partial)
        } else {
            Err(Malformed("its line is too long"))
        };
    };
    let text = line[..end].strip_suffix(b"\r").ok_or(Malformed("its line does not end with CRLF"))?;
    let text = std::str::from_utf8(text).map_err(|_| Malformed("it is no text"))?;
    let mut words = text.split(' ').skip(1);
    let ends = match words.next() {
        Some("UNKNOWN") => return Ok(Parsed::Complete(end + 1, None)),
        Some("TCP4") => ends_v1::<Ipv4Addr>(words),
        Some("TCP6") => ends_v1::<Ipv6Addr>(words),
        _ => return Err(Malformed("its family is none of TCP4, TCP6, UNKNOWN")),
    };
    Ok(Parsed::Complete(end + 1, Some(ends.ok_or(Malformed("its addresses cannot be read"))?)))
}

fn ends_v1<'w, A: FromStr + Into<IpAddr>>(mut words: impl Iterator<Item = &'w str>) -> Option<Ends> {
    let mut ip = || words.next()?.parse::<A>().ok().map(Into::into);
    let (client, server) = (ip()?, ip()?);
    let mut port = || {
        let word = words.next()?;
        let plain = word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
        if plain { word.parse().ok() } else { None }
    };
    let (client, server) = (SocketAddr::new(client, port()?), SocketAddr::new(server, port()?));
    words.next().is_none().then_some(Ends { client, server })
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let Some((fixed, rest)) = bytes.split_at_checked(V2_FIXED) else { return Ok(Parsed::Partial) };
    let proxies = match fixed[12] {
        0x20 => false,
        0x21 => true,
        _ => return Err(Malformed("its version or command is unknown")),
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if V2_FIXED + length > V2_MAX {
        return Err(Malformed("it is too long"));
    }
    let Some(addresses) = rest.get(..length) else { return Ok(Parsed::Partial) };
    let ends = match (proxies, fixed[13]) {
        (false, _) | (true, 0x00 | 0x31) => None, // for itself; unspecified; a Unix socket
        (true, 0x11) => Some(ends_v2::<4>(addresses)?),
        (true, 0x21) => Some(ends_v2::<16>(addresses)?),
        _ => return Err(Malformed("its family or transport is unknown")),
    };
    Ok(Parsed::Complete(V2_FIXED + length, ends))
}

fn ends_v2<const N: usize>(bytes: &[u8]) -> Result<Ends, Malformed>
where
    IpAddr: From<[u8; N]>,
{
    let short = Malformed("its addresses are cut short");
    let (client, rest) = bytes.split_first_chunk::<N>().ok_or(short)?;
    let (server, rest) = rest.split_first_chunk::<N>().ok_or(short)?;
    let (ports, _extensions) = rest.split_first_chunk::<4>().ok_or(short)?;
    let port = |at: usize| u16::from_be_bytes([ports[at], ports[at + 1]]);
    let end = |ip: &[u8; N], port| SocketAddr::new(IpAddr::from(*ip), port);
    Ok(Ends { client: end(client, port(0)), server: end(server, port(2)) })
}

/// Reads a header from a connection, and not a byte more. The caller bounds the time.
///
/// # Errors
/// The connection ends or fails, or what it begins with is no header (`InvalidData`).
pub async fn read(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Ends>> {
    let malformed = |malformed| io::Error::new(io::ErrorKind::InvalidData, malformed);
    // The shortest header is longer than the signature by which the versions are told apart.
    let mut header = vec![0; SIGNATURE.len()];
    from.read_exact(&mut header).await?;
    loop {
        let missing = match parse(&header).map_err(malformed)? {
            Parsed::Complete(_, ends) => return Ok(ends),
            Parsed::Partial => missing(&header),
        };
        let length = header.len();
        header.resize(length + missing, 0);
        from.read_exact(&mut header[length..]).await?;
    }
}

/// How much of a header is surely missing.
fn missing(header: &[u8]) -> usize {
    match (header.starts_with(SIGNATURE), header.get(14..V2_FIXED)) {
        (true, Some(length)) => {
            V2_FIXED + usize::from(u16::from_be_bytes([length[0], length[1]])) - header.len()
        }
        (true, None) => V2_FIXED - header.len(),
        (false, _) => 1,
    }
}

/// Which form of the header is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Version {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// What begins every header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

impl Version {
    /// The header for a connection from `client` to `server`, to be sent before anything else.
    #[must_use]
    pub fn header(self, client: SocketAddr, server: SocketAddr) -> Vec<u8> {
        let (client, server) = same_family(client, server);
        match self {
            Self::V1 => {
                let family = if client.is_ipv4() { "TCP4" } else { "TCP6" };
                let (from, to) = (client.ip(), server.ip());
                format!("PROXY {family} {from} {to} {} {}\r\n", client.port(), server.port()).into_bytes()
            }
            Self::V2 => {
                let mut header = SIGNATURE.to_vec();
                header.push(0x21); // version 2, command PROXY
                let mut addresses = Vec::with_capacity(36);
                match (client, server) {
                    (SocketAddr::V4(client), SocketAddr::V4(server)) => {
                        header.push(0x11); // TCP over IPv4
                        addresses.extend_from_slice(&client.ip().octets());
                        addresses.extend_from_slice(&server.ip().octets());
                    }
                    (client, server) => {
                        header.push(0x21); // TCP over IPv6
                        addresses.extend_from_slice(&octets_v6(client));
                        addresses.extend_from_slice(&octets_v6(server));
                    }
                }
                addresses.extend_from_slice(&client.port().to_be_bytes());
                addresses.extend_from_slice(&server.port().to_be_bytes());
                let length = u16::try_from(addresses.len()).expect("12 or 36");
                header.extend_from_slice(&length.to_be_bytes());
                header.extend_from_slice(&addresses);
                header
            }
        }
    }
}

/// The header has one family: of two different ones IPv4 is written as IPv6 (RFC 4291 section 2.5.5.2).
fn same_family(client: SocketAddr, server: SocketAddr) -> (SocketAddr, SocketAddr) {
    let canonical = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let (client, server) = (canonical(client), canonical(server));
    if client.is_ipv4() == server.is_ipv4() {
        return (client, server);
    }
    let mapped = |address: SocketAddr| SocketAddr::new(octets_v6(address).into(), address.port());
    (mapped(client), mapped(server))
}

fn octets_v6(address: SocketAddr) -> [u8; 16] {
    match address {
        SocketAddr::V4(address) => address.ip().to_ipv6_mapped().octets(),
        SocketAddr::V6(address) => address.ip().octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(client: &str, server: &str) -> Ends {
        Ends { client: client.parse().unwrap(), server: server.parse().unwrap() }
    }

    #[test]
    fn what_is_written_is_read_back_and_every_beginning_of_it_is_partial() {
        for (client, server) in [
            ("10.0.0.1:5", "10.0.0.2:80"),
            ("[2001:db8::1]:65535", "[::1]:80"),
            ("10.0.0.1:5", "[2001:db8::1]:80"),
            ("255.255.255.255:65535", "255.255.255.255:65535"),
        ] {
            let written = ends(client, server);
            for version in [Version::V1, Version::V2] {
                let header = version.header(written.client, written.server);
                let Ok(Parsed::Complete(length, Some(read))) = parse(&header) else { panic!("{header:?}") };
                assert_eq!(length, header.len());
                let canonical =
                    |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
                assert_eq!(
                    (canonical(read.client), canonical(read.server)),
                    (written.client, written.server)
                );
                assert!((0..length).all(|n| parse(&header[..n]) == Ok(Parsed::Partial)), "{version:?}");
                let mut more = header.clone();
                more.extend_from_slice(b"GET / HTTP/1.1");
                assert_eq!(parse(&more), parse(&header), "what follows is not its own");
            }
        }
    }

    #[test]
    fn version_1_is_a_line_and_version_2_has_28_or_52_bytes() {
        let line = |ends: Ends| String::from_utf8(Version::V1.header(ends.client, ends.server)).unwrap();
        assert_eq!(line(ends("10.0.0.1:5", "10.0.0.2:80")), "PROXY TCP4 10.0.0.1 10.0.0.2 5 80\r\n");
        let mixed = line(ends("10.0.0.1:5", "[2001:db8::1]:80"));
        assert_eq!(mixed, "PROXY TCP6 ::ffff:10.0.0.1 2001:db8::1 5 80\r\n");
        let v4 = ends("10.0.0.1:5", "[::ffff:10.0.0.2]:80");
        let header = Version::V2.header(v4.client, v4.server);
        assert_eq!(header, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x0a\0\0\x01\x0a\0\0\x02\0\x05\0\x50");
        let v6 = ends("[2001:db8::1]:5", "[::1]:80");
        assert_eq!(Version::V2.header(v6.client, v6.server).len(), 52);
    }

    #[test]
    fn who_speaks_for_itself_or_does_not_know_keeps_the_address_of_the_connection() {
        let unknown = b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n";
        assert_eq!(parse(unknown), Ok(Parsed::Complete(unknown.len(), None)));
        let v2 = |command: u8, family: u8, length: u8| {
            [&SIGNATURE[..], &[command, family, 0, length], &vec![7; length.into()]].concat()
        };
        for (command, family, length) in [(0x20, 0, 0), (0x20, 0x11, 12), (0x21, 0, 3), (0x21, 0x31, 216)] {
            let header = v2(command, family, length);
            assert_eq!(parse(&header), Ok(Parsed::Complete(header.len(), None)));
        }
        let Ok(Parsed::Complete(28, Some(_))) = parse(&v2(0x21, 0x11, 12)) else { panic!("plain") };
        let Ok(Parsed::Complete(40, Some(_))) = parse(&v2(0x21, 0x11, 24)) else { panic!("extensions") };
    }

    #[test]
    fn what_is_not_exactly_a_header_is_refused() {
        let long = [&b"PROXY TCP4 "[..], &[b'1'; 200]].concat();
        let v2 = |command: u8, family: u8, length: u16| {
            let [high, low] = length.to_be_bytes();
            [&SIGNATURE[..], &[command, family, high, low], &[0; 64]].concat()
        };
        let bad: [&[u8]; 22] = [
            b"GET / HTTP/1.1\r\n",
            b"proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n",
            b"PROXY TCP4  1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 \r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 01 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 +1 2\r\n",
            b"PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n",
            b"PROXY TCP4 1.1.1.256 2.2.2.2 1 2\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP6 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n",
            b"PROXY \xff\r\n",
            b"PROXY \r\n",
            &long,
            &v2(0x11, 0x11, 12),
            &v2(0x22, 0x11, 12),
            &v2(0x21, 0x12, 12),
            &v2(0x21, 0x11, 11),
            &v2(0x21, 0x21, 1100),
        ];
        for bytes in bad {
            assert!(parse(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
        }
        assert!(parse(b"\r\n\r\n\0\r\nQUIX").is_err(), "seen before it is whole");
    }

    #[tokio::test]
    async fn what_comes_after_the_header_is_left() {
        let ends = ends("10.0.0.1:5", "10.0.0.2:80");
        for version in [Version::V1, Version::V2] {
            let mut sent = version.header(ends.client, ends.server);
            sent.extend_from_slice(b"hello");
            let mut rest = &sent[..];
            assert_eq!(read(&mut rest).await.unwrap(), Some(ends));
            assert_eq!(rest, b"hello");
            for cut in [0, 10, 20] {
                let error = read(&mut &sent[..cut]).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            }
        }
        let none = read(&mut &b"GET / HTTP/1.1\r\n\r\n"[..]).await.unwrap_err();
        assert_eq!(none.kind(), io::ErrorKind::InvalidData);
    }
}
