//! The access log: one line a request, written in batches by a child of its own.
//!
//! A worker formats its lines into a buffer of its own and hands it over when it is full, or a second old. What the
//! writer cannot take in time is dropped and counted: a full disk must not stop the site.

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use clock::WallMs;
use serde::{Deserialize, Serialize};
use supervision::{Life, StartError, Started};

use crate::env::Web;
use crate::telemetry::Meters;

/// A worker hands over its lines when there are so many bytes of them,
const BATCH_BYTES: usize = 32 * 1024;
/// or when the first of them is so old.
const BATCH_AGE: Duration = Duration::from_secs(1);
/// Batches that may wait for the writer.
const BATCHES_MAX: usize = 128;
/// What a client sends is cut at so many bytes a field.
const FIELD_MAX: usize = 1024;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// No access log.
    #[default]
    Off,
    /// One JSON object a line.
    Json,
    /// The combined format of Apache and nginx.
    Combined,
}

/// `[web.access_log]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `off`, `json` or `combined`.
    pub format: Format,
    /// A file, appended to, and opened anew when it was moved away (as logrotate does). Stdout if not said.
    pub file: Option<PathBuf>,
}

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
}

impl Line<'_> {
    /// Appends the line.
    fn write(&self, format: Format, stamp: &str, out: &mut Vec<u8>) {
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
            referer: text(self.referer),
            user_agent: text(self.user_agent),
        };
        serde_json::to_writer(&mut *out, &line).expect("a line has only JSON values, and a Vec takes all");
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

/// The way from the workers to the writer. In the tier's `Env`: what waits survives the writer.
#[derive(Clone, Debug)]
pub struct AccessLog {
    config: LogConfig,
    batches: async_channel::Sender<Batch>,
    waiting: async_channel::Receiver<Batch>,
}

#[derive(Debug)]
struct Batch {
    text: Vec<u8>,
    lines: u64,
}

impl AccessLog {
    /// As configured.
    #[must_use]
    pub fn new(config: LogConfig) -> Self {
        let (batches, waiting) = async_channel::bounded(BATCHES_MAX);
        Self { config, batches, waiting }
    }
}

/// One worker's lines that are not handed over yet.
pub struct Lines {
    log: AccessLog,
    meters: Arc<Meters>,
    open: RefCell<Open>,
}

struct Open {
    text: Vec<u8>,
    lines: u64,
    /// The time of the last line, formatted.
    second: i64,
    stamp: String,
}

impl Lines {
    /// Of a worker.
    #[must_use]
    pub fn new(log: AccessLog, meters: Arc<Meters>) -> Rc<Self> {
        let open = Open { text: Vec::new(), lines: 0, second: -1, stamp: String::new() };
        Rc::new(Self { log, meters, open: RefCell::new(open) })
    }

    /// Whether lines are written at all: if not, they need not be made.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.log.config.format != Format::Off
    }

    /// Writes a line down.
    pub fn write(self: &Rc<Self>, line: &Line<'_>, life: &Life) {
        let first = {
            let mut open = self.open.borrow_mut();
            let Open { text, lines, second, stamp } = &mut *open;
            if line.at.0 / 1000 != *second {
                *second = line.at.0 / 1000;
                *stamp = time_stamp(line.at, self.log.config.format);
            }
            line.write(self.log.config.format, stamp, text);
            *lines += 1;
            *lines == 1
        };
        if self.open.borrow().text.len() >= BATCH_BYTES {
            self.hand_over();
        } else if first {
            let later = Rc::clone(self);
            life.spawn_linked(async move {
                tokio::time::sleep(BATCH_AGE).await;
                later.hand_over();
            });
        }
    }

    fn hand_over(&self) {
        let mut open = self.open.borrow_mut();
        let batch = Batch { text: std::mem::take(&mut open.text), lines: std::mem::take(&mut open.lines) };
        if batch.lines > 0
            && let Err(refused) = self.log.batches.try_send(batch)
        {
            self.meters.log_lines_dropped.inc_by(refused.into_inner().lines);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.hand_over();
    }
}

fn time_stamp(at: WallMs, format: Format) -> String {
    if format == Format::Json {
        return WallMs(at.0 / 1000 * 1000).rfc3339();
    }
    let time = jiff::Timestamp::from_millisecond(at.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    time.strftime("%d/%b/%Y:%H:%M:%S +0000").to_string()
}

/// The child that writes: it starts before the workers and ends after them, with nothing left waiting.
pub fn start(life: Life) -> Result<Started, StartError> {
    let web = life.env::<Web>();
    Ok(Started::task(async move {
        let mut sink = Sink::new(web.log.config.file.clone());
        life.ready();
        let mut stopping = std::pin::pin!(life.stopping());
        loop {
            let batch = tokio::select! {
                biased;
                batch = web.log.waiting.recv() => batch,
                () = &mut stopping => break,
            };
            let Ok(batch) = batch else { return Ok(()) };
            sink = put(sink, batch, &web.meters, &life).await;
        }
        while let Ok(batch) = web.log.waiting.try_recv() {
            sink = put(sink, batch, &web.meters, &life).await;
        }
        Ok(())
    }))
}

async fn put(mut sink: Sink, batch: Batch, meters: &Meters, life: &Life) -> Sink {
    let lines = batch.lines;
    let (sink, written) = life
        .blocking(move || {
            let written = sink.write(&batch.text);
            (sink, written)
        })
        .await;
    if let Err(error) = written {
        meters.log_lines_dropped.inc_by(lines);
        tracing::warn!(%error, lines, "lines of the access log are lost");
    }
    sink
}

/// Where the lines go.
#[derive(Debug)]
struct Sink {
    path: Option<PathBuf>,
    file: Option<File>,
}

impl Sink {
    fn new(path: Option<PathBuf>) -> Self {
        Self { path, file: None }
    }

    fn write(&mut self, text: &[u8]) -> io::Result<()> {
        let Some(path) = &self.path else {
            let mut out = io::stdout().lock();
            return out.write_all(text).and_then(|()| out.flush());
        };
        if self.file.as_ref().is_none_or(|file| !is_at(file, path)) {
            self.file = Some(OpenOptions::new().append(true).create(true).open(path)?);
        }
        self.file.as_mut().map_or(Ok(()), |file| file.write_all(text))
    }
}

/// Whether the open file is still the one that has the name.
fn is_at(file: &File, path: &Path) -> bool {
    let identity = |metadata: std::fs::Metadata| (metadata.dev(), metadata.ino());
    let (ours, named) = (file.metadata().map(identity), std::fs::metadata(path).map(identity));
    matches!((ours, named), (Ok(ours), Ok(named)) if ours == named)
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
            user_agent: Some(b"curl\x1b[31m\xff"),
            outcome: "file",
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
            "192.0.2.1 - - [20/Oct/2026:12:00:00 +0000] \"GET /a?b=\\x22c\\x22 HTTP/1.1\" 200 12 \"-\" \"curl\\x1B[31m\\xFF\"\n"
        );
    }

    #[test]
    fn a_line_of_json_is_one_object_whatever_the_client_sent() {
        let text = written(&Line { user: Some("alice"), ..line() }, Format::Json);
        assert_eq!(text.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["target"], "/a?b=\"c\"");
        assert_eq!(value["user"], "alice");
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

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let mut sink = Sink::new(Some(path.clone()));
        sink.write(b"one\n").unwrap();
        std::fs::rename(&path, directory.path().join("access.log.1")).unwrap();
        sink.write(b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
    }
}
