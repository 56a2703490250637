//! Whether a client takes the coding that stored content has (RFC 9110 section 12.5.3).

use super::fields::Fields;
use super::request::Wants;

/// Whether the client takes the coding of a response that was not chosen by `Accept-Encoding`.
pub fn suits(request: &impl Fields, asked: &Wants<'_>, response: &impl Fields) -> bool {
    if response.first("content-encoding").is_some() {
        return takes(request, response.list("content-encoding"));
    }
    !asked.weighs_codings || !refuses_identity(request)
}

/// Whether content in these codings, one after the other as in `Content-Encoding`, may be sent to the client. What it
/// does not name it does not take, unless it takes `*`. A client that says nothing is not known to decode anything. A name
/// that nobody has registered is a matter between the two: it is in the way only if the client refuses it.
fn takes(request: &impl Fields, mut codings: impl Iterator<Item = impl AsRef<[u8]>>) -> bool {
    codings.all(|coding| {
        let coding = coding.as_ref();
        let said = weight(request, coding).or_else(|| weight(request, b"*"));
        said.map_or(!is_registered(coding), |weight| weight > 0)
    })
}

/// Whether these lines of `Accept-Encoding` refuse content as it is.
fn refuses_identity(request: &impl Fields) -> bool {
    weight(request, b"identity").or_else(|| weight(request, b"*")) == Some(0)
}

/// The weight of the last member with this name, in thousandths. A weight that is none counts as zero: what cannot be
/// read is no wish.
fn weight(request: &impl Fields, wanted: &[u8]) -> Option<u16> {
    let named = |member: &[u8]| {
        let mut parts = member.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let name = parts.next()?;
        let weight = parts.find_map(|part| part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q=")));
        same(name, wanted).then(|| weight.map_or(1000, thousandths))
    };
    request.list("accept-encoding").filter_map(named).last()
}

/// The codings that a client can be expected to name (RFC 9110 section 16.6.1).
fn is_registered(coding: &[u8]) -> bool {
    const NAMES: [&[u8]; 7] = [b"gzip", b"br", b"zstd", b"deflate", b"compress", b"dcb", b"dcz"];
    NAMES.iter().any(|name| same(coding, name))
}

/// RFC 9110 section 8.4.1: names have no case, and two have an older name.
fn same(one: &[u8], other: &[u8]) -> bool {
    let plain = |name: &[u8]| match name.to_ascii_lowercase() {
        name if name.starts_with(b"x-") => name[2..].to_vec(),
        name => name,
    };
    plain(one) == plain(other)
}

/// RFC 9110 section 12.4.2.
fn thousandths(weight: &[u8]) -> u16 {
    match weight {
        [b'1'] | [b'1', b'.', ..] => 1000,
        [b'0', b'.', digits @ ..] if digits.len() <= 3 && digits.iter().all(u8::is_ascii_digit) => {
            (0..3).fold(0, |sum, at| sum * 10 + digits.get(at).map_or(0, |digit| u16::from(digit - b'0')))
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fields::Lines;
    use super::*;

    fn asked(accept: &str) -> String {
        format!("Accept-Encoding: {accept}\r\n")
    }

    #[test]
    fn a_coding_is_taken_if_it_is_named_or_all_are() {
        for (accept, coding, taken) in [
            ("br", "br", true),
            ("BR;q=0.001", "br", true),
            ("gzip", "br", false),
            ("br;q=0, gzip", "br", false),
            ("br; q=0.000", "br", false),
            ("*", "br", true),
            ("*;q=0", "br", false),
            ("*;q=0, br", "br", true),
            ("br;q=0, *", "br", false),
            ("x-gzip", "gzip", true),
            ("gzip", "X-GZIP", true),
            ("", "gzip", false),
            ("identity", "gzip", false),
            ("gzip, br", "gzip, br", true),
            ("gzip", "gzip, br", false),
            ("br;q=high", "br", false),
            ("gzip", "rot13", true),
            ("rot13;q=0", "rot13", false),
            ("*;q=0", "rot13", false),
        ] {
            let lines = asked(accept);
            let codings = coding.split(", ").map(str::as_bytes);
            assert_eq!(takes(&Lines(lines.as_bytes()), codings), taken, "{accept} for {coding}");
        }
        assert!(!takes(&Lines(b""), std::iter::once(b"br")), "nobody said that it decodes anything");
    }

    #[test]
    fn content_as_it_is_can_be_refused() {
        for (accept, refused) in [
            ("identity;q=0", true),
            ("*;q=0", true),
            ("gzip, *;q=0", true),
            ("gzip, identity;q=0.0", true),
            ("*;q=0, identity", false),
            ("gzip", false),
            ("", false),
            ("identity;q=0.1", false),
        ] {
            assert_eq!(refuses_identity(&Lines(asked(accept).as_bytes())), refused, "{accept}");
        }
        assert!(!refuses_identity(&Lines(b"")));
    }
}
