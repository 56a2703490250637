//! What a cache must know of a request, gathered in one pass over its fields.

use super::directives::RequestDirectives;

/// The conditional fields of a request (RFC 9110 section 13.1), as they were sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions<'b> {
    /// `If-None-Match`, first line.
    pub none_match: Option<&'b [u8]>,
    /// `If-Modified-Since`.
    pub modified_since: Option<&'b [u8]>,
    /// `If-Range`.
    pub range: Option<&'b [u8]>,
    /// `If-Match` or `If-Unmodified-Since` is there: those are for the origin (RFC 9111 section 4.3.2).
    pub for_origin: bool,
}

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wants<'b> {
    /// `Cache-Control`, and `Pragma` if there is none.
    pub directives: RequestDirectives,
    /// Conditions.
    pub conditions: Conditions<'b>,
    /// `Range`.
    pub range: Option<&'b [u8]>,
    /// `Authorization` is there.
    pub authorization: bool,
    /// `Cookie` is there.
    pub cookie: bool,
    /// It may take long on purpose or never end (`Accept: text/event-stream`, `Prefer: wait`), or it changes the
    /// protocol: nobody else waits for its answer.
    pub alone: bool,
    /// It has a body.
    pub body: bool,
    /// `Accept-Encoding` may refuse content as it is: a weight is there.
    pub weighs_codings: bool,
    /// `CDN-Loop` is there: another cache asks.
    pub from_edge: bool,
    /// `CDN-Loop` names this cache (RFC 8586).
    pub looped: bool,
}

impl<'b> Wants<'b> {
    /// Reads the fields; `own` is our name in `CDN-Loop`.
    pub fn read(fields: impl Iterator<Item = (&'b [u8], &'b [u8])>, own: &[u8]) -> Self {
        let mut wants = Self::default();
        let (mut cache_control, mut pragma) = (false, false);
        for (name, value) in fields {
            // The length alone rules most fields out, and this is read for each request.
            match name.len() {
                5 if is(name, b"range") => wants.range = wants.range.or(Some(value)),
                6 if is(name, b"cookie") => wants.cookie = true,
                6 if is(name, b"pragma") => pragma |= has_token(value, b"no-cache"),
                6 if is(name, b"accept") => wants.alone |= has_token(value, b"text/event-stream"),
                6 if is(name, b"prefer") => wants.alone |= starts_with(value, b"wait"),
                7 if is(name, b"upgrade") => wants.alone = true,
                8 if is(name, b"if-range") => wants.conditions.range = Some(value),
                8 if is(name, b"if-match") => wants.conditions.for_origin = true,
                8 if is(name, b"cdn-loop") => {
                    wants.from_edge = true;
                    wants.looped |= names(value, own);
                }
                13 if is(name, b"cache-control") => {
                    cache_control = true;
                    wants.directives.take_line(value);
                }
                13 if is(name, b"if-none-match") => {
                    wants.conditions.none_match = wants.conditions.none_match.or(Some(value));
                }
                13 if is(name, b"authorization") => wants.authorization = true,
                14 if is(name, b"content-length") => wants.body |= value != b"0",
                15 if is(name, b"accept-encoding") => {
                    wants.weighs_codings |= memchr::memchr(b';', value).is_some();
                }
                17 if is(name, b"transfer-encoding") => wants.body = true,
                17 if is(name, b"if-modified-since") => wants.conditions.modified_since = Some(value),
                19 if is(name, b"if-unmodified-since") => wants.conditions.for_origin = true,
                _ => {}
            }
        }
        // RFC 9111 section 5.4: Pragma counts only where Cache-Control is absent.
        wants.directives.no_cache |= pragma && !cache_control;
        wants
    }

    /// Whether it asks for nothing but the plain resource: the hot path.
    pub fn is_plain(&self) -> bool {
        let Conditions { none_match, modified_since, range, for_origin } = &self.conditions;
        self.directives == RequestDirectives::default()
            && self.range.is_none()
            && none_match.is_none()
            && modified_since.is_none()
            && range.is_none()
            && !for_origin
    }
}

fn is(name: &[u8], lower: &[u8]) -> bool {
    name.eq_ignore_ascii_case(lower)
}

fn starts_with(value: &[u8], lower: &[u8]) -> bool {
    value.get(..lower.len()).is_some_and(|start| start.eq_ignore_ascii_case(lower))
}

/// Whether a member of the list begins with the token, parameters aside.
fn has_token(value: &[u8], token: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|member| starts_with(member.trim_ascii(), token))
}

/// Whether a member of `CDN-Loop` is our name (RFC 8586 section 2): parameters are not compared.
fn names(value: &[u8], own: &[u8]) -> bool {
    value.split(|&byte| byte == b',').any(|member| {
        let id = member.split(|&byte| byte == b';').next().unwrap_or_default();
        id.trim_ascii().eq_ignore_ascii_case(own)
    })
}

#[cfg(test)]
mod tests {
    use super::super::fields::Lines;
    use super::*;

    fn wants(block: &str) -> Wants<'_> {
        Wants::read(Lines(block.as_bytes()).iter(), b"edge-1.laptop")
    }

    #[test]
    fn a_request_without_wishes_is_plain() {
        assert!(wants("Host: a\r\nAccept: */*\r\nCookie: a=b\r\nUser-Agent: x\r\n").is_plain());
        for wish in ["Range: bytes=0-1", "If-None-Match: \"a\"", "Cache-Control: no-cache", "If-Match: *"] {
            assert!(!wants(&format!("{wish}\r\n")).is_plain(), "{wish}");
        }
    }

    /// RFC 9111 section 5.4.
    #[test]
    fn pragma_counts_only_without_cache_control() {
        assert!(wants("Pragma: no-cache\r\n").directives.no_cache);
        assert!(!wants("Pragma: no-cache\r\nCache-Control: max-age=5\r\n").directives.no_cache);
        assert!(!wants("Cache-Control: max-age=5\r\nPragma: no-cache\r\n").directives.no_cache);
    }

    /// RFC 8586 section 2: a request that has been here before has come in a circle.
    #[test]
    fn a_loop_is_seen_by_our_own_name() {
        assert!(wants("CDN-Loop: foo123.example, edge-1.laptop; abc\r\n").looped);
        assert!(!wants("CDN-Loop: edge-2.laptop\r\n").looped);
    }

    #[test]
    fn nobody_waits_for_the_answer_to_a_long_poll_or_an_event_stream() {
        assert!(wants("Accept: text/html, text/event-stream\r\n").alone);
        assert!(wants("Prefer: wait=20\r\n").alone);
        assert!(!wants("Accept: text/html\r\nPrefer: return=minimal\r\n").alone);
    }
}
