//! Request targets and authorities (RFC 9112 section 3.2, RFC 9110 section 7.2).

use super::{HeadError, line};

/// A target reduced to what a handler matches on.
pub(super) struct Target<'b> {
    /// Origin-form, or `*`.
    pub target: &'b str,
    /// Of an absolute-form: it wins over `Host`.
    pub authority: Option<&'b str>,
}

/// Which of the four forms it is, and whether this method may use it.
pub(super) fn read<'b>(method: &str, target: &'b [u8]) -> Result<Target<'b>, HeadError> {
    if method == "CONNECT" {
        return Err(HeadError::Connect);
    }
    // `#` never reaches a server (RFC 3986 section 3.5); servers that cut there and servers that do not see two resources.
    let valid = target.iter().fold(true, |ok, &byte| ok & (byte > 0x20) & (byte < 0x7f) & (byte != b'#'));
    if !valid || target.is_empty() {
        return Err(HeadError::Target);
    }
    let text = line::ascii(target);
    match target[0] {
        b'/' => Ok(Target { target: text, authority: None }),
        b'*' if target.len() == 1 && method == "OPTIONS" => Ok(Target { target: text, authority: None }),
        _ => absolute(method, text),
    }
}

fn absolute<'b>(method: &str, text: &'b str) -> Result<Target<'b>, HeadError> {
    let (scheme, rest) = text.split_once("://").ok_or(HeadError::Target)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(HeadError::Target);
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, target) = rest.split_at(end);
    if !is_authority(host.as_bytes()) {
        return Err(HeadError::Target);
    }
    let target = match target {
        // RFC 9112 section 3.2.4: the asterisk-form of a request through a proxy.
        "" if method == "OPTIONS" => "*",
        "" => "/",
        // `http://host?query` would have to be copied to get its slash; nobody sends it, so it is refused.
        other if other.starts_with('?') => return Err(HeadError::Target),
        other => other,
    };
    Ok(Target { target, authority: Some(host) })
}

/// `host [":" port]` with a DNS name, an IPv4 or a bracketed IPv6 address. Narrower than RFC 3986's reg-name on purpose:
/// commas, `@`, `%` and the like are in no name that is served, but in many that confuse the next hop.
pub(crate) fn is_authority(bytes: &[u8]) -> bool {
    let after = match bytes {
        [b'[', rest @ ..] => {
            let Some(end) = memchr::memchr(b']', rest) else { return false };
            let inside = &rest[..end];
            if std::str::from_utf8(inside)
                .ok()
                .and_then(|text| text.parse::<std::net::Ipv6Addr>().ok())
                .is_none()
            {
                return false;
            }
            &rest[end + 1..]
        }
        _ => {
            let name = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
            let end = bytes.iter().position(|byte| !name(byte)).unwrap_or(bytes.len());
            if end == 0 || end > 255 {
                return false;
            }
            &bytes[end..]
        }
    };
    match after {
        [] => true,
        [b':', port @ ..] => {
            port.len() <= 5 && port.iter().all(u8::is_ascii_digit) && port_number(port) <= 65_535
        }
        _ => false,
    }
}

fn port_number(digits: &[u8]) -> u32 {
    digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
}

/// An authority without its port.
pub(crate) fn host(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    }
}
