//! What a trusted peer says of a request beyond whom it is from, as the server behind us is told it: an answer may depend
//! on that as much as on the target, so whoever keeps answers has to keep it with them.

use super::client::told_scheme;
use super::field::Kind;
use super::{RequestHead, Scheme, target};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims<'b> {
    /// As [`told_scheme`] reads it.
    pub scheme: Option<&'static str>,
    /// `X-Forwarded-Host`, if it is the only one and an authority.
    pub host: Option<&'b str>,
    /// All other claims as lines `name: value`, names in lower case, in their order. Of `Forwarded` (RFC 7239) what its
    /// elements say beyond `for` and `by`. Not the addresses of one client: an answer that depends on them is for the
    /// application to keep to itself, as one that depends on `X-Forwarded-For`.
    pub others: Vec<u8>,
}

impl<'b> Claims<'b> {
    /// Reads them. Which fields are claims is what [`Forwarding`](super::Forwarding) passes on of a trusted peer.
    #[must_use]
    pub fn of(head: &RequestHead<'b>) -> Self {
        let fields = head.view();
        let single = |kind| {
            let mut values = fields.of(kind);
            values.next().filter(|_| values.next().is_none())
        };
        let scheme = told_scheme(head).map(Scheme::as_str);
        let host = single(Kind::XForwardedHost).filter(|value| target::is_authority(value));
        let host = host.and_then(|value| std::str::from_utf8(value).ok());
        let mut others = Vec::new();
        for field in &fields.table.list {
            match field.kind {
                Kind::ClientClaim => {
                    others.extend(fields.name(field).iter().map(u8::to_ascii_lowercase));
                    others.extend_from_slice(b": ");
                    others.extend_from_slice(fields.value(field));
                    others.push(b'\n');
                }
                Kind::Forwarded => beyond_client(fields.value(field), &mut others),
                _ => {}
            }
        }
        Self { scheme, host, others }
    }
}

fn beyond_client(value: &[u8], out: &mut Vec<u8>) {
    let parameters =
        value.split(|&byte| byte == b',').flat_map(|element| element.split(|&byte| byte == b';'));
    let is =
        |it: &[u8], name: &[u8]| it.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name));
    let said =
        parameters.map(<[u8]>::trim_ascii).filter(|it| !it.is_empty() && !is(it, b"for=") && !is(it, b"by="));
    for parameter in said {
        out.extend_from_slice(b"forwarded: ");
        out.extend_from_slice(parameter);
        out.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::super::{HeadLimits, Parsed};
    use super::*;

    fn claims(lines: &str) -> (Option<&'static str>, Option<String>, String) {
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let Ok(Parsed::Complete { head, .. }) = RequestHead::parse(bytes.as_bytes(), &HeadLimits::default())
        else {
            panic!("{lines}")
        };
        let Claims { scheme, host, others } = Claims::of(&head);
        (scheme, host.map(str::to_owned), String::from_utf8(others).unwrap())
    }

    #[test]
    fn whom_a_request_is_from_is_no_part_of_it() {
        let lines = "X-Forwarded-For: 192.0.2.1\r\nX-Real-IP: 192.0.2.1\r\nForwarded: for=192.0.2.1;by=_x, For=\"[::1]\"\r\n";
        assert_eq!(claims(lines), (None, None, String::new()));
        assert_eq!(
            claims("True-Client-IP: 192.0.2.1\r\nX-Cluster-Client-IP: ::1\r\n"),
            (None, None, String::new())
        );
        assert_eq!(claims("Cookie: a=b\r\nAccept: x\r\n"), (None, None, String::new()));
    }

    #[test]
    fn everything_else_that_is_passed_on_is() {
        let lines = "X-Forwarded-Proto: https\r\nX-Forwarded-Host: b.example\r\nX-Forwarded-PORT: 444\r\n\
                     X-Forwarded-Prefix: /app\r\nForwarded: for=192.0.2.1;proto=https, host=\"c.example\"\r\n";
        let (scheme, host, others) = claims(lines);
        assert_eq!((scheme, host.as_deref()), (Some("https"), Some("b.example")));
        assert_eq!(
            others,
            "x-forwarded-port: 444\nx-forwarded-prefix: /app\nforwarded: proto=https\nforwarded: host=\"c.example\"\n"
        );
    }

    /// As [`Forwarding`](super::super::Forwarding) reads them: what is said twice, or is none, is not passed on.
    #[test]
    fn what_is_not_passed_on_is_no_claim() {
        let twice = "X-Forwarded-Proto: http\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nX-Forwarded-Host: c\r\n";
        assert_eq!(claims(twice), (None, None, String::new()));
        assert_eq!(
            claims("X-Forwarded-Proto: ftp\r\nX-Forwarded-Host: b/c\r\n"),
            (None, None, String::new())
        );
    }
}
