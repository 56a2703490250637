//! Runs the built binary.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A debug build on a busy machine.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The binary with these arguments, and nothing of ours in its environment.
pub fn standfast(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_standfast"));
    command.args(args).stdin(Stdio::null()).env("STANDFAST_LOG", "info");
    for (name, _) in std::env::vars_os() {
        if name.as_encoded_bytes().starts_with(b"STANDFAST_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs it to its end.
pub fn run(args: &[&str]) -> Output {
    standfast(args).output().expect("the binary starts")
}

/// Runs it to its end, which is to be this exit code with one line on stderr; answers that line.
pub fn refused(args: &[&str], code: i32) -> String {
    one_line(&standfast(args).output().expect("the binary starts"), code)
}

/// The one line that a failed command says.
pub fn one_line(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "stderr: {stderr}");
    let said: Vec<&str> = stderr.lines().filter(|line| !line.starts_with('{')).collect();
    assert_eq!(said.len(), 1, "one line besides the log: {stderr}");
    said[0].to_owned()
}

/// `standfast up` in a directory, on ports of the system's choice.
pub struct Up {
    child: Option<Child>,
    directory: std::path::PathBuf,
    /// Base URL of the front door.
    pub url: String,
    /// Base URL of the console.
    pub console: String,
}

impl Up {
    /// Starts it, and waits for the ready line.
    pub fn start(directory: &Path) -> Self {
        let mut up = Self::spawn(directory, &[]);
        up.wait_ready();
        up
    }

    /// Starts it ready, with more arguments and no `STANDFAST_LOG`.
    pub fn spawn_quietly(directory: &Path, more: &[&str]) -> Self {
        let mut up = Self::spawn_with(directory, more, |command| {
            command.env_remove("STANDFAST_LOG");
        });
        up.wait_ready();
        up
    }

    /// Starts it with more arguments.
    pub fn spawn(directory: &Path, more: &[&str]) -> Self {
        Self::spawn_with(directory, more, |_| ())
    }

    /// Starts it with a command that `change` changed.
    pub fn spawn_with(directory: &Path, more: &[&str], change: impl Fn(&mut Command)) -> Self {
        let data = directory.join("data");
        let file = |name: &str| std::fs::File::create(directory.join(name)).expect("the directory is ours");
        let free = "127.0.0.1:0";
        let mut command = standfast(&[
            "up",
            "--node",
            "test",
            "--listen",
            free,
            "--console",
            free,
            "--tls",
            free,
            "--database",
            free,
        ]);
        command.arg("--data").arg(data).args(more).stdout(file("stdout")).stderr(file("stderr"));
        change(&mut command);
        let child = Some(command.spawn().expect("the binary starts"));
        Self { child, directory: directory.to_owned(), url: String::new(), console: String::new() }
    }

    /// Waits for the ready line.
    pub fn wait_ready(&mut self) {
        self.until("it is ready", |up| up.read("stdout").contains('\n'));
        let line = self.read("stdout").lines().next().expect("a first line").to_owned();
        let words: Vec<&str> = line.split(' ').collect();
        let ["ready", url, "console", console] = words[..] else { panic!("{line:?} is not a ready line") };
        (self.url, self.console) = (url.to_owned(), console.to_owned());
    }

    /// Waits until the condition holds.
    pub fn until(&mut self, what: &str, condition: impl Fn(&Self) -> bool) {
        let deadline = clock::now() + LIMIT;
        while !condition(self) {
            if let Ok(Some(status)) = self.child().try_wait() {
                panic!("ended with {status} before {what}\n{}", self.read("stderr"));
            }
            assert!(clock::now() < deadline, "not within {LIMIT:?}: {what}\n{}", self.read("stderr"));
            pause();
        }
    }

    /// What it has written to `stdout` or `stderr`.
    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.directory.join(name)).unwrap_or_default()
    }

    /// Base URL of the first replica of the database.
    pub fn database(&self) -> String {
        let log = self.read("stderr");
        let address = log.split("\"instance\":\"database-1\",\"address\":\"").nth(1);
        address.expect("it was announced").split('"').next().expect("a URL").to_owned()
    }

    /// Port of the front door's TLS, as the console tells it.
    pub fn tls_port(&self) -> u16 {
        use std::io::{Read as _, Write as _};
        let authority = self.console.trim_start_matches("http://");
        let mut stream = std::net::TcpStream::connect(authority).expect("the console listens");
        stream.set_read_timeout(Some(LIMIT)).expect("not zero");
        let head = format!("GET /v1/services HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("text");
        let edge = answer.split("\"instance\":\"edge-1\"").nth(1).expect("the edge is there");
        let url = edge.split("\"tls\":\"https://").nth(1).expect("it has TLS");
        let port = url.split('"').next().and_then(|authority| authority.rsplit(':').next());
        port.and_then(|port| port.parse().ok()).expect("a port")
    }

    /// Sends it a signal.
    pub fn signal(&mut self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.child().id()).expect("a pid"));
        kill(pid, signal).expect("it is ours");
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let deadline = clock::now() + LIMIT;
        loop {
            if let Some(status) = self.child().try_wait().expect("it is our child") {
                self.child = None;
                return status;
            }
            assert!(clock::now() < deadline, "it does not end\n{}", self.read("stderr"));
            pause();
        }
    }

    fn child(&mut self) -> &mut Child {
        self.child.as_mut().expect("it runs")
    }
}

impl Drop for Up {
    #[allow(clippy::print_stdout, reason = "this is the report of a failed test")]
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            println!("{}", self.read("stderr"));
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a test's own thread, waiting for a process")]
pub fn pause() {
    std::thread::sleep(Duration::from_millis(10));
}
