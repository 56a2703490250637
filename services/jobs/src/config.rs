//! The `[jobs]` section. Every limit has a default, a unit and a range.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use jobstore::retry::{Backoff, Postponement};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Programs of one runner: their names are part of what it announces, which has a bound.
const COMMANDS_MAX: u64 = 256;

/// Configuration of a runner.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Jobs that run at once, each on a worker with a thread of its own. Default 64, range 1 to 1,024.
    /// More help when jobs wait for others (`http`, `command`); CPU work is bounded by the number of cores anyway.
    pub concurrency: usize,
    /// A job whose runner was not heard of for so long is run again. Default 5,000 ms, range 500 to 600,000.
    /// Shorter: rescue is faster, but a pause of the database looks like a dead runner.
    pub lease_ms: u64,
    /// Longest time between two looks at what is due, expired or was not woken. Default 1,000 ms, range 50 to 60,000.
    pub sweep_ms: u64,
    /// Running jobs get so long to finish when the runner stops, then they are handed back. Default 5,000 ms,
    /// range 0 to 25,000.
    pub stop_grace_ms: u64,
    /// A cancelled handler gets so long to stop by itself. Default 1,000 ms, range 0 to 10,000.
    pub cancel_grace_ms: u64,
    /// A result may have so many bytes of JSON. Default 1,048,576, range 1,024 to 1,048,576: with its payload it must fit
    /// into one answer of the database.
    pub result_bytes_max: usize,
    /// Completed jobs are kept for so long after their end, and up to 5 minutes more. Default 168 h (a week), range 1 to
    /// 87,600. Longer: the database grows by what is submitted in that time.
    pub keep_hours: u64,
    /// Cancelled jobs are kept for so long after their end. Default 168 h, range 1 to 87,600.
    pub keep_cancelled_hours: u64,
    /// Discarded jobs are kept for so long after their end, to be looked at and redriven. Default 720 h (30 days), range 1
    /// to 87,600.
    pub keep_discarded_hours: u64,
    /// Delay before a failed job's next attempt.
    pub retry: Backoff,
    /// How often, and for how long, a target may ask a job to come later at no cost.
    pub postponement: Postponement,
    /// Seed of the jitter; from the operating system if absent. For reproducible runs.
    pub seed: Option<u64>,
    /// Processes in which images are decoded and files are digested, at once: what a job's time-out or cancel ends is its
    /// process. Default: the number of processor cores. Range 1 to 1,024. More help only where files are slow to read;
    /// each may take `thumbnail.decode_bytes_max` three times.
    pub helpers_max: Option<usize>,
    /// Directories whose files `digest` and `thumbnail` may read. Default none.
    pub roots: Vec<PathBuf>,
    /// Limits of `thumbnail`.
    pub thumbnail: Thumbnail,
    /// Limits of `http`.
    pub http: Http,
    /// What the kind `command` may run, by name: `[A-Za-z0-9_.-]{1,64}`, at most 256. A job for another name waits for a
    /// runner that has it.
    pub commands: BTreeMap<String, Command>,
}

/// Limits of the kind `thumbnail`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Thumbnail {
    /// Bytes of the encoded input. Default 33,554,432 (32 MiB).
    pub input_bytes_max: u64,
    /// Memory that the decoded image may take, which bounds the pixels. Default 268,435,456 (256 MiB), range 1 MiB to
    /// 4 GiB. A process that decodes may have three times as much.
    pub decode_bytes_max: u64,
    /// Width and height of the input. Default 16,384, range 1 to 65,535.
    pub side_max: u32,
    /// Scans of a JPEG: each goes over the whole image again, and may have a hundred bytes. Encoders write ten or so.
    /// Default 64, range 1 to 10,000.
    pub scans_max: u32,
}

impl Thumbnail {
    /// Address space of a process that decodes: the image, twice as much for the coefficients of a progressive JPEG, the
    /// input as text and as bytes, and what any process has (its code, its stacks, heaps that are reserved for threads).
    pub(crate) fn memory_bytes(&self) -> u64 {
        const BASE: u64 = 384 << 20;
        self.decode_bytes_max
            .saturating_mul(3)
            .saturating_add(self.input_bytes_max.saturating_mul(2))
            .saturating_add(BASE)
    }
}

/// Limits of the kind `http`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Http {
    /// Networks that may be reached although they are not public, as `10.1.0.0/16`. Default none.
    pub allow: Vec<String>,
    /// Redirects that are followed. Default 3, range 0 to 10.
    pub redirects_max: usize,
    /// Bytes of an answer's body that are kept in the result; a longer answer is an error. Default 262,144.
    pub body_bytes_max: usize,
}

/// A program that the kind `command` may run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Program and arguments. No shell is involved.
    pub argv: Vec<String>,
    /// Its environment, besides `PATH` and `STANDFAST_*`. Nothing is inherited.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Working directory. Default `/`.
    #[serde(default)]
    pub cwd: Option<PathBuf>,
    /// As which user it runs, by name or number, with that user's main group and no other. Default: that of the node.
    /// Another user takes a node that is root. Give one to what you do not trust: programs of the node's own user can
    /// kill the node.
    #[serde(default)]
    pub user: Option<String>,
    /// One run may take so long. The job's own `timeout_ms` may end it before; a job that is submitted without one gets
    /// this. Default 3,600,000 for a run, and a minute for a job that is submitted without. Range 1 to 86,400,000.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// Address space of each of its processes (`RLIMIT_AS`). Default 1,073,741,824 (1 GiB), at least 1 MiB.
    #[serde(default)]
    pub memory_bytes_max: Option<u64>,
    /// Bytes that it may write to its output. Default 1,048,576.
    #[serde(default)]
    pub output_bytes_max: Option<usize>,
    /// Cancelled, out of time, or when the node stops, its processes get SIGTERM, and so long to end before they are
    /// killed. Default 5,000 ms, range 0 to 20,000; with `jobs.stop_grace_ms` no more than 27,000.
    #[serde(default)]
    pub grace_ms: Option<u64>,
    /// When it has ended, pipes that its children hold open are read for so long; then these get SIGTERM, and are
    /// killed as long after that. Default 250 ms, range 0 to 5,000.
    #[serde(default)]
    pub pipe_grace_ms: Option<u64>,
    /// Processes that it may have at once. They are counted ten times a second: more, and all are killed. Where the
    /// node may make control groups, the kernel refuses to start many more than these.
    /// Default 256, range 1 to 65,536.
    #[serde(default)]
    pub processes_max: Option<usize>,
    /// Files that each of its processes may have open (`RLIMIT_NOFILE`). Default 1,024, range 16 to 1,048,576.
    #[serde(default)]
    pub open_files_max: Option<u64>,
    /// Seconds of processor time for each of its processes (`RLIMIT_CPU`). Default: no limit but the time-out.
    #[serde(default)]
    pub cpu_s_max: Option<u64>,
    /// Bytes of a file that it writes (`RLIMIT_FSIZE`). Default: no limit.
    #[serde(default)]
    pub file_bytes_max: Option<u64>,
}

impl Command {
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory_bytes_max.unwrap_or(1 << 30)
    }

    pub(crate) fn output_bytes(&self) -> usize {
        self.output_bytes_max.unwrap_or(1 << 20)
    }

    pub(crate) fn grace(&self) -> Duration {
        Duration::from_millis(self.grace_ms.unwrap_or(5_000))
    }

    pub(crate) fn pipe_grace(&self) -> Duration {
        Duration::from_millis(self.pipe_grace_ms.unwrap_or(250))
    }

    pub(crate) fn processes(&self) -> usize {
        self.processes_max.unwrap_or(256)
    }

    pub(crate) fn open_files(&self) -> u64 {
        self.open_files_max.unwrap_or(1_024)
    }

    /// What is out of its range. `stop_grace_ms`: the worker is ended 30 s after it was asked to stop.
    fn validate(&self, name: &str, stop_grace_ms: u64) -> Result<(), Error> {
        let key = |field: &str| format!("jobs.commands.{name}.{field}");
        if self.argv.first().is_none_or(String::is_empty) {
            return Err(invalid(key("argv"), "[]", "a program and its arguments"));
        }
        range(&key("timeout_ms"), self.timeout_ms.unwrap_or(1), 1, 86_400_000)?;
        range(&key("memory_bytes_max"), self.memory_bytes(), 1 << 20, 1 << 50)?;
        range(&key("grace_ms"), self.grace_ms.unwrap_or(0), 0, 20_000.min(27_000 - stop_grace_ms))?;
        range(&key("pipe_grace_ms"), self.pipe_grace_ms.unwrap_or(0), 0, 5_000)?;
        range(&key("processes_max"), self.processes() as u64, 1, 65_536)?;
        range(&key("open_files_max"), self.open_files(), 16, 1 << 20)?;
        range(&key("cpu_s_max"), self.cpu_s_max.unwrap_or(1), 1, 86_400)?;
        range(&key("file_bytes_max"), self.file_bytes_max.unwrap_or(0), 0, 1 << 50)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            concurrency: 64,
            lease_ms: 5_000,
            sweep_ms: 1_000,
            stop_grace_ms: 5_000,
            cancel_grace_ms: 1_000,
            result_bytes_max: 1 << 20,
            keep_hours: 168,
            keep_cancelled_hours: 168,
            keep_discarded_hours: 720,
            retry: Backoff::default(),
            postponement: Postponement::DEFAULT,
            seed: None,
            helpers_max: None,
            roots: Vec::new(),
            thumbnail: Thumbnail::default(),
            http: Http::default(),
            commands: BTreeMap::new(),
        }
    }
}

impl Default for Thumbnail {
    fn default() -> Self {
        Self { input_bytes_max: 32 << 20, decode_bytes_max: 256 << 20, side_max: 16_384, scans_max: 64 }
    }
}

impl Default for Http {
    fn default() -> Self {
        Self { allow: Vec::new(), redirects_max: 3, body_bytes_max: 256 << 10 }
    }
}

impl Config {
    /// Checks every range, and limits against each other.
    ///
    /// # Errors
    /// Key, value and range of the first at fault.
    pub fn validate(&self) -> Result<(), Error> {
        range("jobs.concurrency", self.concurrency as u64, 1, 1_024)?;
        range("jobs.lease_ms", self.lease_ms, 500, 600_000)?;
        range("jobs.sweep_ms", self.sweep_ms, 50, 60_000)?;
        range("jobs.stop_grace_ms", self.stop_grace_ms, 0, 25_000)?;
        range("jobs.cancel_grace_ms", self.cancel_grace_ms, 0, 10_000)?;
        range("jobs.result_bytes_max", self.result_bytes_max as u64, 1 << 10, 1 << 20)?;
        range("jobs.keep_hours", self.keep_hours, 1, 87_600)?;
        range("jobs.keep_cancelled_hours", self.keep_cancelled_hours, 1, 87_600)?;
        range("jobs.keep_discarded_hours", self.keep_discarded_hours, 1, 87_600)?;
        range("jobs.retry.base_ms", self.retry.base_ms, 1, 3_600_000)?;
        range("jobs.retry.cap_ms", self.retry.cap_ms, self.retry.base_ms, 86_400_000)?;
        let Postponement { count_max, span_max_ms, floor_ms, floor_cap_ms } = self.postponement;
        range("jobs.postponement.count_max", count_max.into(), 0, 10_000)?;
        range("jobs.postponement.span_max_ms", span_max_ms, 1_000, 2_592_000_000)?;
        range("jobs.postponement.floor_ms", floor_ms, 1, 3_600_000)?;
        range("jobs.postponement.floor_cap_ms", floor_cap_ms, floor_ms, 86_400_000)?;
        range("jobs.thumbnail.decode_bytes_max", self.thumbnail.decode_bytes_max, 1 << 20, 4 << 30)?;
        range("jobs.thumbnail.side_max", self.thumbnail.side_max.into(), 1, 65_535)?;
        range("jobs.thumbnail.scans_max", self.thumbnail.scans_max.into(), 1, 10_000)?;
        range("jobs.helpers_max", self.helpers() as u64, 1, 1_024)?;
        range("jobs.http.redirects_max", self.http.redirects_max as u64, 0, 10)?;
        for root in &self.roots {
            if !root.is_absolute() {
                return Err(invalid("jobs.roots", root.display(), "an absolute path"));
            }
        }
        for net in &self.http.allow {
            net.parse::<crate::kinds::guard::Net>()
                .map_err(|_| invalid("jobs.http.allow", net, "as 10.1.0.0/16"))?;
        }
        range("number of jobs.commands", self.commands.len() as u64, 0, COMMANDS_MAX)?;
        for (name, command) in &self.commands {
            if !jobstore::is_command_name(name) {
                return Err(invalid("a name in jobs.commands", format!("{name:?}"), "[A-Za-z0-9_.-]{1,64}"));
            }
            command.validate(name, self.stop_grace_ms)?;
        }
        Ok(())
    }

    pub(crate) fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    /// Processes for what cannot be interrupted.
    pub(crate) fn helpers(&self) -> usize {
        self.helpers_max.unwrap_or_else(|| std::thread::available_parallelism().map_or(2, usize::from))
    }

    /// A third of the lease, so that two renewals may be lost; and no longer than a second, because the answer also
    /// tells which jobs are to be cancelled.
    pub(crate) fn renew_every(&self) -> Duration {
        (self.lease() / 3).min(Duration::from_secs(1))
    }
}

fn range(key: &str, value: u64, from: u64, to: u64) -> Result<(), Error> {
    if (from..=to).contains(&value) {
        Ok(())
    } else {
        Err(invalid(key, value, format!("from {from} to {to}")))
    }
}

fn invalid(key: impl Into<String>, value: impl ToString, expected: impl Into<String>) -> Error {
    Error::Config { key: key.into(), value: value.to_string(), expected: expected.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_errors_name_key_value_and_range() {
        Config::default().validate().unwrap();
        let text = |config: Config| config.validate().unwrap_err().to_string();
        let lease = text(Config { lease_ms: 10, ..Config::default() });
        assert_eq!(lease, "jobs.lease_ms is 10, expected from 500 to 600000");
        let http = Http { allow: vec!["10.0.0.0/64".into()], ..Http::default() };
        assert!(text(Config { http, ..Config::default() }).starts_with("jobs.http.allow is 10.0.0.0/64"));
        let commands = [("x".to_owned(), Command::default())].into();
        assert!(text(Config { commands, ..Config::default() }).starts_with("jobs.commands.x.argv"));
        let commands = [("a\"b".to_owned(), Command::default())].into();
        assert!(text(Config { commands, ..Config::default() }).starts_with("a name in jobs.commands is"));
        let postponement = Postponement { floor_ms: 9, floor_cap_ms: 8, ..Postponement::DEFAULT };
        let text_of = text(Config { postponement, ..Config::default() });
        assert!(text_of.starts_with("jobs.postponement.floor_cap_ms is 8, expected from 9"), "{text_of}");
        assert!(
            text(Config { roots: vec!["tmp".into()], ..Config::default() }).starts_with("jobs.roots is tmp")
        );
    }
}
