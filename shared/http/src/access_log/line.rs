//! One line of the access log, in either format.

use std::io::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use clock::WallMs;
use serde::Serialize;

use super::Format;

/// What a client sends is cut at so many bytes a field.
const FIELD_MAX: usize = 1024;

/// One request, as it is written down.
#[derive(Clone, Copy, Debug)]
pub struct Line<'r> {
    /// When it came.
    pub at: WallMs,
    /// Who asked.
    pub client: IpAddr,
    /// Who it was by credentials.
    pub user: Option<&'r str>,
    /// Which host was asked for.
    pub host: &'r str,
    /// The method.
    pub method: &'r str,
    /// The target, as received.
    pub target: &'r str,
    /// `1.1`, `2`.
    pub version: &'r str,
    /// The status of the answer; 499 if the client was gone before there was one.
    pub status: u16,
    /// Bytes of content sent.
    pub bytes: u64,
    /// How long it took.
    pub took: Duration,
    /// `Referer`
    pub referer: Option<&'r [u8]>,
    /// `User-Agent`
    pub user_agent: Option<&'r [u8]>,
    /// What was done with it.
    pub outcome: &'static str,
    /// What a cache did, as RFC 9211 names it: `hit`, `uri-miss`, `bypass` …
    pub cache: Option<&'static str>,
}

impl Line<'_> {
    /// Appends the line.
    pub fn write(&self, format: Format, stamp: &str, out: &mut Vec<u8>) {
        match format {
            Format::Off => {}
            Format::Json => self.json(stamp, out),
            Format::Combined => self.combined(stamp, out),
        }
    }

    fn json(&self, stamp: &str, out: &mut Vec<u8>) {
        let text = |field: Option<&[u8]>| field.map(|bytes| String::from_utf8_lossy(cut(bytes)).into_owned());
        let line = JsonLine {
            time: stamp,
            client: self.client,
            user: self.user,
            host: &String::from_utf8_lossy(cut(self.host.as_bytes())),
            method: self.method,
            target: &String::from_utf8_lossy(cut(self.target.as_bytes())),
            protocol: self.version,
            status: self.status,
            bytes: self.bytes,
            duration_us: self.took.as_micros() as u64,
            outcome: self.outcome,
            cache: self.cache,
            referer: text(self.referer),
            user_agent: text(self.user_agent),
        };
        let text = serde_json::to_string(&line).expect("a line has only JSON values");
        // Whoever looks at the log looks at it in a terminal.
        out.extend_from_slice(telemetry::printable_json(&text).as_bytes());
        out.push(b'\n');
    }

    fn combined(&self, stamp: &str, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{} - ", self.client);
        escape(self.user.unwrap_or("-").as_bytes(), out);
        let _ = write!(out, " [{stamp}] \"{} ", self.method);
        escape(self.target.as_bytes(), out);
        let _ = write!(out, " HTTP/{}\" {} {} \"", self.version, self.status, self.bytes);
        escape(self.referer.unwrap_or(b"-"), out);
        out.extend_from_slice(b"\" \"");
        escape(self.user_agent.unwrap_or(b"-"), out);
        out.extend_from_slice(b"\"\n");
    }
}

#[derive(Serialize)]
struct JsonLine<'r> {
    time: &'r str,
    client: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'r str>,
    host: &'r str,
    method: &'r str,
    target: &'r str,
    protocol: &'r str,
    status: u16,
    bytes: u64,
    duration_us: u64,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
}

fn cut(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(FIELD_MAX)]
}

/// As nginx does: nothing that a client sends ends a field or a line, or reaches a terminal as a command.
fn escape(field: &[u8], out: &mut Vec<u8>) {
    for byte in cut(field) {
        if matches!(byte, b'"' | b'\\' | 0..=31 | 127..) {
            let _ = write!(out, "\\x{byte:02X}");
        } else {
            out.push(*byte);
        }
    }
}

/// The time of a line, to the second.
#[must_use]
pub fn time_stamp(at: WallMs, format: Format) -> String {
    if format == Format::Json {
        return WallMs(at.0 / 1000 * 1000).rfc3339();
    }
    let time = jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line<'r>() -> Line<'r> {
        Line {
            at: WallMs(1_792_497_600_007),
            client: "192.0.2.1".parse().unwrap(),
            user: None,
            host: "example.org",
            method: "GET",
            target: "/a?b=\"c\"",
            version: "1.1",
            status: 200,
            bytes: 12,
            took: Duration::from_micros(345),
            referer: None,
            user_agent: Some(b"curl\x1b[31m\xff\xc2\x9b\xe2\x80\xae"),
            outcome: "file",
            cache: None,
        }
    }

    fn written(line: &Line<'_>, format: Format) -> String {
        let mut out = Vec::new();
        line.write(format, &time_stamp(line.at, format), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_combined_format_is_the_one_that_log_readers_know() {
        assert_eq!(
            written(&line(), Format::Combined),
            "192.0.2.1 - - [20/Oct/2026:12:00:00 +0000] \"GET /a?b=\\x22c\\x22 HTTP/1.1\" 200 12 \"-\" \"curl\\x1B[31m\\xFF\\xC2\\x9B\\xE2\\x80\\xAE\"\n"
        );
    }

    #[test]
    fn a_line_of_json_is_one_object_whatever_the_client_sent() {
        let text = written(&Line { user: Some("alice"), cache: Some("hit"), ..line() }, Format::Json);
        assert_eq!(text.matches('\n').count(), 1);
        assert!(!text.contains(['\x1b', '\u{9b}', '\u{202e}']), "nothing steers a terminal: {text:?}");
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["target"], "/a?b=\"c\"");
        assert_eq!((&value["user"], &value["cache"]), (&"alice".into(), &"hit".into()));
        assert_eq!(value["duration_us"], 345);
        assert_eq!(value["time"], "2026-10-20T12:00:00.000Z");
    }

    #[test]
    fn a_field_is_cut_so_that_no_client_fills_the_log() {
        let long = "a".repeat(100_000);
        let line = Line { target: &long, user_agent: Some(long.as_bytes()), ..line() };
        for format in [Format::Json, Format::Combined] {
            assert!(written(&line, format).len() < 3 * FIELD_MAX);
        }
    }
}
