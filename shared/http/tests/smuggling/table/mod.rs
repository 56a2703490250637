//! What smugglers send, and what must become of it. One table, run three times: on the codec alone, over sockets through
//! a real gateway to a recording origin, and (by `infra/bench/smuggling`) through nginx and HAProxy.
//!
//! Sources: RFC 9112, RFC 9110; Linhart et al. 2005; Kettle 2019 (HTTP Desync Attacks), 2022 (Browser-Powered Desync
//! Attacks), 2025 (HTTP/1.1 must die); Davison 2019 (hop-by-hop headers); Weikop 2025 (Funky chunks); Kallus, the HTTP
//! Garden; Jabiyev et al. 2021 (T-Reqs); BishopFox 2020 (h2c smuggling). The rows are our own.

mod chunks;
mod connection;
mod fields;
mod framing;
mod host;
mod line_ends;
mod pipeline;
mod request_line;
pub mod responses;

/// One attempt.
pub struct Case {
    pub name: &'static str,
    pub rule: &'static str,
    pub bytes: &'static [u8],
    pub expect: Expect,
}

/// What must become of it.
#[derive(Clone, Copy)]
pub enum Expect {
    /// This status, then the connection closes; no complete request has reached the origin.
    Refused(u16),
    /// The origin has seen exactly these.
    Accepted(&'static [Seen]),
    /// The origin has seen exactly these; then this status, and the connection closes.
    RefusedAfter(&'static [Seen], u16),
    /// More is awaited, as for any slow client; no complete request has reached the origin.
    Unfinished,
}

/// A request as the origin saw it.
#[derive(Clone, Copy)]
pub struct Seen {
    /// Method and target.
    pub line: &'static str,
    /// Field lines that are there exactly once, `name: value` with the name in lower case.
    pub with: &'static [&'static str],
    /// Names that are not there.
    pub without: &'static [&'static str],
    pub body: &'static [u8],
}

const fn seen(line: &'static str) -> Seen {
    Seen { line, with: &[], without: &[], body: b"" }
}

impl Seen {
    const fn with(self, with: &'static [&'static str]) -> Self {
        Self { with, ..self }
    }

    const fn without(self, without: &'static [&'static str]) -> Self {
        Self { without, ..self }
    }

    const fn body(self, body: &'static [u8]) -> Self {
        Self { body, ..self }
    }
}

const fn case(name: &'static str, rule: &'static str, bytes: &'static [u8], expect: Expect) -> Case {
    Case { name, rule, bytes, expect }
}

/// The requests of the table, by subject.
pub fn groups() -> [(&'static str, &'static [Case]); 8] {
    [
        ("request lines", request_line::CASES),
        ("line ends, control characters", line_ends::CASES),
        ("field names", fields::CASES),
        ("Host and absolute-form", host::CASES),
        ("Content-Length, Transfer-Encoding", framing::CASES),
        ("chunks", chunks::CASES),
        ("Connection, Upgrade, Expect", connection::CASES),
        ("pipelines", pipeline::CASES),
    ]
}
