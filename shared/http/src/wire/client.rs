//! The client's address, from every form in which a hop may tell it: `X-Forwarded-For`, `Forwarded` (RFC 7239), with and
//! without ports, brackets, quotes and zones, IPv4 in IPv6 clothes. All rules about addresses read it here.
//!
//! Only as much is believed as trusted hops have written: from the right, the first address that is not a trusted proxy
//! is the client. `X-Forwarded-For` counts where there is one, because that is what proxies write; `Forwarded` where there
//! is none. A hop that is no address (`unknown`, `_hidden`, anything malformed) hides who is behind it: then the client is
//! not certain, rules that admit by address do not admit it, and limits count it as the hop that is known.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use smallvec::SmallVec;

use super::field::{Fields, Kind};
use super::{RequestHead, Scheme, line};

/// Who asks, by address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Client {
    /// The client's address, or of the last hop before it that is known. IPv4 in IPv6 clothes is IPv4.
    pub address: IpAddr,
    /// Whether it is the client's own.
    pub certain: bool,
}

/// Who asks, as far as trusted hops tell; `peer` is the other end of the connection.
#[must_use]
pub fn client(head: &RequestHead<'_>, peer: IpAddr, trusted: impl Fn(IpAddr) -> bool) -> Client {
    let mut client = Client { address: peer.to_canonical(), certain: true };
    if !trusted(client.address) {
        return client;
    }
    let fields = head.view();
    if is_said(fields, Kind::XForwardedFor) {
        let lines: SmallVec<[&[u8]; 4]> = fields.of(Kind::XForwardedFor).collect();
        return client_of_list(lines, peer, trusted);
    }
    client.walk(forwarded_hops(fields).into_iter().rev(), trusted);
    client
}

/// The same of the field lines of `X-Forwarded-For`, in their order: for whom the tiers before have made that list.
#[must_use]
pub fn client_of_list<'v>(
    lines: impl IntoIterator<Item = &'v [u8], IntoIter: DoubleEndedIterator>,
    peer: IpAddr,
    trusted: impl Fn(IpAddr) -> bool,
) -> Client {
    let mut client = Client { address: peer.to_canonical(), certain: true };
    client.walk(lines.into_iter().rev().flat_map(|line| members(line).rev()).map(node), trusted);
    client
}

impl Client {
    /// Goes from hop to hop, nearest first, as long as they are trusted.
    fn walk(&mut self, hops: impl Iterator<Item = Option<IpAddr>>, trusted: impl Fn(IpAddr) -> bool) {
        for hop in hops {
            match hop {
                _ if !trusted(self.address) => return,
                Some(address) => self.address = address,
                None => {
                    self.certain = false;
                    return;
                }
            }
        }
    }
}

/// The scheme that the client used, as the peer tells; of use only if that is trusted. `X-Forwarded-Proto`, else what the
/// last element of `Forwarded` says.
#[must_use]
pub fn told_scheme(head: &RequestHead<'_>) -> Option<Scheme> {
    let fields = head.view();
    let mut values = fields.of(Kind::XForwardedProto);
    if let Some(first) = values.next() {
        return scheme(first).filter(|_| values.next().is_none());
    }
    let last = fields.of(Kind::Forwarded).last()?;
    let element = split_outside_quotes(last, b',')?.pop()?;
    scheme(parameter(element, b"proto")?)
}

fn scheme(text: &[u8]) -> Option<Scheme> {
    let is = |known: Scheme| text.eq_ignore_ascii_case(known.as_str().as_bytes());
    [Scheme::Http, Scheme::Https].into_iter().find(|known| is(*known))
}

/// Whether one of the networks has the address. IPv4 in IPv6 clothes is IPv4 on both sides.
#[must_use]
pub fn covers(networks: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| canonical_network(*network).contains(&address))
}

/// `10.0.0.0/8` of `::ffff:10.0.0.0/104`; others as they are.
#[must_use]
pub fn canonical_network(network: IpNet) -> IpNet {
    let IpNet::V6(inner) = network else { return network };
    let mapped = inner.addr().to_ipv4_mapped().zip(inner.prefix_len().checked_sub(96));
    mapped.and_then(|(address, length)| IpNet::new(address.into(), length).ok()).unwrap_or(network)
}

/// All hops that the list of this kind tells, furthest first.
pub(super) fn hops(fields: Fields<'_, '_>, kind: Kind) -> SmallVec<[Option<IpAddr>; 8]> {
    match kind {
        Kind::Forwarded => forwarded_hops(fields),
        kind => fields.of(kind).flat_map(members).map(node).collect(),
    }
}

/// Whether there is a list of this kind that says something.
pub(super) fn is_said(fields: Fields<'_, '_>, kind: Kind) -> bool {
    fields.of(kind).any(|value| !value.is_empty())
}

/// RFC 9110 section 5.6.1: empty members say nothing.
fn members(value: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(line::trim).filter(|member| !member.is_empty())
}

/// A line that cannot be read is one hop of which nothing is known: whoever wrote its end may be the client.
fn forwarded_hops(fields: Fields<'_, '_>) -> SmallVec<[Option<IpAddr>; 8]> {
    let mut hops = SmallVec::new();
    for line in fields.of(Kind::Forwarded).filter(|line| !line.is_empty()) {
        match split_outside_quotes(line, b',') {
            Some(elements) => {
                hops.extend(elements.into_iter().map(|element| parameter(element, b"for").and_then(node)));
            }
            None => hops.push(None),
        }
    }
    hops
}

/// The value of a parameter of an element of `Forwarded` (RFC 7239 section 4), without quotes. `None` also if it is there
/// twice.
fn parameter<'v>(element: &'v [u8], name: &[u8]) -> Option<&'v [u8]> {
    let pairs = split_outside_quotes(element, b';')?;
    let mut values = pairs.into_iter().filter_map(|pair| {
        let equals = memchr::memchr(b'=', pair)?;
        line::trim(&pair[..equals])
            .eq_ignore_ascii_case(name)
            .then(|| unquoted(line::trim(&pair[equals + 1..])))
    });
    values.next().filter(|_| values.next().is_none())
}

fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\"")).unwrap_or(value)
}

/// The parts between separators that are in no quoted string (RFC 9110 section 5.6.4); `None` if one does not end.
fn split_outside_quotes(value: &[u8], separator: u8) -> Option<SmallVec<[&[u8]; 4]>> {
    let (mut parts, mut start, mut quoted, mut escaped) = (SmallVec::new(), 0, false, false);
    for (at, &byte) in value.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(line::trim(&value[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(line::trim(&value[start..]));
    parts.retain(|part: &mut &[u8]| !part.is_empty());
    (!quoted).then_some(parts)
}

/// The address of a node (RFC 7239 section 6): `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:80`, a port also hidden as `_port`; quotes and a zone (`fe80::1%eth0`) may be there.
fn node(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(unquoted(text)).ok()?;
    let v6 = |text: &str| {
        let address = text.split_once('%').map_or(text, |(address, _)| address).parse::<Ipv6Addr>().ok()?;
        Some(IpAddr::V6(address).to_canonical())
    };
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, port) = bracketed.split_once(']')?;
        return v6(address).filter(|_| port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
    }
    match text.split_once(':') {
        Some((address, port)) if !port.contains(':') => {
            address.parse::<Ipv4Addr>().ok().filter(|_| is_port(port)).map(IpAddr::V4)
        }
        Some(_) => v6(text),
        None => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
    }
}

fn is_port(text: &str) -> bool {
    let number =
        text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok();
    let hidden = |name: &str| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    };
    number || text.strip_prefix('_').is_some_and(hidden)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{HeadLimits, Parsed};

    fn who(fields: &str, peer: &str) -> (String, bool) {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let Ok(Parsed::Complete { head, .. }) = RequestHead::parse(bytes.as_bytes(), &HeadLimits::default())
        else {
            panic!("{fields}");
        };
        let trusted = |address: IpAddr| covers(&["10.0.0.0/8".parse().unwrap()], address);
        let client = client(&head, peer.parse().unwrap(), trusted);
        (client.address.to_string(), client.certain)
    }

    /// `X-Forwarded-For: 10.1.2.3:5555`, `Forwarded: for=10.1.2.3` and IPv4 peers of a socket on `[::]` were read as
    /// something else than the address by one rule or another.
    #[test]
    fn an_address_is_read_in_every_form() {
        for (text, address) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1:5555", "192.0.2.1"),
            ("192.0.2.1:_p-1", "192.0.2.1"),
            ("\"192.0.2.1:80\"", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:47", "2001:db8::1"),
            ("\"[2001:db8::1]:47\"", "2001:db8::1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("[::ffff:c000:201]:80", "192.0.2.1"),
            ("fe80::1%eth0", "fe80::1"),
        ] {
            for fields in [
                format!("X-Forwarded-For: {text}\r\n"),
                format!("Forwarded: for={text}\r\n"),
                format!("forwarded: proto=https ; FOR = {text};by=_me\r\n"),
                format!("X-Forwarded-For: 1.1.1.1, {text} , ,10.9.9.9\r\n"),
            ] {
                assert_eq!(who(&fields, "::ffff:10.0.0.1"), (address.to_owned(), true), "{fields}");
            }
        }
    }

    #[test]
    fn what_is_no_address_leaves_the_client_uncertain() {
        for text in [
            "unknown",
            "_hidden",
            "192.0.2.1:",
            "192.0.2.1:99999",
            "192.0.2.1:8o",
            "192.0.2.256",
            "010.1.2.3",
            "[192.0.2.1]",
            "[2001:db8::1",
            "2001:db8::1]:80",
            "[::1]80",
            "localhost",
            "1.2.3.4/8",
            "0x7f.1",
            "\"",
        ] {
            let fields = format!("X-Forwarded-For: 3.3.3.3, {text}, 10.0.0.2\r\n");
            assert_eq!(who(&fields, "10.0.0.1"), ("10.0.0.2".to_owned(), false), "{fields}");
            let fields = format!("Forwarded: for=3.3.3.3\r\nForwarded: for={text}\r\n");
            assert_eq!(who(&fields, "10.0.0.1"), ("10.0.0.1".to_owned(), false), "{fields}");
        }
        let swallowed = "Forwarded: for=\"3.3.3.3, for=4.4.4.4\r\n";
        assert_eq!(who(swallowed, "10.0.0.1"), ("10.0.0.1".to_owned(), false), "its quote does not end");
        assert!(!who("Forwarded: for=1.1.1.1;for=2.2.2.2\r\n", "10.0.0.1").1);
        assert!(!who("Forwarded: proto=https\r\n", "10.0.0.1").1, "a hop that does not say for whom");
    }

    /// Only what trusted hops have written is believed.
    #[test]
    fn the_client_is_the_first_untrusted_address_from_the_right() {
        for (fields, peer, address) in [
            ("X-Forwarded-For: 1.1.1.1, 2.2.2.2, 10.0.0.2\r\n", "10.0.0.1", "2.2.2.2"),
            ("X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-For: 10.0.0.2\r\n", "10.0.0.1", "1.1.1.1"),
            ("X-Forwarded-For: junk, 2.2.2.2:80, 10.0.0.2\r\n", "10.0.0.1", "2.2.2.2"),
            ("X-Forwarded-For: 1.1.1.1\r\n", "3.3.3.3", "3.3.3.3"),
            ("Forwarded: for=1.1.1.1\r\n", "3.3.3.3", "3.3.3.3"),
            (
                "Forwarded: for=1.1.1.1, for=\"[2001:db8::2]\";proto=http, for=10.0.0.2\r\n",
                "10.0.0.1",
                "2001:db8::2",
            ),
            ("X-Forwarded-For: 2.2.2.2\r\nForwarded: for=1.1.1.1\r\n", "10.0.0.1", "2.2.2.2"),
            ("X-Forwarded-For: 10.0.0.3, 10.0.0.2\r\n", "10.0.0.1", "10.0.0.3"),
            ("", "10.0.0.1", "10.0.0.1"),
        ] {
            assert_eq!(who(fields, peer), (address.to_owned(), true), "{fields}");
        }
    }

    #[test]
    fn networks_are_the_same_in_both_clothes() {
        let covers =
            |network: &str, address: &str| covers(&[network.parse().unwrap()], address.parse().unwrap());
        assert!(covers("10.0.0.0/8", "::ffff:10.1.1.1") && covers("::ffff:10.0.0.0/104", "10.1.1.1"));
        assert!(covers("::ffff:0:0/96", "9.9.9.9") && covers("::/0", "2001:db8::1"));
        assert!(!covers("::ffff:10.0.0.0/104", "11.1.1.1") && !covers("10.0.0.0/8", "2001:db8::1"));
        assert!(!covers("::/0", "10.1.1.1"), "IPv4 is not IPv6");
    }
}
