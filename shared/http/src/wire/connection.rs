//! `Connection` and what it names (RFC 9110 section 7.6.1).

use super::HeadError;
use super::field::{Fields, Kind, Table};
use super::line;

/// The options that mean something to us.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    pub close: bool,
    pub keep_alive: bool,
    pub upgrade: bool,
}

/// Fields meant for all recipients. A sender must not name them in `Connection`; one that does wants the next
/// recipient to see another message than we did (a request without its `Authorization`, an answer cached for it).
#[rustfmt::skip]
const END_TO_END: &[&str] = &[
    "host", "content-length", "transfer-encoding", "content-type", "content-encoding", "content-range",
    "range", "authorization", "cookie", "set-cookie", "cache-control", "pragma", "vary", "age", "date",
    "expires", "etag", "if-match", "if-none-match", "if-modified-since", "if-range", "origin", "referer",
    "user-agent", "accept", "accept-encoding", "accept-language", "expect", "location", "trailer", "via",
    "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port",
    "x-real-ip", "traceparent",
];

impl Options {
    /// Reads every `Connection` field, of which `first` is the first one, and marks in `table` what they name as
    /// hop-by-hop.
    pub fn read(first: &[u8], buf: &[u8], table: &mut Table) -> Result<Self, HeadError> {
        let mut options = Self::default();
        let alone = table.list.iter().filter(|field| field.kind == Kind::Connection).count() == 1;
        if alone && first.eq_ignore_ascii_case(b"keep-alive") {
            options.keep_alive = true;
            return Ok(options);
        }
        for at in 0..table.list.len() {
            if table.list[at].kind == Kind::Connection {
                let value = Fields { buf, table }.value(&table.list[at]);
                for option in line::list(value) {
                    options.add(option, buf, table)?;
                }
            }
        }
        Ok(options)
    }

    fn add(&mut self, option: &[u8], buf: &[u8], table: &mut Table) -> Result<(), HeadError> {
        let is = |word: &str| option.eq_ignore_ascii_case(word.as_bytes());
        if is("keep-alive") {
            self.keep_alive = true;
        } else if is("close") {
            self.close = true;
        } else if is("upgrade") {
            self.upgrade = true;
        } else if is("te") || is("http2-settings") {
            // Both are hop-by-hop without being named.
        } else if !line::is_token(option) {
            return Err(HeadError::Connection);
        } else if END_TO_END.iter().any(|name| is(name)) {
            return Err(HeadError::ConnectionNames);
        } else {
            nominate(option, buf, table);
        }
        Ok(())
    }
}

fn nominate(option: &[u8], buf: &[u8], table: &mut Table) {
    for at in 0..table.list.len() {
        let name = Fields { buf, table }.name(&table.list[at]);
        if name.eq_ignore_ascii_case(option) {
            table.list[at].kind = Kind::HopByHop;
        }
    }
}
