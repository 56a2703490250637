//! HTTP/2 by prior knowledge on a connection without TLS (RFC 9113 section 3.3).

/// RFC 9113 section 3.4.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What the first bytes of a connection are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preface {
    /// HTTP/2.
    Yes,
    /// Something else.
    No,
    /// It may become either.
    Partial,
}

/// Looks at the first bytes of a connection.
pub(crate) fn preface(first: &[u8]) -> Preface {
    let len = first.len().min(PREFACE.len());
    match first[..len] == PREFACE[..len] {
        true if len == PREFACE.len() => Preface::Yes,
        true => Preface::Partial,
        false => Preface::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preface_is_told_from_a_request_as_early_as_can_be() {
        assert_eq!(preface(b""), Preface::Partial);
        assert_eq!(preface(b"P"), Preface::Partial, "may be POST");
        assert_eq!(preface(b"PO"), Preface::No);
        assert_eq!(preface(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r"), Preface::Partial);
        assert_eq!(preface(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04"), Preface::Yes);
        assert_eq!(preface(b"PRI * HTTP/1.1\r\n"), Preface::No);
        assert_eq!(preface(b"GET / HTTP/1.1\r\n"), Preface::No);
    }
}
