//! The access log: one line a request, written in batches by a child of its own.
//!
//! A worker formats its lines into a buffer of its own and hands it over when it is full, or a second old. What the
//! writer cannot take in time is dropped and counted: a full disk must not stop the site.

mod line;

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use prometheus_client::metrics::counter::Counter;
use serde::{Deserialize, Serialize};
use supervision::{Life, StartError, Started};

pub use line::Line;

/// A worker hands over its lines when there are so many bytes of them,
const BATCH_BYTES: usize = 32 * 1024;
/// or when the first of them is so old.
const BATCH_AGE: Duration = Duration::from_secs(1);
/// Batches that may wait for the writer.
const BATCHES_MAX: usize = 128;

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

/// `[web.access_log]` and `[edge.access_log]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `off`, `json` or `combined`.
    pub format: Format,
    /// A file, appended to, and opened anew when it was moved away (as logrotate does). Stdout if not said.
    pub file: Option<PathBuf>,
}

/// The way from the workers to the writer. In the tier's `Env`: what waits survives the writer.
#[derive(Clone, Debug)]
pub struct AccessLog {
    config: Arc<ArcSwap<LogConfig>>,
    batches: async_channel::Sender<Batch>,
    waiting: async_channel::Receiver<Batch>,
    /// Lines that are lost.
    dropped: Counter,
}

#[derive(Debug)]
struct Batch {
    text: Vec<u8>,
    lines: u64,
}

impl AccessLog {
    /// As configured.
    #[must_use]
    pub fn new(config: LogConfig, dropped: Counter) -> Self {
        let (batches, waiting) = async_channel::bounded(BATCHES_MAX);
        Self { config: Arc::new(ArcSwap::from_pointee(config)), batches, waiting, dropped }
    }

    /// Lines from now on are as this says; those that wait go to where it says.
    pub fn configure(&self, config: LogConfig) {
        self.config.store(Arc::new(config));
    }
}

/// One worker's lines that are not handed over yet.
pub struct Lines {
    log: AccessLog,
    open: RefCell<Open>,
}

struct Open {
    text: Vec<u8>,
    lines: u64,
    /// The time of the last line, formatted.
    second: i64,
    /// What it was formatted for.
    format: Format,
    stamp: String,
}

impl Lines {
    /// Of a worker.
    #[must_use]
    pub fn new(log: AccessLog) -> Rc<Self> {
        let open = Open { text: Vec::new(), lines: 0, second: -1, format: Format::Off, stamp: String::new() };
        Rc::new(Self { log, open: RefCell::new(open) })
    }

    /// Whether lines are written at all: if not, they need not be made.
    #[must_use]
    pub fn wanted(&self) -> bool {
        self.log.config.load().format != Format::Off
    }

    /// Writes a line down.
    pub fn write(self: &Rc<Self>, line: &Line<'_>, life: &Life) {
        let first = {
            let mut open = self.open.borrow_mut();
            let Open { text, lines, second, format, stamp } = &mut *open;
            let now = self.log.config.load().format;
            if (line.at.0 / 1000, now) != (*second, *format) {
                (*second, *format) = (line.at.0 / 1000, now);
                *stamp = line::time_stamp(line.at, now);
            }
            line.write(now, stamp, text);
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
            self.log.dropped.inc_by(refused.into_inner().lines);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.hand_over();
    }
}

/// The child that writes: it starts before the workers and ends after them, with nothing left waiting.
///
/// # Errors
/// None.
pub fn start(life: Life, log: AccessLog) -> Result<Started, StartError> {
    Ok(Started::task(async move {
        let mut sink = Sink::default();
        life.ready();
        let mut stopping = std::pin::pin!(life.stopping());
        loop {
            let batch = tokio::select! {
                biased;
                batch = log.waiting.recv() => batch,
                () = &mut stopping => break,
            };
            let Ok(batch) = batch else { return Ok(()) };
            sink = put(sink, batch, &log, &life).await;
        }
        while let Ok(batch) = log.waiting.try_recv() {
            sink = put(sink, batch, &log, &life).await;
        }
        Ok(())
    }))
}

async fn put(mut sink: Sink, batch: Batch, log: &AccessLog, life: &Life) -> Sink {
    let (lines, path) = (batch.lines, log.config.load().file.clone());
    let (sink, written) = life
        .blocking(move || {
            let written = sink.write(path, &batch.text);
            (sink, written)
        })
        .await;
    if let Err(error) = written {
        log.dropped.inc_by(lines);
        tracing::warn!(%error, lines, "lines of the access log are lost");
    }
    sink
}

/// Where the lines go.
#[derive(Debug, Default)]
struct Sink {
    path: Option<PathBuf>,
    file: Option<File>,
}

impl Sink {
    /// Appends to the file of this name, or writes to stdout.
    fn write(&mut self, path: Option<PathBuf>, text: &[u8]) -> io::Result<()> {
        if self.path != path {
            *self = Self { path, file: None };
        }
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

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let mut sink = Sink::default();
        sink.write(Some(path.clone()), b"one\n").unwrap();
        std::fs::rename(&path, directory.path().join("access.log.1")).unwrap();
        sink.write(Some(path.clone()), b"two\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n");
        let other = directory.path().join("other.log");
        sink.write(Some(other.clone()), b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "two\n", "a reload named another file");
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "three\n");
    }
}
