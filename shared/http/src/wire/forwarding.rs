//! Who the request is from and through whom it came: `Via`, `Forwarded` (RFC 7239), `X-Forwarded-*`.
//!
//! What the peer claims about earlier hops is kept only if the peer is trusted; else it is replaced. The part that is
//! the same for each request of a connection is made once.

use std::net::IpAddr;

use super::client::{hops, is_said, told_scheme};
use super::field::{Fields, Kind};
use super::{RequestHead, Version, target};

/// How the client speaks to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// In the clear.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// The forwarding fields of one connection.
#[derive(Clone, Debug)]
pub struct Forwarding {
    trusted: bool,
    /// ` pseudonym` CRLF.
    via: Vec<u8>,
    /// `for=…;proto=…;host=`: the host is of the request.
    element: Vec<u8>,
    address: String,
    scheme: Scheme,
    /// `X-Forwarded-For` and `-Proto` whole, and the name of `-Host`.
    claims: Vec<u8>,
}

impl Forwarding {
    /// For a connection from `peer`. `pseudonym` names us in `Via`. `trusted`: what the peer says of earlier hops is
    /// kept and added to.
    #[must_use]
    pub fn new(pseudonym: &str, peer: IpAddr, scheme: Scheme, trusted: bool) -> Self {
        let peer = peer.to_canonical(); // ::ffff:192.0.2.1 is 192.0.2.1
        let node = node_of(peer);
        let protocol = scheme.as_str();
        Self {
            trusted,
            via: format!(" {pseudonym}\r\n").into_bytes(),
            element: format!("for={node};proto={protocol};host=").into_bytes(),
            address: peer.to_string(),
            scheme,
            claims: format!("X-Forwarded-For: {peer}\r\nX-Forwarded-Proto: {protocol}\r\nX-Forwarded-Host: ")
                .into_bytes(),
        }
    }

    /// Appends the lines for one request. [`RequestHead::end_to_end_lines`] has left out what these replace.
    #[inline]
    pub fn lines(&self, head: &RequestHead<'_>, out: &mut Vec<u8>) {
        self.lines_for(head, true, out);
    }

    /// The same. `overrides`: whether another target that a trusted peer names ([`is_override`](super::is_override)) is
    /// passed on.
    #[inline]
    pub fn lines_for(&self, head: &RequestHead<'_>, overrides: bool, out: &mut Vec<u8>) {
        let fields = head.view();
        start_list(b"Via: ", fields, Kind::Via, out);
        out.extend_from_slice(head.version().number().as_bytes());
        out.extend_from_slice(&self.via);
        if self.trusted {
            return self.add_to_claims(head, overrides, out);
        }
        out.extend_from_slice(b"Forwarded: ");
        self.own_element(head.authority(), out);
        if head.authority().is_empty() {
            out.extend_from_slice(&self.claims[..self.claims.len() - b"X-Forwarded-Host: ".len()]);
        } else {
            out.extend_from_slice(&self.claims);
            out.extend_from_slice(head.authority().as_bytes());
            out.extend_from_slice(b"\r\n");
        }
    }

    /// `Via` for the response (RFC 9110 section 7.6.3); the version is the one the origin answered with.
    #[inline]
    pub fn via_line(&self, received: Version, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Via: ");
        out.extend_from_slice(received.number().as_bytes());
        out.extend_from_slice(&self.via);
    }

    fn own_element(&self, authority: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.element);
        out.push(b'"');
        out.extend_from_slice(authority.as_bytes()); // an authority has no quote and no backslash
        out.extend_from_slice(b"\"\r\n");
    }

    fn add_to_claims(&self, head: &RequestHead<'_>, overrides: bool, out: &mut Vec<u8>) {
        let fields = head.view();
        let (listed, told) = (is_said(fields, Kind::XForwardedFor), is_said(fields, Kind::Forwarded));
        out.extend_from_slice(b"Forwarded: ");
        match (listed, told) {
            (true, false) => add_hops(fields, Kind::XForwardedFor, push_element, out),
            // The list that counts is the other one: a peer that writes only that one passes on what a client says here.
            (true, true) if hops(fields, Kind::Forwarded) != hops(fields, Kind::XForwardedFor) => {
                add_hops(fields, Kind::XForwardedFor, push_element, out);
            }
            _ => add_values(fields, Kind::Forwarded, out),
        }
        self.own_element(head.authority(), out);
        out.extend_from_slice(b"X-Forwarded-For: ");
        if !listed && told {
            add_hops(fields, Kind::Forwarded, push_address, out);
        } else {
            add_values(fields, Kind::XForwardedFor, out);
        }
        out.extend_from_slice(self.address.as_bytes());
        out.extend_from_slice(b"\r\nX-Forwarded-Proto: ");
        out.extend_from_slice(told_scheme(head).unwrap_or(self.scheme).as_str().as_bytes());
        out.extend_from_slice(b"\r\n");
        let claimed = single(fields, Kind::XForwardedHost).filter(|value| target::is_authority(value));
        let host = claimed.unwrap_or(head.authority().as_bytes());
        if !host.is_empty() {
            out.extend_from_slice(b"X-Forwarded-Host: ");
            out.extend_from_slice(host);
            out.extend_from_slice(b"\r\n");
        }
        fields.copy_lines(out, |field, _| match field.kind {
            Kind::ClientClaim | Kind::ClientAddress => true,
            Kind::TargetOverride => overrides,
            _ => false,
        });
    }
}

/// One line, not one more line: many applications read only the first `X-Forwarded-For`.
fn start_list(name: &[u8], fields: Fields<'_, '_>, kind: Kind, out: &mut Vec<u8>) {
    out.extend_from_slice(name);
    add_values(fields, kind, out);
}

fn add_values(fields: Fields<'_, '_>, kind: Kind, out: &mut Vec<u8>) {
    for value in fields.of(kind).filter(|value| !value.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
}

/// Of a list that is written anew so many hops are kept, the nearest. Others are copied as they are.
const HOPS_MAX: usize = 32;

/// The hops of one list in the form of the other one, so that both say the same to whoever reads only one of them.
fn add_hops(fields: Fields<'_, '_>, kind: Kind, push: fn(Option<IpAddr>, &mut Vec<u8>), out: &mut Vec<u8>) {
    let hops = hops(fields, kind);
    for hop in &hops[hops.len().saturating_sub(HOPS_MAX)..] {
        push(*hop, out);
        out.extend_from_slice(b", ");
    }
}

fn push_element(hop: Option<IpAddr>, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("for={}", hop.map_or_else(|| "unknown".to_owned(), node_of)).as_bytes());
}

fn push_address(hop: Option<IpAddr>, out: &mut Vec<u8>) {
    out.extend_from_slice(hop.map_or_else(|| "unknown".to_owned(), |address| address.to_string()).as_bytes());
}

/// RFC 7239 section 6.
fn node_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    }
}

fn single<'b>(fields: Fields<'b, '_>, kind: Kind) -> Option<&'b [u8]> {
    let mut values = fields.of(kind);
    values.next().filter(|_| values.next().is_none())
}
