//! One process of the stack under test.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Lines of each node's log that a failed test prints.
const LOG_LINES: usize = 60;

/// A process that can be killed and started again under the same name, ports and data.
pub struct Node {
    /// `--node`.
    pub name: String,
    args: Vec<OsString>,
    dir: PathBuf,
    process: Option<Child>,
    started: Instant,
}

impl Node {
    /// Describes a node; `dir` takes its log.
    pub(crate) fn new(name: &str, dir: PathBuf, args: Vec<OsString>) -> Self {
        Self { name: name.to_owned(), args, dir, process: None, started: clock::now() }
    }

    /// The binary under test.
    ///
    /// # Panics
    /// When it is not built.
    #[must_use]
    pub fn binary() -> PathBuf {
        if let Some(path) = std::env::var_os("TEST_STANDFAST_BIN") {
            return path.into();
        }
        // target/<profile>/deps/<this test> → target/<profile>/standfast
        let here = std::env::current_exe().expect("a running program has a path");
        let found =
            here.ancestors().skip(1).take(2).map(|dir| dir.join("standfast")).find(|path| path.is_file());
        found.expect(
            "the binary is not built: `cargo build -p standfast`, or name one with TEST_STANDFAST_BIN",
        )
    }

    /// Starts its process.
    ///
    /// # Panics
    /// When it runs already or cannot be started.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(self.log()).expect("log file");
        let out = File::create(self.out()).expect("output file");
        let mut command = Command::new(Self::binary());
        command.args(&self.args).current_dir(&self.dir).stdin(Stdio::null()).stdout(out).stderr(log);
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"STANDFAST_"))
        {
            command.env_remove(name); // what the caller of the tests has set is not what is tested
        }
        self.started = clock::now();
        self.process = Some(command.spawn().expect("the binary starts"));
    }

    /// Waits for the `ready` line of this life; answers how long it took since [`Self::start`].
    ///
    /// # Panics
    /// When it is not ready in time, or ends.
    pub async fn ready(&mut self, limit: Duration) -> Duration {
        while !self.first_line().starts_with("ready ") {
            if let Some(status) = self.ended() {
                panic!("{} ended with {status} before it was ready\n{}", self.name, self.log_tail());
            }
            let waited = clock::now() - self.started;
            assert!(waited < limit, "{} is not ready within {limit:?}\n{}", self.name, self.log_tail());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        clock::now() - self.started
    }

    /// First line of its standard output in this life.
    #[must_use]
    pub fn first_line(&self) -> String {
        let out = fs::read_to_string(self.out()).unwrap_or_default();
        out.split_once('\n').map_or(String::new(), |(line, _)| line.to_owned())
    }

    /// Its exit status, if it has ended by itself.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.process.as_mut().and_then(|p| p.try_wait().ok().flatten())
    }

    /// Process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// SIGTERM, and waits for it to end.
    ///
    /// # Panics
    /// When it does not run, or has not ended in time.
    pub async fn stop(&mut self, limit: Duration) -> ExitStatus {
        let pid = self.pid().expect("it runs");
        kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGTERM).expect("it is ours");
        let began = clock::now();
        loop {
            if let Some(status) = self.ended() {
                self.process = None;
                return status;
            }
            assert!(
                clock::now() - began < limit,
                "{} runs {limit:?} after SIGTERM\n{}",
                self.name,
                self.log_tail()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Resident memory in bytes and processor time used so far.
    #[must_use]
    pub fn usage(&self) -> Option<(u64, Duration)> {
        let pid = self.pid()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let rss = status
            .lines()
            .find_map(|l| l.strip_prefix("VmRSS:"))?
            .split_whitespace()
            .next()?
            .parse::<u64>()
            .ok()?;
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
        Some((rss * 1024, Duration::from_millis(ticks * 10))) // 100 ticks a second on Linux
    }

    /// The end of its log over all its lives.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let bytes = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        format!("--- log of {}\n{}", self.name, lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
    }

    /// A line in its log, so that what a test did stands among what the node said.
    pub fn note(&self, text: &str) {
        if let Ok(mut log) = File::options().create(true).append(true).open(self.log()) {
            let _ = writeln!(log, "### {text}");
        }
    }

    fn log(&self) -> PathBuf {
        self.dir.join(format!("{}.log", self.name))
    }

    fn out(&self) -> PathBuf {
        self.dir.join(format!("{}.out", self.name))
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}
